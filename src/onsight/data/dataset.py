"""A name or a path -> `Dataset`: which pictures there are, what they show and which part they belong to.

A data set that comes as files (a folder, a zip, a CSV) is listed, not read: `Dataset.read` gives one file's bytes
when they are needed. The known sets come as arrays and are in memory when `load_dataset` returns.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onsight.core.errors import DataError, SpecError, unknown_name
from onsight.core.files import expanded

DATASETS = {
    "cifar10": "60,000 photos of 32x32 in 10 classes (a download of 170 MB, or your copy)",
    "cifar100": "60,000 photos of 32x32 in 100 classes (a download of 169 MB, or your copy)",
    "mnist": "70,000 handwritten digits of 28x28 (a download of 12 MB, or your copy)",
    "fashion_mnist": "70,000 grey pictures of clothes, 28x28, in 10 classes (a download of 31 MB, or your copy)",
    "svhn": "99,289 digits of house numbers, 32x32 (a download of 246 MB, or your copy)",
    "stl10": "13,000 photos of 96x96 in 10 classes, without the unlabelled ones (a download of 2.6 GB, or your copy)",
    "digits": "1,797 handwritten digits of 8x8 that come with scikit-learn (no download)",
    "toy": "240 coloured discs and squares of 24x24, drawn on the spot: trains in seconds (no download)",
}

UNMIRRORED = {"digits", "mnist", "svhn"}  # a mirrored digit is another sign

MAX_CLASSES = 10_000
MAX_CLASS_NAME = 128  # characters

Progress = Callable[[str, int, int | None], None]  # what is done, bytes so far, bytes in all


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A labelled set of n pictures.

    `Dataset`s of files can be pickled and sent to other processes; `read` is safe to call from many of them and
    from many threads at once, because it opens the file anew.
    """

    name: str
    classes: tuple[str, ...]
    names: tuple[str, ...]  # one a picture, unique: "train/cat/0001.jpg", or "digits#3" in a set of arrays
    labels: NDArray[np.int64]  # (n,) index into classes
    parts: NDArray[np.str_]  # (n,) "train", "validation", "test", or "" where the split is ours to make
    provenance: str  # one line that travels with every figure
    fingerprint: str  # 64 hexadecimal digits: equal when pictures, order, labels, classes and parts are
    images: NDArray[np.uint8] | None = None  # (n, H, W, 3) RGB in a set of arrays, None in a set of files
    reader: Callable[[str], bytes] | None = None  # name -> bytes, in a set of files

    def read(self, index: int) -> bytes:
        """Return the bytes of the file that holds picture `index`.

        Raises:
            PictureError: The file cannot be read or is damaged; the message is the reason without the path.
            ValueError: The set comes as arrays.
        """
        if self.reader is None:
            raise ValueError(f"The data set '{self.name}' comes as arrays: use its `images`")
        return self.reader(self.names[index])

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        parts, counts = np.unique(self.parts, return_counts=True)
        split = ", ".join(f"{part or 'unsplit'} {count:,}" for part, count in zip(parts, counts, strict=True))
        return f"Dataset('{self.name}', {len(self):,} pictures, {len(self.classes):,} classes, {split})"

    def _repr_html_(self) -> str:
        from onsight.display import notebook

        return notebook.dataset(self)


def load_dataset(
    data: str | Path,
    data_dir: Path | None = None,
    progress: Progress | None = None,
    *,
    complete: bool = True,
    download: bool = True,
) -> Dataset:
    """Load a known data set by its name, or list the one at a path.

    Args:
        data: A name in `DATASETS`, or the path of a folder, a .zip or a .csv. The name wins: a folder that is called
            like a known set is meant by "./digits", or by a `Path`.
        data_dir: Where to look for a known set's files before downloading; by default what ONSIGHT_DATA names.
        progress: Called with (what, bytes so far, bytes in all) while something is downloaded.
        complete: Refuse a class that has no pictures, or none in one of the parts.
        download: Whether what is not on this machine may be fetched; else it is a DataError.

    Raises:
        SpecError: `data` is neither a known name nor an existing path.
        DataError: The data set cannot be used; the message says why and what is expected.
        DownloadError: The data set could not be fetched.
    """
    path = expanded(data)
    if str(data) in DATASETS and not (isinstance(data, Path) and path.exists()):
        return _load_known(str(data), data_dir, progress, download)
    if not path.exists():
        message = unknown_name("data set", str(data), DATASETS)
        raise SpecError(f"{message} Or give the path of a folder, a .zip or a .csv; '{data}' is none.")
    try:
        os.path.realpath(path).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"'{path}' lies at a path that is not valid UTF-8, which no report could hold: rename it"
        ) from None

    from onsight.data.folder import (
        read_csv,
        read_folder,  # here, because they need `Dataset` from this module
    )
    from onsight.data.zip_file import read_zip

    if path.is_dir():
        return read_folder(path, complete)
    if path.suffix.lower() == ".zip":
        return read_zip(path, complete)
    if path.suffix.lower() == ".csv":
        return read_csv(path, complete)
    raise DataError(f"'{path}' is none of what can be read: a folder, a .zip or a .csv")


