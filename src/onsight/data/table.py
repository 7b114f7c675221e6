"""A CSV of the paths and labels of image files -> `Dataset`.

The delimiter is a comma, a semicolon or a tab. The columns have their usual names, or those that the user gives. A
line that cannot be used is skipped like an unreadable image: up to the same limit, with its reason.
"""

from __future__ import annotations

import csv
import os
import re
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from onsight.core.errors import DataError, unknown_name
from onsight.core.files import stamp
from onsight.core.text import count
from onsight.data.dataset import Dataset, check_broken
from onsight.data.folder import Listing, Row, read_file, to_dataset
from onsight.data.folder_layout import KNOWN, part_of
from onsight.data.reading import AUTOMATIC, Reading

DELIMITERS = ",;\t"
# The first name wins over the others, which are equal. Capitals, spaces, hyphens and underscores do not matter.
PATH = ("path", "image", "file", "filename", "filepath", "imagepath", "imagefile", "imagename")
LABEL = ("label", "class", "category", "target")
SPLIT = ("split", "part", "subset", "set")
FIX = "Paths are relative to the CSV's folder, or absolute. Repair or remove these lines."


class Columns(NamedTuple):
    """Which cells of a line are used."""

    path: int
    label: int
    split: int | None
    usual_split: bool = True  # the column is called "split"; other names may mean something else


Line = tuple[int, list[str]]  # its number, and its cells


def read_csv(path: Path, complete: bool = True, reading: Reading = AUTOMATIC) -> Dataset:
    """List the images that the CSV at `path` names: columns for path and label, and for the part if it gives parts.

    Paths are relative to the CSV's folder, or absolute, with either separator. The CSV is UTF-8, with or without a byte
    order mark.

    Raises:
        DataError: A column is missing, the file is no CSV, or the set must be `complete` and more lines are unusable
            than can be skipped.
    """
    folder = path.absolute().parent
    header, lines = _lines(path)
    columns = _columns(path, header, reading)
    notes = []
    if columns.split is not None and not columns.usual_split and not any(_part(line, columns) for line in lines):
        notes.append(f"the column '{header[columns.split]}' names no parts (train, test), so it is not used")
        columns = columns._replace(split=None)

    rows: list[Row] = []
    unusable: dict[str, str] = {}
    gone: dict[str, str] = {}  # images that are listed, but whose files cannot be opened
    seen: dict[str, int] = {}  # file -> the line that names it
    for line in lines:
        where = f"{path.name}, line {line[0]}"
        try:
            row = _row(folder, line, columns, len(header), seen)
        except DataError as error:
            unusable[where] = str(error)
            continue
        rows.append(row)
        if row.stamp == "unreadable":
            gone[where] = f"'{row.name}' cannot be opened"
    if complete or not rows:
        check_broken(path.name, unusable | gone, len(lines), FIX)
    if not rows:
        example = next((f": {where}: {reason}" for where, reason in unusable.items()), "")
        raise DataError(f"{path.name} names no images{example or ': expected one line per image below the header'}")
    found = Listing(rows, notes=tuple(notes), unusable=unusable)
    return to_dataset("CSV", path.stem, found, partial(read_file, folder), complete, reading)


def _lines(path: Path) -> tuple[list[str], list[Line]]:
    """Return the cells of the header, and the lines below it that are not empty."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = None
        try:
            first = file.readline()
            delimiter = max(DELIMITERS, key=lambda each: len(next(csv.reader([first], delimiter=each), [])))
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            header = [cell.strip() for cell in next(reader, [])]
            return header, [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
        except UnicodeDecodeError as error:
            raise DataError(f"{path.name} is not UTF-8 ({error.reason}): save it as 'CSV UTF-8'") from error
        except csv.Error as error:
            raise DataError(f"{path.name}, line {reader.line_num if reader else 1}: {error}") from error


def _columns(path: Path, header: list[str], reading: Reading) -> Columns:
    """Return which columns hold what.

    Raises:
        DataError: A column is missing or appears twice, or several could be meant.
    """
    where = f"{path.name}, line 1"
    found = []
    for kind, names, asked, flag in (
        ("path", PATH, reading.path_column, "--path-column"),
        ("label", LABEL, reading.label_column, "--label-column"),
        ("split", SPLIT, None, ""),
    ):
        places = columns_named(header, [asked] if asked else names)
        if asked and not places:
            raise DataError(f"{where}: {unknown_name('column', asked, header)}")
        spelled = [header[place] for place in places]
        if len({name.lower() for name in spelled}) < len(spelled):
            raise DataError(f"{where}: the column '{spelled[0].lower()}' appears {len(spelled)} times")
        if len(spelled) > 1 and flag:
            raise DataError(f"{where}: the {kind} could be in {' or '.join(spelled)}: choose one with {flag}")
        if not places and flag:
            shown = ",".join(header)[:80]
            raise DataError(
                f"{where}: expected a column {kind} (or {', '.join(names[1:])}), found '{shown}'. If it has another "
                f"name, give it with {flag}"
            )
        found.append(places[0] if places else None)
    path_place, label_place, split_place = found
    assert path_place is not None
    assert label_place is not None
    if path_place == label_place:
        raise DataError(f"{where}: the column '{header[path_place]}' cannot hold both the paths and the labels")
    usual = split_place is None or _key(header[split_place]) == SPLIT[0]
    return Columns(path_place, label_place, split_place, usual)


def columns_named(header: list[str], names: Sequence[str]) -> list[int]:
    """Return the columns of the first of `names`, or else those of all others."""
    usual, others = _key(names[0]), {_key(name) for name in names[1:]}
    keys = [_key(cell) for cell in header]
    first = [place for place, key in enumerate(keys) if key == usual]
    return first or [place for place, key in enumerate(keys) if key in others]


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _part(line: Line, columns: Columns) -> str:
    """Return the part that a line gives, or "" if it gives none."""
    _, cells = line
    return part_of(cells[columns.split]) if columns.split is not None and columns.split < len(cells) else ""


def _row(folder: Path, line: Line, columns: Columns, width: int, seen: dict[str, int]) -> Row:
    """Return the image of a line, and add it to `seen`.

    Raises:
        DataError: The line cannot be used; the message is the reason without the place.
    """
    number, cells = line
    if len(cells) != width:
        raise DataError(f"{count(len(cells), 'cell')}, expected {width} (quote a cell that has the delimiter)")
    name, label, part = cells[columns.path].strip(), cells[columns.label].strip(), _part(line, columns)
    if not name or not label:
        raise DataError(f"the {'label' if name else 'path'} is empty")
    if columns.split is not None and not part:
        raise DataError(f"the split is '{cells[columns.split].strip()}', expected a name of a part ({KNOWN})")
    try:
        status = _status(folder, name)
        if status is None and "\\" in name:  # written on Windows
            name = name.replace("\\", "/")
            status = _status(folder, name)
    except ValueError as error:  # a NUL in the path
        raise DataError(f"{name!a} cannot be a path: {error}") from error
    if status and not stat.S_ISREG(status.st_mode):  # reading a pipe would block forever
        raise DataError(f"'{name}' is not a file")
    file = os.path.normpath(folder / name)  # "a.jpg" and "./a.jpg" are the same file
    if file in seen:
        raise DataError(f"'{name}' was already named in line {seen[file]}")
    seen[file] = number
    # A file that cannot be opened is an unreadable image of its class.
    return Row(name, stamp(status) if status else "unreadable", label, part)


def _status(folder: Path, name: str) -> os.stat_result | None:
    """Return what is known about a file, or None if it cannot be opened."""
    try:
        return (folder / name).stat()
    except OSError:
        return None
