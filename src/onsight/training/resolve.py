"""How a training choice that the user did not make is made: by the preset, the data, what it starts from; and why."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from onsight.core.errors import SpecError
from onsight.imaging.augment import UNFLIPPED
from onsight.models.registry import MODELS, check_size
from onsight.spec import DEFAULT_PRESET, FROM_SCRATCH, PRESETS, TrainSpec

if TYPE_CHECKING:
    from onsight.training.initial_weights import Start


IMAGE_SIZES = (32, 64, 96, 128, 160, 224)  # what a folder's images are brought to, where nobody says
# Learning rate and weight decay.
USUAL = {"adam": (1e-3, 0.0), "adamw": (1e-3, 1e-2), "sgd": (0.05, 5e-4), "muon": (0.06, 0.0)}
HEAD_STEPS, FINE_STEPS = 150, 40  # of a transfer: at least so many
SMALL_RATE = 1e-2  # of a transfer of a network for small images (docs/decisions/transfer.md)
PHOTO_SIZE = 224  # what networks for photos are meant for
SMALL_BATCH = 32  # the least that a preset's batch shrinks to for a small set
SMALL_SET = 10_000  # a preset's epochs are meant for at least so many training images


class Resolved(NamedTuple):
    """A spec without a None, and the reason of each choice that the user did not make."""

    spec: TrainSpec
    reasons: dict[str, str]


class Choices:
    """A spec while it is filled in: what the user asked for stands, of all else the last word."""

    def __init__(self, asked: TrainSpec) -> None:
        self.asked = asked
        self.made: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def choose(self, field: str, value: Any, reason: str) -> None:
        """Give a field its value, unless the user did."""
        if self.is_open(field):
            self.made[field], self.reasons[field] = value, reason

    def is_open(self, field: str) -> bool:
        """Return whether the user left it to us."""
        return getattr(self.asked, field) is None

    def __getitem__(self, field: str) -> Any:
        """Return what a field is as things stand."""
        return self.made.get(field, getattr(self.asked, field))


def resolve(
    spec: TrainSpec,
    *,
    images: int,
    given: Collection[str],
    side: int,
    flips: bool,
    classes: int = 0,
    start: Start | None = None,
) -> Resolved:
    """Fill every None of `spec` but backend and precision, which `train` settles before it imports Keras.

    Args:
        spec: what was asked.
        images: how many there are that the data set keeps neither for its test nor for validation.
        given: the parts that it gives: train, validation, test.
        side: the median shorter side of the images, in pixels.
        flips: whether a mirrored image keeps its label (not for digits).
        classes: how many there are; only `shots` asks.
        start: the weights to start from, as `weights.find_start` found them; None: new ones.

    Raises:
        SpecError: two choices exclude each other.
    """
    refuse(spec, start)
    choices = Choices(spec)
    if start and spec.preset == DEFAULT_PRESET:
        choices.asked = spec.model_copy(update={"preset": "transfer"})
        choices.reasons["preset"] = f"it starts from {start.text}"
    preset = PRESETS[choices["preset"]][1]
    choose_split(choices, given)
    judged = "validation" in given or choices["validation"] > 0
    held_out = (0 if "validation" in given else choices["validation"]) + (0 if "test" in given else 0.15)
    count = round(images * (1 - held_out))
    count = max(1, min(count, spec.shots * classes) if spec.shots else count)
    for field, value in preset.items():
        if field not in ("validation", "early_size"):  # which the data and the image size decide
            choices.choose(field, value, f"preset {choices['preset']}")
    if start:
        choose_transfer(choices, start)
    else:
        choices.choose("weights", FROM_SCRATCH, "new weights")
    choose_batch_size(choices, count)
    choose_optimizer(choices, preset["optimizer"], start)
    choose_epochs(choices, count, start)
    if not judged:
        choices.choose("patience", 0, "no validation images to judge by")
        if choices["schedule"] == "plateau":
            choices.choose("schedule", "cosine", "no validation images to judge a plateau by")
    choose_image_size(choices, side, start)
    choose_early_size(choices, preset, start)
    if not flips and choices["augmentation"] in UNFLIPPED:
        choices.choose("augmentation", UNFLIPPED[choices["augmentation"]], "a mirrored digit is another sign")
    resolved = choices.asked.model_copy(update=choices.made)
    check(resolved, judged, start)
    return Resolved(resolved, choices.reasons)


def refuse(spec: TrainSpec, start: Start | None) -> None:
    """Raise SpecError where what was asked for excludes itself, whatever is chosen beside it."""
    if spec.time_budget and spec.epochs is not None:
        raise SpecError(f"time_budget={spec.time_budget} sets the epochs, and epochs={spec.epochs} too. Leave one out.")
    if spec.time_budget and start:
        raise SpecError(
            f"time_budget={spec.time_budget} fits one kind of step into the time, and a transfer has two: leave it out."
        )
    if start is None:
        for name in ("freeze", "head_epochs"):
            if getattr(spec, name) is not None:
                raise SpecError(
                    f"{name} is about layers that have learned before: it needs --weights imagenet or a run."
                )
        if spec.preset == "transfer":
            raise SpecError("--preset transfer starts from weights that have learned before, and --weights says none.")
    elif spec.teacher:
        raise SpecError("distill and prune begin with the teacher's weights or new ones: leave --weights out.")
    elif spec.freeze == "none" and spec.head_epochs:
        raise SpecError(f"--freeze none trains every layer at once, so head_epochs={spec.head_epochs} cannot be.")
    elif spec.freeze == "all" and spec.augmentation not in (None, "none", "flip"):
        raise SpecError(
            f"augmentation={spec.augmentation} shows other images in each epoch, and --freeze all computes what the "
            "frozen layers make of them once, mirrored at most: leave it out, or leave some layers free."
        )


def choose_split(choices: Choices, given: Collection[str]) -> None:
    """Choose how many images are held out to choose by, and what draws them."""
    preset = choices["preset"]
    if "validation" in given:
        choices.choose("validation", 0.0, "the data set brings validation images")
    elif "test" not in given:
        choices.choose("validation", 0.15, "the data set has no test images: 70/15/15")
    elif "validation" in PRESETS[preset][1]:
        choices.choose("validation", PRESETS[preset][1]["validation"], f"preset {preset}")
    else:
        choices.choose("validation", 0.1, "of the training images")
    choices.choose("split_seed", choices["seed"], "the seed")


def choose_transfer(choices: Choices, start: Start) -> None:
    """Choose what goes with the weights to start from."""
    choices.choose("weights", start.weights, start.text)
    choices.choose("model", start.model, start.text)
    choices.choose("freeze", start.frozen, "the layers before the last stage; --freeze all leaves all but the head")
    if choices["preset"] == "transfer" and MODELS[start.model].default_size < PHOTO_SIZE:
        choices.choose("learning_rate", SMALL_RATE, f"{start.model} is a small network")
    if choices["freeze"] == "all":
        choices.choose("augmentation", "flip", "features are computed once, of mirrored images too")
    if choices["freeze"] == "none":
        choices.choose("head_epochs", 0, "no layer is frozen")
        choices.choose("learning_rate", 3e-4, "usual for all layers of a network that has learned before")


def choose_batch_size(choices: Choices, images: int) -> None:
    """Choose a smaller batch for a small set: an epoch of fewer than 20 steps would be too few."""
    most = max(SMALL_BATCH, images // 20)
    if choices["batch_size"] > most:
        reason = f"about {max(1, images // most)} steps an epoch with {images:,} training images"
        choices.choose("batch_size", most, reason)


def choose_optimizer(choices: Choices, usual: str, start: Start | None) -> None:
    """Choose an optimizer that suits the network, and what is usual for it where it is not the preset's."""
    model = choices["model"]
    if usual == "muon" and start:
        reason = "muon rescales kernels, and batch norms that stay as they were would not fit them"
        choices.choose("optimizer", "adamw", reason)
    elif usual == "muon" and not MODELS[model].normed:
        reason = f"muon is for networks with a norm behind each convolution or sum; {model} has others"
        choices.choose("optimizer", "adamw", reason)
    optimizer = choices["optimizer"]
    if optimizer != usual:
        learning_rate, weight_decay = USUAL[optimizer]
        if not (start and choices["freeze"] == "none" and optimizer in ("adam", "adamw")):  # its rate was chosen
            choices.choose("learning_rate", learning_rate, f"usual for {optimizer}")
        choices.choose("weight_decay", weight_decay, f"usual for {optimizer}")


