"""A folder of image files -> `Dataset`, and what table.py and zip_file.py share with it.

Listing opens no image: 60,000 files take about half a second.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from onsight.core.errors import DataError, ImageError
from onsight.core.files import stamp
from onsight.core.text import count, quoted
from onsight.data.dataset import Dataset, check_classes, fingerprint
from onsight.data.folder_layout import find_layout, needless_levels
from onsight.data.reading import AUTOMATIC, Reading, add_or_exclude
from onsight.imaging.decode import SUFFIXES

Value = TypeVar("Value")
MAX_FILE = 256 << 20  # bytes: imaging/decode.py accepts no larger image


class Row(NamedTuple):
    """One image as it is listed, before its file is opened."""

    name: str
    stamp: str  # changes when the file changes
    label: str
    part: str


class Sample(NamedTuple):
    """One image of a shard (a tar or Parquet file) as it is listed."""

    name: str
    place: tuple[int, int]  # what the shard's reader finds it by
    label: str | None
    problem: str = ""  # why it has no label, if the label cannot be used


class Listing(NamedTuple):
    """What was found in a folder, zip or CSV."""

    rows: list[Row]
    empty: dict[str, str] = {}  # class folder without an image -> class  # noqa: RUF012 - never changed
    notes: tuple[str, ...] = ()
    unusable: dict[str, str] = {}  # line of a CSV that stands for no image -> reason  # noqa: RUF012


def read_folder(path: Path, complete: bool = True, reading: Reading = AUTOMATIC) -> Dataset:
    """List the images below `path`: one sub-folder per class, or the same inside train/, validation/ and test/.

    Folders below a class folder belong to the class. Links are followed, but not in circles. Hidden files and folders
    are skipped, and so are files without an image suffix. A folder that holds nothing but the folder with all images
    is passed over.

    Raises:
        DataError: The folder has another layout; the message says where.
    """
    root = path.resolve()
    stamps, folders = walk(root)
    prefix = needless_levels(folders, reading.layout)
    stamps, folders = below(prefix, stamps), {*below(prefix, dict.fromkeys(folders))}
    return arrange("folder", root.name or "root", stamps, folders, partial(read_file, root / prefix), complete, reading)


def below(prefix: str, paths: dict[str, Value]) -> dict[str, Value]:
    """Return the paths below a folder, without the folder's own; `prefix` is its path with "/" at the end, or ""."""
    if not prefix:
        return paths
    return {path.removeprefix(prefix): value for path, value in paths.items() if path.startswith(prefix)}


