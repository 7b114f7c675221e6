"""Batches of uint8 images. Order and augmentation depend only on (seed, epoch, index): an epoch can start at any step.

Making a batch of 64 images of 32 px takes 0.8 ms with flips and shifts, and 3 to 7 ms with rotations or distortions.
A step of the small CNN takes about 42 ms on two cores. Each batch is made on another thread while the step before it
computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from onsight.imaging.augment import Draws, augment, draw

Batch = tuple[np.ndarray, np.ndarray]  # images or features, and labels


class Examples(NamedTuple):
    """One part of a data set. Its images are not copied: they stay in memory or mapped from the cache."""

    images: np.ndarray  # (all, size, size, 3) uint8: the images of every part
    chosen: np.ndarray  # (n,) indices of this part's images
    labels: np.ndarray  # (n,) integers: the labels of this part's images


class Plan(NamedTuple):
    """The order and the augmentation of the training images in one epoch."""

    order: np.ndarray  # (n,) positions among the training images; in the share of a process, of its images
    draws: Draws  # indexed by position, not by order
    side: int | None = None  # pixels that images are shrunk to after augmentation; None keeps their size

    def share(self, rank: int, count: int, batch_size: int) -> Plan:
        """Return the plan of process `rank` of `count`: its part of each batch. `count` divides the batch size."""
        if count == 1:
            return self
        steps = steps_per_epoch(len(self.order), batch_size)
        batches = self.order[: steps * batch_size].reshape(steps, count, batch_size // count)
        return self._replace(order=batches[:, rank].ravel())


def plan_epoch(examples: Examples, augmentation: str, seed: int, epoch: int) -> Plan:
    """Return the plan of epoch `epoch`, counted from 0: shuffle all training images and draw their augmentation."""
    count = len(examples.labels)
    order = np.random.default_rng([seed, 0, epoch]).permutation(count)
    return Plan(order, draw(augmentation, count, examples.images.shape[1], seed, epoch))


def training_batches(
    examples: Examples, plan: Plan, batch_size: int, start: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the augmented batches of one epoch, without the last partial one.

    Args:
        examples: the training images.
        plan: the plan of the epoch.
        batch_size: images per batch; an epoch has `steps_per_epoch` batches.
        start: the first step to yield; the images of earlier steps are neither read nor augmented.

    Yields:
        (batch, H, W, 3) uint8 and (batch,) int32.
    """
    images, index, labels = examples
    for step in range(start, steps_per_epoch(len(plan.order), batch_size)):
        chosen = plan.order[step * batch_size : (step + 1) * batch_size]
        changed = augment(images[index[chosen]], plan.draws.of(chosen))
        yield changed if plan.side is None else shrink(changed, plan.side), labels[chosen].astype(np.int32)


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the same batches, each made on another thread while the caller trains on the one before it.

    Meanwhile NumPy's matrix products use one thread each. With more, they wait in loops that keep the cores from the
    training: docs/decisions/speed.md has what that cost.
    """
    from threadpoolctl import threadpool_limits

    with ThreadPoolExecutor(1) as thread, threadpool_limits(1, user_api="blas"):
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Return square `images` (n, size, size, 3) uint8 shrunk to `side`: each pixel is the mean of its area."""
    count, size = images.shape[:2]
    share = shares(size, side)
    rows = share @ images.reshape(count, size, size * 3)
    # The three channels lie side by side, so that one large matrix product handles them all.
    across = np.kron(share, np.eye(3, dtype=np.float32)).T  # (3 size, 3 side)
    small: np.ndarray = np.rint(rows.reshape(-1, size * 3) @ across).astype(np.uint8)
    return small.reshape(count, side, side, 3)


def shares(size: int, side: int) -> np.ndarray:
    """Return (side, size) float32: the weight of each of `size` pixels in a row in the means of `side` larger ones."""
    ends, pixels = np.arange(1, side + 1)[:, None] * (size / side), np.arange(size)
    overlap = np.minimum(ends, pixels + 1) - np.maximum(ends - size / side, pixels)
    share: np.ndarray = (overlap.clip(0) * (side / size)).astype(np.float32)
    return share


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of full batches in `count` images, at least 1: a set smaller than a batch is one batch."""
    return max(1, count // batch_size)


def answered_at_once(size: int) -> int:
    """Return how many images of `size` px to infer at once: 256, or fewer if their feature maps would fill the memory.

    The first feature maps of a network hold 32 or more numbers per pixel. For 256 images of 224 px, each of these maps
    would take 1.6 GB.
    """
    return min(256, max(1, 2**20 // size**2))


def full_batches(images: np.ndarray, index: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (images, number of real ones) in order. The last batch is padded, so that only one shape is compiled."""
    for start in range(0, len(index), batch_size):
        batch = images[index[start : start + batch_size]]
        missing = batch_size - len(batch)
        yield np.pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1)) if missing else batch, len(batch)
