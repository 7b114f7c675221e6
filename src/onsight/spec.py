"""TrainSpec: every training choice, declared once, for the command line's flags, spec.json's keys, the docs' rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .augmentation import AUGMENTATIONS, UNFLIPPED
from .backend import BACKENDS
from .budget import seconds_of
from .errors import SpecError, unknown_name
from .models import MODELS, check_size
from .phases import DEFAULT, FROM_SCRATCH, IMAGENET

IMAGE_SIZES = (32, 64, 96, 128, 160, 224)  # what a folder's pictures are brought to, where nobody says
# Learning rate and weight decay.
USUAL = {"adam": (1e-3, 0.0), "adamw": (1e-3, 1e-2), "sgd": (0.05, 5e-4), "muon": (0.06, 0.0)}
DEFAULT_PRESET = "balanced"
HEAD_STEPS, FINE_STEPS = 150, 40  # of a transfer: at least so many
SMALL_BATCH = 32  # the least that a preset's batch shrinks to for a small set
SMALL_SET = 10_000  # a preset's epochs are meant for at least so many training pictures

# A field that the preset or the data decides where the user does not: `resolve` fills it in, so no reader of a spec has
# to think of None. (To pydantic and cyclopts it is optional.)
Value = TypeVar("Value")
if TYPE_CHECKING:
    from .weights import Start

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
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "balanced": ("the default: a compact CNN, Muon, flips and shifts", BALANCED),
    "quick": (
        "a first answer in a few minutes: two epochs of the default, flips",
        BALANCED | {"epochs": 2, "learning_rate": 0.12, "augmentation": "flip"},
    ),
    "robust": (
        "the default, with pictures made worse in training: for noise, blur, weak contrast",
        BALANCED | {"augmentation": "robust"},
    ),
    "tutorial": (
        "what the tutorials teach: the small CNN, Adam, early stopping, learning-rate reduction",
        {"model": "cnn", "epochs": 100, "batch_size": 64, "optimizer": "adam", "learning_rate": 1e-3,
         "schedule": "plateau", "weight_decay": 0.0, "label_smoothing": 0.0, "patience": 10,
         "augmentation": "flip_rotate_zoom", "validation": 0.2},
    ),
    "fast": (
        "the fastest published recipe for CIFAR-10: whitening, wide blocks, Muon, eight epochs",
        {"model": "whitened", "epochs": 8, "batch_size": 2000, "optimizer": "muon", "learning_rate": 0.24,
         "schedule": "linear", "weight_decay": 0.0, "label_smoothing": 0.2, "patience": 0,
         "augmentation": "flip_nudge", "validation": 0.05},
    ),
    "transfer": (
        "from weights that have learned before: the head on cached features, then the last layers",
        {"model": DEFAULT, "weights": IMAGENET, "epochs": 25, "head_epochs": 20, "batch_size": 32,
         "optimizer": "adamw", "learning_rate": 3e-3, "schedule": "cosine", "weight_decay": 1e-2,
         "label_smoothing": 0.0, "patience": 0, "augmentation": "flip_nudge"},
    ),
}  # fmt: skip


class TrainSpec(BaseModel):
    """What to train, on what, and how. A field left out, or None, is taken from the preset or the data, with a reason.

    Raises:
        SpecError: a name is unknown or a value is out of range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Annotated[str, Parameter(parse=False)] = Field(
        "cifar10", description="a data set's name (`onsight datasets`), or a folder, zip or CSV of pictures"
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
    shots: int | None = Field(None, ge=1, description="train on so many pictures of each class, to see what more bring")
    model: Later[str] = Field(UNSET, description="the network (`onsight models`)")
    image_size: Later[int] = Field(UNSET, ge=8, le=1024, description="side in pixels that pictures are brought to")
    early_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="side in pixels of the first 60 % of the epochs: smaller pictures take less time",
    )
    epochs: Later[int] = Field(UNSET, ge=1, le=100_000, description="passes over the training pictures")
    time_budget: str | None = Field(
        None, description="end within 90s, 5m, 1.5h: as many steps as fit, and the schedule with them"
    )
    batch_size: Later[int] = Field(UNSET, ge=1, le=65_536, description="pictures a training step")
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
        "none", description="balanced: pictures of small classes count more, so that all classes count alike"
    )
    patience: Later[int] = Field(
        UNSET, ge=0, description="stop after so many epochs without a better validation loss, keep the best; 0: never"
    )
    augmentation: Later[str] = Field(UNSET, description=f"of training pictures: {', '.join(AUGMENTATIONS)}")
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
        None, description="use only the pictures that this file names (onsight check --keep-list)"
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
        return str(value) if isinstance(value, Path) else value

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


