#!/usr/bin/env python3
"""Kill a study again and again, and show that nothing is lost: it ends like one that was never killed.

    python benchmarks/tune_kills.py OUT [--kills 20] [--trials 6]

Each process gets SIGKILL at a random moment. Afterwards the study is compared with an unbroken one with the same seed:
the same trials with the same settings on the same rungs, and the weights of every training equal to the bit.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from onsight.core.files import sha256
from onsight.tuning.study import Journal, read_record

SPEC = [
    "toy",
    "--model",
    "cnn",
    "--optimizer",
    "adam",
    "--learning-rate",
    "0.002",
    "--epochs",
    "18",
    "--batch-size",
    "16",
    "--checkpoint-seconds",
    "0.2",
    "--search",
    "learning_rate=0.0005..0.01",
    "label_smoothing=0,0.05,0.1",
]


def command(study: Path, trials: int) -> list[str]:
    """Return the command that begins a study, or goes on with it."""
    words = ["--study", str(study), "--trials", str(trials), "--quiet"]
    return [sys.executable, "-m", "onsight", "tune", *SPEC, *words]


def outcome(study: Path) -> list[tuple]:
    """Return what each training of a study was and became."""
    journal = Journal(study, read_record(study))
    return [
        (entry.training.trial, entry.training.rung, entry.params, entry.training.accuracy,
         sha256(journal.run_folder(entry.training) / "model" / "weights.safetensors"))
        for entry in journal.read()
    ]  # fmt: skip


def main() -> None:
    """Kill one study, leave the other, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=6)
    asked = parser.parse_args()
    shutil.rmtree(asked.out, ignore_errors=True)
    asked.out.mkdir(parents=True)
    os.environ["ONSIGHT_RUNS"] = str(asked.out / "runs")
    whole, killed = asked.out / "whole", asked.out / "killed"
    started = time.perf_counter()
    subprocess.run(command(whole, asked.trials), check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    draw, kills = random.Random(0), 0
    while kills < asked.kills:
        process = subprocess.Popen(command(killed, asked.trials), stdout=subprocess.DEVNULL)
        try:
            process.wait(draw.uniform(3.0, 3.0 + max(6.0, 2.5 * seconds / asked.kills)))
            break  # it finished
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    subprocess.run(command(killed, asked.trials), check=True, stdout=subprocess.DEVNULL)
    same = outcome(killed) == outcome(whole)
    print(json.dumps({"kills": kills, "trainings": len(outcome(whole)), "equal to the unbroken study": same}))
    sys.exit(0 if same and kills else 1)


if __name__ == "__main__":
    main()
