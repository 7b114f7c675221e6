"""Images that the user has as files: a folder or a CSV -> `Dataset` (zips.py does the same for zips).

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
from onsight.data.dataset import Dataset, check_classes, fingerprint
from onsight.imaging.decode import SUFFIXES

PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
EXPECTED = "one sub-folder a class is expected (cat/1.jpg), or train/ and test/ that hold such (train/cat/1.jpg)"
MAX_FILE = 256 << 20  # bytes: no image that images.py accepts is larger


class Row(NamedTuple):
    """One image, as far as listing tells."""

    name: str
    stamp: str  # changes when the file does
    label: str
    part: str


def read_folder(path: Path, complete: bool = True) -> Dataset:
    """List the images below `path`: one sub-folder a class, or train/, validation/ and test/ that hold such.

    Folders below a class folder count to the class. Links are followed, but not in circles. What is hidden, or has
    no suffix of an image, is passed over.

    Raises:
        DataError: The layout is another one; the message says where.
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
    """Return whether a file or folder of this name is passed over: dot files, and what a Mac adds to a zip."""
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
            if os.path.isdir(entry.path):  # unlike entry.is_dir, False for a link that leads to itself
                identity = _identity(Path(entry.path))
                if identity not in above:  # a link to a folder that we are in would go round for ever
                    folders.add(name)
                    waiting.append((Path(entry.path), f"{name}/", above | {identity}))
            elif is_image(entry.name):
                try:
                    status = entry.stat()
                except OSError:
                    stamps[name] = "unreadable"  # a link to nothing: reading it will fail like any broken image
                    continue
                if stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
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
    """Make classes and parts of the relative paths of images and folders.

    Raises:
        DataError: The layout is not one of the two that are expected.
    """
    where = f"The {kind} '{name}'"
    if not stamps:
        raise DataError(f"{where} holds no images ({' '.join(sorted(SUFFIXES))}): {EXPECTED}")
    parts = _part_folders(where, stamps, folders)
    depth = 2 if parts else 1  # of the class folders
    classes = {path for path in folders if path.count("/") == depth - 1 and (not parts or _top(path) in parts)}
    if not classes:
        raise DataError(f"{where} holds its images directly, without class folders: {EXPECTED}")
    rows = []
    for path, stamp in stamps.items():
        pieces = path.split("/", depth)
        if len(pieces) > depth:  # images above the class folders have no label and are passed over
            rows.append(Row(path, stamp, pieces[depth - 1], PARTS[pieces[0].lower()] if parts else ""))
    empty = classes - {"/".join(row.name.split("/", depth)[:depth]) for row in rows}
    if empty and complete:
        raise DataError(f"{where}: the class folder {_listed(empty)} is empty: put images in, or remove it")
    return to_dataset(kind, name, rows, reader, complete, {path.rpartition("/")[2] for path in empty})


def _part_folders(where: str, stamps: dict[str, str], folders: set[str]) -> set[str]:
    """Return the top folders that are parts, as they are spelled; none where the top folders are the classes."""
    tops = {_top(path) for path in folders}
    parts = {top for top in tops if top.lower() in PARTS}
    divided = {_top(path) for path in folders if "/" in path}
    # A class may be called "train", beside "car" and "plane": a part is told by the class folders in it.
    if not parts & divided and parts != tops:
        return set()
    strays = {top for top in tops - parts if any(path.startswith(f"{top}/") for path in stamps)}
    if strays:
        raise DataError(f"{where} holds images in {_listed(strays)} beside {_listed(parts)}: move them away")
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
    """Make a `Dataset` of `rows`, sorted by name, after the checks that all kinds of files share.

    `more_classes` are such as have no images.

    Raises:
        DataError: A class or file name is unusable, there is one class only, or a part lacks a class and the set must
            be `complete`.
    """
    where = f"The {kind} '{name}'"
    rows = sorted(rows)
    names = tuple(row.name for row in rows)
    for file in names:
        if not file.isascii() and not _is_unicode(file):
            raise DataError(f"{where}: the file name {file!a} is not valid UTF-8: rename it")
    # One spelling of é: a Mac writes it as two characters, and the same class must not count as two.
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
                f"{where}: {part} lacks the class {absent}, which another part has: add images or remove it"
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
    """Return "'a', 'b', 'c' and 4 more"."""
    names = sorted(names)
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return f"{shown} and {len(names) - 3:,} more" if len(names) > 3 else shown
