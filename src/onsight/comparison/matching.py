"""The predictions of several runs for the same test images, matched by path, from their predictions.csv."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onsight.core.errors import DataError, RunError, SpecError
from onsight.core.files import argument
from onsight.core.text import count, times
from onsight.metrics.predictions_csv import read_predictions
from onsight.runs.run import Run, read_evaluations


@dataclass(frozen=True, eq=False)
class Answers:
    """The predictions of R runs for the same n images of C classes."""

    names: list[str]  # n paths
    classes: list[str]  # C names
    labels: np.ndarray  # (n,) indices into classes
    predicted: np.ndarray  # (R, n) indices into classes
    right: np.ndarray  # (R, n) bool
    confidence: np.ndarray  # (R, n) probability of the predicted class
    label_probability: np.ndarray  # (R, n) probability of the label


def label_runs(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run: the name of its folder, or the path if several folders have the same name.

    Raises:
        SpecError: there are fewer than two runs, or a run is given twice.
        RunError: a run has not been evaluated on its test set.
    """
    if len(runs) < 2:
        raise SpecError("One run cannot be compared: give two or more, as in onsight compare RUN RUN")
    places = Counter(run.folder.resolve() for run in runs)
    for place, uses in places.items():
        if uses > 1:
            raise SpecError(f"{place} is given {times(uses)}; a run cannot be compared with itself.")
    missing = [
        run
        for run in runs
        if "test" not in read_evaluations(run) or not (run.evaluation_folder() / "predictions.csv").is_file()
    ]
    if missing:
        commands = "\n".join(f"  onsight evaluate {argument(run.folder)}" for run in missing)
        raise RunError(
            f"{len(missing)} of {len(runs)} runs {'has' if len(missing) == 1 else 'have'} not been evaluated on the "
            f"test set. Evaluate first:\n{commands}"
        )
    names = Counter(run.name for run in runs)
    return [run.name if names[run.name] == 1 else str(run.folder) for run in runs]


def match(runs: Sequence[Run], labels: Sequence[str], common: bool) -> tuple[Answers, list[str]]:
    """Return the predictions of the runs for the same images, and notes.

    Images are matched by path, in the order of the first run.

    Args:
        runs: evaluated runs.
        labels: their names.
        common: use the images that all runs were tested on, instead of refusing runs tested on different images.

    Raises:
        DataError: the images differ (with `common`: no image is common to all), or their labels differ.
    """
    tables = [read_predictions(run.evaluation_folder() / "predictions.csv") for run in runs]
    places = [{name: i for i, name in enumerate(table.names)} for table in tables]
    shared = set.intersection(*(set(place) for place in places))
    names = [name for name in tables[0].names if name in shared]
    most = max(len(place) for place in places)
    notes = []
    if not names or (not common and most > len(names)):
        few = f"only {len(names):,} of {most:,} are" if names else f"none of {most:,} is"
        fix = "To compare on these alone: --common" if names else "Evaluate the runs on the same data."
        raise DataError(f"The runs were tested on different images: {few} common to all. {fix}")
    if most > len(names):
        notes.append(
            f"Compared on the {len(names):,} images that all runs were tested on, matched by path. The largest test "
            f"set has {most:,} images."
        )
    digests = [(run.dataset.get("digests") or {}).get("test") for run in runs]
    known = {digest for digest in digests if digest}
    if not common and len(known) > 1:
        raise DataError(
            "The runs were tested on images with the same names but different content: "
            + " and ".join(f"{label} ({digest[:8]})" for label, digest in zip(labels, digests, strict=True) if digest)
            + ". If this is intended, --common matches them by name alone."
        )
    classes = sorted({name for table in tables for name in table.classes})
    rows = []
    for label, table, place in zip(labels, tables, places, strict=True):
        index = np.array([place[name] for name in names])
        class_numbers = np.array([classes.index(name) for name in table.classes])
        probabilities, truth = table.probabilities[index], table.labels[index]
        rows.append(
            (
                class_numbers[truth],
                class_numbers[probabilities.argmax(axis=1)],
                probabilities.max(axis=1),
                probabilities[np.arange(len(index)), truth],
            )
        )
        other = np.flatnonzero(rows[-1][0] != rows[0][0])
        if len(other):
            i = int(other[0])
            raise DataError(
                f"The labels of the images differ between the runs: '{names[i]}' is {classes[rows[0][0][i]]} for "
                f"{labels[0]} and {classes[rows[-1][0][i]]} for {label} ({count(len(other), 'image')} in total). "
                "Evaluate both runs on the same labels."
            )
    truth = rows[0][0]
    predicted, confidence, label_probability = (np.stack(column) for column in list(zip(*rows, strict=True))[1:])
    return Answers(names, classes, truth, predicted, predicted == truth, confidence, label_probability), notes
