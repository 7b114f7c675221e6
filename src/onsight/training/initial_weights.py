"""The initial weights of a training: the ImageNet weights that Keras publishes, a file of weights, or a finished run.

All weights except the head's are taken. Published files are downloaded into Keras' own cache folder and checked against
the hashes in `keras.applications`. `hdf5` and `models.model_file` read the files, and trust nothing in them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from onsight.core.errors import DownloadError, ModelFileError, OnsightError, SpecError
from onsight.core.files import checksum, expanded, sha256, write_atomic
from onsight.core.limits import MAX_CLASSES
from onsight.core.progress import Progress
from onsight.data.download import download
from onsight.imaging.fit import Fit
from onsight.models.model_file import ModelDescription, read_description, read_tensors
from onsight.models.registry import layer_table
from onsight.spec import DEFAULT_BACKBONE, IMAGENET
from onsight.training.hdf5 import read_h5

if TYPE_CHECKING:
    import keras


HOME = "https://storage.googleapis.com/tensorflow/keras-applications"
PATIENCE = 3.0  # seconds: the timeout of a download that the user did not ask for

KINDS = {32: "MD5", 64: "SHA-256"}  # by the number of hexadecimal digits of the hash


class Published(NamedTuple):
    """The file of a network's ImageNet weights."""

    place: str  # below HOME; {} is the image size in pixels
    hash: str  # MD5 or SHA-256, as keras.applications names it; "" if it names none
    frozen: int  # number of layers before the network's last stage; fine-tuning freezes them by default
    hidden: int = 0  # filters of the convolution between features and classes, if the file with the top has one

    def file(self, image_size: int) -> str:
        """Return the place of the file for an image size. MobileNetV2 has a file for each of five sizes."""
        return self.place.format(image_size if image_size in (96, 128, 160, 192, 224) else 224)


PUBLISHED: dict[str, Published] = {
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


class Start(NamedTuple):
    """The source of a training's initial weights, described without importing Keras."""

    weights: str  # imagenet, or the absolute path of a run or a file
    model: str  # the network that the weights belong to
    image_size: int | None  # the size that a run was trained with, because the same size works best; None for files
    frozen: int  # number of layers that fine-tuning freezes by default
    text: str  # a description for messages and the report
    fit: Fit = "cut"  # how the images of a run became square


def keras_folder() -> Path:
    """Return the folder in which Keras keeps downloaded weights: `KERAS_HOME`/models, by default ~/.keras/models."""
    return expanded(os.environ.get("KERAS_HOME") or "~/.keras") / "models"


def find_start(weights: str, model: str | None) -> Start:
    """Return what `weights` names: imagenet, a run, an .h5 file in Keras' layout, or a .safetensors file of Onsight.

    Args:
        weights: as the user gave it.
        model: the network, if the user named one.

    Raises:
        SpecError: nothing has that name, or the weights belong to another network.
        ModelFileError: the run is damaged.
        RunError: the network of the run is a custom one that has not been imported in this process.
    """
    from onsight.runs.run import open_run

    if weights == IMAGENET:
        name = model or DEFAULT_BACKBONE
        if name not in PUBLISHED:
            raise SpecError(
                f"Keras publishes no ImageNet weights for {name}, only for: {', '.join(PUBLISHED)}. Choose one of "
                "these, or start from a run of your own: --weights runs/…"
            )
        return Start(IMAGENET, name, None, PUBLISHED[name].frozen, f"{name} as trained on ImageNet")
    path = expanded(weights)
    if path.suffix in (".h5", ".hdf5", ".safetensors") and path.is_file():
        names = [name for name, each in PUBLISHED.items() if is_file_of(each, path.name)]
        name = model or (names[0] if names else "")
        if not name:
            raise SpecError(f"The name of {path} does not show to which network it belongs. Give it: --model NAME")
        if path.suffix != ".safetensors" and name not in PUBLISHED:
            raise SpecError(
                f"{path} cannot be used for {name}: .h5 files are only read for the networks whose weights Keras "
                f"publishes: {', '.join(PUBLISHED)}."
            )
        frozen = PUBLISHED[name].frozen if name in PUBLISHED else 0
        return Start(os.path.abspath(path), name, None, frozen, f"{name} from {path.name}")
    if path.is_file():
        raise SpecError(f"--weights {weights} cannot be read: expected a run, a Keras .h5 file or a .safetensors file.")
    try:
        run = open_run(weights)
    except OnsightError as error:
        raise SpecError(
            f"--weights {weights}: expected imagenet, a finished run, a Keras .h5 file or a .safetensors file. {error}"
        ) from None
    run.require_network()
    description = read_description(run.model_folder)
    if model not in (None, description.model):
        raise SpecError(f"{run.folder} is a {description.model}, but --model is {model}. Leave --model out.")
    if description.channels:
        raise SpecError(
            f"`onsight prune` removed channels from {run.folder}, so its weights no longer fit a {description.model}. "
            "Start from a run with all channels."
        )
    frozen = round(len(description.layers) * 2 / 3)
    text = f"{description.model} as trained in {run.name}"
    return Start(str(run.folder.resolve()), description.model, description.image_size, frozen, text, description.fit)


def is_file_of(published: Published, name: str) -> bool:
    """Return whether `name` is the file name of a network's published weights, with or without the top."""
    stem = re.compile(r"(_no_top_v2|_no_top|_notop)?\.h5$")
    pattern = re.escape(stem.sub("", Path(published.place).name)).replace(re.escape("{}"), r"\d+")
    return re.fullmatch(pattern, stem.sub("", name)) is not None


def default_start(image_size: int, progress: Progress | None = None) -> tuple[Start | None, str]:
    """Return the default pretrained network, or None if its weights cannot be had at once; and the reason."""
    file = keras_folder() / Path(PUBLISHED[DEFAULT_BACKBONE].file(image_size)).name
    there = file.is_file()
    try:
        fetch(DEFAULT_BACKBONE, image_size, progress, timeout=PATIENCE, attempts=1)
    except (DownloadError, ModelFileError) as error:
        return None, f"from scratch: {str(error).split(' Put ')[0]}"
    where = f"are in {file.parent}" if there else f"were fetched into {file.parent}"
    return find_start(IMAGENET, DEFAULT_BACKBONE), (
        f"photos, and the ImageNet weights of {DEFAULT_BACKBONE} {where}; --weights none trains from scratch"
    )


def fetch(
    model: str,
    image_size: int,
    progress: Progress | None = None,
    *,
    timeout: float = 5.0,
    attempts: int = 4,
) -> Path:
    """Return the file of a network's ImageNet weights; download it into Keras' cache folder if it is not there.

    Raises:
        DownloadError: the file is not there and cannot be downloaded; the message says which file to put where.
        ModelFileError: the file in the folder has another checksum.
    """
    published = PUBLISHED[model]
    place = published.file(image_size)
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
            remedy=f"Put {target.name} (from {HOME}/{place}) into {target.parent} (or set KERAS_HOME), or train from "
            "scratch: --weights none.",
        )
    check_hash(target, published.hash)
    return target


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
        raise ModelFileError(
            f"{path} has the {KINDS[len(hash_)]} {found}, but {hash_} was expected: it is damaged, or a different "
            "file. Remove it, and it will be downloaded again."
        )


