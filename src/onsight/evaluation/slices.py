"""Predictions -> accuracy in parts of the images: by class, brightness, size, file type and the user's own columns.

Many small slices invite false alarms: of a hundred that are no different, five lie outside their 95 % interval, and the
smallest lie farthest out. So slices are ordered by an upper bound, "at best so good", that is exact for the smallest
(Clopper and Pearson 1934) and widened for the number of slices (Bonferroni); one counts as worse than the rest only
where that bound lies below the lower one of all other images. (Wilson's bounds, which are shown, are too tight for
this: among 100 alike slices of 10 to 50 images at 99 % accuracy they accused one in 19 of 200 trials.)
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np

from onsight.core.errors import DataError, ImageError
from onsight.core.records import Slice, Slices
from onsight.data.dataset import Dataset

FIFTHS = ("darkest fifth", "second darkest fifth", "middle fifth", "second brightest fifth", "brightest fifth")
SIDES = (32, 64, 128, 256, 512, 1024, 2048)  # pixels: where a class of original sizes ends
MOST_VALUES = 200  # of a user's text column; more are names, not groups
NUMBERS = 12  # a user's column with more different numbers than this is cut into fifths
KINDS = {"jpg": "JPEG", "jpeg": "JPEG", "jfif": "JPEG", "tif": "TIFF", "webp": "WebP"}

Columns = dict[str, list[str]]  # what a slice is by -> n values, "" where nobody knows


def measure(right: np.ndarray, columns: Columns) -> Slices:
    """Return what slices.json holds: {"slices": [...]}, the one with the lowest upper bound first.

    Each slice has by, value, n, correct, accuracy, low and high (95 % Wilson), and worse: whether it lies below the
    rest for certain, as this module's text says. A column with a single value is left out: it slices nothing.

    Args:
        right: (n,) bool, whether the answer was right.
        columns: n values each.
    """
    from scipy.special import betaincinv

    groups: list[
        tuple[str, str, int, int, int, int]
    ] = []  # (by, value, n, correct, n of the rest, correct of the rest)
    for by, values in columns.items():
        every = np.asarray(values, dtype=str)
        known = every != ""
        names, which = np.unique(every[known], return_inverse=True)
        if len(names) > 1:
            counts = np.bincount(which)
            hits = np.bincount(which, right[known]).astype(np.int64)
            groups += zip(
                [by] * len(names), names.tolist(), counts.tolist(), hits.tolist(),
                (counts.sum() - counts).tolist(), (hits.sum() - hits).tolist(), strict=True,
            )  # fmt: skip
    if not groups:
        return {"slices": []}
    n, correct, others, right_others = np.array([group[2:] for group in groups]).T
    low, high = wilson_bounds(correct, n)
    tail = 0.025 / len(groups)
    at_best = np.where(correct < n, betaincinv(correct + 1, np.maximum(n - correct, 1), 1 - tail), 1.0)
    rest = np.where(right_others > 0, betaincinv(np.maximum(right_others, 1), others - right_others + 1, tail), 0.0)
    worse = at_best < rest
    rows: list[Slice] = [
        {
            "by": by, "value": value, "n": count, "correct": hits, "accuracy": hits / count,
            "low": float(low[i]), "high": float(high[i]), "worse": bool(worse[i]),
        }
        for i, (by, value, count, hits, *_) in enumerate(groups)
    ]  # fmt: skip
    return {"slices": [rows[i] for i in np.argsort(at_best, kind="stable").tolist()]}


def wilson_bounds(correct: np.ndarray, n: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of many Wilson intervals at once; `metrics.wilson` takes a millisecond for each.

    With share p and z the normal quantile: (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n) (Wilson 1927).

    Args:
        correct: (m,) counts.
        n: (m,) of how many, at least 1.
        confidence: of two sides.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / n
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(0, (middle - half) / (1 + z**2 / n)), np.minimum(1, (middle + half) / (1 + z**2 / n))


def describe(dataset: Dataset, index: np.ndarray, labels: Sequence[str], images: np.ndarray) -> Columns:
    """Return the columns that need no file of the user's, for the images in `index`.

    Args:
        dataset: where they are from; original sizes and types are known where it comes as files.
        index: (n,) which of it.
        labels: n class names.
        images: (all, H, W, 3) uint8, as the network sees them.
    """
    columns: Columns = {"class": list(labels), "brightness": brightness(images, index)}
    if dataset.reader is not None:
        columns["original size"] = [size(dataset, position) for position in index.tolist()]
        columns["file type"] = [kind(dataset.names[position]) for position in index.tolist()]
    return columns


def brightness(images: np.ndarray, index: np.ndarray) -> list[str]:
    """Return which fifth each image is in by its mean luma (Rec. 601); equally bright ones are in the same."""
    step = 1024
    parts = [images[index[start : start + step]].mean(axis=(1, 2)) for start in range(0, len(index), step)]
    luma = np.concatenate(parts) @ np.array([0.299, 0.587, 0.114])
    return [FIFTHS[fifth] for fifth in _fifths(luma)]


def size(dataset: Dataset, position: int) -> str:
    """Return the class of a file's shorter side, "65 to 128 px", or "" where its header does not tell."""
    from onsight.imaging import decode

    try:
        side = decode.shorter_side(dataset.read(position))
    except ImageError:
        return ""
    at = int(np.searchsorted(SIDES, side))
    if at == len(SIDES):
        return f"over {SIDES[-1]} px"
    return f"{SIDES[at - 1] + 1} to {SIDES[at]} px" if at else f"up to {SIDES[0]} px"


