"""Resolve a spec: choose the options that the user left open, and record the reason of each choice.

The choices depend on the preset, on the data, and on the weights that training starts from.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from onsight.core.errors import SpecError
from onsight.core.text import count
from onsight.data.split import TEST_SHARE
from onsight.imaging.augment import UNFLIPPED
from onsight.models.registry import IMAGE_SIZES, MODELS, check_size, fitting_size
from onsight.spec import DEFAULT_PRESET, FROM_SCRATCH, PRESETS, TrainSpec

if TYPE_CHECKING:
    from onsight.features.initial_weights import Start


# Optimizer -> its usual learning rate and weight decay.
USUAL = {"adam": (1e-3, 0.0), "adamw": (1e-3, 1e-2), "sgd": (0.05, 5e-4), "muon": (0.06, 0.0), "muon_sgd": (0.06, 0.0)}
MUONS = {"muon", "muon_sgd"}  # they take the same rates
UNDECAYED = ("adam", "muon_sgd")  # adam has no weight decay, muon_sgd has the published one
FINE_STEPS = 40  # minimum number of steps of the second phase of a transfer
ONLY_HEAD, AT_ONCE = "only the head is trained", "the head is fitted at once"  # reasons
KEPT = "never reached; the epoch with the lowest validation loss is kept, which may be that of the head"  # a reason
SMALL_RATE = 1e-3  # learning rate of a transfer, for networks for small images (docs/decisions/transfer.md)
PHOTO_SIZE = 224  # the image size that networks for photos are meant for
SMALL_BATCH = 32  # a preset's batch size is not reduced below this for a small set
SMALL_SET = 10_000  # a preset's epochs are meant for this many training images or more


class Resolved(NamedTuple):
    """A spec with all its choices made, and the reason of each choice that the user did not make."""

    spec: TrainSpec
    reasons: dict[str, str]


class Choices:
    """A spec that is being filled in. The user's values stay; a later choice for a field replaces an earlier one."""

    def __init__(self, asked: TrainSpec) -> None:
        self.asked = asked
        self.made: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def choose(self, field: str, value: Any, reason: str) -> None:
        """Set a field to `value`, unless the user has set it."""
        if self.is_open(field):
            self.made[field], self.reasons[field] = value, reason

    def is_open(self, field: str) -> bool:
        """Return whether the user left a field open."""
        return getattr(self.asked, field) is None

    def __getitem__(self, field: str) -> Any:
        """Return the current value of a field."""
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
    """Make every choice that `spec` leaves open, except backend and precision.

    `prepare.settle` chooses those two, before Keras is imported.

    Args:
        spec: what the user asked for.
        images: the number of images that the data set does not reserve for its own test or validation part.
        given: the parts that the data set gives: train, validation, test.
        side: the median shorter side of the images, in pixels; with a teacher, its image size.
        flips: whether a mirrored image keeps its label (a digit does not).
        classes: the number of classes; only used with `shots`.
        start: the weights to start from, as `initial_weights.find_start` returns them; None: new weights.

    Raises:
        SpecError: two choices exclude each other.
    """
    check_asked(spec, start)
    choices = Choices(spec)
    if start and spec.preset == DEFAULT_PRESET:
        choices.asked = spec.model_copy(update={"preset": "transfer"})
        choices.reasons["preset"] = f"training starts from {start.text}"
    preset = PRESETS[choices["preset"]][1]
    choose_split(choices, given, start)
    judged = "validation" in given or choices["validation"] > 0
    held_out = (0 if "validation" in given else choices["validation"]) + (0 if "test" in given else TEST_SHARE)
    trained = round(images * (1 - held_out))
    trained = max(1, min(trained, spec.shots * classes) if spec.shots else trained)
    for field, value in preset.items():
        if field not in ("validation", "early_size"):  # the data and the image size decide these two
            choices.choose(field, value, f"preset {choices['preset']}")
    if start:
        choose_transfer(choices, start)
    else:
        choices.choose("weights", FROM_SCRATCH, "new weights")
    choose_batch_size(choices, trained)
    choose_optimizer(choices, preset["optimizer"], start)
    choose_epochs(choices, trained, start)
    if not judged:
        choices.choose("patience", 0, "there are no validation images to judge epochs by")
        if choices["schedule"] == "plateau":
            choices.choose("schedule", "cosine", "there are no validation images to detect a plateau on")
    choose_image_size(choices, side, start)
    choose_fit(choices, start)
    choose_early_size(choices, preset, start)
    if not flips and choices["augmentation"] in UNFLIPPED:
        choices.choose("augmentation", UNFLIPPED[choices["augmentation"]], "a mirrored digit is no longer that digit")
    resolved = choices.asked.model_copy(update=choices.made)
    check_resolved(resolved, judged, start)
    return Resolved(resolved, choices.reasons)


