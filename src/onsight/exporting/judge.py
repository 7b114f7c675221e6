"""The judge: whether the answers of an exported file are close enough to Keras' for its precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from onsight.core.errors import ParityError
from onsight.core.records import Judgement
from onsight.core.spread import spread
from onsight.core.text import count
from onsight.inference.parity import TOLERANCE, compare, farthest, why_not_probabilities
from onsight.metrics.intervals import paired, share_interval

AGREEMENT = 0.999  # for float16: the share of images with the same likeliest class
INT8_AGREEMENT = 0.95  # for int8: the same share, as far as the number of images can tell
UNLIKE_AGREEMENT = {"float16": 0.99, "int8": 0.95}  # share of images that both or neither find unlike
UNLIKE_FOUND = 0.5  # share of the images that Keras finds unlike which the file must find unlike, too
VECTORS = 20  # real images among the test vectors
MAX_DROP = 0.5  # for int8: points of validation accuracy that may be lost

Precision = Literal["float32", "float16", "int8"]


class Questions(NamedTuple):
    """The images that every file is asked about, and what Keras answers."""

    images: np.ndarray  # (n, H, W, 3) uint8: real and edge ones, then all validation, then all test
    expected: np.ndarray  # (n, classes) float32
    edges: slice
    validation: slice
    labels: np.ndarray  # of the validation images; those of the test images are never read
    calibration: np.ndarray  # (m, H, W, 3) uint8 training images
    distances: np.ndarray | None = None  # (n,) float32; None if the model knows no distance
    distance_threshold: float | None = None  # images with a greater distance are unlike the training images

    @property
    def vectors(self) -> np.ndarray:
        """The indices of the test vectors: 20 real images and all edge ones."""
        real = np.arange(min(VECTORS, self.edges.start))
        return np.concatenate([real, np.arange(self.edges.start, self.edges.stop)])


def fewer(questions: Questions, count: int) -> Questions:
    """Return the test vectors and `count` validation images, for a runtime that is too slow for all images."""
    start, stop = questions.validation.start, questions.validation.stop
    chosen = spread(stop - start, count)
    indices = np.concatenate([questions.vectors, start + chosen])
    vectors, edges = len(questions.vectors), questions.edges.stop - questions.edges.start
    return questions._replace(
        images=questions.images[indices],
        expected=questions.expected[indices],
        edges=slice(vectors - edges, vectors),
        validation=slice(vectors, len(indices)),
        labels=questions.labels[chosen],
        distances=None if questions.distances is None else questions.distances[indices],
    )


def judge(
    name: str,
    precision: Precision,
    answers: dict[int, np.ndarray],
    questions: Questions,
    max_drop: float,
    classes: Sequence[str],
) -> Judgement:
    """Return how the answers of an exported file compare with Keras'.

    Args:
        name: of the file, for messages.
        precision: decides how much the answers may differ.
        answers: {batch size: probabilities of the first images}; those of the largest batch size are of all images.
        questions: the images and Keras' answers.
        max_drop: points of validation accuracy that int8 may surely cost.
        classes: names, for messages.

    Raises:
        ParityError: the answers differ from Keras' by more than the precision allows.
    """
    expected, within = questions.expected, questions.validation
    found = answers[max(answers)]
    require_probabilities(name, answers, expected)
    whole = compare(found, expected)
    # Test images count by their likeliest class only.
    differences = {
        size: compare(rows[: within.stop], expected[: min(len(rows), within.stop)]).largest
        for size, rows in answers.items()
    }
    right, before = (rows[within].argmax(axis=1) == questions.labels for rows in (found, expected))
    judgement: Judgement = {
        "max_difference": max(differences.values()),
        "agreement": whole.agreement,
        "compared": len(expected),
        "validation_n": len(right),
        "validation_accuracy": float(right.mean()) if len(right) else None,
        "source_accuracy": float(before.mean()) if len(right) else None,
    }
    if precision == "float32":
        require_equal(name, differences, whole.agreement, len(expected))
        return judgement
    apart = max(compare(rows, found[: len(rows)]).largest for rows in answers.values())
    if not apart <= TOLERANCE:
        raise ParityError(f"{name} is not written: its probabilities differ by {apart:.2g} between batch sizes.")
    if precision == "float16" and whole.agreement < AGREEMENT:
        raise ParityError(
            f"{name} is not written: it names the class that the model names for {whole.agreement:.2%} of "
            f"{count(len(expected), 'image')}; float16 must reach {AGREEMENT:.1%}."
        )
    if precision == "int8":
        require_agreement(name, found, questions)
        if len(right):
            add_drop(name, judgement, right, before, questions.labels, max_drop, classes)
    return judgement


def judge_distances(
    name: str, precision: Precision, judgement: Judgement, distances: dict[int, np.ndarray], questions: Questions
) -> None:
    """Add to `judgement` how the distances of an exported file compare with Keras'.

    The decision counts: whether the distance is above the threshold. Most images are like the training images, so a
    file that finds no image unlike would agree on most of them. Therefore a file must also find unlike half of the
    images that Keras finds unlike.

    Args:
        name: of the file, for messages.
        precision: decides how much the distances may differ.
        judgement: gets max_distance_difference and unlike_agreement.
        distances: {batch size: distances of the first images}; those of the largest batch size are of all images.
        questions: the images and Keras' distances, which the model knows.

    Raises:
        ParityError: the distances differ from Keras' by more than the precision allows.
    """
    expected, threshold, stop = questions.distances, questions.distance_threshold, questions.validation.stop
    if expected is None or threshold is None:
        raise ParityError(f"{name} is not written: it has the output distance, which the model does not have.")
    found = distances[max(distances)]
    largest = max(farthest(rows[:stop], expected[: min(len(rows), stop)]) for rows in distances.values())
    apart = max(farthest(rows, found[: len(rows)]) for rows in distances.values())
    if not np.isfinite([largest, apart]).all() or found.shape != expected.shape or found.dtype != np.float32:
        raise ParityError(
            f"{name} is not written: its distances are {found.dtype} of shape {found.shape}, or not finite; expected "
            f"float32 of shape {expected.shape}."
        )
    far, said = expected > threshold, found > threshold
    judgement["max_distance_difference"] = largest
    judgement["unlike_agreement"] = agreement = float((far == said).mean())
    if precision == "float32":
        if largest > TOLERANCE:
            raise ParityError(
                f"{name} is not written: its distances differ from the model's by {largest:.2g}; float32 may differ by "
                f"{TOLERANCE:g}."
            )
        return
    if apart > TOLERANCE:
        raise ParityError(f"{name} is not written: its distances differ by {apart:.2g} between batch sizes.")
    if agreement < UNLIKE_AGREEMENT[precision]:
        raise ParityError(
            f"{name} is not written: it agrees with the model for {agreement:.2%} of {count(len(found), 'image')} on "
            f"whether they are unlike the training images; {precision} must reach {UNLIKE_AGREEMENT[precision]:.0%}."
        )
    if (far & said).sum() < UNLIKE_FOUND * far.sum():
        raise ParityError(
            f"{name} is not written: the model finds {count(int(far.sum()), 'image')} unlike the training images, and "
            f"it finds {int((far & said).sum()):,} of them; {precision} must find {UNLIKE_FOUND:.0%}."
        )


def require_probabilities(name: str, answers: dict[int, np.ndarray], expected: np.ndarray) -> None:
    """Raise ParityError unless the answers are finite float32 probabilities of the expected shape."""
    found = answers[max(answers)]
    if not np.isfinite(compare(found, expected).largest) or found.dtype != np.float32:
        raise ParityError(
            f"{name} is not written: it answers {found.dtype} of shape {found.shape}, or numbers that are not finite; "
            f"expected float32 of shape {expected.shape}."
        )
    for rows in answers.values():
        if why := why_not_probabilities(rows):
            raise ParityError(f"{name} is not written: its answers are not probabilities: {why}.")


def require_equal(name: str, differences: dict[int, float], agreement: float, n: int) -> None:
    """Raise ParityError unless float32 answers equal Keras' up to rounding, for every batch size."""
    if not max(differences.values()) <= TOLERANCE:
        batches = ", ".join(f"{value:.2g} in batches of {size}" for size, value in differences.items())
        raise ParityError(
            f"{name} is not written: its probabilities differ from the model's by {batches}; float32 may differ by "
            f"{TOLERANCE:g}."
        )
    if agreement < 1:
        other = round((1 - agreement) * n)
        raise ParityError(f"{name} is not written: for {other:,} of {count(n, 'image')} it names another class.")


