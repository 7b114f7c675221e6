#!/usr/bin/env python3
"""Compare training steps on whole batches with steps on parts of them: python benchmarks/ghost_batches.py

Prints the images per second of each network and batch, whole and in parts, in the precision that this processor gets.
TensorFlow's threads can be set only once per process, so each measurement is a process of its own, and the processes
with and without parts take turns. What is printed is the median of each process' 15 steps.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np

from onsight.core.backend import choose_precision, dtype_policy, share_cores, use_backend

CASES = [  # network, image size, batch size, ghost batch size
    ("whitened", 32, 1000, 250),
    ("whitened", 24, 1000, 250),
    ("cnn_compact", 32, 128, 64),
    ("cnn_compact", 24, 128, 64),
    ("resnet20", 32, 128, 64),
]
ROUNDS, STEPS = 3, 15


def measure(network: str, side: int, batch_size: int, ghost_batch_size: int | None) -> float:
    """Return the images per second of a training step with Muon, after three steps to warm up."""
    use_backend("tensorflow")
    from onsight.models.registry import build_model
    from onsight.training.losses import Loss
    from onsight.training.steps import make_optimizer, make_step, parts_of

    share_cores(parts_of(batch_size, ghost_batch_size))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, side, side, 3), np.uint8)
    labels = rng.integers(0, 10, batch_size).astype(np.int32)
    with dtype_policy(choose_precision("tensorflow").value):
        model = build_model(network, side, 10)
    step = make_step(model, make_optimizer("muon", 0.06, 0.0), Loss(), ghost_batch_size)
    seconds = []
    for _ in range(3 + STEPS):
        started = time.perf_counter()
        float(step.train(images, labels, 1e-3)[0])
        seconds.append(time.perf_counter() - started)
    return batch_size / statistics.median(seconds[3:])


def main() -> None:
    """Measure one case if it is given, or start a process for each case, whole and in parts, three times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", metavar="NETWORK SIZE BATCH GHOST", help="0 for GHOST: the whole batch")
    case = parser.parse_args().case
    if case:
        print(measure(case[0], int(case[1]), int(case[2]), int(case[3]) or None))
        return
    print("| network | image size | batch | images/s, whole | parts of | images/s, in parts |")
    print("|---|---|---|---|---|---|")
    for network, side, batch_size, ghost in CASES:
        found: dict[int, list[str]] = {0: [], ghost: []}
        for _ in range(ROUNDS):
            for each, speeds in found.items():
                command = [sys.executable, __file__, network, str(side), str(batch_size), str(each)]
                speeds.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        whole, parts = (" ".join(f"{float(speed):,.0f}" for speed in speeds) for speeds in found.values())
        print(f"| `{network}` | {side} | {batch_size} | {whole} | {ghost} | {parts} |", flush=True)


if __name__ == "__main__":
    main()
