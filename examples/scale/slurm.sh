#!/bin/bash
# SLURM: one process per GPU on two nodes. Submit with: sbatch slurm.sh
#SBATCH --job-name=onsight
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append

set -euo pipefail
# All nodes must see the data, and the first node the runs; each node keeps decoded images on its own disk.
export ONSIGHT_RUNS="$SLURM_SUBMIT_DIR/runs/$SLURM_JOB_ID"
export ONSIGHT_CACHE="${TMPDIR:-/tmp}/onsight"
mkdir -p "$ONSIGHT_RUNS"

# JAX gives each process of a node one of its GPUs, and reads its number and the address of the first one from SLURM.
# Two minutes before the end of the time, SLURM sends SIGTERM, all processes save, and the job is queued again;
# --or-resume then continues the same run.
status=0
srun --kill-on-bad-exit=1 onsight train "$SLURM_SUBMIT_DIR/photos" --weights none --batch-size 1024 --backend jax --or-resume || status=$?
if [ "$status" -eq 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
