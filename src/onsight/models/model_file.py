"""Model folders: writing and loading `model.json` and `weights.safetensors`, without executing anything in the files.

The network is built from the registry, so a file cannot name code to run. The expected table {name: (shape, dtype)}
comes from that network, so a file cannot choose how much memory is allocated.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from onsight.core.backend import dtype_policy, to_numpy
from onsight.core.errors import ModelFileError, OnsightError
from onsight.core.files import read_regular, write_atomic, write_json
from onsight.core.limits import LARGEST_SIZE, MAX_CLASS_NAME, MAX_CLASSES, MAX_PROTOTYPES, SMALLEST_SIZE
from onsight.imaging.fit import GEOMETRIES, Fit
from onsight.models.custom import NAME, missing
from onsight.models.manifest import MANIFEST, is_sha256, read_manifest
from onsight.models.registry import MODELS, build_model, classifier, layer_table

if TYPE_CHECKING:
    import keras


SCHEMA = 1
JSON_LIMIT = 4 * 2**20  # bytes
PROTOTYPES = "distance/prototypes"  # the tensor of weights.safetensors, (features, prototypes) float32


class Likeness(NamedTuple):
    """What tells whether an image is like the training images."""

    prototypes: np.ndarray  # (features, m) float32, columns of length 1
    threshold: float  # of the distance: images beyond it are unlike the training images


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """The content of model.json without its schema number; unknown keys are refused.

    The fields are checked by hand, because importing pydantic would take a third of the time of one prediction.
    """

    model: str
    image_size: int
    classes: list[str]
    channels: float = 0.0  # share of the channels that was removed from the network
    geometry: str = GEOMETRIES["cut"]
    temperature: float = 1.0
    threshold: float | None = None  # predictions with less confidence are unsure
    prototypes: int = 0  # number of prototypes that images are compared with; 0: the model knows no distance
    distance_threshold: float | None = None  # images with a greater distance are unlike the training images
    parameters: int
    layers: list[dict[str, Any]]
    weights_sha256: str
    litert_sha256: str | None = None  # of model.tflite, if it exists
    model_import: str | None = None  # "module:function" of a custom network, for the person who has to import it

    def __post_init__(self) -> None:
        for name, (fits, expected) in RULES.items():
            if not fits(getattr(self, name)):
                raise ValueError(f"{name}: expected {expected}, not {str(getattr(self, name))[:80]!r}")
        if (self.prototypes > 0) != (self.distance_threshold is not None):
            raise ValueError(
                f"prototypes is {self.prototypes} and distance_threshold is {self.distance_threshold}, but a model has "
                "both or neither"
            )

    @property
    def fit(self) -> Fit:
        """How images fit the square that the network takes: the name of `geometry`."""
        return "pad" if self.geometry == GEOMETRIES["pad"] else "cut"


def is_number(value: Any, low: float, high: float) -> bool:
    """Return whether a value from JSON is a number from `low` to `high`; NaN does not count as one."""
    return type(value) in (int, float) and low <= value <= high


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (
        lambda value: type(value) is str and re.fullmatch(NAME, value) is not None,
        "1 to 64 letters, digits and underscores",
    ),
    "image_size": (
        lambda value: type(value) is int and SMALLEST_SIZE <= value <= LARGEST_SIZE,
        f"a whole number from {SMALLEST_SIZE} to {LARGEST_SIZE}",
    ),
    "classes": (
        lambda value: (
            type(value) is list
            and 2 <= len(value) <= MAX_CLASSES
            and all(type(name) is str and 1 <= len(name) <= MAX_CLASS_NAME for name in value)
        ),
        f"2 to {MAX_CLASSES:,} names of 1 to {MAX_CLASS_NAME} characters",
    ),
    "channels": (lambda value: is_number(value, 0, 0.99), "a number from 0 to 0.99"),
    "geometry": (
        lambda value: type(value) is str and value in GEOMETRIES.values(),
        " or ".join(f"'{geometry}'" for geometry in GEOMETRIES.values()),
    ),
    "temperature": (lambda value: is_number(value, 1e-9, 1000), "a number above 0, at most 1000"),
    "threshold": (lambda value: value is None or is_number(value, 0, 1), "a number from 0 to 1, or null"),
    "prototypes": (
        lambda value: type(value) is int and 0 <= value <= MAX_PROTOTYPES,
        f"a whole number from 0 to {MAX_PROTOTYPES}",
    ),
    "distance_threshold": (lambda value: value is None or is_number(value, 0, 2), "a number from 0 to 2, or null"),
    "parameters": (lambda value: type(value) is int and value >= 0, "a whole number, 0 or more"),
    "layers": (
        lambda value: type(value) is list and len(value) <= 10_000 and all(type(row) is dict for row in value),
        "at most 10,000 objects",
    ),
    "weights_sha256": (is_sha256, "64 hexadecimal digits"),
    "litert_sha256": (lambda value: value is None or is_sha256(value), "64 hexadecimal digits, or null"),
    "model_import": (lambda value: value is None or (type(value) is str and len(value) <= 512), "a name, or null"),
}


def save_model(
    folder: Path,
    model: keras.Model,
    classes: tuple[str, ...],
    temperature: float = 1.0,
    threshold: float | None = None,
    channels: float = 0.0,
    fit: Fit = "cut",
    likeness: Likeness | None = None,
) -> None:
    """Write `model`, whose outputs are logits, into the existing `folder`.

    Predictions with less confidence than `threshold` are unsure. `channels` is the share of the channels that the
    network was built without. `fit` is how its images were made square. `likeness` is what tells images that are
    unlike the training images.
    """
    from safetensors.numpy import save

    tensors = {weight.path: to_numpy(weight) for weight in model.weights}
    if likeness:
        tensors[PROTOTYPES] = likeness.prototypes
    content = save(tensors)
    write_atomic(folder / "weights.safetensors", content)
    description = ModelDescription(
        model=model.name,
        image_size=model.input_shape[1],
        channels=channels,
        geometry=GEOMETRIES[fit],
        classes=list(classes),
        temperature=temperature,
        threshold=threshold,
        prototypes=likeness.prototypes.shape[1] if likeness else 0,
        distance_threshold=likeness.threshold if likeness else None,
        parameters=model.count_params(),
        layers=layer_table(model),
        weights_sha256=hashlib.sha256(content).hexdigest(),
        model_import=MODELS[model.name].function if MODELS[model.name].build else None,
    )
    write_description(folder, description)


def write_description(folder: Path, description: ModelDescription) -> None:
    """Write `folder`/model.json; a manifest that is there was written for another one."""
    (folder / MANIFEST).unlink(missing_ok=True)
    write_json(folder / "model.json", {"schema": SCHEMA, **vars(description)})


def read_description(folder: Path) -> ModelDescription:
    """Return the checked content of `folder`/model.json. This does not import Keras.

    Raises:
        ModelFileError: the file is missing, too large, not JSON or of a newer schema, one of its values is invalid, or
            it is not the one that manifest.json names.
    """
    path = folder / "model.json"
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise ModelFileError(f"{path} has {path.stat().st_size:,} bytes; a model.json has at most {JSON_LIMIT:,}.")
        content = read_regular(path, JSON_LIMIT)
        if read_manifest(folder).get("sha256", digest := hashlib.sha256(content).hexdigest()) != digest:
            raise ModelFileError(f"{path} does not have the SHA-256 that {MANIFEST} names: it was damaged or edited.")
        value = json.loads(content)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror}). A finished run has one in model/.") from None
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is not JSON: {error}. It is damaged, or was not written by Onsight.") from None
    schema = value.get("schema") if isinstance(value, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise ModelFileError(
            f"{path} has schema {schema}, but this version of Onsight reads up to {SCHEMA}. Install a newer version."
        )
    try:
        if type(schema) is not int or schema < 1:
            raise ValueError(f"schema: expected {SCHEMA}, not {str(schema)[:80]!r}")
        description = ModelDescription(**{name: field for name, field in value.items() if name != "schema"})
    except (TypeError, ValueError) as error:  # TypeError: a key is unknown or missing
        problem = str(error).removeprefix("ModelDescription.__init__() ")
        raise ModelFileError(f"{path}: {problem}. It is damaged, or was not written by Onsight.") from None
    if not all(name.isprintable() for name in description.classes) or len(set(description.classes)) < len(
        description.classes
    ):
        raise ModelFileError(f"{path}: class names must be printable and different from each other.")
    return description


def load_model(folder: Path, *, distance: bool = False) -> keras.Model:
    """Return the classifier in `folder`: uint8 RGB (batch, H, W, 3) to float32 probabilities (batch, classes).

    With `distance`, a model with prototypes has a second output, the distance (batch,) float32 (`registry.classifier`).

    Raises:
        ModelFileError: something in the folder differs from what this version would have written for that network.
    """
    description = read_description(folder)
    if description.model not in MODELS:
        raise ModelFileError(f"{folder / 'model.json'}: {missing(description.model, description.model_import)}")
    try:
        with dtype_policy("float32"):
            model = build_model(
                description.model, description.image_size, len(description.classes), description.channels
            )
    except OnsightError as error:
        raise ModelFileError(f"{folder / 'model.json'}: {error}") from None
    rows = layer_table(model)
    # Older versions did not write multiply_adds.
    older = [{key: value for key, value in row.items() if key != "multiply_adds"} for row in rows]
    if description.parameters != model.count_params() or description.layers not in (rows, older):
        raise ModelFileError(
            f"{folder / 'model.json'} describes layers that differ from this version's {description.model}: it is "
            "damaged, or was written by another version."
        )
    weights = {weight.path: weight for weight in model.weights}
    expected = {name: (tuple(weight.shape), weight.dtype) for name, weight in weights.items()}
    if description.prototypes:
        features = int(model.get_layer("logits").kernel.shape[0])
        expected[PROTOTYPES] = (features, description.prototypes), "float32"
    tensors = read_tensors(folder / "weights.safetensors", expected, description.weights_sha256)
    prototypes = tensors.pop(PROTOTYPES, None)
    for name, array in tensors.items():
        weights[name].assign(array)
    with dtype_policy("float32"):
        return classifier(model, description.temperature, prototypes if distance else None)


def read_tensors(
    path: Path,
    expected: dict[str, tuple[tuple[int, ...], str]],
    sha256: str | None,
    without: dict[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file that holds exactly `expected`: {name: (shape, dtype)}.

    Args:
        path: the file.
        expected: what it must hold.
        sha256: recorded checksum of the file, or None to skip the check.
        without: {name: bytes} of tensors that the file may also hold, with the most bytes that each may take. They are
            not returned.

    Raises:
        ModelFileError: the file cannot be read, its names, shapes, dtypes, size or checksum differ, or a value is not
            finite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    without = without or {}
    size = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in expected.values())
    allowed = size + sum(without.values()) + 1024 + 512 * len(expected)  # the header: one line per tensor
    try:
        actual = path.stat().st_size
        if not size <= actual <= allowed:
            raise ModelFileError(f"{path} has {actual:,} bytes; its network needs {size:,} to {allowed:,}.")
        content = read_regular(path, allowed)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ModelFileError(f"{path} does not have the SHA-256 that model.json names: it was damaged or replaced.")
    try:
        tensors = {name: array for name, array in load(content).items() if name not in without}
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path} is not a safetensors file: {error}.") from None
    found = {name: (array.shape, str(array.dtype)) for name, array in tensors.items()}
    require_table(path, found, expected, "this network's weights")
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise ModelFileError(f"{path}: '{name}' holds NaN or infinity, so the model cannot be used.")
    return tensors


def require_table(path: Path, found: dict[str, Any], expected: dict[str, Any], what: str) -> None:
    """Raise ModelFileError, which names an array that differs, unless a file's table equals the network's.

    Args:
        path: the file.
        found: {name: shape, or shape and dtype} of its arrays.
        expected: the same of the network.
        what: whose weights they should be, for the message.
    """
    if found != expected:
        name = next(iter(dict(found.items() ^ expected.items())))
        raise ModelFileError(
            f"{path} does not hold {what}: '{name}' is {found.get(name, 'absent')} in the file and "
            f"{expected.get(name, 'absent')} in the network."
        )
