"""Labels that are probably wrong: the confident joint of held-out probabilities. Imports no framework.

Northcutt, Jiang, Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels" (J. Artificial
Intelligence Research 70): an image counts as class j if the model gives j at least the probability that it gives j on
average on the images labelled j. An image that counts as another class than its label is a suspect. The probabilities
must come from a model that was not trained on the image: a model that has memorised a wrong label never reveals it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from onsight.core.errors import OnsightError
from onsight.core.evaluation_records import LabelErrors, Suspect
from onsight.core.files import write_atomic, write_json
from onsight.core.text import count, percent
from onsight.imaging import decode
from onsight.metrics.predictions_csv import Predictions, read_predictions
from onsight.metrics.scores import fit_temperature, with_temperature
from onsight.runs.run import Run, list_runs, read_evaluations
from onsight.training.calibrate import not_fitted

METHOD = (
    "calibrated probabilities; confident joint of held-out probabilities (Northcutt, Jiang, Chuang 2021), limited to "
    "images for which the model prefers another class; ranked by the probability of the label minus that of the "
    "suggested class"
)
SHOWN = 60  # suspects that get a thumbnail
EXPECTED = (
    "Expect most of them to be right: of 265 such labels of CIFAR-10's test images, suspected by a model that is right "
    "on 90 %, people did not confirm 19, about one in fourteen."
)
MOST_PROBABILITIES = 50_000_000  # of a table that is searched: several copies in float64 are made of it
OTHERS = 4  # further runs whose answers are averaged with those of a run, at most
LEAST_ACCURACY = 0.8  # of a model whose objections are listed; docs/decisions/evaluation.md has the figures


class Suspects(NamedTuple):
    """Images whose labels are probably wrong, the most suspicious first."""

    images: np.ndarray  # (k,) int64: indices into the n images
    suggested: np.ndarray  # (k,) int64: the class that each image counts as


def find_suspects(labels: np.ndarray, probabilities: np.ndarray) -> Suspects:
    """Return the suspects among n images with `labels` (n,) int and held-out `probabilities` (n, C).

    An image is not a suspect if its label is the model's likeliest class, whatever the image counts as. Suspects are
    ranked by their normalised margin: the probability of the label minus the largest other one (the paper's appendix).
    """
    counted = count_as(labels, probabilities)
    index = np.flatnonzero((counted >= 0) & (counted != labels) & (probabilities.argmax(axis=1) != labels))
    rows, own = probabilities[index], labels[index]
    margin = rows[np.arange(len(index)), own] - np.where(
        np.arange(probabilities.shape[1]) == own[:, None], -np.inf, rows
    ).max(axis=1, initial=-np.inf)
    order = np.argsort(margin, kind="stable")
    return Suspects(index[order], counted[index[order]])


def count_as(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return (n,) the class that each image counts as: the likeliest that reaches its threshold, or -1 if none does.

    The threshold of a class is the mean of its probability over the images with its label. A class without images has
    no threshold, and no image counts as it.
    """
    present = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, probabilities[np.arange(len(labels)), labels], minlength=len(present))
    thresholds = np.divide(sums, present, out=np.full(len(present), np.inf), where=present > 0)
    # A probability that equals the threshold up to rounding reaches it. This matters if a model gives all images of a
    # class the same probability.
    reached = np.where(probabilities >= thresholds - 1e-6, probabilities, -1.0)
    return np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)


def calibrated(table: Predictions) -> Predictions:
    """Return the predictions at the temperature that suits them, if they can show one.

    The thresholds of `count_as` are probabilities, and an over-confident model reaches them too often.
    """
    if not_fitted(table.probabilities.argmax(axis=1) == table.labels):
        return table
    temperature = fit_temperature(np.log(np.maximum(table.probabilities, 1e-12)), table.labels)
    return table._replace(probabilities=with_temperature(table.probabilities, temperature))


