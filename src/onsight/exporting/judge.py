"""Decides whether an exported file answers as Keras does, for its precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from onsight.core.errors import ParityError
from onsight.inference.parity import TOLERANCE, compare, why_no_probabilities

AGREEMENT = 0.999  # of the likeliest class, for float16
MAX_DROP = 0.5  # points of validation accuracy, for int8

Precision = Literal["float32", "float16", "int8"]


class Questions(NamedTuple):
    """The images that every file is asked about, and what Keras answers."""

    images: np.ndarray  # (n, H, W, 3) uint8: real and edge ones, then all validation, then all test
    expected: np.ndarray  # (n, classes) float32
    validation: slice
    labels: np.ndarray  # of the validation images; those of the test images are never read
    calibration: np.ndarray  # (m, H, W, 3) uint8 training images


def judge(
    name: str,
    precision: Precision,
    answers: dict[int, np.ndarray],
    questions: Questions,
    max_drop: float,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Return what the table says of a file's answers.

    Args:
        name: the file's, for messages.
        precision: sets the bar.
        answers: {size of the batches: probabilities of the first so many images}; those of the largest are of all.
        questions: the images and Keras' answers.
        max_drop: points of validation accuracy that int8 may cost.
        classes: names, for messages.

    Raises:
        ParityError: they are further from Keras' than the precision allows.
    """
    expected, within, labels = questions.expected, questions.validation, questions.labels
    found = answers[max(answers)]
    whole = compare(found, expected)
    if not np.isfinite(whole.largest) or found.dtype != np.float32:
        raise ParityError(
            f"{name} is not written: it gives {found.dtype} of shape {found.shape}, not all of them numbers; expected "
            f"float32 of shape {expected.shape}."
        )
    for rows in answers.values():
        if why := why_no_probabilities(rows):
            raise ParityError(f"{name} is not written: its answers are no probabilities, {why}.")
    # The images beyond the validation set count by their likeliest class alone.
    differences = {size: compare(rows[: within.stop], expected[: min(len(rows), within.stop)]).largest
                   for size, rows in answers.items()}  # fmt: skip
    apart = max(compare(rows, found[: len(rows)]).largest for rows in answers.values())
    right, before = (rows[within].argmax(axis=1) == labels for rows in (found, expected))
    row: dict[str, Any] = {
        "max_difference": max(differences.values()),
        "agreement": whole.agreement,
        "compared": len(expected),
        "validation_n": len(labels),
        "validation_accuracy": float(right.mean()) if len(labels) else None,
        "source_accuracy": float(before.mean()) if len(labels) else None,
    }
    if precision == "float32":
        if not row["max_difference"] <= TOLERANCE:
            batches = ", ".join(f"{value:.2g} in batches of {size}" for size, value in differences.items())
            raise ParityError(
                f"{name} is not written: its probabilities differ from Keras' by {batches}; at most {TOLERANCE:g} is "
                "allowed for float32."
            )
        if whole.agreement < 1:
            count = round((1 - whole.agreement) * len(expected))
            raise ParityError(
                f"{name} is not written: for {count:,} of {len(expected):,} images it names another class."
            )
        return row
    if not apart <= TOLERANCE:
        raise ParityError(f"{name} is not written: its probabilities differ by {apart:.2g} between sizes of batches.")
    if precision == "float16" and whole.agreement < AGREEMENT:
        raise ParityError(
            f"{name} is not written: it names the class that Keras names for {whole.agreement:.2%} of "
            f"{len(expected):,} images; at least {AGREEMENT:.1%} is wanted of float16."
        )
    if precision == "int8":
        from onsight.metrics.intervals import paired

        if not len(labels):
            raise ParityError(f"{name} is not written: int8 is judged on validation images, and the run has none.")
        drop = paired(int((right & ~before).sum()), int((before & ~right).sum()), len(labels))
        hurt = sorted(
            ((float(before[labels == i].mean() - right[labels == i].mean()), i) for i in np.unique(labels).tolist()),
            reverse=True,
        )
        row |= {
            "drop": drop.value,
            "drop_interval": [drop.low, drop.high],
            "hurt_most": [{"class": classes[i], "drop": value} for value, i in hurt[:3] if value > 0],
        }
        if drop.value * 100 > max_drop:
            worst = ", ".join(f"{each['class']} {each['drop'] * 100:.1f}" for each in row["hurt_most"])
            raise ParityError(
                f"{name} is not written: on {len(labels):,} validation images it is {drop.value * 100:.2f} points "
                f"less accurate than Keras (95 %: {drop.low * 100:.2f} to {drop.high * 100:.2f}), more than "
                f"{max_drop:g}. Hurt most, in points: {worst}. --max-drop moves the bar."
            )
    return row
