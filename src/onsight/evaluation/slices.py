"""Slices: the accuracy in parts of the images, by class, brightness, size, file type and the user's own columns.

Many small slices cause false alarms: of a hundred slices of equal accuracy, five lie outside their 95 % interval, and
the smallest lie farthest outside. So a slice counts as worse than the rest of its column only by Fisher's exact test
(one-sided), corrected for the number of slices (Holm 1979), and slices are ordered by an upper bound of their accuracy
that is widened for that number (Clopper and Pearson 1934, Bonferroni).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onsight.core.errors import DataError
from onsight.core.evaluation_records import Slice, Slices
from onsight.core.text import count
from onsight.data.dataset import Dataset
from onsight.data.pixel_cache import Pixels
from onsight.metrics.distributions import hypergeometric_cdf
from onsight.metrics.intervals import holm, share_intervals, upper_bound

FIFTHS = ("darkest fifth", "second darkest fifth", "middle fifth", "second brightest fifth", "brightest fifth")
SIDES = (32, 64, 128, 256, 512, 1024, 2048)  # pixels: the upper ends of the ranges of original sizes
LEVEL = 0.05  # probability that any of equally accurate slices is called worse
MOST_VALUES = 200  # of a user's text column; with more they are names, not groups
NUMBERS = 12  # a user's column with more distinct numbers than this is divided into fifths
KINDS = {"jpg": "JPEG", "jpeg": "JPEG", "jfif": "JPEG", "tif": "TIFF", "webp": "WebP"}

Columns = dict[str, list[str]]  # what the slices are by -> n values, "" if unknown


def measure(right: np.ndarray, columns: Columns) -> Slices:
    """Return the content of slices.json: {"slices": [...]}, the slice with the lowest upper bound first.

    Each slice has by, value, n, correct, accuracy, low and high (95 % interval), and worse: whether it is worse
    than the rest beyond chance, as this module's docstring defines. A column with a single value is left out, because
    it divides nothing.

    Args:
        right: (n,) bool, whether the answer was right.
        columns: each with n values.
    """
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
    low, high = share_intervals(correct, n)
    tail = LEVEL / 2 / len(groups)
    upper = [upper_bound(hits, total - hits, tail) for hits, total in zip(correct.tolist(), n.tolist(), strict=True)]
    worse = worse_than_rest(correct, n, right_others, others)
    rows: list[Slice] = [
        {
            "by": by, "value": value, "n": total, "correct": hits, "accuracy": hits / total,
            "low": float(low[i]), "high": float(high[i]), "worse": bool(worse[i]),
        }
        for i, (by, value, total, hits, *_) in enumerate(groups)
    ]  # fmt: skip
    return {"slices": [rows[i] for i in np.argsort(upper, kind="stable").tolist()]}


def worse_than_rest(correct: np.ndarray, n: np.ndarray, right_others: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (m,) bool: which slices are less accurate than the other images of their column, beyond chance.

    Fisher's exact test asks how often `n` of all images, drawn at random, would hold at most `correct` right ones.
    """
    table = np.stack([correct, n, correct + right_others, n + others], axis=1)
    return np.array(holm([hypergeometric_cdf(*row) for row in table.tolist()])) < LEVEL


def describe(dataset: Dataset, index: np.ndarray, labels: Sequence[str], pixels: Pixels) -> Columns:
    """Return the columns that Onsight knows without a CSV of the user, for the images in `index`.

    Args:
        dataset: the data set of the images. Original sizes and file types are known if it consists of files.
        index: (n,) the indices of the images.
        labels: n class names.
        pixels: the images of the data set, at the size that the network takes.
    """
    columns: Columns = {"class": list(labels), "brightness": brightness(pixels.images, index)}
    if dataset.reader is not None:
        columns["original size"] = [size(side) for side in pixels.headers[index, :2].min(axis=1).tolist()]
        columns["file type"] = [kind(dataset.names[position]) for position in index.tolist()]
    return columns


