"""Shards: many images in each file, a tar in WebDataset's format or a Parquet table. Which files they are, and their
images one after another.

`tar_file` and `parquet_file` read one shard. A data set of shards that is not on this machine is downloaded first; a
prediction streams them.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from onsight.core.errors import DataError, ImageError, SpecError
from onsight.core.files import expanded, is_address
from onsight.core.progress import Progress
from onsight.data import parquet_file, remote, tar_file
from onsight.data.dataset import Dataset, check_broken
from onsight.data.folder import Listing, Row, above, arrange, below, to_dataset
from onsight.data.folder_layout import needless_levels, part_of
from onsight.data.reading import AUTOMATIC, SHARDS, Reading, names_shards

MOST = 100_000  # shards
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
CHOICE = re.compile(r"\{([^{}]*)\}")
FIX = "Repair the shards, or leave these images out of them."


def find_shards(data: str | Path) -> list[str]:
    """Return the paths or addresses of the shards that `data` names, sorted; none if it is something else.

    In a folder, only its own files count, and those of its folders that are named like a part (train, test).

    Raises:
        SpecError: a shard or pattern names nothing.
        DataError: there are both kinds of shards.
    """
    if names_shards(data):
        found = [each for pattern in braces(str(data)) for each in _matches(pattern)]
    else:
        found = _in_folder(expanded(data))
    if len({Path(each).suffix.lower() for each in found}) > 1:
        raise DataError(f"'{data}' holds both tar and Parquet files: name one kind, for example with '*.tar'")
    return sorted(dict.fromkeys(found))


def braces(pattern: str) -> list[str]:
    """Return the names that a pattern with numbers or choices in braces stands for.

    >>> braces("a-{08..10}.tar"), braces("{train,test}.tar")
    (['a-08.tar', 'a-09.tar', 'a-10.tar'], ['train.tar', 'test.tar'])
    """
    pieces: list[list[str]] = []
    rest, number = pattern, 1
    while found := CHOICE.search(rest):
        span = RANGE.fullmatch(found[0])
        if span and not 0 <= int(span[2]) - int(span[1]) < MOST:
            raise SpecError(f"'{pattern}': {found[0]} must count up, over at most {MOST:,} numbers.")
        ends = range(int(span[1]), int(span[2]) + 1) if span else ()
        choices = [f"{each:0{len(span[1])}}" for each in ends] if span else found[1].split(",")
        pieces += [[rest[: found.start()]], choices]
        number *= len(choices)
        if number > MOST:
            raise SpecError(f"'{pattern}' stands for more than {MOST:,} shards.")
        rest = rest[found.end() :]
    return ["".join(each) for each in itertools.product(*pieces, [rest])]


def _matches(pattern: str) -> list[str]:
    if is_address(pattern):
        return remote.matches(pattern)
    path = expanded(pattern)
    found = glob.glob(str(path), recursive=True) if glob.has_magic(pattern) and not path.exists() else [str(path)]
    if not found or not all(Path(each).is_file() for each in found):
        raise SpecError(f"There is no shard at '{pattern}'. Give .tar or .parquet files, or patterns like 'x-*.tar'.")
    return [os.path.abspath(each) for each in found]


def _in_folder(folder: Path) -> list[str]:
    """Return the shards in a folder and in its folders that are named like parts."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        mine = [entry for entry in entries if not entry.name.startswith(".")]
    found = [entry.path for entry in mine if entry.name.lower().endswith(SHARDS) and entry.is_file()]
    for entry in mine:
        if part_of(entry.name) and entry.is_dir():
            with os.scandir(entry) as entries:
                found += [each.path for each in entries if each.name.lower().endswith(SHARDS) and each.is_file()]
    return [os.path.abspath(each) for each in found]


def images_of(shard: str) -> Iterator[tuple[str, bytes | ImageError]]:
    """Yield the name and the bytes of each image of a shard, in its order, or why the image cannot be used.

    Only the images of one piece of the file are in memory. The name begins with that of the shard.

    Raises:
        DataError: the shard is damaged, or cannot be read.
    """
    reader = tar_file if shard.lower().endswith(".tar") else parquet_file
    name = shard_name(shard)
    with remote.open_place(shard) as file:
        for inner, content in reader.stream(file, shard):
            yield f"{name}/{inner}", content


class File(NamedTuple):
    """A shard on this machine."""

    path: str
    stamp: str  # changes when the file changes


class Piece(NamedTuple):
    """Where an image lies: the number of its file, and its place there."""

    file: int
    first: int
    second: int


def shard_name(shard: str) -> str:
    """Return the file name of a shard."""
    return shard.replace(os.sep, "/").rpartition("/")[2]


