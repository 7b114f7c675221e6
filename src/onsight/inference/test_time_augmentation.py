"""Test-time augmentation: several views of each image, one answer."""

from __future__ import annotations

import numpy as np

from onsight.imaging.augment import UNFLIPPED
from onsight.inference.engines import Answer
from onsight.runs.run import Run

SURE = 0.95  # a probability; on validation, no answer above it changed
WEIGHTS = (0.5, 0.25, 0.25)  # of the unchanged image, and of it shifted by one pixel down right and up left


def count_views(flips: bool) -> int:
    """Return the number of views of an image that `with_views` is not sure of."""
    return len(WEIGHTS) * (2 if flips else 1)


def with_views(answer: Answer, flips: bool = True) -> Answer:
    """Return an answer function that combines several views of each image: test-time augmentation.

    The unchanged image has weight 1/2, and its shifts by one pixel down right and up left have weight 1/4 each. With
    `flips`, each of them shares its weight evenly with its mirror image. Jordan 2024 uses the same weights to average
    logits. The mean of log probabilities differs from that only by a constant, which softmax removes.

    An image whose largest probability is at least `SURE` keeps its first answer, because further views do not change it
    (docs/decisions/evaluation.md).

    Args:
        answer: maps uint8 images (n, H, W, 3) to probabilities (n, classes). The unchanged images are its first ones.
        flips: whether a mirrored image keeps its label.
    """

    def answer_with_views(images: np.ndarray) -> np.ndarray:
        first = answer(images)
        unsure = np.flatnonzero(first.max(axis=1, initial=0.0) < SURE)
        answers: np.ndarray = first.copy()
        if len(unsure):
            answers[unsure] = combined(images[unsure], first[unsure])
        return answers

    def combined(images: np.ndarray, first: np.ndarray) -> np.ndarray:
        padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        total = np.zeros(())
        views = (images, padded[:, :-2, :-2], padded[:, 2:, 2:])
        for weight, view in zip(WEIGHTS, views, strict=True):
            for seen in (view, view[:, :, ::-1]) if flips else (view,):
                found = first if seen is images else answer(np.ascontiguousarray(seen))
                total = total + np.log(np.maximum(found, 1e-30)) * (weight / 2 if flips else weight)
        likelihood = np.exp(total - total.max(axis=1, keepdims=True))
        return np.asarray(likelihood / likelihood.sum(axis=1, keepdims=True), np.float32)

    return answer_with_views


def mirrors(run: Run) -> bool:
    """Return whether the run was trained on mirrored images, which shows that they keep their labels."""
    return run.spec["augmentation"] in UNFLIPPED
