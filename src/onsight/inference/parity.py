"""Parity: whether two implementations of the same network give the same answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TOLERANCE = 1e-4  # the largest allowed difference of a float32 probability; rounding makes 2e-5 in deep networks
TIE = 1e-5  # two classes whose probabilities are closer than this are tied
SUM = 1e-3  # how far the sum of a row of probabilities may be from 1


class Difference(NamedTuple):
    """How far probabilities are from the expected ones."""

    largest: float  # of a probability; NaN if one is not finite or the shapes differ
    agreement: float  # share of images with the same likeliest class; a tie counts as the same


def compare(found: np.ndarray, expected: np.ndarray) -> Difference:
    """Return how far the probabilities `found` are from `expected`, both (n, classes)."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return Difference(float("nan"), 0.0)
    rows = np.arange(len(expected))
    chosen = found.argmax(axis=1)
    same = expected.max(axis=1) - expected[rows, chosen] < TIE
    return Difference(float(np.abs(found.astype(np.float64) - expected).max()), float(same.mean()))


def farthest(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of distances, both (n,), or NaN if one is not finite or the shapes differ."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("nan")
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0.0))


def why_not_probabilities(answers: np.ndarray) -> str | None:
    """Return why the rows of `answers`, (n, classes), are not probabilities, or None if they may be.

    Without this check, a file without softmax, or with two of them, would pass as a file that is merely less confident.
    """
    if not np.isfinite(answers).all():
        return "not all of them are finite numbers"
    low, high = float(answers.min(initial=0)), float(answers.max(initial=0))
    if low < 0 or high > 1 + SUM:
        return f"they range from {low:.4g} to {high:.4g}"
    sums = answers.sum(axis=1, dtype=np.float64)
    if len(sums) and np.abs(sums - 1).max() > SUM:
        return f"they sum to {sums[np.abs(sums - 1).argmax()]:.4g}"
    return None


def edge_images(size: int) -> np.ndarray:
    """Return (12, size, size, 3) uint8 images unlike any real image, with the extreme values of every channel."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((size, size))
    ramp = (columns * 255 // max(1, size - 1)).astype(np.uint8)
    check = ((rows + columns) % 2 * 255).astype(np.uint8)
    images = [np.full((size, size, 3), value, np.uint8) for value in (0, 1, 127, 128, 255)]
    images += [np.where(np.arange(3) == channel, np.uint8(255), np.uint8(0)) + images[0] for channel in range(3)]
    images += [np.repeat(plane[:, :, None], 3, axis=2) for plane in (ramp, ramp.T, check)]
    images.append(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
    return np.stack(images)