def brightness(images: np.ndarray, index: np.ndarray) -> list[str]:
    """Return the fifth that each image is in by its mean luma (Rec. 601). Equally bright images share a fifth."""
    step = 1024
    parts = [images[index[start : start + step]].mean(axis=(1, 2)) for start in range(0, len(index), step)]
    luma = np.concatenate(parts) @ np.array([0.299, 0.587, 0.114])
    return [FIFTHS[fifth] for fifth in _fifths(luma)]


def size(side: int) -> str:
    """Return the range that a file's shorter side in pixels is in, such as "65 to 128 px", or "" if it is unknown."""
    if not side:
        return ""
    at = int(np.searchsorted(SIDES, side))
    if at == len(SIDES):
        return f"over {SIDES[-1]} px"
    return f"{SIDES[at - 1] + 1} to {SIDES[at]} px" if at else f"up to {SIDES[0]} px"


def kind(name: str) -> str:
    """Return the type of a file, derived from its suffix."""
    suffix = Path(name).suffix.lower().removeprefix(".")
    return KINDS.get(suffix, suffix.upper())


def read_columns(path: Path, names: Sequence[str]) -> Columns:
    """Return the user's columns of a CSV, in the order of `names`, with "" for images that it does not mention.

    The CSV has a column `path`, written as in predictions.csv. If that has absolute paths, the CSV's may also be
    relative to its own folder. Every other column is one to slice by. A column with more than twelve distinct numbers
    is divided into fifths.

    Args:
        path: the CSV, in UTF-8.
        names: n names of images.

    Raises:
        DataError: the CSV cannot be read, lacks these columns, names none of the images or has too many distinct texts
            in a column.
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
            f"{path}, line 1: expected a column 'path' and one or more columns to slice by, each name once; "
            f"found '{','.join(header)[:80]}'."
        )
    at = lower.index("path")
    known: dict[str, list[str]] = {}
    for line, row in enumerate(filter(None, rows), start=2):
        if len(row) != len(header):
            raise DataError(f"{path}: row {line} has {count(len(row), 'cell')}; expected {len(header)}.")
        known[_plain_path(row[at])] = [cell.strip() for cell in row]
    found = [known.get(_plain_path(name)) or known.get(_relative(name, path)) for name in names]
    if not any(found):
        raise DataError(
            f"{path} names none of the images ({len(names):,}). Its first path is '{next(iter(known), '')}', but the "
            f"first image is '{names[0]}'. Write the paths as predictions.csv does."
        )
    columns = {}
    for i, name in enumerate(header):
        if i != at:
            columns[name] = _grouped([row[i] if row else "" for row in found], name, path)
    return columns


def _grouped(values: list[str], name: str, path: Path) -> list[str]:
    """Return a user's column unchanged, or divided into fifths if it has many distinct numbers."""
    distinct = set(values) - {""}
    if len(distinct) > NUMBERS:
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
    if len(distinct) > MOST_VALUES:
        raise DataError(
            f"{path}: the column '{name}' has {len(distinct):,} distinct texts, too many to slice by; expected at most "
            f"{MOST_VALUES}. Group them, or leave the column out."
        )
    return values


def _fifths(values: np.ndarray) -> list[int]:
    """Return the fifth (0 to 4) that each value is in. Equal values share a fifth."""
    edges = np.quantile(values, [0.2, 0.4, 0.6, 0.8])
    return [int(fifth) for fifth in np.searchsorted(edges, values, side="left")]


def _plain_path(name: str) -> str:
    return name.strip().replace("\\", "/").removeprefix("./")


def _relative(name: str, path: Path) -> str:
    """Return an image's absolute name relative to the folder of the CSV `path`, or "" if it is not in that folder."""
    try:
        return _plain_path(str(Path(name).relative_to(path.resolve().parent)))
    except ValueError:
        return ""
