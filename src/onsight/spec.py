"""TrainSpec: every training option, declared once, for the command-line flags, the keys of spec.json and the docs."""

from __future__ import annotations

import os
from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from onsight.core.backend import BACKENDS
from onsight.core.errors import SpecError, unknown_name
from onsight.core.limits import LARGEST_SIZE, SMALLEST_SIZE
from onsight.core.text import seconds_of
from onsight.data.reading import LabelsFile, Layout, Reading, names_in
from onsight.imaging.augment import AUGMENTATIONS
from onsight.imaging.fit import Fit
from onsight.models.registry import MODELS

DEFAULT_PRESET = "balanced"
IMAGENET, FROM_SCRATCH = "imagenet", "none"  # what `weights` may be, apart from a path
DEFAULT_BACKBONE = "efficientnet_lite0"  # the pretrained network for photos: a Python package brings its weights
DOWNLOADED_BACKBONE = "efficientnetv2_b0"  # the one whose weights are downloaded if the package is missing

# A field that the preset or the data decides if the user does not. `training.resolve` fills it in, so no reader of a
# resolved spec has to handle None. (To pydantic and the command line it is optional.)
Value = TypeVar("Value")
if TYPE_CHECKING:
    Later = Annotated[Value, "None until resolved"]
else:
    Later = Value | None
UNSET: Any = None


class Role(StrEnum):
    """What other commands do with a training option. Every field of `TrainSpec` has one or more roles."""

    TEACHERS = "a distilled or pruned run takes it from its teacher"
    PRUNED_WITH = "prune trains with the value that the pruned run had"
    STUDENTS = "a distilled or pruned run has its own value"
    FROM_SCRATCH = "setting it turns off ImageNet weights as the default: few pretrained networks allow it, or none"
    NO_STUDENTS = "distill refuses it: a student trains at one size, from new weights or its teacher's"
    RESUMABLE = "--resume may change it"
    OPTIONAL = "it may be None in a resolved spec"


def option(description: str, *roles: Role, default: Any = UNSET, **limits: Any) -> Any:
    """Return a field of `TrainSpec`: its description, its roles, its default, and pydantic's limits."""
    return Field(default, description=description, json_schema_extra={"roles": [role.name for role in roles]}, **limits)


def roles_of(field: str) -> frozenset[Role]:
    """Return the roles of a field of `TrainSpec`."""
    extra: Any = TrainSpec.model_fields[field].json_schema_extra
    return frozenset(Role[name] for name in extra["roles"])


def fields_with(role: Role) -> tuple[str, ...]:
    """Return the names of the fields of `TrainSpec` that have a role, in the order of their declaration."""
    return tuple(name for name in TrainSpec.model_fields if role in roles_of(name))


# Each preset: a one-line description, and values for fields of TrainSpec. benchmarks/README.md has the command that
# measured each figure in the README.
COMPACT: dict[str, Any] = {
    "model": "cnn_compact", "batch_size": 128, "optimizer": "muon", "learning_rate": 0.06,
    "schedule": "linear", "weight_decay": 0.0, "label_smoothing": 0.0, "patience": 0, "augmentation": "flip_nudge",
    "ghost_batch_size": 64,
}  # fmt: skip
BALANCED = COMPACT | {
    "epochs": 17, "early_size": 24, "batch_size": 256, "ghost_batch_size": 128, "learning_rate": 0.09,
    "label_smoothing": 0.1,
}  # fmt: skip
FAST: dict[str, Any] = {
    "model": "whitened", "epochs": 8, "early_size": 24, "batch_size": 1000, "ghost_batch_size": 250,
    "optimizer": "muon_sgd", "learning_rate": 0.17, "schedule": "linear", "weight_decay": 0.0, "label_smoothing": 0.2,
    "patience": 0, "augmentation": "flip_nudge", "validation": 0.05,
}  # fmt: skip
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "balanced": ("the default: a compact CNN, Muon, flips and small shifts", BALANCED),
    "quick": (
        "a first result in a few minutes: two epochs of the default, flips only",
        COMPACT | {"epochs": 2, "learning_rate": 0.12, "augmentation": "flip"},
    ),
    "robust": (
        "more epochs than the default, on distorted images: for data with noise, blur or low contrast",
        COMPACT | {"augmentation": "robust", "epochs": 24},
    ),
    "tutorial": (
        "what the tutorials teach: the small CNN, Adam, early stopping, learning-rate reduction",
        {"model": "cnn", "epochs": 100, "batch_size": 64, "optimizer": "adam", "learning_rate": 1e-3,
         "schedule": "plateau", "weight_decay": 0.0, "label_smoothing": 0.0, "patience": 10,
         "augmentation": "flip_shift"},
    ),
    "fast": (
        "the fastest published recipe for CIFAR-10: whitening, wide blocks, Muon, eight epochs",
        FAST,
    ),
    "best": (
        "the most accurate: the recipe of fast with a wider network, three times the epochs and cutout",
        FAST | {"model": "whitened_wide", "epochs": 24, "batch_size": 500, "learning_rate": 0.12,
                "augmentation": "flip_shift_cutout"},
    ),
    "transfer": (
        "from pretrained weights: fits the head to cached features; with --epochs N, also trains the last layers",
        {"model": DEFAULT_BACKBONE, "weights": IMAGENET, "epochs": 1, "head_epochs": 1, "batch_size": 32,
         "optimizer": "adamw", "learning_rate": 3e-5, "schedule": "cosine", "weight_decay": 1e-2,
         "label_smoothing": 0.0, "patience": 0, "augmentation": "flip_nudge"},
    ),
}  # fmt: skip


