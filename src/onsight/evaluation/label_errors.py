"""Labels that are probably wrong: the confident joint of held-out probabilities. NumPy only.

Northcutt, Jiang, Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels" (J. Artificial
Intelligence Research 70): an image counts as class j where the model gives j at least the probability that it gives,
on average, to the images labelled j. Those that count as another class than their label says are suspects. The
probabilities must come from a model that was not trained on the image: one learned by heart is never suspected.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from onsight.core.files import write_atomic, write_json
from onsight.core.records import LabelErrors, Suspect
from onsight.imaging import decode
from onsight.metrics.predictions_csv import Predictions

METHOD = (
    "confident joint of held-out probabilities (Northcutt, Jiang, Chuang 2021), where the model prefers another class; "
    "ranked by probability of the label less that of the suggested class"
)
SHOWN = 60  # thumbnails


class Suspects(NamedTuple):
    """Images whose labels are probably wrong, the likeliest first."""

    images: np.ndarray  # (k,) int64: which of the n
    suggested: np.ndarray  # (k,) int64: the class that they count as


def find_suspects(labels: np.ndarray, probabilities: np.ndarray) -> Suspects:
    """Return the suspects among n images with `labels` (n,) int and held-out `probabilities` (n, C).

    An image whose own label is the model's first choice is none, whatever it counts as. They are ranked by their
    normalised margin, the probability of the label less the largest other one (the paper's appendix).
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
    """Return (n,) the class that each image counts as, -1 where none reaches its threshold; of several the likeliest.

    The threshold of a class is the mean probability that images with its label give it; a class without images has
    none, and nothing counts as it.
    """
    present = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, probabilities[np.arange(len(labels)), labels], minlength=len(present))
    thresholds = np.divide(sums, present, out=np.full(len(present), np.inf), where=present > 0)
    # Equal up to rounding counts as reached, as where a model gives every image of a class the same.
    reached = np.where(probabilities >= thresholds - 1e-6, probabilities, -1.0)
    return np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)


def write_label_errors(
    folder: Path, tables: Sequence[tuple[Predictions, Sequence[str]]], names: Sequence[str], images: np.ndarray
) -> int:
    """Write label_errors.json into an evaluation's `folder`, with small images; return how many suspects there are.

    Each table is searched alone, because another model answered; the suspects are then ranked together. The file has
    `method`, `checked` (images), and `suspects`: path, part, label, suggested, probability_of_label,
    probability_of_suggested, and for the first 60 `thumbnail`, a WebP file's path below the folder.

    Args:
        folder: of the evaluation.
        tables: held-out predictions, and the part of the data set that each image is in.
        names: of all images of the data set.
        images: (len(names), H, W, 3) uint8.
    """
    suspects: list[Suspect] = []
    index = {name: i for i, name in enumerate(names)}
    for table, parts in tables:
        found = find_suspects(table.labels, table.probabilities)
        for i, suggested in zip(found.images.tolist(), found.suggested.tolist(), strict=True):
            if table.names[i] not in index:  # removed or renamed since folds were predicted: dealt with
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
        write_atomic(folder / each["thumbnail"], decode.thumbnail(images[index[each["path"]]]))
    checked = sum(len(table.names) for table, _ in tables)
    record: LabelErrors = {"method": METHOD, "checked": checked, "suspects": suspects}
    write_json(folder / "label_errors.json", record)
    return len(suspects)
