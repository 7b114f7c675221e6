"""TrainSpec: every training choice, declared once, for the command line's flags, spec.json's keys, the docs' rows."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from onsight.core.backend import BACKENDS
from onsight.core.errors import SpecError, unknown_name
from onsight.core.text import seconds_of
from onsight.imaging.augment import AUGMENTATIONS
from onsight.models.registry import MODELS

DEFAULT_PRESET = "balanced"
IMAGENET, FROM_SCRATCH = "imagenet", "none"  # what `weights` may say beside a path
DEFAULT = "efficientnetv2_b0"  # for photos, where nobody names a network

# A field that the preset or the data decides where the user does not: `choices.resolve` fills it in, so no reader of a
# spec has to think of None. (To pydantic and cyclopts it is optional.)
Value = TypeVar("Value")
if TYPE_CHECKING:
    Later = Annotated[Value, "until then None"]
else:
    Later = Value | None
UNSET: Any = None

# One-line descriptions first, then plain overrides of TrainSpec's fields. How each figure in the README
# was measured, with its command: benchmarks/README.md.
BALANCED: dict[str, Any] = {
    "model": "cnn_compact", "epochs": 12, "batch_size": 128, "optimizer": "muon", "learning_rate": 0.06,
    "schedule": "linear", "weight_decay": 0.0, "label_smoothing": 0.0, "patience": 0, "augmentation": "flip_shift",
}  # fmt: skip
FAST: dict[str, Any] = {
    "model": "whitened", "epochs": 8, "early_size": 24, "batch_size": 500, "optimizer": "muon", "learning_rate": 0.12,
    "schedule": "linear", "weight_decay": 0.0, "label_smoothing": 0.2, "patience": 0, "augmentation": "flip_nudge",
    "validation": 0.05,
}  # fmt: skip
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "balanced": ("the default: a compact CNN, Muon, flips and shifts", BALANCED),
    "quick": (
        "a first answer in a few minutes: two epochs of the default, flips",
        BALANCED | {"epochs": 2, "learning_rate": 0.12, "augmentation": "flip"},
    ),
    "robust": (
        "the default for twice as long, its images made worse: for noise, blur, weak contrast",
        BALANCED | {"augmentation": "robust", "epochs": 24},
    ),
    "tutorial": (
        "what the tutorials teach: the small CNN, Adam, early stopping, learning-rate reduction",
        {"model": "cnn", "epochs": 100, "batch_size": 64, "optimizer": "adam", "learning_rate": 1e-3,
         "schedule": "plateau", "weight_decay": 0.0, "label_smoothing": 0.0, "patience": 10,
         "augmentation": "flip_rotate_zoom", "validation": 0.2},
    ),
    "fast": (
        "the fastest published recipe for CIFAR-10: whitening, wide blocks, Muon, eight epochs",
        FAST,
    ),
    "best": (
        "the same, wider, three times the epochs, with holes in its images: for accuracy",
        FAST | {"model": "whitened_wide", "epochs": 24, "augmentation": "flip_shift_cutout"},
    ),
    "transfer": (
        "from weights that have learned before: the head on cached features, then the last layers",
        {"model": DEFAULT, "weights": IMAGENET, "epochs": 25, "head_epochs": 20, "batch_size": 32,
         "optimizer": "adamw", "learning_rate": 3e-3, "schedule": "cosine", "weight_decay": 1e-2,
         "label_smoothing": 0.0, "patience": 0, "augmentation": "flip_nudge"},
    ),
}  # fmt: skip

# What a run that learns from another has from that: the same images, divided alike.
SHARED = (
    "data", "data_dir", "image_size", "validation", "split_seed", "shots", "keep_list", "allow_tiny", "min_precision",
)  # fmt: skip


class TrainSpec(BaseModel):
    """What to train, on what, and how. A field left out, or None, is taken from the preset or the data, with a reason.

    Raises:
        SpecError: a name is unknown or a value is out of range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Annotated[str, Parameter(parse=False)] = Field(
        "cifar10", description="a data set's name (`onsight datasets`), or a folder, zip or CSV of images"
    )
    preset: str = Field("balanced", description="a set of choices (`onsight presets`); each can be overridden below")
    weights: Later[str] = Field(
        UNSET, description="to start from: imagenet, a finished run, a .h5 of Keras' or a .safetensors; none: new ones"
    )
    freeze: Literal["all", "none"] | Annotated[int, Field(ge=0)] | None = Field(
        None, description="with weights: layers that stay as they are, all but the head, none, or the first N"
    )
    head_epochs: int | None = Field(
        None, ge=0, le=100_000, description="with weights: of the epochs, those in which the head alone learns"
    )
    shots: int | None = Field(None, ge=1, description="train on so many images of each class, to see what more bring")
    model: Later[str] = Field(UNSET, description="the network (`onsight models`)")
    image_size: Later[int] = Field(UNSET, ge=8, le=1024, description="side in pixels that images are brought to")
    early_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="side in pixels of the first quarter of the epochs: smaller images take less time",
    )
    epochs: Later[int] = Field(UNSET, ge=1, le=100_000, description="passes over the training images")
    time_budget: str | None = Field(
        None, description="end within 90s, 5m, 1.5h: as many steps as fit, and the schedule with them"
    )
    batch_size: Later[int] = Field(UNSET, ge=1, le=65_536, description="images a training step")
    optimizer: Later[Literal["adam", "adamw", "muon", "sgd"]] = Field(
        UNSET, description="sgd has Nesterov momentum 0.9; muon is for networks of convolutions and batch norms"
    )
    learning_rate: Later[float] = Field(UNSET, gt=0, le=100, description="its highest value")
    schedule: Later[Literal["constant", "cosine", "linear", "one_cycle", "plateau"]] = Field(
        UNSET, description="of the learning rate; cosine and one_cycle warm up, plateau divides it by ten on a stall"
    )
    weight_decay: Later[float] = Field(UNSET, ge=0, le=1, description="decoupled (adamw, sgd); kernels only")
    label_smoothing: Later[float] = Field(UNSET, ge=0, lt=1, description="share of the label spread over all classes")
    class_weight: Literal["none", "balanced"] = Field(
        "none", description="balanced: images of small classes count more, so that all classes count alike"
    )
    patience: Later[int] = Field(
        UNSET, ge=0, description="stop after so many epochs without a better validation loss, keep the best; 0: never"
    )
    augmentation: Later[str] = Field(UNSET, description=f"of training images: {', '.join(AUGMENTATIONS)}")
    validation: Later[float] = Field(
        UNSET, ge=0, lt=0.8, description="share held out to choose by; 0 trains on all, with no selection"
    )
    min_precision: float | None = Field(
        None, gt=0, lt=1, description="say unsure below the probability at which validation is right so often"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of split, initial weights, order, augmentation and dropout")
    split_seed: Later[int] = Field(UNSET, ge=0, lt=2**63, description="of the split alone (default: the seed)")
    backend: Later[str] = Field(UNSET, description="tensorflow or jax")
    precision: Later[Literal["float32", "bfloat16"]] = Field(UNSET, description="of training; the rest is float32")
    checkpoint_seconds: float = Field(60, gt=0, description="at most so long between two checkpoints")
    allow_tiny: bool = Field(False, description="send classes too small for a split to training only")
    keep_list: Path | None = Field(
        None, description="use only the images that this file names (onsight check --keep-list)"
    )
    teacher: Annotated[Path | None, Parameter(parse=False)] = Field(
        None, description="a finished run whose answers are learned beside the labels (onsight distill, onsight prune)"
    )
    sparsity: Annotated[float, Parameter(parse=False)] = Field(
        0.0, ge=0, le=0.99, description="share of the teacher's weights that become zero (onsight prune)"
    )
    channels: Annotated[float, Parameter(parse=False)] = Field(
        0.0, ge=0, le=0.99, description="share of the teacher's channels that are removed (onsight prune)"
    )
    data_dir: Path | None = Field(None, description="folder with a copy of a named data set (or set ONSIGHT_DATA)")

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**{name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            raise SpecError(explain(error)) from None

    @classmethod
    def recorded(cls, values: dict[str, Any]) -> TrainSpec:
        """Return the spec that a run recorded; only here the model may be one that is not registered, a user's own."""
        name = values.get("model")
        if not isinstance(name, str) or name in MODELS:
            return cls(**values)
        return cls(**{**values, "model": None}).model_copy(update={"model": name})

    @field_validator("data", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return os.path.join(".", value) if isinstance(value, Path) else value  # a folder that is called like a set

    @field_validator("time_budget")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            seconds_of(value)
        return value

    @field_validator("preset", "model", "augmentation", "backend")
    @classmethod
    def _known(cls, value: str, info: Any) -> str:
        known: dict[str, Collection[str]] = {
            "preset": PRESETS,
            "model": MODELS,
            "augmentation": AUGMENTATIONS,
            "backend": BACKENDS,
        }
        if value not in known[info.field_name]:
            raise ValueError(unknown_name(info.field_name, value, known[info.field_name]))
        return value


def explain(error: ValidationError) -> str:
    """Return a pydantic error in our words, one setting a line."""
    lines = []
    for problem in error.errors(include_url=False):
        if problem["type"] == "value_error":  # our own message says all
            lines.append(problem["msg"].removeprefix("Value error, "))
            continue
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(unknown_name("setting", name, TrainSpec.model_fields))
        else:
            lines.append(f"{name}={problem['input']} cannot be used: {problem['msg'][0].lower()}{problem['msg'][1:]}.")
    return "\n".join(lines)
