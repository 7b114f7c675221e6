"""Scores of predictions: accuracy and its interval, per-class scores, calibration, temperature, thresholds.

Uses NumPy and arithmetic only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from onsight.core.errors import DataError
from onsight.core.evaluation_records import Bin, Confusion, CoveragePoint, Scores, ThresholdEffect
from onsight.metrics.distributions import root, softmax
from onsight.metrics.intervals import share_interval, share_intervals

CALIBRATION_BINS = 15
LEAST = 2.2e-16  # probability, for the loss
BLOCK = 1 << 22  # probabilities that are computed with at a time
MATRIX = 1000  # classes; with more, the confusion matrix would be mostly zeros and fill the memory
NOISE_DRAWS = 400  # simulations of a perfectly calibrated model
TEMPERATURES = (0.05, 20.0)  # bounds of the search in `fit_temperature`


def score(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], top_k: int = 5) -> Scores:
    """Return all scores of one set of predictions, ready for JSON (None for an undefined score).

    `labels` is (n,) int, indices into `classes`; `probabilities` is (n, C) float, each row summing to 1. Shares are in
    0..1, each computed by one division of summed counts. If probabilities tie, the first class counts as predicted.

    - accuracy, correct, n, accuracy_interval (95 %), confidence (mean probability of the predicted class)
    - loss: mean cross entropy in nats; a probability of 0 counts as 2.2e-16
    - top_k: {"k", "accuracy"}, k at most C - 1; None for two classes
    - macro_f1: mean over the classes that occur among labels or predictions
    - per_class: class, precision, recall, f1, support, recall_interval
    - confusion: C x C counts, rows true, columns predicted; [] for more than 1,000 classes
    - confused, for more than 1,000 classes only: [true, predicted, count] of each pair that was mistaken, as indices
    - ece: expected calibration error of the predicted class, 15 equal-width bins (Guo et al. 2017)
    - ece_noise: what a perfectly calibrated model would show on so many images: mean and 97.5 % quantile
    - calibration: those bins
    - brier: sum over classes of squared errors, mean over images (Brier 1950): 0 is perfect, 2 is the worst
    - for two classes, with classes[1] as the positive class: roc_auc, average_precision

    Raises DataError if there are no images or a row holds no probabilities, ValueError if the shapes do not match.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    _check(labels, probabilities, len(classes))
    n, count = probabilities.shape
    k = min(top_k, count - 1)
    predicted, confidence, own, brier, rank = _per_image(labels, probabilities, k > 1)
    right = predicted == labels  # (n,) bool
    correct = int(right.sum())
    found = np.bincount(labels[right], minlength=count)
    support, named = np.bincount(labels, minlength=count), np.bincount(predicted, minlength=count)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: the score is undefined
        precision, recall, f1 = found / named, found / support, 2 * found / (named + support)
    low, high = share_intervals(found, support)
    bins = calibration(confidence, right)
    result: Scores = {
        "n": n,
        "accuracy": correct / n,
        "correct": correct,
        "accuracy_interval": list(share_interval(correct, n)),
        "confidence": float(confidence.mean()),
        "loss": float(-np.log(np.maximum(own, LEAST)).mean()),
        "top_k": {"k": k, "accuracy": int((rank < k).sum()) / n} if k > 1 else None,
        "macro_f1": float(np.nanmean(f1)),
        "per_class": [
            {
                "class": str(name),
                "precision": _number(precision[i]),
                "recall": _number(recall[i]),
                "f1": _number(f1[i]),
                "support": int(support[i]),
                "recall_interval": [float(low[i]), float(high[i])] if support[i] else None,
            }
            for i, name in enumerate(classes)
        ],
        **_confusion(labels, predicted, count),  # type: ignore[typeddict-item]  # mypy asks for optional keys
        "ece": calibration_error(bins),
        "ece_noise": calibration_noise(confidence),
        "calibration": bins,
        "brier": float(brier.mean()),
    }
    if count == 2:
        both = 0 < int(labels.sum()) < n  # if only one class occurs, neither area is defined
        positive = normalised(probabilities)[:, 1]
        roc_auc, average_precision = areas(labels, positive) if both else (None, None)
        result["roc_auc"], result["average_precision"] = roc_auc, average_precision
    return result