def averaged(run: Run, scored: Predictions) -> tuple[Predictions, int]:
    """Return the calibrated answers to the test images of a run, averaged over the runs beside it, and their number.

    Those runs count that were scored on the same images and labels, and are good enough: the newest four.
    """
    if scored.probabilities.size > MOST_PROBABILITIES:
        return scored, 1
    answers = [calibrated(scored)]
    for other in reversed(list_runs(run.folder.parent)):
        with contextlib.suppress(OnsightError):  # a damaged run beside this one changes nothing
            if other.folder.resolve() == run.folder.resolve() or "test" not in read_evaluations(other):
                continue
            found = read_predictions(other.evaluation_folder() / "predictions.csv")
            same = found.names == scored.names and found.classes == scored.classes
            if same and np.array_equal(found.labels, scored.labels) and not not_listed(found):
                answers.append(calibrated(found))
        if len(answers) > OTHERS:
            break
    return scored._replace(probabilities=np.mean([each.probabilities for each in answers], axis=0)), len(answers)


def write_label_errors(
    folder: Path,
    tables: Sequence[tuple[Predictions, Sequence[str]]],
    names: Sequence[str],
    draw: Callable[[int], np.ndarray],
    runs: int = 1,
) -> LabelErrors:
    """Write label_errors.json and thumbnails into an evaluation's `folder`; return the content of the file.

    Each table is searched on its own, because different models made the predictions. Then all suspects are ranked
    together. The file has `method`, `checked` (the number of images), `runs`, `expected` (in words, which share of the
    suspects is probably wrong), and `suspects`: path, part, label, suggested, probability_of_label,
    probability_of_suggested, and for the first 60 `thumbnail`, the path of a WebP file relative to the folder. A table
    of a model that is too often wrong is not searched (see `not_listed`): its images do not count as checked, and
    `not_listed` gives the reason.

    Args:
        folder: of the evaluation.
        tables: held-out predictions, each with the part of the data set that every image is in.
        names: the names of all images of the data set.
        draw: returns image i of the data set, (H, W, 3) uint8.
        runs: how many runs made the first table.
    """
    suspects: list[Suspect] = []
    index = {name: i for i, name in enumerate(names)}
    reasons, checked = [], 0
    for table, parts in tables:
        if reason := not_listed(table):
            reasons.append(reason)
            continue
        checked += len(table.names)
        table = calibrated(table)
        found = find_suspects(table.labels, table.probabilities)
        for i, suggested in zip(found.images.tolist(), found.suggested.tolist(), strict=True):
            if table.names[i] not in index:  # removed or renamed since the folds were predicted: settled
                continue
            label = int(table.labels[i])
            suspects.append(
                {
                    "path": table.names[i],
                    "part": parts[i],
                    "label": table.classes[label],
                    "suggested": table.classes[suggested],
                    "probability_of_label": round(float(table.probabilities[i, label]), 6),
                    "probability_of_suggested": round(float(table.probabilities[i, suggested]), 6),
                }
            )
    suspects.sort(key=lambda each: each["probability_of_label"] - each["probability_of_suggested"])
    place = folder / "label_errors"
    shutil.rmtree(place, ignore_errors=True)  # of an earlier evaluation
    place.mkdir()
    for number, each in enumerate(suspects[:SHOWN], start=1):
        each["thumbnail"] = f"label_errors/{number:02}.webp"
        write_atomic(folder / each["thumbnail"], decode.thumbnail(draw(index[each["path"]])))
    record: LabelErrors = {
        "method": METHOD,
        "checked": checked,
        "runs": runs,
        "expected": EXPECTED,
        "suspects": suspects,
    }
    if reasons:
        record["not_listed"] = reasons
    write_json(folder / "label_errors.json", record)
    return record


def not_listed(table: Predictions) -> str:
    """Return why no label is suspected from these predictions, or an empty string if the model is good enough."""
    n = len(table.labels)
    if table.probabilities.size > MOST_PROBABILITIES:
        return f"not listed: {n:,} images of {len(table.classes):,} classes take more memory than this search may use"
    right = int((table.probabilities.argmax(axis=1) == table.labels).sum())
    if not n or right / n >= LEAST_ACCURACY:
        return ""
    return (
        f"not listed: the model is wrong on {percent(1 - right / n)} of {count(n, 'image')}, so most of its objections "
        f"would be false (it may be wrong on {percent(1 - LEAST_ACCURACY)} at most)"
    )
