"""Model folders: `model.json` and `weights.safetensors`, loaded without running anything that the files say.

The network is built from the registry, so the file cannot name code; the expected table {name: shape, dtype} comes from
that network, so the file cannot choose what is allocated.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .backend import dtype_policy, to_numpy
from .errors import ModelFileError, OnsightError
from .files import write_atomic, write_json
from .models import MODELS, build_model, classifier, layer_table

if TYPE_CHECKING:
    import keras

SCHEMA = 1
JSON_LIMIT = 4 * 2**20  # bytes

ClassName = Annotated[str, Field(min_length=1, max_length=128)]


class ModelDescription(BaseModel):
    """What model.json holds; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_: Literal[1] = Field(1, alias="schema")
    model: str
    image_size: int = Field(ge=8, le=1024)
    classes: list[ClassName] = Field(min_length=2, max_length=10_000)
    geometry: Literal["centre square, scaled to image_size (antialiased)"] = (
        "centre square, scaled to image_size (antialiased)"
    )
    temperature: float = Field(1.0, gt=0, le=1000, allow_inf_nan=False)
    threshold: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)  # below it a prediction is unsure
    parameters: int = Field(ge=0)
    layers: list[dict[str, Any]] = Field(max_length=10_000)
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    litert_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")  # of model.tflite, where there is one


def save_model(
    folder: Path,
    model: keras.Model,
    classes: tuple[str, ...],
    temperature: float = 1.0,
    threshold: float | None = None,
) -> None:
    """Write `model` (to logits) into `folder`, which must exist; below `threshold` its predictions are unsure."""
    from safetensors.numpy import save

    content = save({weight.path: to_numpy(weight) for weight in model.weights})
    write_atomic(folder / "weights.safetensors", content)
    description = ModelDescription(
        schema=1,
        model=model.name,
        image_size=model.input_shape[1],
        classes=list(classes),
        temperature=temperature,
        threshold=threshold,
        parameters=model.count_params(),
        layers=layer_table(model),
        weights_sha256=hashlib.sha256(content).hexdigest(),
    )
    write_json(folder / "model.json", description.model_dump(by_alias=True))


def read_description(folder: Path) -> ModelDescription:
    """Return what `folder`/model.json says, checked. Imports no Keras.

    Raises:
        ModelFileError: the file is absent, too large, not JSON, of a newer schema, or says something out of bounds.
    """
    path = folder / "model.json"
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise ModelFileError(f"{path} has {path.stat().st_size:,} bytes; a model.json has at most {JSON_LIMIT:,}.")
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror}). A finished run has one in model/.") from None
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is not JSON: {error}. It was not written by Onsight, or was damaged.") from None
    schema = value.get("schema") if isinstance(value, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise ModelFileError(
            f"{path} has schema {schema}, and this Onsight reads up to {SCHEMA}. Take a newer Onsight."
        )
    try:
        description = ModelDescription.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ModelFileError(f"{path}: {where}: {problem['msg']}. It was damaged, or not written by Onsight.") from None
    if not all(name.isprintable() for name in description.classes) or len(set(description.classes)) < len(
        description.classes
    ):
        raise ModelFileError(f"{path}: class names must be printable and unlike each other.")
    if description.model not in MODELS:
        raise ModelFileError(f"{path} needs the model '{description.model}', which is not one of: {', '.join(MODELS)}.")
    return description


def load_model(folder: Path) -> keras.Model:
    """Return the classifier in `folder`: uint8 RGB (batch, H, W, 3) to float32 probabilities (batch, classes).

    Raises:
        ModelFileError: anything in the folder is not what this version would have written for that network.
    """
    description = read_description(folder)
    try:
        with dtype_policy("float32"):
            model = build_model(description.model, description.image_size, len(description.classes))
    except OnsightError as error:
        raise ModelFileError(f"{folder / 'model.json'}: {error}") from None
    rows = layer_table(model)
    older = [{key: value for key, value in row.items() if key != "multiply_adds"} for row in rows]  # before 0.2
    if description.parameters != model.count_params() or description.layers not in (rows, older):
        raise ModelFileError(
            f"{folder / 'model.json'} describes other layers than this version's {description.model} has: it was "
            "damaged, or made by another version."
        )
    weights = {weight.path: weight for weight in model.weights}
    expected = {name: (tuple(weight.shape), weight.dtype) for name, weight in weights.items()}
    for name, array in read_tensors(folder / "weights.safetensors", expected, description.weights_sha256).items():
        weights[name].assign(array)
    with dtype_policy("float32"):
        return classifier(model, description.temperature)


def read_tensors(path: Path, expected: dict[str, tuple[tuple[int, ...], str]], sha256: str) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file that holds exactly `expected`: {name: (shape, dtype)}.

    Raises:
        ModelFileError: names, shapes, types, size or checksum differ, or a value is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    size = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in expected.values())
    allowed = size + 1024 + 512 * len(expected)  # the header: a line for each tensor
    try:
        actual = path.stat().st_size
        if not size <= actual <= allowed:
            raise ModelFileError(f"{path} has {actual:,} bytes; its network needs between {size:,} and {allowed:,}.")
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelFileError(f"{path} does not have the SHA-256 that model.json names: it was damaged or exchanged.")
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path} is not a safetensors file: {error}.") from None
    found = {name: (array.shape, str(array.dtype)) for name, array in tensors.items()}
    if found != expected:
        name = next(iter(dict(found.items() ^ expected.items())))
        raise ModelFileError(
            f"{path} does not hold this network's weights: '{name}' is {found.get(name, 'absent')} in the file and "
            f"{expected.get(name, 'absent')} in the network."
        )
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise ModelFileError(f"{path}: '{name}' holds NaN or infinity. A model like that answers nothing.")
    return tensors
