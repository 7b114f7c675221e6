#!/bin/bash
# Ray: four workers on a running cluster, for example of KubeRay. All nodes need onsight[jax,scale] and see /shared.
set -euo pipefail
export ONSIGHT_RUNS=/shared/runs
onsight train /shared/photos --weights none --batch-size 1024 --backend jax --on "ray://${RAY_HEAD:-127.0.0.1}:10001" --workers 4
