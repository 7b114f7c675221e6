"""Pruning by magnitude: the smallest numbers of a network's kernels become zero, more and more of them, and stay so.

Zhu and Gupta 2017, "To prune, or not to prune": one threshold for all kernels, on a cubic schedule, trained meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RAMP = 0.6  # share of the steps over which zeros are made; the rest trains what is left
UPDATES = 50  # times that the zeros are chosen anew, spread over all steps


def scheduled(final: float, done: float) -> float:
    """Return the share of zeros when `done` of all steps, 0 to 1, are taken: fast at first, then ever more slowly.

    >>> scheduled(0.8, 0.0), round(scheduled(0.8, 0.3), 6), scheduled(0.8, 0.9)
    (0.0, 0.7, 0.8)
    """
    return float(final * (1 - (1 - min(1.0, done / RAMP)) ** 3))


def smallest_masked(kernels: Sequence[np.ndarray], share: float) -> list[np.ndarray]:
    """Return a mask of 0 and 1 (float32) for each kernel: zero for the smallest `share` of all their numbers.

    What is zero already is among the smallest, so zeros come first and none of them comes back.
    """
    sizes = np.concatenate([np.abs(kernel).ravel() for kernel in kernels])
    count = max(round(share * len(sizes)), int(np.count_nonzero(sizes == 0)))
    mask = np.ones(len(sizes), np.float32)
    mask[np.argsort(sizes, kind="stable")[:count]] = 0
    ends = np.cumsum([kernel.size for kernel in kernels])[:-1]
    return [part.reshape(kernel.shape) for part, kernel in zip(np.split(mask, ends), kernels, strict=True)]


def zero_share(kernels: Sequence[np.ndarray]) -> float:
    """Return the share of zeros among the numbers of all kernels."""
    return sum(int(np.count_nonzero(kernel == 0)) for kernel in kernels) / sum(kernel.size for kernel in kernels)
