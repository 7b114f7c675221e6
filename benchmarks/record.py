#!/usr/bin/env python3
"""Train on all training images with several seeds, and report the results like the published records.

    python benchmarks/record.py DATA [--seeds 5] [--first 0] --preset fast [FLAG ...]

DATA is the folder that run.py takes. Other flags are those of `onsight train`. No images are held out and no weights
are selected (`--validation 0`). Each seed runs two processes, as users start them: `onsight train`, then `onsight
evaluate --tta`.

Seconds by the records' rule are those of whitening, training, and test-time augmentation of the test images. Training
is the sum over the epochs in history.jsonl, of which the first includes compilation. Whitening is repeated here to time
it. So is test-time augmentation, with the trained network in its training precision, as the records do it; the two
accuracies are those of these answers. Total seconds are those of the two processes, which include imports, decoding,
checkpoints, export, report, and the answers of the float32 file.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onsight.core.backend import share_cores, use_backend
from onsight.data.batches import Examples
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.inference.engines import Answer
from onsight.inference.test_time_augmentation import with_views
from onsight.metrics.distributions import softmax
from onsight.models.model_file import read_description
from onsight.models.registry import prepare_model
from onsight.runs.run import open_run
from onsight.spec import TrainSpec
from onsight.training.losses import Loss
from onsight.training.network import build, logits_of
from onsight.training.steps import make_optimizer, make_step, parts_of

if TYPE_CHECKING:
    import keras

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
    print("| seed | precision | plain | with TTA | seconds by the records' rule | of these for TTA | total seconds |")
    print("|---|---|---|---|---|---|---|")
    dataset = load_dataset("cifar10", asked.data)
    images = load_pixels(dataset, 32).images
    learned, tested = (np.flatnonzero(dataset.parts == part) for part in ("train", "test"))
    held_out, truth = images[tested], dataset.labels[tested]
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
            spec = TrainSpec(**run.spec)
            share_cores(parts_of(spec.batch_size, spec.ghost_batch_size))
            network, order = build(spec, 10), np.random.default_rng([spec.seed, 3]).permutation(learned)
            started = time.perf_counter()
            prepare_model(network, images, order)
            prepared = time.perf_counter() - started
            network.set_weights(run.load_model().get_weights())
            answer = probabilities_of(network, spec, read_description(run.model_folder).temperature)
            started = time.perf_counter()
            with_tta = with_views(answer)(held_out)
            viewed = time.perf_counter() - started
            plain, tta = (float((each.argmax(axis=1) == truth).mean()) for each in (answer(held_out), with_tta))
            trained = sum(row["seconds"] for row in run.history())
            rows.append((plain, tta, prepared + trained + viewed, viewed, whole))
            figures = "{:.2%} | {:.2%} | {:.0f} | {:.0f} | {:.0f}".format(*rows[-1])
            print(f"| {seed} | {spec.precision} | {figures} |", flush=True)
    if len(rows) > 1:
        means, deviations = (
            [each(column) for column in zip(*rows, strict=True)] for each in (statistics.mean, statistics.stdev)
        )
        cells = "{:.2%} ± {:.2%} | {:.2%} ± {:.2%} | {:.0f} ± {:.0f} | {:.0f} ± {:.0f} | {:.0f} ± {:.0f}"
        both = itertools.chain.from_iterable(zip(means, deviations, strict=True))
        print(f"| mean ± sd, n = {len(rows)} | | {cells.format(*both)} |")


def probabilities_of(network: keras.Model, spec: TrainSpec, temperature: float) -> Answer:
    """Return a function from images to probabilities that computes in the training precision."""
    optimizer = make_optimizer(spec.optimizer, spec.learning_rate, spec.weight_decay)
    step = make_step(network, optimizer, Loss(), spec.ghost_batch_size)

    def answer(images: np.ndarray) -> np.ndarray:
        examples = Examples(images, np.arange(len(images)), np.zeros(len(images), np.int32))
        return softmax(logits_of(step.logits, examples, 500) / temperature)

    return answer


if __name__ == "__main__":
    main()
