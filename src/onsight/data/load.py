"""A name or a path -> `Dataset`."""

from __future__ import annotations

import os
from pathlib import Path

from onsight.core.errors import DataError, SpecError, unknown_name
from onsight.core.files import expanded
from onsight.core.progress import Progress
from onsight.data.built_in import draw_toy, load_digits
from onsight.data.dataset import Dataset

DATASETS = {
    "cifar10": "60,000 photos of 32x32 in 10 classes (a download of 170 MB, or your copy)",
    "cifar100": "60,000 photos of 32x32 in 100 classes (a download of 169 MB, or your copy)",
    "mnist": "70,000 handwritten digits of 28x28 (a download of 12 MB, or your copy)",
    "fashion_mnist": "70,000 grey images of clothes, 28x28, in 10 classes (a download of 31 MB, or your copy)",
    "svhn": "99,289 digits of house numbers, 32x32 (a download of 246 MB, or your copy)",
    "stl10": "13,000 photos of 96x96 in 10 classes, without the unlabelled ones (a download of 2.6 GB, or your copy)",
    "digits": "1,797 handwritten digits of 8x8 that come with scikit-learn (no download)",
    "toy": "240 coloured discs and squares of 24x24, drawn on the spot: trains in seconds (no download)",
}

UNMIRRORED = {"digits", "mnist", "svhn"}  # a mirrored digit is another sign


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
        complete: Refuse a class that has no images, or none in one of the parts.
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

    from onsight.data.folder import read_folder  # here, because they need `Dataset` from this module
    from onsight.data.table import read_csv
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
