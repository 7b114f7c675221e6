"""Labels that are probably wrong, before any training: a mixture model of the labels, given features.

1. A ridge regression of the labels on the features, with exact leave-one-out answers: the answer for an image is that
   of a fit without it, which follows from the fit with all images and the image's leverage (R. D. Cook, "Detection of
   Influential Observation in Linear Regression", 1977). One decomposition of the features serves every penalty.
2. The answers, times a scale, are the logits of p(class | image). A label is right with probability 1 - e, and
   otherwise any other class. So a label y has the likelihood (1 - e) p(y) + e (1 - p(y)) / (classes - 1), and the share
   of the second term is the probability that the label is wrong.
3. Penalty, scale and e are averaged over a grid, each weighted by its likelihood. So e adapts to the set: where the
   model's doubt explains all labels, e is 1 %, the least of the grid, and hardly any label is found.

The share e is what a plain threshold on the model's confidence lacks: it separates a set with wrong labels from a set
that is hard. docs/decisions/data.md has the measurements.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onsight.checks.resemblance import directions
from onsight.core.spread import spread
from onsight.metrics.distributions import softmax

PENALTIES = (30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)  # of the ridge regression
SCALES = tuple(np.geomspace(1, 40, 13).tolist())  # of its answers, as logits
RATES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)  # e, the share of wrong labels
LIKELY = 0.5  # least probability of a label that is called wrong: it is wrong rather than right
FEWEST = 10  # images of a class whose labels are judged: from fewer, the class cannot be learned
NUMBERS = 2_000_000  # most images times classes by which the grid is weighted, so that it takes seconds
NEGLIGIBLE = 1e-3  # models with less than this share of the weight are left out of the average
SMALLEST = 1e-7  # singular values below this share of the largest are rounding errors

Floats = NDArray[np.float64]


class Judged(NamedTuple):
    """The labels of n images, judged by all other images."""

    wrong: Floats  # (n,) the probability that the label is wrong; 0 where it cannot be judged
    suggested: NDArray[np.int64]  # (n,) the likeliest other class
    share: float  # the estimated share of wrong labels in the set


class Regression(NamedTuple):
    """A ridge regression of n targets on features, decomposed so that any penalty costs little."""

    values: Floats  # (rank,) the squared singular values of the features
    left: NDArray[np.float32]  # (n, rank) their left singular vectors
    targets: NDArray[np.float32]  # (n, classes)

    def leave_one_out(self, penalty: float) -> NDArray[np.float32]:
        """Return (n, classes) the answer for each image of a fit without it."""
        kept = (self.values / (self.values + penalty)).astype(np.float32)
        mean = self.targets.mean(axis=0)
        fitted = mean + self.left @ (kept[:, np.newaxis] * (self.left.T @ (self.targets - mean)))
        leverage = np.minimum(self.left**2 @ kept + 1 / len(self.left), 1 - 1e-6)
        return np.asarray(self.targets - (self.targets - fitted) / (1 - leverage)[:, np.newaxis], np.float32)


def judge_labels(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Judged:
    """Judge the labels of n different images by their features.

    Args:
        features: (n, features).
        labels: (n,) integers; a class with fewer than 10 images is not judged.
    """
    present, classes = np.unique(labels, return_inverse=True)
    sizes = np.bincount(classes)
    judged = sizes[classes] >= FEWEST
    if np.count_nonzero(sizes >= FEWEST) < 2:
        return Judged(np.zeros(len(labels)), labels.copy(), 0.0)
    regression = decompose(features, classes)
    rows = np.flatnonzero(judged)
    rows = rows[spread(len(rows), max(len(present), NUMBERS // len(present)))]
    grid = np.stack([
        np.log(likelihood(own_share(answers, classes[rows], scale), len(present))).sum(axis=1)
        for answers in (regression.leave_one_out(penalty)[rows] for penalty in PENALTIES) for scale in SCALES
    ]).reshape(len(PENALTIES), len(SCALES), len(RATES))  # fmt: skip
    weights = np.exp(grid - grid.max())
    weights /= weights.sum()
    wrong, probabilities = np.zeros(len(labels)), np.zeros((len(labels), len(present)))
    for penalty, of_penalty in zip(PENALTIES, weights, strict=True):
        if of_penalty.sum() < NEGLIGIBLE:
            continue
        answers = regression.leave_one_out(penalty)
        for scale, of_rates in zip(SCALES, of_penalty, strict=True):
            if of_rates.sum() >= NEGLIGIBLE:
                own = own_share(answers, classes, scale)
                right = (1 - np.array(RATES)[:, np.newaxis]) * own
                wrong += of_rates @ (1 - right / likelihood(own, len(present)))
                probabilities += of_rates.sum() * softmax(answers * scale)
    probabilities[np.arange(len(labels)), classes] = -1
    share = float(weights.sum(axis=(0, 1)) @ RATES)
    return Judged(np.where(judged, wrong, 0.0), present[probabilities.argmax(axis=1)], share)


def decompose(features: NDArray[np.float32], classes: NDArray[np.int64]) -> Regression:
    """Return the ridge regression of the `classes` (n,) on the features (n, features), for any penalty.

    The features are divided by their lengths, which are larger for busy images.
    """
    scaled = directions(features)
    scaled -= scaled.mean(axis=0)
    scaled /= float(scaled.std(axis=0).mean()) + 1e-12
    wide = len(scaled) <= scaled.shape[1]
    values, vectors = np.linalg.eigh((scaled @ scaled.T if wide else scaled.T @ scaled).astype(np.float64))
    used = values > SMALLEST * max(values[-1], SMALLEST)
    values, vectors = values[used], vectors[:, used]
    left = (vectors if wide else scaled @ (vectors / np.sqrt(values))).astype(np.float32)
    return Regression(values, left, np.eye(int(classes.max()) + 1, dtype=np.float32)[classes])


def own_share(answers: NDArray[np.float32], classes: NDArray[np.int64], scale: float) -> Floats:
    """Return (n,) the probability of each image's own label."""
    shifted = scale * (answers - answers.max(axis=1, keepdims=True))
    own = shifted[np.arange(len(shifted)), classes]
    return np.asarray(np.exp(own) / np.exp(shifted).sum(axis=1), np.float64)


def likelihood(own: Floats, number: int) -> Floats:
    """Return (rates, n) the likelihoods of labels whose classes have the probabilities `own` (n,)."""
    rates = np.array(RATES)[:, np.newaxis]
    return (1 - rates) * own + rates * (1 - own) / (number - 1) + 1e-9
