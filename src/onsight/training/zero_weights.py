"""Pruning by magnitude: a growing share of the smallest kernel weights becomes zero during training, and stays zero.

This is the method of Zhu and Gupta 2017, "To prune, or not to prune", with one threshold for all kernels. The share
of zeros grows on a cubic schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.backend import to_numpy

if TYPE_CHECKING:
    import keras

RAMP = 0.6  # share of the steps over which the share of zeros grows; the rest trains the remaining weights
UPDATES = 50  # how often the zeros are chosen again, at regular intervals over all steps


def scheduled_sparsity(final: float, done: float) -> float:
    """Return the share of zeros after the share `done` of all steps, 0 to 1. It grows fast at first, then more slowly.

    >>> scheduled_sparsity(0.8, 0.0), round(scheduled_sparsity(0.8, 0.3), 6), scheduled_sparsity(0.8, 0.9)
    (0.0, 0.7, 0.8)
    """
    return float(final * (1 - (1 - min(1.0, done / RAMP)) ** 3))


def smallest_masked(kernels: Sequence[np.ndarray], share: float) -> list[np.ndarray]:
    """Return one mask of 0 and 1 (float32) per kernel: 0 for the smallest `share` of the weights of all kernels.

    Weights that are already zero always get 0 in the mask, so they stay zero.
    """
    sizes = np.concatenate([np.abs(kernel).ravel() for kernel in kernels])
    count = max(round(share * len(sizes)), int(np.count_nonzero(sizes == 0)))
    mask = np.ones(len(sizes), np.float32)
    mask[np.argsort(sizes, kind="stable")[:count]] = 0
    ends = np.cumsum([kernel.size for kernel in kernels])[:-1]
    return [part.reshape(kernel.shape) for part, kernel in zip(np.split(mask, ends), kernels, strict=True)]


def zero_share(kernels: Sequence[np.ndarray]) -> float:
    """Return the share of zeros among the weights of all kernels."""
    return sum(int(np.count_nonzero(kernel == 0)) for kernel in kernels) / sum(kernel.size for kernel in kernels)


class Masks:
    """The masks of a network in training, which mark the kernel weights that are zero.

    Attributes:
        placed: for each trainable variable, its mask on the device, or None. The whole list is None before the first
            masks are made.
    """

    def __init__(self, model: keras.Model, sparsity: float) -> None:
        self.model, self.sparsity = model, sparsity
        self.placed: list[Any] | None = None

    def update(self, done: float) -> None:
        """Choose the zeros again from the current weights, after the share `done` of all steps, 0 to 1."""
        kernels = {
            number: to_numpy(variable)
            for number, variable in enumerate(self.model.trainable_variables)
            if variable.name.endswith("kernel")
        }
        masks = smallest_masked(list(kernels.values()), scheduled_sparsity(self.sparsity, done))
        self.place(dict(zip(kernels, masks, strict=True)))

    def place(self, masks: dict[int, np.ndarray]) -> None:
        """Copy masks to the device. Their keys are the numbers of the trainable variables."""
        from keras import ops

        placed = {number: ops.convert_to_tensor(mask) for number, mask in masks.items()}
        self.placed = [placed.get(number) for number in range(len(self.model.trainable_variables))]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the masks. Their keys are the numbers of the trainable variables, as text."""
        return {f"{number:05d}": to_numpy(mask) for number, mask in enumerate(self.placed or ()) if mask is not None}