def read_shards(
    data: str | Path,
    shards: list[str],
    complete: bool = True,
    reading: Reading = AUTOMATIC,
    progress: Progress | None = None,
) -> Dataset:
    """List the images of the shards that `data` names, with their labels.

    A shard that is not on this machine is downloaded first. The part of an image is that in the name of its shard or
    of the shard's folder: train-000.tar, test/000.parquet. Tars without labels are read like a zip of their folders.

    Raises:
        DataError: a shard is damaged, or its labels cannot be used.
        DownloadError: a shard cannot be downloaded.
    """
    tar = shards[0].lower().endswith(".tar")
    kind, name = "tar" if tar else "Parquet", shards_name(data)
    reading.check_fit(str(data), f"{kind} shards" if tar else "Parquet", layout=tar, columns=not tar)
    shown, parts = _shown(shards), _parts(shards)
    files: list[File] = []
    marks: list[str] = []
    pieces: dict[str, Piece] = {}
    labels: dict[str, str] = {}
    unusable: dict[str, str] = {}
    labelled = False
    for number, shard in enumerate(shards):
        path, entry = remote.fetched(shard, progress)
        files.append(File(str(path), remote.entry(str(path)).stamp))
        marks.append(entry.stamp)
        for sample in tar_file.listed(path) if tar else parquet_file.listed(path, reading):
            inner = f"{shown[number]}/{sample.name}"
            if inner in pieces:
                raise DataError(f"The {kind} '{shown[number]}' holds {sample.name[:200]!a} twice")
            pieces[inner] = Piece(number, *sample.place)
            labelled = labelled or sample.label is not None
            if sample.label is None:
                unusable[inner] = sample.problem or f"has no label beside it ({', '.join(tar_file.LABELS)})"
            else:
                labels[inner] = sample.label
        if progress:
            progress("listing shards", number + 1, len(shards))

    def mark(piece: Piece) -> str:
        return f"{marks[piece.file]} {piece.first} {piece.second}"

    read = partial(_read_tar, tuple(files)) if tar else partial(_read_parquet, tuple(files), reading.path_column)
    if tar and not labelled:
        inside, folders = _in_folders(name, shown, parts, pieces, reading)
        stamps = {path: mark(each) for path, each in inside.items()}
        return arrange(kind, name, stamps, folders, partial(read, inside), complete, reading)
    if complete or not labels:
        check_broken(name, unusable, len(pieces), FIX)
    rows = [Row(each, mark(pieces[each]), label, parts[pieces[each].file]) for each, label in labels.items()]
    return to_dataset(kind, name, Listing(rows, unusable=unusable), partial(read, pieces), complete, reading)


def _in_folders(
    name: str, shown: list[str], parts: list[str], pieces: dict[str, Piece], reading: Reading
) -> tuple[dict[str, Piece], set[str]]:
    """Return the images of tars of folders, and their folders: as in a zip. Each part has a folder of its own.

    Raises:
        DataError: two images have the same name.
    """
    images: dict[str, Piece] = {}
    folders: set[str] = set()
    for part in dict.fromkeys(parts):
        mine = [(path, each) for path, each in pieces.items() if parts[each.file] == part]
        inside = {path.removeprefix(f"{shown[each.file]}/"): each for path, each in mine}
        if len(inside) < len(mine):
            raise DataError(f"The tars of '{name}' hold images of the same name, but no labels beside them")
        above_them = {folder for path in inside for folder in above(path)}
        prefix = needless_levels(above_them, reading.layout)
        top = f"{part}/" if part else ""
        images |= {f"{top}{path}": each for path, each in below(prefix, inside).items()}
        folders |= {f"{top}{path}" for path in below(prefix, dict.fromkeys(above_them))} | ({part} if part else set())
    return images, folders


def _shown(shards: list[str]) -> list[str]:
    """Return the paths of shards without the folder that all of them lie in."""
    pieces = [shard.replace(os.sep, "/").split("/") for shard in shards]
    level = 0
    while len({each[level] for each in pieces}) == 1 and all(len(each) > level + 1 for each in pieces):
        level += 1
    return ["/".join(each[level:]) for each in pieces]


def _parts(shards: list[str]) -> list[str]:
    """Return the part of the images of each shard, "" if the shards name no parts.

    Raises:
        DataError: only some of them name one.
    """
    parts = []
    for shard in _shown(shards):
        *folders, name = shard.split("/")
        words = [*folders, *re.split(r"[^A-Za-z]+", Path(name).stem)]
        parts.append(next((part for word in words if (part := part_of(word))), ""))
    if any(parts) and not all(parts):
        with_part, without = (shards[parts.index(part)] for part in (max(parts), ""))
        raise DataError(
            f"'{shard_name(with_part)}' names the {max(parts)} part, but '{shard_name(without)}' names none: rename "
            "the shards, or name those that belong together with a pattern"
        )
    return parts


def shards_name(data: str | Path) -> str:
    """Return a name for a data set of shards: that of the folder, or what the pattern begins with."""
    last = str(data).replace(os.sep, "/").rstrip("/").rpartition("/")[2]
    stem = re.split(r"[{*?\[]", last)[0]
    for suffix in SHARDS:
        stem = stem.removesuffix(suffix)
    return stem.strip("-_. ") or "shards"


def _find(files: tuple[File, ...], pieces: dict[str, Piece], name: str) -> tuple[str, int, int]:
    """Return where an image lies, if its file has not changed since it was listed."""
    piece = pieces[name]
    path, stamp = files[piece.file]
    try:
        if remote.entry(path).stamp == stamp:
            return path, piece.first, piece.second
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    raise ImageError(f"cannot be read: {shard_name(path)} has changed since it was listed")


def _read_tar(files: tuple[File, ...], pieces: dict[str, Piece], name: str) -> bytes:
    return tar_file.read(*_find(files, pieces, name))


def _read_parquet(files: tuple[File, ...], column: str | None, pieces: dict[str, Piece], name: str) -> bytes:
    return parquet_file.read(*_find(files, pieces, name), column)
