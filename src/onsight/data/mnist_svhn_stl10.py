"""MNIST, Fashion-MNIST, SVHN and STL-10: find or download their official files, check them and decode them.

None of their formats runs code when it is read: numbers after a short header (IDX), matrices (MATLAB 5, read by SciPy),
or bare numbers (STL-10). Only Fashion-MNIST's authors publish checksums. For the others, the SHA-256 is recorded at the
first download and must be the same from then on. Every figure calls their images "unverified".
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onsight.core.errors import DataError, DownloadError
from onsight.core.files import cache_folder
from onsight.core.progress import Progress
from onsight.data.archive import checksum_of, unpack
from onsight.data.dataset import Dataset, fingerprint
from onsight.data.download import download

MAX_UNPACKED = 4 << 30  # bytes: STL-10's archive inflates to 3.1 GB


@dataclass(frozen=True)
class Layout:
    """How one of the data sets is stored on disk.

    `read` takes (layout, {file: path}) and returns images (n, side, side, 3) uint8 and labels (n,) int64, the
    training part first.
    """

    title: str
    home: str  # ONSIGHT_<NAME>_URL overrides it
    files: tuple[str, ...]
    side: int
    counts: tuple[int, int]  # number of training images and of test images
    classes: tuple[str, ...]
    read: Callable[[Layout, Mapping[str, Path]], tuple[NDArray[np.uint8], NDArray[np.int64]]]
    # Per file: as published by the authors or, where they publish none, as torchvision's data sets name it.
    md5: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)  # bytes per file, as published by the authors


def load_classic(
    name: str, data_dir: Path | None, progress: Progress | None = None, *, download: bool = True
) -> Dataset:
    """Load one of `LAYOUTS` from `data_dir`, else from the cache, else download it.

    `data_dir` holds the official files, or a folder with the data set's name that holds them.

    Raises:
        DataError: `data_dir` does not exist; a file is missing, damaged or has another shape; or nothing was found and
            `download` is False.
        DownloadError: Nothing was found and the download failed.
    """
    layout = LAYOUTS[name]
    if data_dir and not data_dir.is_dir():
        raise DataError(
            f"The data folder '{data_dir}' does not exist: give a folder that holds {', '.join(layout.files)}, or give "
            "none to download them"
        )
    cache = cache_folder() / "downloads" / name
    places = [data_dir / name, data_dir] if data_dir else []
    found = next((paths for paths in (_find(layout, place) for place in places) if paths), None)
    if found is None and all((cache / file).is_file() for file in layout.files):  # else a download is incomplete
        found = {file: cache / file for file in layout.files}
    if found is None:
        if not download:
            raise DataError(
                f"{layout.title} is not on this machine: no copy was found in the data folder (--data-dir or "
                "ONSIGHT_DATA) or in the cache."
            )
        found = {file: _fetch(name, layout, file, cache / file, progress) for file in layout.files}
    for path in found.values():
        note = path.with_name(f"{path.name}.sha256")
        if note.is_file() and note.read_text() != checksum_of(path, "SHA-256"):
            raise DataError(f"'{path}' has changed since it was downloaded: remove it, to download it again")
    images, labels = layout.read(layout, found)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(layout.classes)))
    if len(wrong):
        raise DataError(
            f"{layout.title}: image {wrong[0]} has the class index {labels[wrong[0]]}, expected 0 to "
            f"{len(layout.classes) - 1}: download its files again"
        )
    parts = np.repeat(["train", "test"], layout.counts)
    checksums = [checksum_of(found[file], "SHA-256") for file in layout.files]
    official = bool(layout.md5) and all(checksum_of(found[file], "MD5") == md5 for file, md5 in layout.md5.items())
    provenance = f"official {layout.title} (checksums match)" if official else f"unverified copy of {layout.title}"
    names = tuple(f"{name}#{index}" for index in range(len(labels)))
    mark = fingerprint(layout.classes, labels, parts, checksums)
    return Dataset(name, layout.classes, names, labels, parts, provenance, mark, images)


def _find(layout: Layout, place: Path) -> dict[str, Path] | None:
    """Return the paths of the official files if the first of them is in `place`, else None."""
    if not (place / layout.files[0]).is_file():
        return None
    for file in layout.files:
        if not (place / file).is_file():
            raise DataError(f"'{place / file}' is missing: {layout.title} consists of {', '.join(layout.files)}")
    return {file: place / file for file in layout.files}


def _fetch(name: str, layout: Layout, file: str, target: Path, progress: Progress | None) -> Path:
    def report(done: int, size: int) -> None:
        if progress:
            progress(f"downloading {file}", done, size)

    home = os.environ.get(f"ONSIGHT_{name.upper()}_URL", layout.home).rstrip("/")
    magic = b"\x1f\x8b" if file.endswith("gz") else b"MATLAB"
    download(f"{home}/{file}", target, size=layout.sizes.get(file), magic=magic, progress=report)
    if file in layout.md5 and (found := checksum_of(target, "MD5")) != layout.md5[file]:
        target.unlink()
        target.with_name(f"{target.name}.sha256").unlink()
        raise DownloadError(
            f"{home}/{file} has the MD5 {found}, expected {layout.md5[file]}: it is damaged, or another "
            "file. It was removed."
        )
    return target


# Formats -------------------------------------------------------------------------------------------------------------


def read_mnist(layout: Layout, paths: Mapping[str, Path]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read IDX files of grey images and of labels; return the images as RGB.

    Source: the page of Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits". An IDX file is
    big-endian: 0, 0, the type (8: unsigned bytes), the number of dimensions, each dimension in 4 bytes, the values.
    """
    grey, labels = [], []
    for part, count in zip(("train", "t10k"), layout.counts, strict=True):
        grey.append(_read_idx(paths[f"{part}-images-idx3-ubyte.gz"], (count, layout.side, layout.side)))
        labels.append(_read_idx(paths[f"{part}-labels-idx1-ubyte.gz"], (count,)))
    return np.repeat(np.concatenate(grey)[..., np.newaxis], 3, axis=-1), np.concatenate(labels).astype(np.int64)