class TrainSpec(BaseModel):
    """What to train, on what data, and how.

    A field that is left out, or None, is chosen by the preset or the data; the run records the reason. The first
    argument may be given by position: `TrainSpec("photos/")` is `TrainSpec(data="photos/")`.

    Raises:
        SpecError: a name is unknown or a value is out of range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = option(
        "a named data set (`onsight datasets`), or a folder, zip, CSV, shards or address of images",
        Role.TEACHERS,
        default="cifar10",
    )
    preset: str = option(
        "a set of choices (`onsight presets`); each can be overridden below",
        Role.STUDENTS, Role.FROM_SCRATCH, default=DEFAULT_PRESET,
    )  # fmt: skip
    weights: Later[str] = option(
        "the initial weights: imagenet, a finished run, a Keras .h5 file, a .safetensors file, or none",
        Role.STUDENTS, Role.NO_STUDENTS,
    )  # fmt: skip
    freeze: Literal["all", "none"] | Annotated[int, Field(ge=0)] | None = option(
        "with weights: the frozen layers: all (but the head), none, or the first N",
        Role.STUDENTS, Role.NO_STUDENTS, Role.FROM_SCRATCH, Role.OPTIONAL,
    )  # fmt: skip
    head_epochs: int | None = option(
        "with weights: 1 fits the head first, 0 trains all layers that are not frozen from the start",
        Role.STUDENTS, Role.NO_STUDENTS, Role.OPTIONAL, ge=0, le=100_000,
    )  # fmt: skip
    layout: Layout | None = option(
        "what the top folders of the data are, if both is possible: parts (train, test), or classes",
        Role.TEACHERS, Role.OPTIONAL,
    )  # fmt: skip
    classes: tuple[str, ...] = option("use only these classes: cat,dog,bird", Role.TEACHERS, default=())
    exclude: tuple[str, ...] = option("leave these classes out: cat,dog", Role.TEACHERS, default=())
    path_column: str | None = option(
        "the column of a CSV that holds the paths, if it has no usual name", Role.TEACHERS, Role.OPTIONAL
    )
    label_column: str | None = option(
        "the column of a CSV that holds the labels, if it has no usual name", Role.TEACHERS, Role.OPTIONAL
    )
    labels: Path | None = option(
        "a CSV that corrects labels and adds images (onsight label writes one)", Role.TEACHERS, Role.OPTIONAL
    )
    shots: int | None = option(
        "train on only N images per class, to see how much more images help", Role.TEACHERS, Role.OPTIONAL, ge=1
    )
    model: Later[str] = option("the network (`onsight models`)", Role.PRUNED_WITH, Role.STUDENTS, Role.FROM_SCRATCH)
    image_size: Later[int] = option(
        "the size to which images are scaled, in pixels per side", Role.PRUNED_WITH, Role.STUDENTS,
        ge=SMALLEST_SIZE, le=LARGEST_SIZE,
    )  # fmt: skip
    fit: Fit = option(
        "how images become square: cut to the centre square, or pad: the whole image on grey",
        Role.TEACHERS, default="cut",
    )  # fmt: skip
    early_size: int | None = option(
        "a smaller image size for the first quarter of the epochs, to save time",
        Role.STUDENTS, Role.NO_STUDENTS, Role.FROM_SCRATCH, Role.OPTIONAL,
        ge=SMALLEST_SIZE, le=LARGEST_SIZE,
    )  # fmt: skip
    epochs: Later[int] = option("passes over the training images", Role.STUDENTS, Role.RESUMABLE, ge=1, le=100_000)
    time_budget: str | None = option(
        "finish within 90s, 5m or 1.5h: train as many steps as fit, and fit the schedule to them",
        Role.STUDENTS, Role.FROM_SCRATCH, Role.OPTIONAL,
    )  # fmt: skip
    batch_size: Later[int] = option("images per training step", Role.PRUNED_WITH, Role.STUDENTS, ge=1, le=65_536)
    ghost_batch_size: int | None = option(
        "batch norm takes its statistics from parts of the batch, each of N images or a few more",
        Role.PRUNED_WITH, Role.STUDENTS, Role.OPTIONAL, ge=1, le=65_536,
    )  # fmt: skip
    optimizer: Later[Literal["adam", "adamw", "muon", "muon_sgd", "sgd"]] = option(
        "sgd has Nesterov momentum 0.9; muon is for networks of convolutions and batch norms, muon_sgd for whitened",
        Role.PRUNED_WITH, Role.STUDENTS, Role.FROM_SCRATCH,
    )  # fmt: skip
    learning_rate: Later[float] = option("the highest learning rate", Role.STUDENTS, gt=0, le=100)
    schedule: Later[Literal["constant", "cosine", "linear", "one_cycle", "plateau"]] = option(
        "how the learning rate changes; cosine and one_cycle warm up, plateau divides by ten when validation stalls",
        Role.STUDENTS,
    )
    weight_decay: Later[float] = option(
        "decoupled weight decay (adamw, sgd), applied to kernels only", Role.PRUNED_WITH, Role.STUDENTS, ge=0, le=1
    )
    label_smoothing: Later[float] = option(
        "the share of the label that is spread over all classes", Role.PRUNED_WITH, Role.STUDENTS, ge=0, lt=1
    )
    class_weight: Literal["none", "balanced"] = option(
        "balanced: weight images so that all classes count the same", Role.PRUNED_WITH, Role.STUDENTS, default="none"
    )
    patience: Later[int] = option(
        "stop after N epochs without a lower validation loss, and keep the best epoch; 0: never stop early",
        Role.STUDENTS, ge=0,
    )  # fmt: skip
    augmentation: Later[str] = option(
        f"how training images are changed: {', '.join(AUGMENTATIONS)}", Role.PRUNED_WITH, Role.STUDENTS
    )
    validation: Later[float] = option(
        "the share of the training images held out for validation; 0 trains on all and selects nothing", Role.TEACHERS,
        ge=0, lt=0.8,
    )  # fmt: skip
    min_precision: float | None = option(
        "answer 'unsure' below a threshold; this share of the validation answers at or above it is right",
        Role.TEACHERS, Role.STUDENTS, Role.OPTIONAL, gt=0, lt=1,
    )  # fmt: skip
    seed: int = option(
        "the seed of the split, initial weights, order, augmentation and dropout", Role.PRUNED_WITH, Role.STUDENTS,
        default=0, ge=0, lt=2**63,
    )  # fmt: skip
    split_seed: Later[int] = option("the seed of the split only (default: the seed)", Role.TEACHERS, ge=0, lt=2**63)
    backend: Later[str] = option("tensorflow or jax", Role.STUDENTS)
    precision: Later[Literal["float32", "bfloat16"]] = option(
        "the number format of training; everything else computes in float32", Role.STUDENTS
    )
    checkpoint_seconds: float = option(
        "longest time between two checkpoints, in seconds", Role.STUDENTS, default=60, gt=0
    )
    allow_tiny: bool = option(
        "keep classes that are too small to be split, for training only", Role.TEACHERS, default=False
    )
    keep_list: Path | None = option(
        "use only the images that this file names (onsight check --keep-list)", Role.TEACHERS, Role.OPTIONAL
    )
    teacher: Path | None = option(
        "a finished run whose answers are learned in addition to the labels (onsight distill, onsight prune)",
        Role.STUDENTS, Role.FROM_SCRATCH, Role.OPTIONAL,
    )  # fmt: skip
    sparsity: float = option(
        "share of the teacher's weights that become zero (onsight prune)", Role.STUDENTS, default=0.0, ge=0, le=0.99
    )
    channels: float = option(
        "share of the teacher's channels that are removed (onsight prune)", Role.STUDENTS, default=0.0, ge=0, le=0.99
    )
    data_dir: Path | None = option(
        "folder with a copy of a named data set (or set ONSIGHT_DATA)", Role.TEACHERS, Role.OPTIONAL
    )

    def __init__(self, data: Any = None, /, **fields: Any) -> None:
        if data is not None:
            if "data" in fields:
                raise SpecError(f"The data is given twice: {data!r} and data={fields['data']!r}. Leave one out.")
            fields["data"] = data
        try:
            super().__init__(**{name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            raise SpecError(explain(error)) from None

    @property
    def reading(self) -> Reading:
        """How the data is read."""
        labels = LabelsFile(self.labels) if self.labels else None
        return Reading(self.layout, self.classes, self.exclude, self.path_column, self.label_column, labels)

    @classmethod
    def recorded(cls, values: dict[str, Any]) -> TrainSpec:
        """Return the spec that a run recorded. Only here the model may be unregistered, namely a custom one."""
        name = values.get("model")
        if not isinstance(name, str) or name in MODELS:
            return cls(**values)
        return cls(**{**values, "model": None}).model_copy(update={"model": name})

    @field_validator("data", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return os.path.join(".", value) if isinstance(value, Path) else value  # a folder named like a data set

    @field_validator("classes", "exclude", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return names_in(value) if isinstance(value, str) else value

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
    """Return a readable message for a pydantic error, with one line per setting."""
    lines: list[str] = []
    reasons: dict[str, list[str]] = {}  # a field that may be of several types has one for each
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "value_error":  # the message is one of ours
            lines.append(problem["msg"].removeprefix("Value error, "))
        elif problem["type"] == "extra_forbidden":
            lines.append(unknown_name("setting", name, TrainSpec.model_fields))
        else:
            reason = problem["msg"][0].lower() + problem["msg"][1:]
            reasons.setdefault(f"{name}={problem['input']} cannot be used: ", []).append(reason)
    return "\n".join([*lines, *(f"{start}{', or '.join(each)}." for start, each in reasons.items())])