def _load_known(name: str, data_dir: Path | None, progress: Progress | None, download: bool) -> Dataset:
    if name == "digits":
        return load_digits()
    if name == "toy":
        return draw_toy()

    from onsight.data.cifar import load_cifar  # here, because they need `Dataset` from this module
    from onsight.data.mnist_svhn_stl10 import LAYOUTS, load_classic

    if data_dir is None and os.environ.get("ONSIGHT_DATA"):
        data_dir = Path(os.environ["ONSIGHT_DATA"])
    load = load_classic if name in LAYOUTS else load_cifar
    return load(name, expanded(data_dir) if data_dir else None, progress, download=download)


def load_digits() -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits as (8, 8, 3) uint8; the split is ours to make.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
    (the test set of it, values 0 to 16).
    """
    from sklearn.datasets import load_digits as load  # here, because the import takes two seconds

    scans = load()
    grey = np.rint(scans.images * (255 / 16)).astype(np.uint8)
    return _from_arrays(
        "digits",
        classes=tuple("0123456789"),
        images=np.repeat(grey[..., np.newaxis], 3, axis=-1),
        labels=scans.target.astype(np.int64),
        parts=np.full(len(grey), "", dtype="<U10"),
        provenance=f"digits of scikit-learn {importlib.metadata.version('scikit-learn')}",
    )


def draw_toy() -> Dataset:
    """Draw 240 pictures of 24x24, 180 of them for training: a blue, green or red disc or square on a noisy grey ground.

    The colour is the class and the shape is a distraction, so every picture has an obvious answer. The same pictures
    are drawn each time.
    """
    rng = np.random.default_rng(0)
    count, side = 240, 24
    classes = ("blue", "green", "red")
    labels = np.arange(count) % len(classes)
    grey = rng.integers(64, 192, (count, side, side, 1), dtype=np.uint8)
    images = np.repeat(grey, 3, axis=-1)
    rows, columns = np.mgrid[:side, :side]
    for image, label in zip(images, labels, strict=True):
        y, x = rng.integers(8, 16, 2)
        radius = rng.integers(5, 9)
        if rng.random() < 0.5:
            inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        else:
            inside = np.maximum(abs(rows - y), abs(columns - x)) < radius
        colour = rng.integers(0, 60, 3)
        colour[2 - label] = rng.integers(180, 256)  # red is channel 0 and the last class
        image[inside] = colour
    return _from_arrays(
        "toy",
        classes=classes,
        images=images,
        labels=labels.astype(np.int64),
        parts=np.where(np.arange(count) < 180, "train", "test"),
        provenance="toy pictures drawn by Onsight",
    )


def _from_arrays(
    name: str,
    *,
    classes: tuple[str, ...],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    parts: NDArray[np.str_],
    provenance: str,
) -> Dataset:
    names = tuple(f"{name}#{index}" for index in range(len(labels)))
    mark = fingerprint(classes, labels, parts, [hashlib.sha256(images.tobytes()).hexdigest()])
    return Dataset(name, classes, names, labels, parts, provenance, mark, images)


def fingerprint(
    classes: Sequence[str], labels: NDArray[np.int64], parts: NDArray[np.str_], contents: Sequence[str]
) -> str:
    """Return the SHA-256 of everything that makes a data set what it is, as 64 hexadecimal digits.

    `contents` stands for the pixels: one text a file (its name, size and time), or one checksum for each array.
    """
    # JSON, because a plain join would let a file name with a separator in it imitate another data set.
    table = json.dumps([list(classes), labels.tolist(), parts.tolist(), list(contents)])
    return hashlib.sha256(table.encode()).hexdigest()


def check_classes(classes: Sequence[str], where: str) -> None:
    """Refuse class names that a model file could not hold or a page could not show; `where` begins the message.

    Raises:
        DataError: Fewer than two or more than 10,000 classes, or a name that is not 1 to 128 printable characters.
    """
    if len(classes) < 2:
        held = f"one class only, '{classes[0]}'" if classes else "no classes"
        raise DataError(f"{where} has {held}: a classifier needs at least two")
    if len(classes) > MAX_CLASSES:
        raise DataError(f"{where} has {len(classes):,} classes: at most {MAX_CLASSES:,} are possible")
    for name in classes:
        if not name.strip() or len(name) > MAX_CLASS_NAME or not name.isprintable():
            shown = ascii(name[:40])
            raise DataError(f"{where} has the class {shown}: rename it to 1 to {MAX_CLASS_NAME} printable characters")