def kind(name: str) -> str:
    """Return a file's type by its suffix."""
    suffix = Path(name).suffix.lower().removeprefix(".")
    return KINDS.get(suffix, suffix.upper())


def read_columns(path: Path, names: Sequence[str]) -> Columns:
    """Return the user's own columns of a CSV, in the order of `names`, "" where it does not mention an image.

    The CSV has a column `path`, written as in predictions.csv or, where that has absolute paths, relative to the CSV's
    own folder; every other column is one to slice by. One of more than twelve different numbers is cut into fifths.

    Args:
        path: of the CSV; UTF-8.
        names: n names of images.

    Raises:
        DataError: it cannot be read, has no such columns, names none of the images or has too many different texts.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file, strict=True)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(f"{path} cannot be read as a CSV in UTF-8 ({reason}).") from error
    header = [cell.strip() for cell in header]
    lower = [cell.lower() for cell in header]
    if lower.count("path") != 1 or len(header) < 2 or len(set(lower)) < len(lower):
        raise DataError(
            f"{path}, line 1: expected the column path and one or more columns to slice by, each once; "
            f"found '{','.join(header)[:80]}'."
        )
    at = lower.index("path")
    known: dict[str, list[str]] = {}
    for line, row in enumerate(filter(None, rows), start=2):
        if len(row) != len(header):
            raise DataError(f"{path}: row {line} has {len(row)} cells, expected {len(header)}.")
        known[_plain_path(row[at])] = [cell.strip() for cell in row]
    found = [known.get(_plain_path(name)) or known.get(_relative(name, path)) for name in names]
    if not any(found):
        raise DataError(
            f"{path} names none of the {len(names):,} images. Its first path is '{next(iter(known), '')}'; "
            f"one of the images' is '{names[0]}'. Write them as predictions.csv does."
        )
    columns = {}
    for i, name in enumerate(header):
        if i != at:
            columns[name] = _grouped([row[i] if row else "" for row in found], name, path)
    return columns


def _grouped(values: list[str], name: str, path: Path) -> list[str]:
    """Return a user's column as it is, or cut into fifths where it holds many different numbers."""
    different = set(values) - {""}
    if len(different) > NUMBERS:
        try:
            numbers = np.array([float(value) if value else np.nan for value in values])
        except ValueError:
            numbers = np.array([])
        known = np.isfinite(numbers)
        if known.any():
            fifths = np.full(len(values), -1)
            fifths[known] = _fifths(numbers[known])
            texts = {-1: ""}
            for fifth in np.unique(fifths[known]).tolist():
                inside = numbers[fifths == fifth]
                texts[fifth] = f"{inside.min():g} to {inside.max():g}"
            return [texts[fifth] for fifth in fifths.tolist()]
    if len(different) > MOST_VALUES:
        raise DataError(
            f"{path}: the column '{name}' has {len(different):,} different texts; at most {MOST_VALUES} make slices. "
            "Group them, or leave the column out."
        )
    return values


def _fifths(values: np.ndarray) -> list[int]:
    """Return which fifth (0 to 4) each value is in; equal values are in the same."""
    edges = np.quantile(values, [0.2, 0.4, 0.6, 0.8])
    return [int(fifth) for fifth in np.searchsorted(edges, values, side="left")]


def _plain_path(name: str) -> str:
    return name.strip().replace("\\", "/").removeprefix("./")


def _relative(name: str, path: Path) -> str:
    """Return an image's absolute name as the CSV beside it would write it."""
    try:
        return _plain_path(str(Path(name).relative_to(path.resolve().parent)))
    except ValueError:
        return ""