class Resolved(NamedTuple):
    """A spec without a None, and the reason of each choice that the user did not make."""

    spec: TrainSpec
    reasons: dict[str, str]


def resolve(
    spec: TrainSpec,
    *,
    pictures: int,
    given: Collection[str],
    side: int,
    flips: bool,
    classes: int = 0,
    start: Start | None = None,
) -> Resolved:
    """Fill every None of `spec` but backend and precision, which `train` settles before it imports Keras.

    Args:
        spec: what was asked.
        pictures: how many there are that the data set does not keep for its test.
        given: the parts that it gives: train, validation, test.
        side: the median shorter side of the pictures, in pixels.
        flips: whether a mirrored picture keeps its label (not for digits).
        classes: how many there are; only `shots` asks.
        start: the weights to start from, as `weights.find_start` found them; None: new ones.

    Raises:
        SpecError: two choices exclude each other.
    """
    reasons: dict[str, str] = {}
    chosen: dict[str, Any] = {}

    def choose(field: str, value: Any, reason: str) -> None:
        if getattr(spec, field) is None:
            chosen[field] = value
            reasons[field] = reason

    if spec.time_budget and spec.epochs is not None:
        raise SpecError(f"time_budget={spec.time_budget} sets the epochs, and epochs={spec.epochs} too. Leave one out.")
    if spec.time_budget and start:
        raise SpecError(
            f"time_budget={spec.time_budget} fits one kind of step into the time, and a transfer has two: leave it out."
        )
    has_test, has_validation = "test" in given, "validation" in given
    if start and spec.preset == DEFAULT_PRESET:
        spec = spec.model_copy(update={"preset": "transfer"})
        reasons["preset"] = f"it starts from {start.text}"
    wanted = PRESETS[spec.preset][1] | ({"head_epochs": 20} if start else {})
    if has_validation:
        choose("validation", 0.0, "the data set brings validation pictures")
    elif has_test and "validation" in wanted:
        choose("validation", wanted["validation"], f"preset {spec.preset}")
    elif has_test:
        choose("validation", 0.1, "of the training pictures")
    else:
        choose("validation", 0.15, "the data set has no test pictures: 70/15/15")
    choose("split_seed", spec.seed, "the seed")
    validation: float = chosen.get("validation", spec.validation)
    pictures = round(pictures * (1 - validation - (0 if has_test else 0.15)))
    if spec.shots:
        pictures = min(pictures, spec.shots * classes)
    pictures = max(1, pictures)
    for field, value in wanted.items():
        choose(field, value, f"preset {spec.preset}")
    resolve_start(spec, start, choose)
    most = max(SMALL_BATCH, pictures // 20)  # an epoch of fewer steps would be too few
    if chosen.get("batch_size", 0) > most:
        reason = f"about {max(1, pictures // most)} steps an epoch with {pictures:,} training pictures"
        chosen["batch_size"], reasons["batch_size"] = most, reason
    model = spec.model or chosen["model"]
    if wanted["optimizer"] == "muon" and start:
        choose("optimizer", "adamw", "muon rescales kernels, and batch norms that stay as they were would not fit them")
    elif wanted["optimizer"] == "muon" and not MODELS[model].normed:
        choose("optimizer", "adamw", f"muon is for networks whose convolutions have a batch norm; {model} has others")
    optimizer = spec.optimizer or chosen["optimizer"]
    if optimizer != wanted["optimizer"]:
        for field, value in zip(("learning_rate", "weight_decay"), USUAL[optimizer], strict=True):
            choose(field, value, f"usual for {optimizer}")
    if spec.optimizer == "adam" and spec.weight_decay:
        raise SpecError(f"adam takes no weight_decay ({spec.weight_decay:g}). Take --optimizer adamw, or leave it out.")
    repeats = min(5.0, max(1.0, SMALL_SET / pictures))
    if start:
        lengthen(spec, chosen, reasons, pictures)
    elif "epochs" in chosen and repeats > 1:
        chosen["epochs"] = round(chosen["epochs"] * repeats)
        reasons["epochs"] = f"preset {spec.preset}, {repeats:.1f} times as many for {pictures:,} training pictures"
    judged = has_validation or validation > 0
    if not judged and spec.patience is None:
        chosen["patience"] = 0
        reasons["patience"] = "no validation pictures to judge by"
    if not judged and (spec.schedule or chosen.get("schedule")) == "plateau":
        choose("schedule", "cosine", "no validation pictures to judge a plateau by")

    default_size = MODELS[model].default_size
    fitting = [size for size in IMAGE_SIZES if size <= min(side, default_size)]
    size = max(fitting, default=IMAGE_SIZES[0])
    if side < IMAGE_SIZES[0]:
        reason = f"the pictures' {side} px enlarged"
    elif size == side:
        reason = "the pictures' own size"
    else:
        reason = f"the pictures' median side is {side} px, and {model} is meant for up to {default_size} px"
    if start and start.image_size:
        size, reason = start.image_size, "that of the run whose weights it starts from"
    choose("image_size", size, reason)
    if not flips and chosen.get("augmentation") in UNFLIPPED:
        chosen["augmentation"] = UNFLIPPED[chosen["augmentation"]]
        reasons["augmentation"] = "a mirrored digit is another sign"
    resolved = spec.model_copy(update=chosen)
    if not judged and (resolved.schedule == "plateau" or resolved.patience):
        raise SpecError(
            f"validation=0 leaves nothing to judge by, but schedule={resolved.schedule} and "
            f"patience={resolved.patience} need validation pictures. "
            "Take --schedule cosine --patience 0, or a --validation above 0."
        )
    if not judged and spec.min_precision is not None:
        raise SpecError(
            f"min_precision={spec.min_precision:g} is reached by a threshold chosen on validation pictures, and "
            "validation=0 leaves none. Take a --validation above 0, or leave --min-precision out."
        )
    check_size(model, resolved.image_size)
    if resolved.early_size is not None:
        check_early_size(resolved, resolved.early_size, start)
    return Resolved(resolved, reasons)


def check_early_size(spec: TrainSpec, early_size: int, start: Start | None) -> None:
    """Raise SpecError where a training cannot begin with pictures of `early_size`."""
    if early_size >= spec.image_size:
        raise SpecError(f"early_size={early_size} must be smaller than image_size={spec.image_size}.")
    if start or spec.teacher:
        raise SpecError(f"early_size={early_size} is for new networks that learn from labels alone: leave it out.")
    if spec.time_budget:
        raise SpecError(f"time_budget={spec.time_budget} fits steps of one size into the time: leave early_size out.")
    check_size(spec.model, early_size)


def resolve_start(spec: TrainSpec, start: Start | None, choose: Callable[[str, Any, str], None]) -> None:
    """Choose what goes with the weights to start from."""
    if start is None:
        for name in ("freeze", "head_epochs"):
            if getattr(spec, name) is not None:
                raise SpecError(
                    f"{name} is about layers that have learned before: it needs --weights imagenet or a run."
                )
        if spec.preset == "transfer":
            raise SpecError("--preset transfer starts from weights that have learned before, and --weights says none.")
        choose("weights", FROM_SCRATCH, "new weights")
        return
    if spec.teacher:
        raise SpecError("distill and prune begin with the teacher's weights or new ones: leave --weights out.")
    choose("weights", start.weights, start.text)
    choose("model", start.model, start.text)
    choose("freeze", start.frozen, "the layers before the last stage; --freeze all leaves all but the head")
    if spec.freeze == "none":
        if spec.head_epochs:
            raise SpecError(f"--freeze none trains every layer at once, so head_epochs={spec.head_epochs} cannot be.")
        choose("head_epochs", 0, "no layer is frozen")
        choose("learning_rate", 3e-4, "usual for all layers of a network that has learned before")


def lengthen(spec: TrainSpec, chosen: dict[str, Any], reasons: dict[str, str], pictures: int) -> None:
    """Give a transfer of few pictures enough steps: the head's take a millisecond each."""
    if spec.freeze == "none":
        return
    if spec.epochs is not None or spec.preset != "transfer":
        epochs = spec.epochs if spec.epochs is not None else chosen["epochs"]
        if spec.head_epochs is None:
            chosen["head_epochs"] = epochs if spec.freeze == "all" else epochs * 4 // 5
            reasons["head_epochs"] = f"of {epochs} epochs " + ("all" if spec.freeze == "all" else "four fifths")
        return
    steps = max(1, pictures // min(pictures, spec.batch_size or chosen["batch_size"]))
    head = spec.head_epochs if spec.head_epochs is not None else max(chosen["head_epochs"], -(-HEAD_STEPS // steps))
    fine = 0 if spec.freeze == "all" else max(5, -(-FINE_STEPS // steps))
    if spec.head_epochs is None:
        chosen["head_epochs"] = head
        reasons["head_epochs"] = f"{head * steps:,} steps of {pictures:,} training pictures"
    chosen["epochs"] = max(1, head + fine)
    reasons["epochs"] = f"{head} of the head, {fine} of the layers below it"
