"""The head of a pretrained network: multinomial logistic regression on features, by scikit-learn.

Regularisation is chosen by cross-validation: each training image gets an answer of a head that has not seen it. These
out-of-fold answers calibrate the probabilities, too, so a folder with few validation images has calibrated answers.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from onsight.metrics.scores import cross_entropy

GRID = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # of C, the inverse strength of the L2 penalty
USUAL = 0.3  # the first C that is tried; also C where a class has a single image, so that nothing can be held out
FEW = 500  # images: up to these, five folds leave more images to learn from; with more, three folds save time
STEPS, TOLERANCE = 200, 1e-3  # of L-BFGS; more change no accuracy beyond chance (docs/decisions/transfer.md)
NUMBERS = 50_000  # most images times classes that the choice of C looks at, so that it takes seconds
ABSENT = 10.0  # how far the logit of a class without training images lies below the others


class Head(NamedTuple):
    """A fitted head and how it was chosen."""

    kernel: np.ndarray  # (features, classes) float32
    bias: np.ndarray  # (classes,) float32
    strength: float  # the chosen C
    held_out: np.ndarray  # (m,) positions of the training images that have out-of-fold logits
    logits: np.ndarray  # (m, classes) float64, out of fold

    def out_of_fold(self, labels: np.ndarray) -> dict[str, float | int]:
        """Return what history.jsonl says of the out-of-fold answers for training images with `labels` (n,)."""
        if not len(self.held_out):
            return {}
        right = self.logits.argmax(axis=1) == labels[self.held_out]
        return {"out_of_fold_accuracy": float(right.mean()), "out_of_fold_n": len(right)}


def fit_head(
    features: np.ndarray, labels: np.ndarray, classes: int, *, seed: int = 0, weights: np.ndarray | None = None
) -> Head:
    """Fit a head to the features of training images.

    For the fit, features are centred and divided by one number, their mean standard deviation, so that C means the same
    for every network. The result is converted back: the head takes plain features.

    Args:
        features: (n, features) float32.
        labels: (n,) integers below `classes`.
        classes: the number of classes.
        seed: of the folds.
        weights: (classes,) the weight of each image of a class; None: all 1.
    """
    mean, scale = features.mean(axis=0), float(features.std(axis=0).mean()) + 1e-6  # of a single image it is 0
    scaled = (features - mean) / scale
    each = None if weights is None else weights[labels]
    strength, held_out, logits = choose(scaled, labels, classes, seed, each)
    kernel, bias = fit(scaled, labels, classes, strength, each)
    kernel /= scale
    return Head(kernel.astype(np.float32), (bias - mean @ kernel).astype(np.float32), strength, held_out, logits)


def choose(
    scaled: np.ndarray, labels: np.ndarray, classes: int, seed: int, weights: np.ndarray | None
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return C with the lowest cross entropy out of fold; the positions of the images used, and their logits."""
    from sklearn.model_selection import StratifiedKFold

    used = sample(labels, classes, seed)
    smallest = int(np.bincount(labels[used])[np.unique(labels[used])].min())
    if smallest < 2 or len(np.unique(labels[used])) < 2:
        return USUAL, np.zeros(0, np.int64), np.zeros((0, classes))
    folds = StratifiedKFold(min(5 if len(used) <= FEW else 3, smallest), shuffle=True, random_state=seed % 2**32)
    parts = list(folds.split(used, labels[used]))

    def held_out(strength: float) -> tuple[float, np.ndarray]:
        logits = np.zeros((len(used), classes))
        for inside, outside in parts:
            learned = used[inside]
            each = None if weights is None else weights[learned]
            kernel, bias = fit(scaled[learned], labels[learned], classes, strength, each)
            logits[outside] = scaled[used[outside]] @ kernel + bias
        return cross_entropy(logits, labels[used], None if weights is None else weights[used]), logits

    # The loss has one minimum in C, so a walk from the usual value finds it.
    at = GRID.index(USUAL)
    tried = {each: held_out(GRID[each]) for each in (at, at + 1)}
    step = 1 if tried[at + 1][0] < tried[at][0] else -1
    at = max(at, at + step)
    while 0 <= at + step < len(GRID):
        tried[at + step] = held_out(GRID[at + step])
        if tried[at + step][0] >= tried[at][0]:
            break
        at += step
    best = min(tried, key=lambda each: tried[each][0])
    return GRID[best], used, tried[best][1]


def sample(labels: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Return the positions of all images or, of a large set, of as many of each class as keep the choice of C fast."""
    most = max(10 * classes, NUMBERS // classes)
    if len(labels) <= most:
        return np.arange(len(labels))
    order = np.random.default_rng([seed, 7]).permutation(len(labels))
    ranks = np.empty(len(labels), np.int64)
    for label in range(classes):
        mine = order[labels[order] == label]
        ranks[mine] = np.arange(len(mine))
    return np.sort(np.lexsort((order, ranks))[:most])


def fit(
    scaled: np.ndarray, labels: np.ndarray, classes: int, strength: float, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernel (features, classes) and bias (classes,) of a logistic regression."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    kernel, bias = np.zeros((scaled.shape[1], classes), np.float32), np.zeros(classes)
    present = np.unique(labels)
    if len(present) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the fit is regularised: these steps are near enough
            model = LogisticRegression(C=strength, max_iter=STEPS, tol=TOLERANCE).fit(
                scaled, labels, sample_weight=weights
            )
        if len(present) == 2:  # scikit-learn has one logit for two classes
            kernel[:, present] = np.stack([-model.coef_[0] / 2, model.coef_[0] / 2], axis=1)
            bias[present] = -model.intercept_[0] / 2, model.intercept_[0] / 2
        else:
            kernel[:, present], bias[present] = model.coef_.T, model.intercept_
    bias[np.setdiff1d(np.arange(classes), present)] = bias[present].min() - ABSENT
    return kernel, bias