def check_asked(spec: TrainSpec, start: Start | None) -> None:
    """Raise SpecError if the user's choices contradict each other, whatever the open ones become."""
    if spec.time_budget and spec.epochs is not None:
        raise SpecError(
            f"time_budget={spec.time_budget} and epochs={spec.epochs} both set the length of training. Leave one out."
        )
    if spec.time_budget and start:
        raise SpecError(
            f"time_budget={spec.time_budget} does not work with pretrained weights, because the steps of the head are "
            "faster than those of all layers. Leave one of them out: --time-budget or --weights."
        )
    if start is None:
        for name in ("freeze", "head_epochs"):
            if getattr(spec, name) is not None:
                raise SpecError(f"{name} needs pretrained weights: add --weights imagenet or a run, or leave it out.")
        if spec.preset == "transfer":
            raise SpecError("--preset transfer needs pretrained weights, but --weights is none. Leave one of them out.")
    elif spec.teacher:
        raise SpecError("distill and prune start from the teacher's weights or from new ones: leave --weights out.")
    elif spec.freeze == "none" and spec.head_epochs:
        raise SpecError(
            f"--freeze none trains all layers from the first epoch on, but head_epochs={spec.head_epochs} trains only "
            "the head at first. Leave one of them out."
        )
    elif spec.freeze == "all" and spec.augmentation not in (None, "none"):
        raise SpecError(
            f"augmentation={spec.augmentation} changes the images in every epoch, but --freeze all computes the "
            "features of each image only once. Leave augmentation out, or freeze fewer layers: --freeze N."
        )
    elif spec.freeze == "all" and (spec.epochs or 1) > 1:
        raise SpecError(
            f"epochs={spec.epochs} trains layers below the head, but --freeze all trains none of them, and the head is "
            "fitted at once. Leave one of them out."
        )


def choose_split(choices: Choices, given: Collection[str], start: Start | None) -> None:
    """Choose the share of images held out for validation, and the seed of the split.

    Both are those of the run whose weights training starts from: then it is judged on images that this run had not
    learned.
    """
    preset = choices["preset"]
    if "validation" in given:
        choices.choose("validation", 0.0, "the data set has its own validation images")
    elif start and start.validation:
        choices.choose("validation", start.validation, "that of the run whose weights training starts from")
    elif "test" not in given:
        choices.choose("validation", 0.15, "the data set has no test images, so it is split 70/15/15")
    elif "validation" in PRESETS[preset][1]:
        choices.choose("validation", PRESETS[preset][1]["validation"], f"preset {preset}")
    else:
        choices.choose("validation", 0.1, "share of the training images")
    choices.choose("split_seed", choices["seed"], "same as seed")
    if start and start.split_seed is not None:
        choices.choose("split_seed", start.split_seed, "that of the run whose weights training starts from")


def choose_transfer(choices: Choices, start: Start) -> None:
    """Choose the options that depend on the weights to start from."""
    choices.choose("weights", start.weights, start.text)
    choices.choose("model", start.model, start.text)
    if start.head_only and choices.is_open("epochs"):
        choices.choose("freeze", "all", "only the head is trained; --epochs N also trains the last stage")
    else:
        choices.choose("freeze", start.frozen, "the layers before the last stage; --freeze all trains the head alone")
    if choices["freeze"] == "none":
        choices.choose("head_epochs", 0, "no layer is frozen")
        choices.choose("learning_rate", 3e-4, "usual for training all layers of a pretrained network")
    elif MODELS[start.model].default_size < PHOTO_SIZE:
        choices.choose("learning_rate", SMALL_RATE, f"{start.model} is a small network")
    else:
        choices.choose("learning_rate", PRESETS["transfer"][1]["learning_rate"], "preset transfer")
    if choices["freeze"] == "all":
        choices.choose("augmentation", "none", "features are computed once for each image")


