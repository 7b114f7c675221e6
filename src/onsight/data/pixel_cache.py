"""Decoded images: uint8, of one size, memory-mapped, and cached, so that a second start decodes no image."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onsight.core.errors import DataError, ImageError, SpecError
from onsight.core.files import (
    cache_folder,
    create_mapped,
    file_lock,
    is_disk_full,
    leftovers,
    remove_folder,
    sync_file,
    sync_folder,
    write_atomic,
)
from onsight.core.spread import spread
from onsight.core.text import count, quoted
from onsight.data.dataset import check_broken
from onsight.data.decoding import Job, Rows, content_hash, decode_here, decode_on, shapes
from onsight.data.reading import exclude_flag
from onsight.imaging import decode
from onsight.imaging.containers import NO_HEIC

if TYPE_CHECKING:
    from onsight.core.progress import Progress
    from onsight.data.dataset import Dataset
    from onsight.imaging.fit import Fit


READER_VERSION = 3  # increase it when imaging/decode.py returns other pixels, so that old caches are not used
HASHED = 64  # images per task
SAVED_EVERY = 10.0  # seconds of decoding that a power cut may cost
BEGUN = "done.txt"  # how many images are decoded, in a folder that is not complete


@dataclass(frozen=True, eq=False)
class Pixels:
    """The images of a data set at one size.

    Attributes:
        images: (n, size, size, 3) uint8 RGB, read-only; zeros for a broken image.
        hashes: (n,) uint64, a hash of the bytes of the image (of its file, if it has one): equal for identical images.
        broken: index -> reason, for images that could not be read.
        contents: (n,) uint64, a hash of the decoded pixels at full size, whatever file they are in; None if `hashes`
            are that already. Of a large JPEG it is the hash of the file, see `imaging.decode.load_and_whole`.
        headers: (n, 3) int32, width and height in pixels as stored, and the EXIF orientation; zeros where the header
            cannot be read.
    """

    images: np.ndarray
    hashes: np.ndarray
    broken: dict[int, str]
    headers: np.ndarray
    contents: np.ndarray | None = None

    def shared_file(self) -> Path:
        """Return the path of the images in the cache, from which other machines read them.

        Raises:
            SpecError: the images are not in the cache, but in memory.
        """
        if isinstance(self.images, np.memmap) and self.images.filename:
            return Path(self.images.filename)
        raise SpecError("--on is for images in files: those of this named data set are in memory. Leave --on out.")

    def prints(self, index: np.ndarray) -> np.ndarray:
        """Return the sorted hashes by which the images of `index` are recognised in any other data, uint64.

        They are those of the files and those of the pixels: a copy of a file is recognised even if another decoder
        gives other pixels, and the same pixels even in another lossless format or an array.
        """
        kinds = [self.hashes] if self.contents is None else [self.hashes, self.contents]
        return np.unique(np.concatenate([each[index] for each in kinds]))

    def among(self, prints: np.ndarray) -> np.ndarray:
        """Return (n,) bool: the images that are among those of `prints`."""
        found: np.ndarray = np.isin(self.hashes, prints)
        return found if self.contents is None else found | np.isin(self.contents, prints)


def load_pixels(
    dataset: Dataset,
    size: int,
    progress: Progress | None = None,
    *,
    fit: Fit = "cut",
    pass_over_all: bool = False,
    on: str | None = None,
) -> Pixels:
    """Return the images of `dataset` at `size` x `size` pixels, from the cache if they are there.

    `fit` is "cut" for the centre squares, or "pad" for the whole images on grey squares (`imaging.decode.resize`). Two
    processes that request the same images do the work once: the second one waits for the first. `on` is the address of
    a Ray cluster whose machines decode the images (`core.ray_cluster`); they share the cache.

    Raises:
        DataError: more images are unreadable than can be skipped (1 %, at least 3); the message lists the first of
            them. With `pass_over_all`, any number is skipped. Or the disk is full.
    """
    if dataset.images is not None and dataset.images.shape[1:3] == (size, size):
        height, width = dataset.images.shape[1:3]
        headers = np.broadcast_to(np.array([width, height, 1], np.int32), (len(dataset), 3))
        return Pixels(dataset.images, hash_rows(dataset.images), {}, headers)
    facts = f"{dataset.fingerprint} {size} {READER_VERSION} {fit}"
    key = hashlib.sha256(facts.encode()).hexdigest()[:32]
    folder = cache_folder() / "pixels" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    if _is_outdated(folder):
        with file_lock(folder.with_suffix(".lock")):
            if _is_outdated(folder):  # another process may have made it in the meantime
                remove_folder(folder)
                _fill(folder, Job(dataset, size, fit), progress, on)
    broken = _read_broken(folder)
    if not pass_over_all:
        named = {dataset.names[index]: reason for index, reason in broken.items()} | {**dataset.unusable}
        try:
            check_broken(dataset.name, named, len(dataset) + len(dataset.unusable), _fix(dataset, broken))
        except DataError:
            # Remove the cached result, so that the next start tries again: the disk or the network may have failed.
            remove_folder(folder)
            raise
    headers, hashes, contents = (np.load(folder / f"{name}.npy") for name in ("headers", "hashes", "contents"))
    return Pixels(np.load(folder / "images.npy", mmap_mode="r"), hashes, broken, headers, contents)


def _fix(dataset: Dataset, broken: dict[int, str]) -> str:
    """Return what helps when too many images are broken: it may be all those of a class."""
    readable = np.delete(dataset.labels, list(broken))
    gone = [dataset.classes[index] for index in np.setdiff1d(dataset.labels, readable).tolist()]
    if not gone or len(dataset.classes) - len(gone) < 2:
        return "Repair or remove them."
    return f"Repair or remove them. To go on without {quoted(gone)}: {exclude_flag([*dataset.excluded, *gone])}"


def _is_outdated(folder: Path) -> bool:
    """Return whether `folder` has to be made.

    It is absent or incomplete, or HEIC images in it were unreadable and no longer are.
    """
    files = [*(f"{name}.npy" for name in Rows._fields), "broken.json"]
    if not all((folder / name).exists() for name in files):
        return True
    return NO_HEIC in _read_broken(folder).values() and find_spec("pi_heif") is not None


def _read_broken(folder: Path) -> dict[int, str]:
    """Return index -> reason, for the images in `folder` that could not be read."""
    return {int(index): reason for index, reason in json.loads((folder / "broken.json").read_text("utf-8")).items()}


def _fill(folder: Path, job: Job, progress: Progress | None, on: str | None) -> None:
    """Decode every image of a data set into `folder`, which appears complete or not at all.

    When this breaks off, the images that are done stay in a folder beside it, and the next call goes on behind them.
    """
    partial = folder.with_suffix(".partial")  # the caller holds the lock, so that nobody else uses it
    try:
        _decode(partial, job, progress, on)
        sync_folder(partial)
        os.rename(partial, folder)
        sync_folder(folder.parent)
    except OSError as error:
        if not is_disk_full(error):
            raise
        shutil.rmtree(partial, ignore_errors=True)
        megabytes = len(job.dataset) * job.size * job.size * 3 / 1e6
        raise DataError(
            f"The disk that holds {folder.parent} is full: {len(job.dataset):,} images of {job.size} px take "
            f"{megabytes:,.0f} MB. Make room, or set ONSIGHT_CACHE to a folder elsewhere."
        ) from error


def _decode(partial: Path, job: Job, progress: Progress | None, on: str | None) -> None:
    """Write the arrays and broken.json. No file is still mapped on return, as Windows requires."""
    count = len(job.dataset)
    first, broken = _begun(partial)
    if not first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name, (shape, kind) in shapes(job, count).items():
            create_mapped(partial / f"{name}.npy", shape, kind)
    arrays = [np.load(partial / f"{name}.npy", mmap_mode="r+") for name in Rows._fields]
    rows = Rows(*arrays)

    def save(done: int) -> None:
        for name, array in zip(Rows._fields, arrays, strict=True):
            array.flush()
            sync_file(partial / f"{name}.npy")
        reasons = {str(index): reason for index, reason in sorted(broken.items()) if index < done}
        write_atomic(partial / "broken.json", json.dumps(reasons))
        write_atomic(partial / BEGUN, str(done))

    decoded = decode_on(on, job, first, partial, broken) if on else decode_here(job, first, count, rows, broken)
    done, saved = first, time.monotonic()
    try:
        for number in decoded:
            done = first + number
            if progress:
                progress("reading images", done, count)
            if time.monotonic() - saved > SAVED_EVERY:
                save(done)
                saved = time.monotonic()
    except BaseException:
        save(done)
        if not done:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    save(count)
    (partial / BEGUN).unlink()


def _begun(partial: Path) -> tuple[int, dict[int, str]]:
    """Return how many images an earlier call has decoded into `partial`, and which of them were broken."""
    try:
        return int((partial / BEGUN).read_text()), _read_broken(partial)
    except (OSError, ValueError):
        return 0, {}


def check_unchanged(dataset: Dataset, pixels: Pixels, index: np.ndarray) -> None:
    """Read the files of the images of `index` again, and check that they are the ones that were decoded.

    A file that was replaced without a trace in the file system keeps its old pixels in the cache. Files on other
    machines are not read again.

    Raises:
        DataError: files have changed.
    """
    if dataset.reader is None or dataset.waits:
        return

    def changed(at: int) -> bool:
        return content_hash(dataset.read(at)) != int(pixels.hashes[at])

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = [at for at, other in zip(index.tolist(), threads.map(changed, index.tolist()), strict=True) if other]
    if found:
        raise DataError(
            f"{count(len(found), 'image')} of {dataset.name} changed after the decoded images were stored, although "
            f"nothing in the file system shows it: {quoted([dataset.names[at] for at in found[:3]])}. "
            "Run `onsight clear-cache`, then evaluate again."
        )


def hash_rows(images: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
    """Return (n,) uint64: the `content_hash` of each image of an array (all, H, W, 3), or of the chosen ones."""
    chosen = np.arange(len(images)) if chosen is None else chosen

    def part(start: int) -> list[int]:
        return [content_hash(row.data) for row in np.ascontiguousarray(images[chosen[start : start + HASHED]])]

    starts = range(0, len(chosen), HASHED)
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # hashlib releases the GIL
        return np.fromiter(itertools.chain.from_iterable(threads.map(part, starts)), np.uint64, len(chosen))


def median_side(dataset: Dataset, sample: int = 64, *, fit: Fit = "cut") -> int:
    """Return the median side of the squares that images fit, in pixels, of at most `sample` images over the data set.

    It is the shorter side if the squares are cut out of the images, the longer side if they are padded.
    """
    side = max if fit == "pad" else min
    if dataset.images is not None:
        return int(side(dataset.images.shape[1:3]))
    sides = []
    for index in spread(len(dataset), sample).tolist():
        try:
            sides.append(side(decode.header(dataset.read(index))[:2]))
        except ImageError:
            continue  # load_pixels reports unreadable images
    return int(np.median(sides)) if sides else 32


def clear_cache() -> int:
    """Remove all decoded images, features and programs compiled by JAX; return the number of bytes freed.

    Downloads and the measurements of `check` stay.
    """
    size = 0
    for folder in (cache_folder() / name for name in ("pixels", "features", "jax")):
        for path in [folder, *leftovers(folder)]:
            size += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        remove_folder(folder)
    return size
