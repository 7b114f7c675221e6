"""Keep-lists: the names of the images that are worth training on, one a line, as `check` writes and `train` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onsight.checks.copies import find_copies
from onsight.checks.measures import Facts
from onsight.core.errors import DataError
from onsight.core.files import write_atomic
from onsight.data.dataset import Dataset

FIRST = {"test": 0, "validation": 1, "train": 2, "": 2}  # of two copies the one in the part of the lower number is kept


def keep(dataset: Dataset, facts: Facts) -> NDArray[np.bool_]:
    """Return (n,) of the images that are worth keeping.

    Unreadable ones go, and images that are there, or nearly, under two labels: nobody knows which is right. Of the
    other copies one is kept, a test image before a validation before a training image, so that no leak remains.
    """
    kept = facts.readable
    copies = find_copies(facts, kept)
    # Each content's best image: (the rank of its part, its index), which is also the order in which they choose.
    best = {
        content: min((FIRST[str(dataset.parts[index])], index) for index in members)
        for content, members in copies.groups.items()
    }
    chosen: set[int] = set()
    for content in sorted(best, key=lambda content: best[content]):
        kept[copies.groups[content]] = False
        conflict = len({int(dataset.labels[index]) for index in copies.near(content)}) > 1
        if not conflict and chosen.isdisjoint(copies.around[content]):
            chosen.add(content)
            kept[best[content][1]] = True
    return kept


def write_keep_list(path: Path, names: Iterable[str]) -> None:
    """Write one name a line; one with a line break in it, or that begins with a quote, as a JSON string."""
    rows = (json.dumps(name) if name.startswith('"') or len(name.splitlines()) != 1 else name for name in names)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(f"{row}\n" for row in rows))


def read_keep_list(path: Path, dataset: Dataset) -> NDArray[np.bool_]:
    """Return (n,) of the images that the file names.

    Raises:
        DataError: it cannot be read, or names an image that is not in the data, or leaves a class without any.
    """
    try:
        rows = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(
            f"The keep-list '{path}' cannot be read: {reason}. `onsight check --keep-list` writes one."
        ) from (error)
    index = {name: number for number, name in enumerate(dataset.names)}
    kept = np.zeros(len(dataset), bool)
    for number, row in enumerate(rows, start=1):
        row = row.removesuffix("\r")
        try:
            name = json.loads(row) if row.startswith('"') else row
        except ValueError:
            name = row
        if not name:
            continue
        if name not in index:
            raise DataError(
                f"The keep-list '{path}', line {number}, names '{name}', which is not in {dataset.name}. Names are "
                f"as in check.json, '{dataset.names[0]}' for one: write the list anew with `onsight check --keep-list`."
            )
        kept[index[name]] = True
    empty = np.setdiff1d(np.arange(len(dataset.classes)), dataset.labels[kept])
    if len(empty):
        raise DataError(f"The keep-list '{path}' leaves no image of the class '{dataset.classes[empty[0]]}'.")
    return kept
