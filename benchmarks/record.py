#!/usr/bin/env python3
"""Train on all training images with several seeds, and report the results like the published records.

    python benchmarks/record.py DATA [--seeds 5] [--first 0] --preset fast [FLAG ...]

DATA is the folder that run.py takes. Other flags are those of `onsight train`. No images are held out and no weights
are selected (`--validation 0`). Each seed runs two processes, as users start them: `onsight train`, then `onsight
evaluate --tta`.

Seconds by the records' rule are those of whitening, training, and test-time augmentation of the test images. Training
is the sum over the epochs in history.jsonl, of which the first includes compilation. Whitening and the test-time
augmentation of the 10,000 images are repeated here to time them. Total seconds are those of the two processes,
including imports, decoding, checkpoints, export and report.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from onsight.core.backend import use_backend
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.inference.engines import open_engine
from onsight.inference.test_time_augmentation import with_views
from onsight.models.registry import prepare_model
from onsight.runs.run import open_run
from onsight.spec import TrainSpec
from onsight.training.network import build

ONSIGHT = [sys.executable, "-m", "onsight"]


def main() -> None:
    """Print one Markdown row per seed, then means and standard deviations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    asked, flags = parser.parse_known_args()
    words = ["cifar10", *flags, "--validation", "0"]
    print(f"`onsight train {' '.join(words)}`\n", flush=True)
    print("| seed | precision | plain | with TTA | seconds by the records' rule | total seconds |")
    print("|---|---|---|---|---|---|")
    dataset = load_dataset("cifar10", asked.data)
    images = load_pixels(dataset, 32).images
    learned, held_out = np.flatnonzero(dataset.parts == "train"), images[np.flatnonzero(dataset.parts == "test")]
    use_backend()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        environ = os.environ | {"ONSIGHT_DATA": str(asked.data), "ONSIGHT_RUNS": folder}
        for seed in range(asked.first, asked.first + asked.seeds):
            started = time.perf_counter()
            command = [*ONSIGHT, "train", *words, "--seed", str(seed), "--quiet"]
            done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
            run = open_run(Path(done.stdout.strip()))
            command = [*ONSIGHT, "evaluate", str(run.folder), "--tta", "--quiet"]
            subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, check=True)
            whole = time.perf_counter() - started
            answer = with_views(open_engine(run).probabilities)
            started = time.perf_counter()
            for first in range(0, len(held_out), 500):
                answer(held_out[first : first + 500])
            viewed = time.perf_counter() - started
            spec = TrainSpec(**run.spec)
            network, order = build(spec, 10), np.random.default_rng([spec.seed, 3]).permutation(learned)
            started = time.perf_counter()
            prepare_model(network, images, order)
            prepared = time.perf_counter() - started
            trained = sum(row["seconds"] for row in run.history())
            metrics = json.loads((run.evaluation_folder("test") / "metrics.json").read_text())
            rows.append((metrics["accuracy"], metrics["tta"]["accuracy"], prepared + trained + viewed, whole))
            accuracies = "{:.2%} | {:.2%} | {:.0f} | {:.0f}".format(*rows[-1])
            print(f"| {seed} | {run.spec['precision']} | {accuracies} |", flush=True)
    if len(rows) > 1:
        means, deviations = (
            [each(column) for column in zip(*rows, strict=True)] for each in (statistics.mean, statistics.stdev)
        )
        cells = "{:.2%} ± {:.2%} | {:.2%} ± {:.2%} | {:.0f} ± {:.0f} | {:.0f} ± {:.0f}"
        both = itertools.chain.from_iterable(zip(means, deviations, strict=True))
        print(f"| mean ± sd, n = {len(rows)} | | {cells.format(*both)} |")


if __name__ == "__main__":
    main()