def _read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    length = len(header) + math.prod(shape)
    try:
        with gzip.open(path) as file:
            content = file.read(length + 1)  # read no more, however much it inflates to
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"'{path}' is not a complete .gz file ({error}): download it again") from error
    if len(content) != length or not content.startswith(header):
        raise DataError(
            f"'{path}' is not an IDX file of {' x '.join(map(str, shape))} bytes: it begins with "
            f"{content[: len(header)].hex()}, expected {header.hex()} and a size of {length:,} bytes"
        )
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def read_svhn(layout: Layout, paths: Mapping[str, Path]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read SVHN's cropped digits: X (32, 32, 3, n) and y (n, 1), where the digit 0 has the label 10."""
    images = np.empty((sum(layout.counts), layout.side, layout.side, 3), np.uint8)
    labels = np.empty(len(images), np.int64)
    start = 0
    for file, count in zip(layout.files, layout.counts, strict=True):
        matrices = _read_matlab(paths[file], {"X": (layout.side, layout.side, 3, count), "y": (count, 1)})
        images[start : start + count] = np.moveaxis(matrices["X"], -1, 0)
        labels[start : start + count] = matrices["y"][:, 0]
        start += count
    labels[labels == 0] = -1  # the official files have no label 0, so it is out of range
    labels[labels == 10] = 0
    return images, labels


def _read_matlab(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    """Return matrices of a MATLAB 5 file. They must have these shapes and hold bytes, or whole numbers as doubles."""
    from scipy.io import loadmat, whosmat  # imported here, because listing the data sets needs no SciPy

    try:
        listed = {name: shape for name, shape, kind in whosmat(path) if kind in ("uint8", "double")}
        if shapes.items() <= listed.items():  # checked before anything of that size is allocated
            found: dict[str, NDArray[Any]] = loadmat(path, variable_names=list(shapes))
            return found
    except Exception as error:  # the reader raises nearly every type of exception on damaged files
        raise DataError(f"'{path}' is not a complete MATLAB 5 file ({type(error).__name__}: {error})") from error
    raise DataError(f"'{path}' holds the matrices {listed}, expected {dict(shapes)}")


def read_stl10(layout: Layout, paths: Mapping[str, Path]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the labelled parts of STL-10's binary archive, which is unpacked to the cache once.

    An image is 3 planes, red first, each stored column by column. The labels in the files count from 1. The 100,000
    unlabelled images are skipped.
    """
    (archive,) = paths.values()
    folder = cache_folder() / "downloads" / f"stl10-{checksum_of(archive, 'SHA-256')[:16]}"
    wanted = {
        f"{part}_{kind}.bin": range(count * size, count * size + 1)
        for part, count in zip(("train", "test"), layout.counts, strict=True)
        for kind, size in (("X", 3 * layout.side**2), ("y", 1))
    }
    unpack(archive, wanted, folder, most=MAX_UNPACKED)
    images = np.empty((sum(layout.counts), layout.side, layout.side, 3), np.uint8)
    labels = np.empty(len(images), np.int64)
    rows = slice(0, 0)
    for part, count in zip(("train", "test"), layout.counts, strict=True):
        rows = slice(rows.stop, rows.stop + count)
        planes = np.memmap(folder / f"{part}_X.bin", np.uint8, mode="r", shape=(count, 3, layout.side, layout.side))
        images[rows] = planes.transpose(0, 3, 2, 1)
        labels[rows] = np.fromfile(folder / f"{part}_y.bin", np.uint8).astype(np.int64) - 1
    return images, labels


# fmt: off
IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
       "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
DIGITS = tuple("0123456789")
LAYOUTS = {
    "mnist": Layout(
        title="MNIST",
        # The authors' own server, yann.lecun.com, has refused downloads since 2024. This is the copy that the Common
        # Visual Data Foundation provides for this purpose. The sizes are those on the authors' page.
        home="https://storage.googleapis.com/cvdf-datasets/mnist",
        files=IDX,
        side=28,
        counts=(60_000, 10_000),
        classes=DIGITS,
        read=read_mnist,
        sizes=dict(zip(IDX, (9_912_422, 28_881, 1_648_877, 4_542), strict=True)),
        md5=dict(zip(IDX, (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c",
        ), strict=True)),
    ),
    "fashion_mnist": Layout(
        title="Fashion-MNIST",
        home="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",  # the only address that the authors publish
        files=IDX,
        side=28,
        counts=(60_000, 10_000),
        classes=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        read=read_mnist,
        md5=dict(zip(IDX, (  # github.com/zalandoresearch/fashion-mnist
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310",
        ), strict=True)),
    ),
    "svhn": Layout(
        title="SVHN, cropped digits",
        home="http://ufldl.stanford.edu/housenumbers",
        files=("train_32x32.mat", "test_32x32.mat"),
        side=32,
        counts=(73_257, 26_032),
        classes=DIGITS,
        read=read_svhn,
        md5={
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
    ),
    "stl10": Layout(
        title="STL-10",
        home="http://ai.stanford.edu/~acoates/stl10",
        files=("stl10_binary.tar.gz",),
        side=96,
        counts=(5_000, 8_000),
        classes=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
        read=read_stl10,
        md5={"stl10_binary.tar.gz": "91f7769df0f17e558f3565bffb0c7dfb"},
    ),
}
# fmt: on