def blocks(probabilities: np.ndarray) -> Iterator[slice]:
    """Yield slices of the rows of probabilities (n, C), so that a block of them takes 32 MB in float64."""
    step = max(1, BLOCK // max(1, probabilities.shape[1]))
    for start in range(0, len(probabilities), step):
        yield slice(start, start + step)


def normalised(rows: np.ndarray) -> np.ndarray:
    """Return probabilities (n, C) in float64 that sum to 1: a float32 softmax does so only within 1e-6."""
    rows = np.asarray(rows, np.float64)
    shares: np.ndarray = rows / rows.sum(axis=1, keepdims=True)
    return shares


def _per_image(
    labels: np.ndarray, probabilities: np.ndarray, ranked: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (n,) each: predicted class, its probability, that of the label, Brier score, rank of the label (0: first).

    Ties rank by index, as in argmax. Ranks are 0 unless `ranked`.
    """
    n = len(labels)
    predicted, rank = np.empty(n, np.int64), np.zeros(n, np.int64)
    confidence, own, brier = np.empty(n), np.empty(n), np.empty(n)
    for part in blocks(probabilities):
        rows, truth = normalised(probabilities[part]), labels[part]
        places = np.arange(len(rows)), truth
        predicted[part], confidence[part], own[part] = rows.argmax(axis=1), rows.max(axis=1), rows[places]
        if ranked:
            mine = rows[places][:, None]
            before = np.arange(rows.shape[1]) < truth[:, None]
            rank[part] = ((rows > mine) | ((rows == mine) & before)).sum(axis=1)
        rows[places] -= 1
        brier[part] = (rows**2).sum(axis=1)
    return predicted, confidence, own, brier, rank


def _confusion(labels: np.ndarray, predicted: np.ndarray, count: int) -> Confusion:
    """Return the confusion matrix or, for many classes, the pairs that were mistaken."""
    if count <= MATRIX:
        matrix = np.bincount(labels * count + predicted, minlength=count**2).reshape(count, count)
        return {"confusion": matrix.tolist()}
    wrong = labels != predicted
    cells, counts = np.unique(labels[wrong] * count + predicted[wrong], return_counts=True)
    return {"confusion": [], "confused": np.stack([*np.divmod(cells, count), counts], axis=1).tolist()}


def mistaken(metrics: Confusion) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (m,) each: true class, predicted class and count of the pairs that were mistaken, in their order."""
    if not metrics["confusion"]:
        true, said, counts = np.asarray(metrics.get("confused", []), np.int64).reshape(-1, 3).T
        return true, said, counts
    matrix = np.asarray(metrics["confusion"], np.int64)
    true, said = np.nonzero(matrix - np.diag(np.diag(matrix)))
    return true, said, matrix[true, said]


def areas(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Return the area under the ROC curve and the average precision of (n,) scores of class 1. Both classes occur.

    The first is the probability that an image of class 1 has the higher score than one of class 0, where a tie counts
    half. The second is the mean, over the images of class 1, of the precision at a threshold that just includes them.
    """
    _, place = np.unique(-scores, return_inverse=True)  # equal scores share a place; the highest is first
    positives, every = np.bincount(place, labels), np.bincount(place)
    negatives = every - positives
    above = np.cumsum(positives)
    ranked = (negatives * (above - positives / 2)).sum() / (positives.sum() * negatives.sum())
    precise = (positives * above / np.cumsum(every)).sum() / positives.sum()
    return float(ranked), float(precise)


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = CALIBRATION_BINS) -> list[Bin]:
    """Return equal-width bins (low, high] of confidence: low, high, count, confidence, accuracy.

    Confidence is the probability of the predicted class. `confidence` is (n,) float in 0..1, `right` is (n,) bool. The
    confidence and accuracy of a bin are means, None in an empty bin.
    """
    edges = np.linspace(0, 1, bins + 1)
    index = np.digitize(confidence, edges[1:-1], right=True)  # (n,) in 0..bins-1
    counts = np.bincount(index, minlength=bins)
    sure = np.bincount(index, confidence, minlength=bins)
    hits = np.bincount(index, right, minlength=bins)
    return [
        {
            "low": float(edges[i]),
            "high": float(edges[i + 1]),
            "count": int(n),
            "confidence": float(sure[i] / n) if n else None,
            "accuracy": float(hits[i] / n) if n else None,
        }
        for i, n in enumerate(counts)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error (Guo et al. 2017) in 0..1, from the bins of `calibration`."""
    n = sum(each["count"] for each in bins)
    return float(sum(each["count"] * abs((each["accuracy"] or 0.0) - (each["confidence"] or 0.0)) for each in bins) / n)


def calibration_noise(confidence: np.ndarray) -> list[float]:
    """Return the calibration error of a perfectly calibrated model of these n confidences: mean and 97.5 % quantile.

    Its predictions are right with exactly the probability that it gives, so all of its error is due to n being finite.
    """
    rng = np.random.default_rng(0)
    index = np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)
    errors = []
    for _ in range(NOISE_DRAWS):
        gaps = np.bincount(index, (rng.random(len(confidence)) < confidence) - confidence, CALIBRATION_BINS)
        errors.append(np.abs(gaps).sum() / len(confidence))
    return [float(np.mean(errors)), float(np.quantile(errors, 0.975))]


def cross_entropy(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the mean cross entropy of (n, classes) logits and (n,) labels, each with its weight (n,), by default 1."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    each = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return float((each if weights is None else each * weights).mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature T for which `logits` (n, C) / T has the lowest cross entropy on `labels` (n,).

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks". Computed in float64. The cross entropy is
    convex in 1 / T. The search is bounded by TEMPERATURES: if every prediction is right, the best temperature is 0.
    """
    each = np.asarray(logits, np.float64)
    return _best_temperature(each, np.eye(each.shape[1])[labels])


def fit_to_smoothing(logits: np.ndarray, smoothing: float) -> float:
    """Return the temperature T that undoes label smoothing as far as one number can. It takes no labels.

    Smoothing spreads the share `smoothing` of each label over all C classes. A network that was trained with it and
    answers p therefore means (p - smoothing / C) / (1 - smoothing). Negative values count as 0. softmax(`logits` / T),
    with `logits` (n, C), has the lowest cross entropy to these.
    """
    each = np.asarray(logits, np.float64)
    meant = np.clip(softmax(each) - smoothing / each.shape[1], 0, None)
    return _best_temperature(each, meant / meant.sum(axis=1, keepdims=True))


def _best_temperature(logits: np.ndarray, wanted: np.ndarray) -> float:
    """Return T for which softmax(`logits` (n, C) / T) has the lowest cross entropy to `wanted` (n, C).

    The cross entropy is convex in 1 / T. Its slope is the mean logit under the softmax minus the mean wanted one, and
    the slope of that is the variance of the logits under the softmax.
    """
    aim = (wanted * logits).sum(axis=1)

    def slope(inverse: float) -> tuple[float, float]:
        share = softmax(logits * inverse)
        mean = (share * logits).sum(axis=1)
        return float((mean - aim).mean()), float(((share * logits**2).sum(axis=1) - mean**2).mean())

    lowest, highest = TEMPERATURES
    return 1 / root(slope, 1 / highest, 1 / lowest, 1.0)


def with_temperature(probabilities: np.ndarray, ratio: float) -> np.ndarray:
    """Return what `probabilities` (n, C) would be at `ratio` times the temperature, (n, C) float64.

    A model that divides its logits by T returns softmax(logits / T). The logarithm of that is logits / T, except for
    one constant per row. So a ratio of 1 / T gives the probabilities before calibration.
    """
    with np.errstate(divide="ignore"):  # a probability of 0 stays 0
        return softmax(np.log(np.asarray(probabilities, np.float64)) / ratio)


def confidence_at(probabilities: np.ndarray, ratio: float) -> np.ndarray:
    """Return (n,) float64, the largest of `with_temperature(probabilities, ratio)` of each row."""
    confidence = np.empty(len(probabilities))
    for part in blocks(probabilities):
        confidence[part] = with_temperature(probabilities[part], ratio).max(axis=1)
    return confidence


def coverage_curve(confidence: np.ndarray, right: np.ndarray, points: int = 100) -> list[CoveragePoint]:
    """Return the share of predictions that reach each threshold, and their accuracy: threshold, coverage, accuracy.

    `confidence` (n,) is the probability of the predicted class, `right` is (n,) bool. There are at most about `points`
    rows, from the most confident hundredth of the predictions to all of them. Predictions with the same confidence
    are kept or dropped together.
    """
    order = np.argsort(-confidence, kind="stable")
    sure, hits = confidence[order], np.cumsum(right[order])
    last = np.append(np.flatnonzero(sure[1:] < sure[:-1]), len(sure) - 1)  # the last of each group of ties
    wanted = np.ceil(np.arange(1, points + 1) * len(sure) / points).astype(int) - 1
    chosen = np.unique(last[np.searchsorted(last, wanted)])
    return [
        {"threshold": float(sure[i]), "coverage": (i + 1) / len(sure), "accuracy": int(hits[i]) / (i + 1)}
        for i in chosen.tolist()
    ]


def choose_threshold(confidence: np.ndarray, right: np.ndarray, min_precision: float) -> float | None:
    """Return the lowest threshold at which the predictions that reach it are precise enough; None if there is none.

    Precise enough means that the lower end of the 95 % interval of their precision (`share_interval`, which reports
    show) is at least `min_precision`. The precision itself is not a sufficient criterion, because the lowest of many
    thresholds is the luckiest: a few confident and right predictions reach any precision. A precision of 0.95 needs at
    least 72 right predictions.

    The threshold lies half-way to the next less confident prediction, so that rounding moves no prediction across it.
    It never lies below the least confident prediction of all (except by 1e-6), because nothing is known about less
    confident ones. `confidence` (n,) is the probability of the predicted class, `right` is (n,) bool.
    """
    order = np.argsort(-confidence, kind="stable")
    sure, hits = confidence[order].astype(np.float64), np.cumsum(right[order])
    last = np.append(np.flatnonzero(sure[1:] < sure[:-1]), len(sure) - 1) if len(sure) else np.zeros(0, int)
    candidates = reversed(last[hits[last] >= min_precision * (last + 1)].tolist())
    lowest = next((i for i in candidates if share_interval(int(hits[i]), i + 1)[0] >= min_precision), None)
    if lowest is None:
        return None
    return float(sure[lowest : lowest + 2].mean() if lowest + 1 < len(sure) else sure[lowest] - 1e-6)


def at_threshold(confidence: np.ndarray, right: np.ndarray, threshold: float) -> ThresholdEffect:
    """Return the effect of a threshold: value, n, answered, coverage, correct, accuracy and its 95 % interval.

    Accuracy and interval are None if no prediction reaches the threshold.
    """
    answered = confidence >= threshold
    count, correct = int(answered.sum()), int((right & answered).sum())
    return {
        "value": threshold,
        "n": len(right),
        "answered": count,
        "coverage": count / len(right),
        "correct": correct,
        "accuracy": correct / count if count else None,
        "accuracy_interval": list(share_interval(correct, count)) if count else None,
    }


def _check(labels: np.ndarray, probabilities: np.ndarray, classes: int) -> None:
    """Raise an error unless the arrays match and each row of `probabilities` sums to 1."""
    if labels.ndim != 1 or probabilities.shape != (len(labels), classes):
        raise ValueError(f"labels {labels.shape} and probabilities {probabilities.shape} do not fit {classes} classes")
    if not len(labels):
        raise DataError("There are no images to score.")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be integers from 0 to {classes - 1}")
    bad = np.empty(len(labels), bool)
    for part in blocks(probabilities):
        rows = np.asarray(probabilities[part], np.float64)
        sums = rows.sum(axis=1)
        bad[part] = ~(np.isfinite(sums) & (np.abs(sums - 1) < 1e-3) & (rows.min(axis=1) >= 0))
    if bad.any():
        raise DataError(
            f"The predictions are not probabilities that sum to 1 in {bad.sum():,} of {len(labels):,} rows (first: row "
            f"{bad.argmax()}). The model has diverged: train again with a lower learning rate."
        )


def _number(value: float) -> float | None:
    """Return a float that JSON can hold, or None for NaN and infinity."""
    return float(value) if math.isfinite(value) else None
