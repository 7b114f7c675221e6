"""The last step of a training: what makes its probabilities mean what they say, and when it is unsure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onsight.core.text import percent
from onsight.metrics.scores import at_threshold, calibration, calibration_error, choose_threshold, fit_temperature


def calibrate(
    logits: np.ndarray, labels: np.ndarray, min_precision: float | None, note: Callable[[str], None]
) -> tuple[float, float | None]:
    """Return the temperature of a network, and the threshold below which it is unsure, None where none is wanted or
    can be had.

    Args:
        logits: (n, classes) float64 of validation images, n at least 1.
        labels: (n,) integers.
        min_precision: the share of its sure answers that must be right; None: it is never unsure.
        note: is told what was chosen and what that does.
    """
    from scipy.special import softmax

    right = logits.argmax(axis=1) == labels
    if right.all():  # the cross entropy would be least where it is infinitely sure
        temperature, reason = 1.0, f"all {len(labels):,} validation images are right, so nothing is known of doubt"
    else:
        temperature = fit_temperature(logits, labels)
        before, after = (
            100 * calibration_error(calibration(softmax(logits / each, axis=1).max(axis=1), right))
            for each in (1, temperature)
        )
        reason = f"calibration error on validation {before:.1f} points before, {after:.1f} after"
    note(f"temperature      {temperature:.4g}  ({reason})")
    if min_precision is None:
        return temperature, None
    confidence = softmax(logits / temperature, axis=1).max(axis=1)
    threshold = choose_threshold(confidence, right, min_precision)
    if threshold is None:
        note(
            f"threshold        none: however sure, its answers on the {len(right):,} validation images are not "
            f"surely {percent(min_precision)} right (lower end of the 95 % interval), so nothing will be called "
            "unsure. Take a lower --min-precision, more validation images, or train longer."
        )
    else:
        facts = at_threshold(confidence, right, threshold)
        note(
            f"threshold        {threshold:.4f}  (on validation {percent(facts['coverage'])} reach it, "
            f"{percent(facts['accuracy'])} of those right; the others are unsure)"
        )
    return temperature, threshold