def require_agreement(name: str, found: np.ndarray, questions: Questions) -> None:
    """Raise ParityError if int8 surely names other classes than Keras too often, on all real images.

    This needs no label, so it counts more images than the accuracy does. Edge images have no class, so they do not
    count.
    """
    real = np.delete(np.arange(len(found)), questions.edges)
    agreement = compare(found[real], questions.expected[real]).agreement
    low, high = share_interval(round(agreement * len(real)), len(real))
    if high < INT8_AGREEMENT:
        raise ParityError(
            f"{name} is not written: it names the class that the model names for {agreement:.1%} of "
            f"{count(len(real), 'image')} (95 %: {low:.1%} to {high:.1%}); int8 must reach {INT8_AGREEMENT:.0%}."
        )


def add_drop(
    name: str,
    judgement: Judgement,
    right: np.ndarray,
    before: np.ndarray,
    labels: np.ndarray,
    max_drop: float,
    classes: Sequence[str],
) -> None:
    """Add to `judgement` what int8 costs on the validation images; raise ParityError if it surely costs too much.

    "Surely" means that the whole interval lies above the limit. Else one changed answer would decide where there are
    few images: one of 20 is 5 points.

    Args:
        name: of the file, for messages.
        judgement: gets drop, drop_interval and hurt_most.
        right: (n,) bool, whether the file is right.
        before: (n,) bool, whether Keras is right.
        labels: (n,) integers.
        max_drop: points of accuracy that int8 may cost.
        classes: names.
    """
    drop = paired(int((right & ~before).sum()), int((before & ~right).sum()), len(labels))
    hurt = sorted(
        ((float(before[labels == i].mean() - right[labels == i].mean()), i) for i in np.unique(labels).tolist()),
        reverse=True,
    )
    judgement["drop"], judgement["drop_interval"] = drop.value, [drop.low, drop.high]
    judgement["hurt_most"] = [{"class": classes[i], "drop": value} for value, i in hurt[:3] if value > 0]
    if drop.low * 100 > max_drop:
        worst = ", ".join(f"{each['class']} {each['drop'] * 100:.1f}" for each in judgement["hurt_most"])
        raise ParityError(
            f"{name} is not written: on {count(len(labels), 'validation image')} it is {drop.value * 100:.2f} points "
            f"less accurate than the model (95 %: {drop.low * 100:.2f} to {drop.high * 100:.2f}), and {max_drop:g} are "
            f"allowed. These classes lose most, in points: {worst}. --max-drop changes the limit."
        )
