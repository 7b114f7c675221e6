"""Load a data set: a name or a path -> `Dataset`."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from onsight.core.errors import DataError, SpecError, unknown_name
from onsight.core.files import expanded, is_address
from onsight.core.progress import Progress
from onsight.data.dataset import Dataset, fingerprint
from onsight.data.reading import AUTOMATIC, Reading


class Source(NamedTuple):
    """A data set that has a name."""

    function: str  # "module:function" in this package
    description: str
    licence: str = "not recorded"  # of the images, as far as it is known
    files: bool = True  # the function takes (name, folder, progress, *, download), otherwise nothing
    mirrors: bool = True  # whether a mirrored image keeps its label; a mirrored digit is not that digit any more


DATASETS = {
    "cifar10": Source(
        "cifar:load_cifar",
        "60,000 photos of 32x32 pixels in 10 classes (a download of 170 MB, or your own copy)",
        licence="none is given; the authors ask to cite Krizhevsky 2009",
    ),
    "cifar100": Source(
        "cifar:load_cifar",
        "60,000 photos of 32x32 pixels in 100 classes (a download of 169 MB, or your own copy)",
        licence="none is given; the authors ask to cite Krizhevsky 2009",
    ),
    "mnist": Source(
        "mnist_svhn_stl10:load_classic",
        "70,000 handwritten digits of 28x28 pixels (a download of 12 MB, or your own copy)",
        mirrors=False,
        licence="CC BY-SA 3.0, as far as is known",
    ),
    "fashion_mnist": Source(
        "mnist_svhn_stl10:load_classic",
        "70,000 grey 28x28-pixel images of clothes in 10 classes (a download of 31 MB, or your own copy)",
        licence="MIT",
    ),
    "svhn": Source(
        "mnist_svhn_stl10:load_classic",
        "99,289 digits of house numbers, 32x32 pixels (a download of 246 MB, or your own copy)",
        mirrors=False,
        licence="for non-commercial use only, say the authors",
    ),
    "stl10": Source(
        "mnist_svhn_stl10:load_classic",
        "13,000 labelled photos of 96x96 pixels in 10 classes (a download of 2.6 GB, or your own copy)",
        licence="none is given; the images are from ImageNet, whose terms allow non-commercial research and education",
    ),
    "digits": Source(
        "built_in:load_digits",
        "1,797 handwritten digits of 8x8 pixels that come with scikit-learn (no download)",
        files=False,
        mirrors=False,
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
    ),
    "toy": Source(
        "built_in:draw_toy",
        "240 coloured discs and squares of 24x24 pixels, drawn by Onsight: trains in seconds (no download)",
        files=False,
        licence="Apache-2.0, as Onsight, which drew them",
    ),
}


def load_dataset(
    data: str | Path,
    data_dir: Path | None = None,
    progress: Progress | None = None,
    *,
    reading: Reading = AUTOMATIC,
    complete: bool = True,
    download: bool = True,
) -> Dataset:
    """Load a named data set, or list the images at a path, with the labels of a labels.csv if there is one.

    Args:
        data: A name in `DATASETS`, or the path of a folder, a .zip or a .csv; shards, which are .tar or .parquet files,
            a pattern of them (photos-{000..019}.tar) or a folder of them; or the address of a folder, a .zip or
            shards, like s3://bucket/photos. A name takes precedence: to load a folder with the name of a known data
            set, pass "./digits" or a `Path`.
        data_dir: Where to look for the files of a named data set before downloading; by default the folder that
            ONSIGHT_DATA names.
        progress: Called with (what, bytes so far, bytes in total) during a download.
        reading: How the images become a data set: the layout, the classes, the columns of a CSV, the labels.csv.
        complete: Whether a class without images, or without images in one of the parts, is a DataError.
        download: Whether data that is not on this machine may be downloaded. If not, it is a DataError.

    Raises:
        SpecError: `data` is neither a known name nor an existing path, or `reading` does not fit it.
        DataError: The data set cannot be used; the message says why and what is expected.
        DownloadError: The data set could not be downloaded.
    """
    dataset = _as_it_is(data, data_dir, progress, reading, complete, download)
    if reading.labels is None:
        return dataset
    from onsight.data.labels import with_labels

    return with_labels(dataset, reading)


def _as_it_is(
    data: str | Path,
    data_dir: Path | None,
    progress: Progress | None,
    reading: Reading,
    complete: bool,
    download: bool,
) -> Dataset:
    path = expanded(data)
    if str(data) in DATASETS and not (isinstance(data, Path) and path.exists()):
        reading.check_fit(str(data), "a named data set")
        return restrict(_load_known(str(data), data_dir, progress, download), reading)
    from onsight.data.shards import find_shards, read_shards

    if is_address(data):
        if not download:
            raise DataError(f"'{data}' is not on this machine")
        from onsight.data.address import read_address

        return read_address(str(data), complete, reading, progress)
    if shards := find_shards(data):
        return read_shards(data, shards, complete, reading, progress)
    if not path.exists():
        message = unknown_name("data set", str(data), DATASETS)
        raise SpecError(
            f"{message} Or give the path of a folder, a .zip, a .csv, .tar or .parquet: there is nothing at '{data}'."
        )
    try:
        os.path.realpath(path).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"The path '{path}' is not valid UTF-8, so no report could hold it: rename the folder or file"
        ) from None

    from onsight.data.folder import read_folder  # imported here, because a named data set needs none of them
    from onsight.data.table import read_csv
    from onsight.data.zip_file import read_zip

    if is_folder_or_zip(data):
        reading.check_fit(str(data), "neither", layout=True)
        return (read_folder if path.is_dir() else read_zip)(path, complete, reading)
    if path.suffix.lower() == ".csv":
        reading.check_fit(str(data), "a CSV", columns=True)
        return read_csv(path, complete, reading)
    raise DataError(f"'{path}' cannot be read: expected a folder, .zip, .csv, .tar or .parquet")


def is_folder_or_zip(data: str | Path) -> bool:
    """Return whether `data` is the path of a folder or zip, whose folders are its classes or parts."""
    path = expanded(data)
    known = str(data) in DATASETS and not isinstance(data, Path)
    return not known and (path.is_dir() or path.suffix.lower() == ".zip")


def restrict(dataset: Dataset, reading: Reading) -> Dataset:
    """Return a data set of arrays with the chosen classes only.

    Raises:
        DataError: A name is no class of the data set, or fewer than two classes stay.
    """
    classes = reading.chosen(dataset.classes, dataset.name)
    if classes == dataset.classes or dataset.images is None:
        return dataset
    place = {name: number for number, name in enumerate(classes)}
    number = np.array([place.get(name, -1) for name in dataset.classes], np.int64)[dataset.labels]
    kept = np.flatnonzero(number >= 0)
    labels, parts = number[kept], dataset.parts[kept]
    return replace(
        dataset,
        classes=classes,
        names=tuple(dataset.names[index] for index in kept.tolist()),
        labels=labels,
        parts=parts,
        images=dataset.images[kept],
        provenance=f"{dataset.provenance}, {len(classes):,} of its {len(dataset.classes):,} classes",
        fingerprint=fingerprint(classes, labels, parts, [dataset.fingerprint]),
        excluded=reading.exclude,
        left_out=frozenset(dataset.names[index] for index in np.flatnonzero(number < 0).tolist()),
    )


def _load_known(name: str, data_dir: Path | None, progress: Progress | None, download: bool) -> Dataset:
    source = DATASETS[name]
    module, function = source.function.split(":")
    load = getattr(import_module(f".{module}", __package__), function)
    dataset: Dataset = load(name, data_folder(data_dir), progress, download=download) if source.files else load()
    return dataset


def keeps_labels_when_mirrored(dataset: Dataset) -> bool:
    """Return whether a mirrored image keeps its label, as far as is known."""
    return dataset.name not in DATASETS or DATASETS[dataset.name].mirrors


def data_folder(data_dir: Path | None) -> Path | None:
    """Return the folder with copies of named data sets: `data_dir`, or the one that ONSIGHT_DATA names, or None."""
    chosen = data_dir or os.environ.get("ONSIGHT_DATA")
    return expanded(chosen) if chosen else None