def weights_file(weights: str, model: str, image_size: int, progress: Progress | None = None) -> Path:
    """Return the file with the weights of a `Start`; download ImageNet weights that are not on this machine yet."""
    if weights == IMAGENET:
        return fetch(model, image_size, progress)
    path = Path(weights)
    return path / "model" / "weights.safetensors" if path.is_dir() else path


def load(model: keras.Model, weights: str) -> None:
    """Set all weights of a new network except its head's from `weights`, as a resolved spec names them.

    Raises:
        ModelFileError: the file is damaged, or belongs to another network.
        SpecError: the weights are a run's, and the network has weights of other shapes at the size of these images.
        DownloadError: the file is no longer on this machine and cannot be downloaded.
    """
    path = weights_file(weights, model.name, model.input_shape[1])
    head = {weight.path: 4 * MAX_CLASSES * int(weight.shape[0]) for weight in model.get_layer("logits").weights}
    if path.suffix == ".safetensors":
        expected = {w.path: (tuple(w.shape), w.dtype) for w in model.weights if w.path not in head}
        description = read_description(path.parent) if Path(weights).is_dir() else None
        if description:
            check_layers(model, description, weights)
        tensors = read_tensors(path, expected, description.weights_sha256 if description else None, head)
        for weight in model.weights:
            if weight.path in tensors:
                weight.assign(tensors[weight.path])
        return
    # In Keras' files, the trainable weights of a layer come before its other weights.
    ours = [w for layer in model.layers if layer.name != "logits"
            for w in layer.trainable_weights + layer.non_trainable_weights]  # fmt: skip
    for weight, values in zip(ours, read_h5(path, [tuple(w.shape) for w in ours], top_shapes(model)), strict=True):
        weight.assign(values)


def check_layers(model: keras.Model, description: ModelDescription, weights: str) -> None:
    """Raise an error if the layers of the run `weights`, except its head, are not those of `model`."""
    mine, theirs = (
        [(row.get("name"), row.get("parameters")) for row in rows if row.get("name") != "logits"]
        for rows in (layer_table(model), description.layers)
    )
    size = model.input_shape[1]
    if mine != theirs and description.image_size != size:
        raise SpecError(
            f"{model.name} has weights of other shapes at {size} px than at the {description.image_size} px of "
            f"{weights}: leave --image-size out."
        )
    if mine != theirs:
        raise ModelFileError(f"{weights} has other layers than this version's {model.name}: train it again.")


def top_shapes(model: keras.Model) -> list[tuple[int, ...]]:
    """Return the shapes of the weights of ImageNet's top: 1,000 classes, in MobileNetV3 after a hidden convolution."""
    features = model.get_layer("logits").kernel.shape[0]
    hidden = PUBLISHED[model.name].hidden if model.name in PUBLISHED else 0
    if hidden:
        return [(1, 1, features, hidden), (hidden,), (1, 1, hidden, 1000), (1000,)]
    return [(features, 1000), (1000,)]


def digest(model: keras.Model) -> str:
    """Return the SHA-256 of all weights except the head's, in order."""
    from onsight.core.backend import to_numpy

    mixed = hashlib.sha256()
    for layer in model.layers:
        if layer.name != "logits":
            for weight in layer.weights:
                mixed.update(np.ascontiguousarray(to_numpy(weight)).tobytes())
    return mixed.hexdigest()
