"""Batches of uint8 images. Order and augmentation derive from (seed, epoch, index), so an epoch can start anywhere.

A batch of 64 at 32 px takes 0.8 ms to make with flips and shifts, 3 to 7 ms with rotations or distortions, and the
small CNN's step some 42 ms on two cores: it is made on another thread while the step before it computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from onsight.imaging.augment import Draws, augment, draw

Batch = tuple[np.ndarray, np.ndarray]  # images or features, and labels


class Examples(NamedTuple):
    """One part of a data set; its images stay where they are, in memory or mapped from the cache."""

    images: np.ndarray  # (all, size, size, 3) uint8: of every part
    chosen: np.ndarray  # (n,) indices of those that are meant
    labels: np.ndarray  # (n,) integers, of those


class Plan(NamedTuple):
    """What one epoch shows, in which order and how changed."""

    order: np.ndarray  # (n,) positions among the training images
    draws: Draws  # by position, not by order
    side: int | None = None  # pixels that images are shrunk to after all that; None: they keep their size


def plan_epoch(examples: Examples, augmentation: str, seed: int, epoch: int) -> Plan:
    """Return the plan of an epoch, from 0: all training images, shuffled, with their augmentation drawn."""
    count = len(examples.labels)
    order = np.random.default_rng([seed, 0, epoch]).permutation(count)
    return Plan(order, draw(augmentation, count, examples.images.shape[1], seed, epoch))


def training_batches(
    examples: Examples, plan: Plan, batch_size: int, start: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the batches of one epoch, augmented, the last partial one dropped.

    Args:
        examples: the training images.
        plan: of the epoch.
        batch_size: images a batch; `steps_per_epoch` batches come in all.
        start: the first step to yield; what was before it is neither read nor augmented.

    Yields:
        (batch, H, W, 3) uint8 and (batch,) int32.
    """
    images, index, labels = examples
    for step in range(start, steps_per_epoch(len(labels), batch_size)):
        chosen = plan.order[step * batch_size : (step + 1) * batch_size]
        changed = augment(images[index[chosen]], plan.draws.of(chosen))
        yield changed if plan.side is None else shrink(changed, plan.side), labels[chosen].astype(np.int32)


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the same batches, each made on another thread while the one before it is trained on."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Return square `images` (n, size, size, 3) uint8 at a smaller side: each pixel is the mean of what it covers."""
    count, size = images.shape[:2]
    share = shares(size, side)
    rows = share @ images.reshape(count, size, size * 3)
    # Of three channels side by side, so that it is one large product.
    across = np.kron(share, np.eye(3, dtype=np.float32)).T  # (3 size, 3 side)
    small: np.ndarray = np.rint(rows.reshape(-1, size * 3) @ across).astype(np.uint8)
    return small.reshape(count, side, side, 3)


def shares(size: int, side: int) -> np.ndarray:
    """Return each pixel's share, of `size` in a row, in the means of `side` larger ones: (side, size) float32."""
    ends, pixels = np.arange(1, side + 1)[:, None] * (size / side), np.arange(size)
    overlap = np.minimum(ends, pixels + 1) - np.maximum(ends - size / side, pixels)
    share: np.ndarray = (overlap.clip(0) * (side / size)).astype(np.float32)
    return share


def feature_batches(
    examples: Examples, plan: Plan, batch_size: int, start: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of features, in the order in which `training_batches` would yield their images, mirrored alike.

    Args:
        examples: with features (all, 1 or 2, features) as images: of each image and, if two, of its mirror image.
        plan: of the epoch; of its draws only the mirror can be had.
        batch_size: images a batch.
        start: the first step to yield.

    Yields:
        (batch, features) float32 and (batch,) int32.
    """
    features, index, labels = examples
    side = plan.draws.mirrored.astype(np.int64) % features.shape[1]
    for step in range(start, steps_per_epoch(len(labels), batch_size)):
        chosen = plan.order[step * batch_size : (step + 1) * batch_size]
        yield features[index[chosen], side[chosen]], labels[chosen].astype(np.int32)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return how many full batches `count` images make; a set smaller than a batch makes one."""
    return max(1, count // batch_size)


def answered_at_once(size: int) -> int:
    """Return how many images of `size` px to answer at a time: 256, or fewer where their maps would fill the memory.

    The first maps of a network hold 32 and more numbers a pixel: of 256 images of 224 px they would take 1.6 GB each.
    """
    return min(256, max(1, 2**20 // size**2))


def full_batches(images: np.ndarray, index: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (images, how many of them count) in order; the last batch is filled up, so that one shape is compiled."""
    for start in range(0, len(index), batch_size):
        batch = images[index[start : start + batch_size]]
        missing = batch_size - len(batch)
        yield np.pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1)) if missing else batch, len(batch)
