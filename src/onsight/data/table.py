"""A CSV of the paths and labels of image files -> `Dataset`."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from onsight.core.errors import DataError
from onsight.core.text import count
from onsight.data.dataset import Dataset
from onsight.data.folder import PARTS, Row, read_file, to_dataset


def read_csv(path: Path, complete: bool = True) -> Dataset:
    """List the images that the CSV at `path` names: columns path and label, and split if it gives parts.

    Paths are relative to the CSV's folder, or absolute. The CSV is UTF-8, with or without a byte order mark.

    Raises:
        DataError: A column is missing or a line is unusable; the message has the line number.
    """
    folder = path.absolute().parent
    rows: list[Row] = []
    lines: dict[str, int] = {}  # file -> the line that names it
    for number, cells in _csv_lines(path):
        where = f"{path.name}, line {number}"
        row = _csv_row(folder, cells, where)
        file = os.path.normpath(folder / row.name)  # "a.jpg" and "./a.jpg" are the same file
        if file in lines:
            raise DataError(f"{where}: '{row.name}' was already named in line {lines[file]}")
        lines[file] = number
        rows.append(row)
    if not rows:
        raise DataError(f"{path.name} names no images: expected one line per image below the header")
    return to_dataset("CSV", path.stem, rows, partial(read_file, folder), complete)


def _csv_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, {column: cell}) of each line below the header that is not empty."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            header = [cell.strip().lower() for cell in next(reader, [])]
            for column in ("path", "label", "split"):
                if header.count(column) > 1:
                    raise DataError(f"{path.name}, line 1: the column '{column}' appears {header.count(column)} times")
            if not {"path", "label"} <= set(header):
                found = ",".join(header)[:80]
                raise DataError(
                    f"{path.name}, line 1: expected the columns path,label or path,label,split, found '{found}'"
                )
            for cells in reader:
                if cells and len(cells) != len(header):
                    where = f"{path.name}, line {reader.line_num}"
                    raise DataError(
                        f"{where}: {count(len(cells), 'cell')}, expected {len(header)} (quote a cell that has a comma)"
                    )
                if cells:
                    yield reader.line_num, dict(zip(header, cells, strict=True))
        except UnicodeDecodeError as error:
            raise DataError(f"{path.name} is not UTF-8 ({error.reason}): save it as 'CSV UTF-8'") from error
        except csv.Error as error:
            raise DataError(f"{path.name}, line {reader.line_num}: {error}") from error


def _csv_row(folder: Path, cells: dict[str, str], where: str) -> Row:
    name, label = cells["path"].strip(), cells["label"].strip()
    if not name or not label:
        raise DataError(f"{where}: the {'label' if name else 'path'} is empty")
    part = cells.get("split", "").strip().lower()
    if "split" in cells and part not in PARTS:
        raise DataError(f"{where}: the split is '{part}', expected train, validation or test")
    try:
        status = (folder / name).stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(
            f"{where}: '{name}' cannot be opened ({reason}); paths are relative to the CSV's folder"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{where}: '{name}' is not a file")
    return Row(name, f"{status.st_size} {status.st_mtime_ns}", label, PARTS.get(part, ""))
