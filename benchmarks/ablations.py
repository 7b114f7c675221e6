#!/usr/bin/env python3
"""Train a narrow copy of the network of `fast` with one change to its recipe at a time; report accuracy and CPU time.

    python benchmarks/ablations.py DATA [NAME ...] [--seeds 1] [--images 10000] [--epochs 8]

DATA is the folder that run.py takes. NAME is one or more of VARIANTS; the default is all of them. Each variant is
trained on the first of the shuffled training images and scored on the last 10,000 of them, so no choice depends on a
test image. CPU seconds are those of training; compare them only within one run of this program.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from onsight.core.backend import choose_precision, dtype_policy
from onsight.core.text import count
from onsight.data.batches import Examples, ahead, full_batches, plan_epoch, training_batches
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.models.whitened import blocks, whiten
from onsight.training.loop import EARLY
from onsight.training.losses import Loss
from onsight.training.steps import TensorFlowStep, make_optimizer

WIDTHS = (32, 64, 64)
SCORED = 10_000
VARIANTS: dict[str, dict[str, Any]] = {
    "batches of 500, rate 0.12": {},
    "batches of 2,000, rate 0.24": {"batch_size": 2000, "rate": 0.24},
    "batches of 250, rate 0.08": {"batch_size": 250, "rate": 0.08},
    "24 px in the first epochs": {"early_size": 24},
    "label smoothing 0.09": {"smoothing": 0.09},
    "the harder half of each batch": {"harder": True},
    "mean of the last eighth's weights": {"averaged": True},
    "brightness and contrast too": {"tones": True},
}


def choose_harder(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the indices of the half of a batch with the higher loss (selective backprop, Jiang et al. 2019)."""
    losses = keras.losses.sparse_categorical_crossentropy(labels, model(images, training=True), from_logits=True)
    return np.argsort(-np.asarray(losses))[: len(labels) // 2]


def change_tones(images: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return images with brightness changed by up to 14 % of the range, and contrast by up to 13 %."""
    brightness, contrast = draw.uniform(-1, 1, (2, len(images), 1, 1, 1)).astype(np.float32)
    changed = (images - 127.5) * (1 + 0.13 * contrast) + 127.5 + 255 * 0.14 * brightness
    return np.rint(changed).clip(0, 255).astype(np.uint8)


def train(
    training: Examples,
    seed: int,
    epochs: int,
    *,
    batch_size: int = 500,
    rate: float = 0.12,
    smoothing: float = 0.2,
    early_size: int | None = None,
    harder: bool = False,
    averaged: bool = False,
    tones: bool = False,
) -> keras.Model:
    """Return the narrow network, trained with one change to the recipe."""
    keras.utils.set_random_seed(seed)
    with dtype_policy(choose_precision("tensorflow").value):
        model = blocks(None, 10, WIDTHS, "narrow")  # type: ignore[arg-type]  # any image size
    whiten(model, training.images, training.chosen)
    step = TensorFlowStep(model, make_optimizer("muon", rate, 0.0), Loss(smoothing))
    step.optimizer.build(model.trainable_variables)
    draw = np.random.default_rng(seed)
    total, taken, kept, sums = epochs * (len(training.labels) // batch_size), 0, 0, [0.0 for _ in model.variables]
    for epoch in range(epochs):
        plan = plan_epoch(training, "flip_nudge", seed, epoch)
        plan = plan._replace(side=early_size if epoch < round(epochs * EARLY) else None)
        for images, labels in ahead(training_batches(training, plan, batch_size)):
            if tones:
                images = change_tones(images, draw)
            if harder:
                chosen = choose_harder(model, images, labels)
                images, labels = images[chosen], labels[chosen]
            step.train(images, labels, rate * (1 - taken / total))
            taken += 1
            if averaged and taken > total * 7 / 8:
                kept += 1
                sums = [each + np.asarray(variable) for each, variable in zip(sums, model.variables, strict=True)]
    if averaged:
        for each, variable in zip(sums, model.variables, strict=True):
            variable.assign(each / kept)
    return model


def accuracy(model: keras.Model, examples: Examples) -> float:
    """Return the accuracy, from 0 to 1."""
    answer = tf.function(lambda images: tf.argmax(model(images, training=False), axis=-1))
    batches = full_batches(examples.images, examples.chosen, 500)
    return float(np.mean(np.concatenate([answer(images)[:valid] for images, valid in batches]) == examples.labels))


def main() -> None:
    """Print one Markdown row per variant and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=8)
    asked = parser.parse_args()
    dataset = load_dataset(str(asked.data / "cifar10-folders"))
    images = load_pixels(dataset, 32).images
    shuffled = np.random.default_rng(0).permutation(np.flatnonzero(dataset.parts == "train"))
    scored, seen = shuffled[-SCORED:], shuffled[: asked.images]
    training, judged = (Examples(images, part, dataset.labels[part]) for part in (seen, scored))
    size = f"{count(len(seen), 'image')}, {count(asked.epochs, 'epoch')}"
    print(f"| variant ({size}) | seed | accuracy, n = {SCORED:,} | CPU seconds |")
    print("|---|---|---|---|")
    for seed in range(asked.seeds):
        for name in asked.names:
            started = time.process_time()
            model = train(training, seed, asked.epochs, **VARIANTS[name])
            spent = time.process_time() - started
            print(f"| {name} | {seed} | {accuracy(model, judged):.2%} | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
