"""Batches of uint8 pictures. Order and augmentation derive from (seed, epoch, index), so an epoch can start anywhere.

A plain generator on the training thread: measured on two cores, making a batch of 64 at 32 px takes 0.8 ms with flips
and shifts, and the small CNN's step 43 to 50 ms, so there is next to nothing for a second thread to hide.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .augmentation import augment, draw


def training_batches(
    images: np.ndarray,
    index: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    augmentation: str,
    seed: int,
    epoch: int,
    start: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the batches of one epoch from step `start` on: shuffled, augmented, the last partial batch dropped.

    Args:
        images: (all, H, W, 3) uint8, may be memory-mapped.
        index: (n,) which of them to train on.
        labels: (n,) integers, the labels of those.
        batch_size: pictures a batch; `steps_per_epoch` batches come in all.
        augmentation: a name of AUGMENTATIONS.
        seed: of order and augmentation.
        epoch: from 0.
        start: the first step to yield; what was before it is neither read nor augmented.

    Yields:
        (batch, H, W, 3) uint8 and (batch,) int32.
    """
    count, size = len(index), images.shape[1]
    order = np.random.default_rng([seed, 0, epoch]).permutation(count)
    draws = draw(augmentation, count, size, seed, epoch)
    for step in range(start, steps_per_epoch(count, batch_size)):
        chosen = order[step * batch_size : (step + 1) * batch_size]
        changed = augment(images[index[chosen]], draws.of(chosen))
        yield changed, labels[chosen].astype(np.int32)


def feature_batches(
    features: np.ndarray,
    index: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    augmentation: str,
    seed: int,
    epoch: int,
    start: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of features in the order in which `training_batches` would yield their pictures, mirrored alike.

    Args:
        features: (all, 1 or 2, features) float32: of each picture and, where there are two, of its mirror image.
        index: as in `training_batches`, and so is the rest. Of the augmentation only the mirror can be had.
        labels: (n,) integers.
        batch_size: pictures a batch.
        augmentation: a name of AUGMENTATIONS.
        seed: of order and mirror.
        epoch: from 0.
        start: the first step to yield.

    Yields:
        (batch, features) float32 and (batch,) int32.
    """
    count = len(index)
    order = np.random.default_rng([seed, 0, epoch]).permutation(count)
    side = draw(augmentation, count, 0, seed, epoch).mirrored.astype(np.int64) % features.shape[1]
    for step in range(start, steps_per_epoch(count, batch_size)):
        chosen = order[step * batch_size : (step + 1) * batch_size]
        yield features[index[chosen], side[chosen]], labels[chosen].astype(np.int32)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return how many full batches `count` pictures make; a set smaller than a batch makes one."""
    return max(1, count // batch_size)


def full_batches(images: np.ndarray, index: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (pictures, how many of them count) in order; the last batch is filled up, so that one shape is compiled."""
    for start in range(0, len(index), batch_size):
        batch = images[index[start : start + batch_size]]
        missing = batch_size - len(batch)
        yield np.pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1)) if missing else batch, len(batch)