def choose_epochs(choices: Choices, images: int, start: Start | None) -> None:
    """Choose more epochs for few images; for a transfer how many are the head's, whose steps take a millisecond."""
    preset, freeze = choices["preset"], choices["freeze"]
    if not start:
        repeats = min(5.0, SMALL_SET / images)
        if repeats > 1:
            reason = f"preset {preset}, {repeats:.1f} times as many for {images:,} training images"
            choices.choose("epochs", round(choices["epochs"] * repeats), reason)
    elif freeze != "none" and (preset != "transfer" or not choices.is_open("epochs")):
        epochs = choices["epochs"]
        head, share = (epochs, "all") if freeze == "all" else (max(1, epochs * 4 // 5), "four fifths")
        choices.choose("head_epochs", head, f"of {epochs} epochs {share}")
    elif freeze != "none":
        steps = max(1, images // min(images, choices["batch_size"]))
        head = max(choices["head_epochs"], -(-HEAD_STEPS // steps))
        choices.choose("head_epochs", head, f"{head * steps:,} steps of {images:,} training images")
        head, fine = choices["head_epochs"], 0 if freeze == "all" else max(5, -(-FINE_STEPS // steps))
        choices.choose("epochs", max(1, head + fine), f"{head} of the head, {fine} of the layers below it")


def choose_image_size(choices: Choices, side: int, start: Start | None) -> None:
    """Choose the largest usual size that the images have and the network is meant for."""
    model = choices["model"]
    default_size = MODELS[model].default_size
    size = max((size for size in IMAGE_SIZES if size <= min(side, default_size)), default=IMAGE_SIZES[0])
    if start and start.image_size:
        choices.choose("image_size", start.image_size, "that of the run whose weights it starts from")
    elif side < IMAGE_SIZES[0]:
        choices.choose("image_size", size, f"the images' {side} px enlarged")
    elif size == side:
        choices.choose("image_size", size, "the images' own size")
    else:
        reason = f"the images' median side is {side} px, and {model} is meant for up to {default_size} px"
        choices.choose("image_size", size, reason)


def choose_early_size(choices: Choices, preset: dict[str, Any], start: Start | None) -> None:
    """Choose smaller images for the first epochs where the preset does, for its network; the same size means none."""
    model, size, asked = choices["model"], choices["image_size"], choices.asked
    small = preset.get("early_size", size) * size // IMAGE_SIZES[0]  # the preset's is for 32 px
    new = not (start or asked.teacher or asked.time_budget) and model == preset["model"]
    if "early_size" in preset and new and small >= MODELS[model].smallest:
        choices.choose("early_size", small, f"preset {choices['preset']}, in the first epochs")
    if choices["early_size"] == size:
        choices.made["early_size"] = None


def check(spec: TrainSpec, judged: bool, start: Start | None) -> None:
    """Raise SpecError where a whole spec cannot be trained; `judged` says whether there are validation images."""
    if not judged and (spec.schedule == "plateau" or spec.patience):
        raise SpecError(
            f"validation=0 leaves nothing to judge by, but schedule={spec.schedule} and "
            f"patience={spec.patience} need validation images. "
            "Take --schedule cosine --patience 0, or a --validation above 0."
        )
    if not judged and spec.min_precision is not None:
        raise SpecError(
            f"min_precision={spec.min_precision:g} is reached by a threshold chosen on validation images, and "
            "validation=0 leaves none. Take a --validation above 0, or leave --min-precision out."
        )
    if spec.optimizer == "adam" and spec.weight_decay:
        raise SpecError(f"adam takes no weight_decay ({spec.weight_decay:g}). Take --optimizer adamw, or leave it out.")
    check_size(spec.model, spec.image_size)
    if spec.early_size is None:
        return
    if spec.early_size > spec.image_size:
        raise SpecError(f"early_size={spec.early_size} must not be larger than image_size={spec.image_size}.")
    if start or spec.teacher:
        raise SpecError(f"early_size={spec.early_size} is for new networks that learn from labels: leave it out.")
    if spec.time_budget:
        raise SpecError(f"time_budget={spec.time_budget} fits steps of one size into the time: leave early_size out.")
    check_size(spec.model, spec.early_size)
