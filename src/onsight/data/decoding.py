"""Decode the images of a data set into arrays, on this machine or on those of a Ray cluster.

The machines of a cluster write their rows straight into the files of the arrays, which lie in a folder that all see, so
that no pixels travel through Ray.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onsight.core.errors import DataError, ImageError, SpecError
from onsight.core.files import write_atomic
from onsight.core.ray_cluster import Lost, each_task
from onsight.core.threads import AT_ONCE, each
from onsight.data.dataset import Dataset
from onsight.imaging import decode
from onsight.imaging.fit import Fit

PIECE = 1024  # images of a task of a cluster
MARK = "shared.txt"  # by its content a machine recognises the folder, rather than one of the same name


class Rows(NamedTuple):
    """What is kept of n images: zeros for a broken one. The names are those of the files, see `pixel_cache.Pixels`."""

    images: np.ndarray  # (n, size, size, 3) uint8 RGB
    headers: np.ndarray  # (n, 3) int32
    hashes: np.ndarray  # (n,) uint64
    contents: np.ndarray  # (n,) uint64


class Job(NamedTuple):
    """What is decoded, and into which squares."""

    dataset: Dataset
    size: int
    fit: Fit


def shapes(job: Job, count: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return the shape and the type of the rows of `count` images, by their names."""
    return {
        "images": ((count, job.size, job.size, 3), np.uint8),
        "headers": ((count, 3), np.int32),
        "hashes": ((count,), np.uint64),
        "contents": ((count,), np.uint64),
    }


def content_hash(data: bytes) -> int:
    """Return the 64-bit BLAKE2b hash of `data`."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def decode_here(job: Job, first: int, stop: int, rows: Rows, broken: dict[int, str], offset: int = 0) -> Iterator[int]:
    """Decode the images `first` to `stop`, image i into row i - `offset`; yield how many are done, now and then.

    `broken` receives index -> reason of those that cannot be read.
    """
    read = functools.partial(_read, job, first, rows, broken, offset)
    return each(read, stop - first, AT_ONCE if job.dataset.waits else None)


def _read(job: Job, first: int, rows: Rows, broken: dict[int, str], offset: int, number: int) -> None:
    index, at = first + number, first + number - offset
    dataset, size, fit = job
    try:
        if dataset.images is not None:
            data = whole = dataset.images[index].tobytes()
            rows.headers[at] = *dataset.images.shape[2:0:-1], 1
            rows.images[at] = decode.resize(dataset.images[index], size, fit)
        else:
            data = dataset.read(index)
            rows.images[at], whole = decode.load_and_whole(data, size, fit)
            rows.headers[at] = decode.header(data)
    except ImageError as error:
        broken[index] = str(error)
    else:
        rows.hashes[at] = content_hash(data)
        rows.contents[at] = content_hash(whole or data)


def decode_on(address: str, job: Job, first: int, folder: Path, broken: dict[int, str]) -> Iterator[int]:
    """Decode the images from `first` on by a Ray cluster, into the arrays in `folder`; yield how many are done.

    Raises:
        SpecError: no cluster answers at this address, or a machine of it does not see the folder.
        DataError: the machines of a task have died too often.
    """
    mark = secrets.token_hex(16)
    write_atomic(folder / MARK, mark)
    starts = range(first, len(job.dataset), PIECE)
    ended: set[int] = set()
    for number, found in each_task(address, _decode_piece, (job, folder.absolute(), mark), starts):
        if isinstance(found, Lost):
            raise DataError(f"Some images could not be decoded: {found.reason}. Repeat the command to go on.")
        broken |= found
        ended.add(number)
        done = next(n for n in range(len(starts) + 1) if n not in ended)  # the first that is missing
        yield min(done * PIECE, len(job.dataset) - first)
    (folder / MARK).unlink()


def _decode_piece(shared: tuple[Job, Path, str], start: int) -> dict[int, str]:
    """Decode the images from `start` on into the files; return the broken ones. Runs on a machine of the cluster."""
    job, folder, mark = shared
    seen = ""
    with contextlib.suppress(OSError):
        seen = (folder / MARK).read_text()
    if seen != mark:
        raise SpecError(not_shared(folder))
    stop = min(start + PIECE, len(job.dataset))
    arrays = {name: np.zeros(*about) for name, about in shapes(job, stop - start).items()}
    broken: dict[int, str] = {}
    for _ in decode_here(job, start, stop, Rows(**arrays), broken, offset=start):
        pass
    for name, array in arrays.items():
        _write_rows(folder / f"{name}.npy", start, array)
    return broken


def open_shared(path: Path) -> np.ndarray:
    """Return the images of a complete cache; for the machines of a cluster.

    Raises:
        SpecError: this machine does not see the cache.
    """
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except FileNotFoundError:
        raise SpecError(not_shared(path)) from None


def not_shared(path: Path) -> str:
    """Return an error message."""
    return (
        f"The machine {platform.node()} of the cluster does not see {path}. With --on, the cache must be in a "
        "folder that all machines share: set ONSIGHT_CACHE to it, under the same path everywhere."
    )


def _write_rows(path: Path, start: int, rows: np.ndarray) -> None:
    """Write rows into a .npy file. It is not mapped for that: a page that two machines map would be written by both."""
    mapped = np.load(path, mmap_mode="r")
    with open(path, "rb+") as file:
        file.seek(mapped.offset + start * rows[0].nbytes)
        file.write(rows.tobytes())
        file.flush()
        os.fsync(file.fileno())