def read_file(root: Path, name: str) -> bytes:
    """Return the bytes of the file `name` below `root`.

    Raises:
        ImageError: The file cannot be read or is too large; the message is the reason without the path.
    """
    try:
        with open(root / name, "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE:
                raise ImageError(f"is larger than {MAX_FILE >> 20} MiB")
            return file.read()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error


def is_image(name: str) -> bool:
    """Return whether a file of this name has an image's suffix."""
    return name[name.rfind(".") :].lower() in SUFFIXES


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is skipped: dot files, and what macOS adds to a zip."""
    return name.startswith(".") or name == "__MACOSX"


def is_within_hidden(path: str) -> bool:
    """Return whether a file or a folder above it is hidden."""
    return any(is_hidden(piece) for piece in path.split("/"))


def above(path: str) -> list[str]:
    """Return the folders above a path, the outermost first.

    >>> above("a/b/c.jpg")
    ['a', 'a/b']
    """
    return [path[:end] for end, letter in enumerate(path) if letter == "/"]


def walk(root: Path) -> tuple[dict[str, str], set[str]]:
    """Return {relative path: stamp} of the images below `root`, and the relative paths of all folders."""
    stamps: dict[str, str] = {}
    folders: set[str] = set()
    waiting = [(root, "", frozenset({_identity(root)}))]
    while waiting:
        folder, prefix, above = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = [entry for entry in found if not is_hidden(entry.name)]
        except OSError as error:
            raise DataError(f"'{folder}' cannot be listed: {error.strerror or error}") from error
        for entry in entries:
            name = prefix + entry.name
            if os.path.isdir(entry.path):  # unlike entry.is_dir, False for a link to itself
                identity = _identity(Path(entry.path))
                if identity not in above:  # a link to a folder above would be followed forever
                    folders.add(name)
                    waiting.append((Path(entry.path), f"{name}/", above | {identity}))
            elif is_image(entry.name):
                try:
                    status = entry.stat()
                except OSError:
                    stamps[name] = "unreadable"  # a broken link: reading it fails as for any broken image
                    continue
                if stat.S_ISREG(status.st_mode):  # reading a pipe would block forever
                    stamps[name] = stamp(status)
    return stamps, folders


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def arrange(
    kind: str,
    name: str,
    stamps: dict[str, str],
    folders: set[str],
    reader: Callable[[str], bytes],
    complete: bool,
    reading: Reading,
) -> Dataset:
    """Return the `Dataset` of files whose relative paths name their classes and parts.

    Raises:
        DataError: The layout is neither one folder per class nor the same inside of parts, or it could be both.
    """
    images, empty, notes = find_layout(f"The {kind} '{name}'", stamps, folders, reading.layout)
    rows = [Row(path, stamps[path], label, part) for path, (label, part) in images.items()]
    return to_dataset(kind, name, Listing(rows, empty, tuple(notes)), reader, complete, reading)


def to_dataset(
    kind: str, name: str, found: Listing, reader: Callable[[str], bytes], complete: bool, reading: Reading
) -> Dataset:
    """Return a `Dataset` of a listing, sorted by name, after the checks that folders, CSVs and zips share.

    Raises:
        DataError: A class or file name is unusable, there is only one class, a class that `reading` names is unknown,
            or the set must be `complete` and a class folder is empty or a part has no images of a class.
    """
    where = f"The {kind} '{name}'"
    rows = sorted(found.rows)
    for row in rows:
        if not row.name.isascii() and not is_unicode(row.name):
            raise DataError(f"{where}: the file name {row.name!a} is not valid UTF-8: rename it")
    # One spelling of é: macOS writes it as two characters, and one class must not count as two.
    labels_found = {row.label for row in rows} | {*found.empty.values()}
    spelled = {label: unicodedata.normalize("NFC", label) for label in labels_found}
    known = tuple(sorted(set(spelled.values())))
    check_classes(known, where)
    classes = reading.chosen(known, where)
    index = {label: classes.index(word) for label, word in spelled.items() if word in classes}
    left_out = frozenset(row.name for row in rows if row.label not in index)
    rows = [row for row in rows if row.label in index]
    labels = np.array([index[row.label] for row in rows], dtype=np.int64)
    parts = np.array([row.part for row in rows], dtype="<U10")
    if complete:
        empty = [path for path, label in found.empty.items() if label in index]
        _check_complete(where, classes, labels, parts, empty, reading.exclude)
    mark = fingerprint(classes, labels, parts, [f"{row.name} {row.stamp}" for row in rows])
    some = f", {len(classes):,} of its {len(known):,} classes" if len(classes) < len(known) else ""
    return Dataset(
        name,
        classes,
        tuple(row.name for row in rows),
        labels,
        parts,
        f"{kind} {name} ({len(rows):,} images{some})",
        mark,
        reader=reader,
        left_out=left_out,
        excluded=reading.exclude,
        notes=found.notes,
        unusable=found.unusable,
    )


def _check_complete(
    where: str,
    classes: tuple[str, ...],
    labels: NDArray[np.int64],
    parts: NDArray[np.str_],
    empty: list[str],
    excluded: tuple[str, ...],
) -> None:
    """Raise DataError if a class folder is `empty`, or a part has no images of a class.

    The advice repeats the classes that were `excluded` already.
    """
    if empty:
        names = sorted({unicodedata.normalize("NFC", path.rpartition("/")[2]) for path in empty})
        raise DataError(
            f"{where} has {count(len(empty), 'empty class folder')}, {quoted(empty)}: remove every empty folder, "
            f"{add_or_exclude(names, classes, excluded)}"
        )
    for part in np.unique(parts):
        lacking = set(range(len(classes))) - set(labels[parts == part].tolist())
        if lacking:
            names = [classes[position] for position in sorted(lacking)]
            raise DataError(
                f"{where}: {part} has no images of {quoted(names)}, but another part has: "
                f"{add_or_exclude(names, classes, excluded)}"
            )


def is_unicode(name: str) -> bool:
    """Return whether a file name is valid UTF-8, so that a report can hold it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
