"""What several runs said about the same test images, matched by path, from their predictions.csv."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onsight.core.errors import DataError, RunError, SpecError
from onsight.metrics.predictions_csv import read_predictions
from onsight.runs.run import Run, read_evaluations


@dataclass(frozen=True, eq=False)
class Answers:
    """What the runs said about the same images: R runs, n images, C classes."""

    names: list[str]  # n paths
    classes: list[str]  # C
    labels: np.ndarray  # (n,) indices into classes
    predicted: np.ndarray  # (R, n) indices into classes
    right: np.ndarray  # (R, n) bool
    confidence: np.ndarray  # (R, n) of the predicted class
    own: np.ndarray  # (R, n) probability of the label


def label_runs(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run: its folder's, with the folders above where two are called alike."""
    if len(runs) < 2:
        raise SpecError("There is one run, and it takes two or more to compare: onsight compare RUN RUN")
    places = Counter(run.folder.resolve() for run in runs)
    for place, count in places.items():
        if count > 1:
            raise SpecError(f"{place} was given {count} times; a run cannot be compared with itself.")
    lacking = [
        run
        for run in runs
        if "test" not in read_evaluations(run) or not (run.evaluation_folder() / "predictions.csv").is_file()
    ]
    if lacking:
        commands = "\n".join(f"  onsight evaluate {run.folder}" for run in lacking)
        raise RunError(
            f"{len(lacking)} of {len(runs)} runs have not been evaluated on their test set. First:\n{commands}"
        )
    names = Counter(run.name for run in runs)
    return [run.name if names[run.name] == 1 else str(run.folder) for run in runs]


def match(runs: Sequence[Run], labels: Sequence[str], common: bool) -> tuple[Answers, list[str]]:
    """Return what the runs said about the same images, matched by path, in the first run's order; and notes.

    Raises DataError where the images differ (with `common`: where none is common), or their labels do.
    """
    tables = [read_predictions(run.evaluation_folder() / "predictions.csv") for run in runs]
    places = [{name: i for i, name in enumerate(table.names)} for table in tables]
    shared = set.intersection(*(set(place) for place in places))
    names = [name for name in tables[0].names if name in shared]
    most = max(len(place) for place in places)
    notes = []
    if not names or (not common and most > len(names)):
        few = f"only {len(names):,} of {most:,} are" if names else f"none of {most:,} is"
        mend = "Compare on those alone: --common" if names else "Evaluate them on the same data."
        raise DataError(f"The runs were tested on different images: {few} common to all. {mend}")
    if most > len(names):
        notes.append(
            f"Compared on the {len(names):,} images that all were tested on, matched by path; the largest of the "
            f"test sets has {most:,}."
        )
    digests = [(run.dataset.get("digests") or {}).get("test") for run in runs]
    known = {digest for digest in digests if digest}
    if not common and len(known) > 1:
        raise DataError(
            "The runs were tested on images of the same names and different content: "
            + " and ".join(f"{label} ({digest[:8]})" for label, digest in zip(labels, digests, strict=True) if digest)
            + ". Where that is meant: --common matches them by name alone."
        )
    classes = sorted({name for table in tables for name in table.classes})
    rows = []
    for label, table, place in zip(labels, tables, places, strict=True):
        index = np.array([place[name] for name in names])
        meant = np.array([classes.index(name) for name in table.classes])
        probabilities, truth = table.probabilities[index], table.labels[index]
        rows.append(
            (
                meant[truth],
                meant[probabilities.argmax(axis=1)],
                probabilities.max(axis=1),
                probabilities[np.arange(len(index)), truth],
            )
        )
        other = np.flatnonzero(rows[-1][0] != rows[0][0])
        if len(other):
            i = int(other[0])
            raise DataError(
                f"The runs do not agree on what the images show: '{names[i]}' is {classes[rows[0][0][i]]} for "
                f"{labels[0]} and {classes[rows[-1][0][i]]} for {label} ({len(other):,} such images). They were "
                "trained on different labels; evaluate both on the same."
            )
    truth = rows[0][0]
    predicted, confidence, own = (np.stack(column) for column in list(zip(*rows, strict=True))[1:])
    return Answers(names, classes, truth, predicted, predicted == truth, confidence, own), notes