def choose_batch_size(choices: Choices, images: int) -> None:
    """Choose a smaller batch size for a small set: fewer than 20 steps per epoch would be too few."""
    most = max(SMALL_BATCH, images // 20)
    if choices["batch_size"] > most:
        reason = f"about {count(max(1, images // most), 'step')} per epoch with {count(images, 'training image')}"
        choices.choose("batch_size", most, reason)


def choose_optimizer(choices: Choices, usual: str, start: Start | None) -> None:
    """Choose an optimizer that suits the network and, if it is not the preset's, its usual rate and weight decay."""
    model = choices["model"]
    if usual in MUONS and start:
        reason = "muon rescales kernels, and frozen batch norms would no longer fit them"
        choices.choose("optimizer", "adamw", reason)
    elif usual in MUONS and not MODELS[model].normed:
        reason = f"muon is for networks with a norm after each convolution or sum, and {model} is not one of them"
        choices.choose("optimizer", "adamw", reason)
    elif usual == "muon_sgd" and not MODELS[model].published_rates:
        choices.choose("optimizer", "muon", f"muon_sgd has rates for biases and head that do not fit {model}")
    optimizer = choices["optimizer"]
    if optimizer != usual and {optimizer, usual} != MUONS:
        learning_rate, weight_decay = USUAL[optimizer]
        if start is None:
            choices.choose("learning_rate", learning_rate, f"usual for {optimizer}")
        elif optimizer in {"sgd", *MUONS}:  # adam takes the rate that `choose_transfer` chose for adamw
            choices.choose(
                "learning_rate", learning_rate / 10, f"a tenth of what is usual for {optimizer} from scratch"
            )
        choices.choose("weight_decay", weight_decay, f"usual for {optimizer}")


def choose_epochs(choices: Choices, images: int, start: Start | None) -> None:
    """Choose more epochs for few images; for a transfer, one for the head and the others for the layers below it."""
    preset, freeze = choices["preset"], choices["freeze"]
    if not start:
        repeats = min(5.0, SMALL_SET / images)
        if repeats > 1:
            reason = f"{repeats:.1f} times as many as in preset {preset}, for {count(images, 'training image')}"
            choices.choose("epochs", round(choices["epochs"] * repeats), reason)
        return
    if freeze == "none":
        return
    choices.choose("head_epochs", 1, AT_ONCE)
    head = choices["head_epochs"]
    if freeze == "all":
        choices.choose("epochs", max(1, head), ONLY_HEAD)
    elif preset == "transfer":
        steps = max(1, images // min(images, choices["batch_size"]))
        fine = max(5, -(-FINE_STEPS // steps))
        choices.choose("epochs", head + fine, f"{head} for the head, {fine} for the layers below it")
        choices.choose("patience", choices["epochs"], KEPT)


def choose_image_size(choices: Choices, side: int, start: Start | None) -> None:
    """Choose the largest of `IMAGE_SIZES` that exceeds neither the images nor the network's default size.

    A student has its teacher's image size, up to the default size of its own network.
    """
    model = choices["model"]
    default_size = MODELS[model].default_size
    size = fitting_size(model, side)
    if choices.asked.teacher and side <= default_size:
        choices.choose("image_size", side, "the teacher's")
    elif choices.asked.teacher:
        reason = f"the teacher's is {side} px, and {model} is meant for up to {default_size} px"
        choices.choose("image_size", default_size, reason)
    elif start and start.image_size:
        choices.choose("image_size", start.image_size, "the image size of the run whose weights training starts from")
    elif side < IMAGE_SIZES[0]:
        choices.choose("image_size", size, f"the images are enlarged from {side} px")
    elif size == side:
        choices.choose("image_size", size, "the images' own size")
    else:
        reason = f"the images' median side is {side} px, and {model} is meant for up to {default_size} px"
        choices.choose("image_size", size, reason)


def choose_fit(choices: Choices, start: Start | None) -> None:
    """Choose the fit of the run whose weights training starts from, unless the user has set one."""
    if start and start.fit != choices["fit"] and "fit" not in choices.asked.model_fields_set:
        choices.made["fit"] = start.fit
        choices.reasons["fit"] = "how the run whose weights training starts from saw its images"


def choose_early_size(choices: Choices, preset: dict[str, Any], start: Start | None) -> None:
    """Choose smaller images for the first epochs if the preset does and its own network is trained.

    An early size equal to the image size becomes None.
    """
    model, size, asked = choices["model"], choices["image_size"], choices.asked
    small = preset.get("early_size", size) * size // IMAGE_SIZES[0]  # the preset's value is for images of 32 px
    new = not (start or asked.teacher or asked.time_budget) and model == preset["model"]
    if "early_size" in preset and new and small >= MODELS[model].smallest:
        choices.choose("early_size", small, f"preset {choices['preset']}, in the first epochs")
    if choices["early_size"] == size:
        choices.made["early_size"] = None


def check_resolved(spec: TrainSpec, judged: bool, start: Start | None) -> None:
    """Raise SpecError if a resolved spec cannot be trained. `judged`: whether there are validation images."""
    if not judged and (spec.schedule == "plateau" or spec.patience):
        raise SpecError(
            "validation=0 leaves no validation images, but schedule plateau and a patience above 0 need them (here "
            f"schedule={spec.schedule}, patience={spec.patience}). "
            "Use --schedule cosine --patience 0, or a --validation above 0."
        )
    if not judged and spec.min_precision is not None:
        raise SpecError(
            f"min_precision={spec.min_precision:g} needs a threshold that is chosen on validation images, but "
            "validation=0 leaves none. Use a --validation above 0, or leave --min-precision out."
        )
    if spec.optimizer in UNDECAYED and spec.weight_decay:
        other = "adamw" if spec.optimizer == "adam" else "muon"
        raise SpecError(
            f"{spec.optimizer} takes no weight_decay, but it is {spec.weight_decay:g}. Use --optimizer {other}, or "
            "leave weight_decay out."
        )
    check_size(spec.model, spec.image_size)
    if spec.early_size is None:
        return
    if spec.early_size > spec.image_size:
        raise SpecError(f"early_size={spec.early_size} must not be larger than image_size={spec.image_size}.")
    if start or spec.teacher:
        raise SpecError(
            f"early_size={spec.early_size} works only without pretrained weights and without a teacher: leave it out."
        )
    if spec.time_budget:
        raise SpecError(
            f"time_budget={spec.time_budget} assumes that all steps take equally long, but early_size="
            f"{spec.early_size} makes the first ones shorter: leave early_size out."
        )
    check_size(spec.model, spec.early_size)
