"""Calibration, the last step of a training: the temperature, and the threshold below which answers are unsure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onsight.core.text import count, percent
from onsight.metrics.distributions import softmax
from onsight.metrics.scores import (
    at_threshold,
    calibration,
    calibration_error,
    choose_threshold,
    fit_temperature,
    fit_to_smoothing,
)

LEAST = 100  # images that a temperature is fitted on, at least; docs/decisions/evaluation.md has the figures


def calibrate(
    logits: np.ndarray,
    labels: np.ndarray,
    min_precision: float | None,
    note: Callable[[str, str], None],
    label_smoothing: float = 0.0,
) -> tuple[float, float | None]:
    """Return the temperature of a network and its threshold, which is None if none was asked for or none exists.

    If the held-out images cannot show a better temperature (see `not_fitted`), it only undoes label smoothing.

    Args:
        logits: (n, classes) float64 of held-out images: the validation images and, if only a head was fitted, the
            training images out of fold; n at least 1.
        labels: (n,) integers.
        min_precision: the share of right answers wanted among those at or above the threshold; None: no threshold.
        note: receives a label and a text on each choice and its effect.
        label_smoothing: what the answers were trained with.
    """
    right = logits.argmax(axis=1) == labels
    images = count(len(right), "held-out image")
    reason = not_fitted(right)
    if reason:
        temperature, reason = unsmoothed(logits, label_smoothing, reason)
    else:
        temperature = fit_temperature(logits, labels)
        before, after = (
            100 * calibration_error(calibration(softmax(logits / each).max(axis=1), right)) for each in (1, temperature)
        )
        reason = f"calibration error on {images} {before:.1f} points before, {after:.1f} after"
    note("temperature", f"{temperature:.4g}  ({reason})")
    if min_precision is None:
        return temperature, None
    confidence = softmax(logits / temperature).max(axis=1)
    threshold = choose_threshold(confidence, right, min_precision)
    if threshold is None:
        note(
            "threshold",
            f"none: at no threshold are {percent(min_precision)} of the answers right on "
            f"{images} (lower end of the 95 % interval), so no answer will be unsure. "
            "Choose a lower --min-precision, use more validation images, or train longer.",
        )
    else:
        facts = at_threshold(confidence, right, threshold)
        note(
            "threshold",
            f"{threshold:.4f}  (on {images}, {percent(facts['coverage'])} of the answers reach it, and "
            f"{percent(facts['accuracy'])} of those are right; the others are unsure)",
        )
    return temperature, threshold


def unsmoothed(logits: np.ndarray, label_smoothing: float, reason: str) -> tuple[float, str]:
    """Return the temperature for the `reason` that none can be fitted, and a text: it only undoes label smoothing.

    That takes no labels, so `logits` (n, classes) may be those of training images.
    """
    if not label_smoothing:
        return 1.0, reason
    return fit_to_smoothing(logits, label_smoothing), f"undoes the label smoothing of {label_smoothing:g}; {reason}"


def not_fitted(right: np.ndarray) -> str:
    """Return why the temperature cannot be fitted, or an empty string if it can.

    If all answers are right, the cross entropy is lowest at a temperature of 0; if all are wrong, at the highest one.

    Args:
        right: (n,) bool, whether each held-out image is classified correctly.
    """
    images = count(len(right), "held-out image")
    if right.all():
        return f"no mistake on {images} to fit it on"
    if not right.any():
        return f"no right answer on {images} to fit it on"
    if len(right) < LEAST:
        return f"{images} are too few to fit it on: it takes {LEAST}"
    return ""
