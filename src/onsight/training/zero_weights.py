"""Pruning by magnitude: the smallest numbers of a network's kernels become zero, more and more of them, and stay so.

Zhu and Gupta 2017, "To prune, or not to prune": one threshold for all kernels, on a cubic schedule, trained meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.backend import to_numpy

if TYPE_CHECKING:
    import keras

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


class Masks:
    """The masks of a network in training: which weights of its kernels are zero.

    Attributes:
        placed: for each trainable variable its mask on the device, or None; None before the first masks are made.
    """

    def __init__(self, model: keras.Model, sparsity: float) -> None:
        self.model, self.sparsity = model, sparsity
        self.placed: list[Any] | None = None

    def update(self, done: float) -> None:
        """Choose the zeros again from the weights as they are, when `done` of all steps, 0 to 1, are taken."""
        kernels = {
            number: to_numpy(variable)
            for number, variable in enumerate(self.model.trainable_variables)
            if variable.name.endswith("kernel")
        }
        masks = smallest_masked(list(kernels.values()), scheduled(self.sparsity, done))
        self.place(dict(zip(kernels, masks, strict=True)))

    def place(self, masks: dict[int, np.ndarray]) -> None:
        """Put masks, by the number of their trainable variable, on the device."""
        from keras import ops

        placed = {number: ops.convert_to_tensor(mask) for number, mask in masks.items()}
        self.placed = [placed.get(number) for number in range(len(self.model.trainable_variables))]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the masks by the number of their trainable variable, as text."""
        return {f"{number:05d}": to_numpy(mask) for number, mask in enumerate(self.placed or ()) if mask is not None}
