"""A folder of image files -> `Dataset`, and what table.py and zip_file.py share with it.

Listing opens no image: 60,000 files take about half a second.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from onsight.core.errors import DataError, ImageError
from onsight.core.text import count
from onsight.data.dataset import Dataset, check_classes, fingerprint
from onsight.imaging.decode import SUFFIXES

PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
EXPECTED = "expected one sub-folder per class (cat/1.jpg), or the same inside train/ and test/ (train/cat/1.jpg)"
MAX_FILE = 256 << 20  # bytes: imaging/decode.py accepts no larger image


class Row(NamedTuple):
    """One image as it is listed, before its file is opened."""

    name: str
    stamp: str  # changes when the file changes
    label: str
    part: str


def read_folder(path: Path, complete: bool = True) -> Dataset:
    """List the images below `path`: one sub-folder per class, or the same inside train/, validation/ and test/.

    Folders below a class folder belong to the class. Links are followed, but not in circles. Hidden files and folders
    are skipped, and so are files without an image suffix.

    Raises:
        DataError: The folder has another layout; the message says where.
    """
    root = path.resolve()
    stamps, folders = walk(root)
    return arrange("folder", root.name or "root", stamps, folders, partial(read_file, root), complete)


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
                    stamps[name] = f"{status.st_size} {status.st_mtime_ns}"
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
    complete: bool = True,
) -> Dataset:
    """Return the `Dataset` of files whose relative paths name their classes and parts.

    Raises:
        DataError: The layout is neither of the two in `EXPECTED`.
    """
    where = f"The {kind} '{name}'"
    if not stamps:
        raise DataError(f"{where} holds no images ({' '.join(sorted(SUFFIXES))}): {EXPECTED}")
    parts = _part_folders(where, stamps, folders)
    depth = 2 if parts else 1  # level of the class folders
    classes = {path for path in folders if path.count("/") == depth - 1 and (not parts or _top(path) in parts)}
    if not classes:
        raise DataError(f"{where} holds its images directly, without class folders: {EXPECTED}")
    rows = []
    for path, stamp in stamps.items():
        pieces = path.split("/", depth)
        if len(pieces) > depth:  # images above the class folders have no label and are skipped
            rows.append(Row(path, stamp, pieces[depth - 1], PARTS[pieces[0].lower()] if parts else ""))
    empty = classes - {"/".join(row.name.split("/", depth)[:depth]) for row in rows}
    if empty and complete:
        found = count(len(empty), "empty class folder")
        raise DataError(f"{where} has {found}, {_listed(empty)}: add images, or remove every empty folder")
    return to_dataset(kind, name, rows, reader, complete, {path.rpartition("/")[2] for path in empty})


def _part_folders(where: str, stamps: dict[str, str], folders: set[str]) -> set[str]:
    """Return the top folders that are parts, as spelled; the set is empty if the top folders are the classes."""
    tops = {_top(path) for path in folders}
    parts = {top for top in tops if top.lower() in PARTS}
    divided = {_top(path) for path in folders if "/" in path}
    # A class may be called "train", next to "car" and "plane". A part is recognised by the class folders in it.
    if not parts & divided and parts != tops:
        return set()
    strays = {top for top in tops - parts if any(path.startswith(f"{top}/") for path in stamps)}
    if strays:
        raise DataError(f"{where} holds images in {_listed(strays)}, next to {_listed(parts)}: move them elsewhere")
    if parts - divided:
        raise DataError(f"{where}: there are no class folders in {_listed(parts - divided)}: {EXPECTED}")
    return parts


def _top(path: str) -> str:
    return path.partition("/")[0]


def to_dataset(
    kind: str,
    name: str,
    rows: list[Row],
    reader: Callable[[str], bytes],
    complete: bool = True,
    more_classes: Iterable[str] = (),
) -> Dataset:
    """Return a `Dataset` of `rows`, sorted by name, after the checks that folders, CSVs and zips share.

    `more_classes` are classes that have no images.

    Raises:
        DataError: A class or file name is unusable, there is only one class, or the set must be `complete` and a part
            has no images of a class.
    """
    where = f"The {kind} '{name}'"
    rows = sorted(rows)
    names = tuple(row.name for row in rows)
    for file in names:
        if not file.isascii() and not _is_unicode(file):
            raise DataError(f"{where}: the file name {file!a} is not valid UTF-8: rename it")
    # One spelling of é: macOS writes it as two characters, and one class must not count as two.
    spelled = {label: unicodedata.normalize("NFC", label) for label in {row.label for row in rows} | {*more_classes}}
    classes = tuple(sorted(set(spelled.values())))
    check_classes(classes, where)
    index = {label: classes.index(spelled[label]) for label in spelled}
    labels = np.array([index[row.label] for row in rows], dtype=np.int64)
    parts = np.array([row.part for row in rows], dtype="<U10")
    for part in np.unique(parts):
        lacking = set(range(len(classes))) - set(labels[parts == part].tolist())
        if lacking and complete:
            absent = _listed(classes[position] for position in lacking)
            raise DataError(
                f"{where}: {part} has no images of {absent}, but another part has: add some, or remove the class"
            )
    mark = fingerprint(classes, labels, parts, [f"{row.name} {row.stamp}" for row in rows])
    return Dataset(name, classes, names, labels, parts, f"{kind} {name} ({len(rows):,} images)", mark, None, reader)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed(names: Iterable[str]) -> str:
    """Return the sorted names in quotes, at most three: "'a', 'b', 'c' and 4 more"."""
    names = sorted(names)
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return f"{shown} and {len(names) - 3:,} more" if len(names) > 3 else shown
