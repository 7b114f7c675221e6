"""Keep-lists: the names of the images worth training on, one per line. `check` writes them, `train` reads them."""

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
from onsight.core.text import quoted
from onsight.data.dataset import Dataset
from onsight.data.reading import add_or_exclude

FIRST = {"test": 0, "validation": 1, "train": 2, "": 2}  # of two copies, the one in the part of lower number is kept


def keep(dataset: Dataset, facts: Facts) -> NDArray[np.bool_]:
    """Return (n,) bool: the images worth keeping.

    Unreadable images are dropped. Copies with different labels are dropped too, because it is unknown which label is
    right. Of all other copies one is kept: a test image rather than a validation image, and a validation image rather
    than a training image, so that no leak remains. Pairs that are only possibly copies count as different images.
    """
    kept = facts.readable
    copies = find_copies(facts, kept, only_sure=True)
    # The best image of each content: (rank of its part, index). Contents are processed in the same order.
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
    """Write one name per line. A name that contains a line break or begins with a quote is written as a JSON string."""
    rows = (json.dumps(name) if name.startswith('"') or len(name.splitlines()) != 1 else name for name in names)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(f"{row}\n" for row in rows))


def read_keep_list(path: Path, dataset: Dataset) -> NDArray[np.bool_]:
    """Return (n,) bool: the images that the file names. Those of classes that were left out may be named too.

    Raises:
        DataError: the file cannot be read, names an image that is not in the data, or leaves a class without images.
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
        if not name or name in dataset.left_out:
            continue
        if name not in index:
            raise DataError(
                f"The keep-list '{path}', line {number}, names '{name}', which is not in {dataset.name}. Names must be "
                f"as in check.json, for example '{dataset.names[0]}'. To make a new list: onsight check --keep-list"
            )
        kept[index[name]] = True
    empty = np.setdiff1d(np.arange(len(dataset.classes)), dataset.labels[kept]).tolist()
    if empty:
        names = [dataset.classes[index] for index in empty]
        raise DataError(
            f"The keep-list '{path}' leaves no image of {quoted(names)}. To go on, "
            f"{add_or_exclude(names, dataset.classes, dataset.excluded)}"
        )
    return kept
