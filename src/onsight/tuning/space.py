"""What a study searches: the settings, their ranges or choices, and how the user names them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args, get_origin

from onsight.core.errors import SpecError, unknown_name
from onsight.core.records import SearchedSetting
from onsight.imaging.augment import UNFLIPPED
from onsight.spec import TrainSpec
from onsight.training.resolve import UNDECAYED, USUAL

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# What `--search` may name. The other settings change which images are judged, or do not change what is learned.
SEARCHABLE = (
    "model", "image_size", "fit", "early_size", "epochs", "batch_size", "ghost_batch_size", "optimizer",
    "learning_rate", "schedule", "weight_decay", "label_smoothing", "class_weight", "patience",
    "augmentation", "precision",
)  # fmt: skip
LOGARITHMIC = ("learning_rate", "weight_decay", "batch_size", "epochs", "image_size")
DECAYING = ("adamw", "sgd")  # optimizers with a weight decay of their own
AROUND = 8**0.5  # the default range of the learning rate reaches this factor below and above the preset's
AROUND_TEST = 8.0  # the same around the result of a range test, which may be wrong by a factor of 5
DECAYS = 10.0  # the same for the weight decay
EDGE = 0.05  # share of a range that counts as its end
SMOOTHING = 0.2  # highest label smoothing of the default search
AUGMENTATIONS = ("flip", "flip_nudge", "flip_shift", "flip_shift_cutout")  # of the default search
Given = str | Sequence[Any]  # "0.03..0.5" or "250,500"; a tuple of two numbers is a range, a list holds choices


def default_space(spec: TrainSpec, mirrors: bool, fixed: Collection[str] = ()) -> dict[str, SearchedSetting]:
    """Return what is searched if the user names nothing: settings whose best value depends on the data.

    Args:
        spec: the resolved spec of the preset, which is the centre.
        mirrors: whether a mirrored image keeps its label.
        fixed: settings that the user has set, so that they are not searched.

    Raises:
        SpecError: the training has none of these settings, or all are fixed.
    """
    if spec.freeze == "all":
        raise SpecError(
            "Only the head is trained here, at once, and it chooses its own strength: there is nothing to tune. Add "
            "--epochs 10 to train the last layers too, --weights none to train from scratch, or say what to try: "
            "--search model=efficientnet_lite0,efficientnetv2_b0"
        )
    kinds = [name if mirrors else UNFLIPPED.get(name, name) for name in AUGMENTATIONS]
    space: dict[str, SearchedSetting] = {
        "learning_rate": around(spec.learning_rate, AROUND, most=100.0),
        "augmentation": {"choices": list(dict.fromkeys([spec.augmentation, *kinds]))},
        "label_smoothing": {"low": 0.0, "high": max(SMOOTHING, spec.label_smoothing), "log": False, "whole": False},
    }
    if spec.optimizer in DECAYING:
        space["weight_decay"] = around(spec.weight_decay or USUAL[spec.optimizer][1], DECAYS, most=1.0)
    if {*space} <= {*fixed}:
        raise SpecError(
            f"{', '.join(space)} are set, so nothing is left to search. Leave one out, or say what to try: --search"
        )
    return {name: each for name, each in space.items() if name not in fixed}


def around(centre: float, factor: float, most: float) -> SearchedSetting:
    """Return a logarithmic range from `centre` / `factor` to `centre` x `factor`, at most `most`."""
    low, high = (float(f"{value:.2g}") for value in (centre / factor, min(most, centre * factor)))
    return {"low": low, "high": high, "log": True, "whole": False}


def read_space(search: Iterable[str] | Mapping[str, Given]) -> dict[str, SearchedSetting]:
    """Return what the user wants to search: NAME=LOW..HIGH or NAME=A,B,C, or the same as a dict.

    Raises:
        SpecError: a setting is unknown or cannot be searched, a range is empty, or a value is not allowed.
    """
    if not isinstance(search, Mapping):
        search = split_words(search)
    space: dict[str, SearchedSetting] = {}
    for name, given in search.items():
        name = name.replace("-", "_")
        if name not in TrainSpec.model_fields:
            raise SpecError(unknown_name("setting", name, SEARCHABLE))
        if name not in SEARCHABLE:
            raise SpecError(
                f"'{name}' cannot be searched: it changes which images are judged, or has no part in what is learned. "
                f"These can: {', '.join(SEARCHABLE)}."
            )
        space[name] = read_setting(name, given)
    if not space:
        raise SpecError("search names no setting. Leave it out for the usual ones, or give learning_rate=0.01..0.1")
    return space


def split_words(words: Iterable[str]) -> dict[str, Given]:
    """Return the words of `--search` as a dict."""
    found: dict[str, Given] = {}
    for word in words:
        name, mark, given = word.partition("=")
        if not (mark and name and given):
            raise SpecError(
                f"--search '{word}' cannot be read. Expected NAME=LOW..HIGH or NAME=A,B,C, for example "
                "learning_rate=0.03..0.5 optimizer=muon,sgd"
            )
        if name in found:
            raise SpecError(f"--search names {name} twice. Leave one out.")
        found[name] = given
    return found


def read_setting(name: str, given: Given) -> SearchedSetting:
    """Return the range or the choices of one setting, each value checked as `TrainSpec` checks it."""
    if isinstance(given, str):
        low, dots, high = given.partition("..")
        ends: Sequence[Any] | None = (low, high) if dots else None
        choices: Sequence[Any] = given.split(",")
    else:
        ends = given if isinstance(given, tuple) and len(given) == 2 and is_number(name) else None
        choices = given
    if ends is None:
        values = [checked(name, value) for value in choices]
        if len({*values}) < 2:
            raise SpecError(
                f"search {name}={given} leaves no choice. Give two values or more, or fix it: "
                f"--{name.replace('_', '-')} {given if isinstance(given, str) else values[0]}"
            )
        return {"choices": list(dict.fromkeys(values))}
    if not is_number(name):
        raise SpecError(f"search {name}={given}: {name} is not a number, so it has no range. Give choices: A,B,C")
    first, last = (checked(name, value) for value in ends)
    if not first < last:
        raise SpecError(f"search {name}={first}..{last} is an empty range: expected the lower end first.")
    return {"low": first, "high": last, "log": name in LOGARITHMIC and first > 0, "whole": isinstance(first, int)}


def is_number(name: str) -> bool:
    """Return whether a setting is a number."""
    return bool({int, float} & {*flat_types(TrainSpec.model_fields[name].annotation)})


def flat_types(annotation: Any) -> list[Any]:
    """Return the types of an annotation: `int | None` has two."""
    arguments = get_args(annotation)
    if not arguments or get_origin(annotation) is None:
        return [annotation]
    return [found for argument in arguments for found in flat_types(argument)]


def checked(name: str, value: Any) -> Any:
    """Return a value as `TrainSpec` reads it. Raise SpecError if the setting cannot have it."""
    if isinstance(value, str):
        value = value.strip()
    if value == "":
        raise SpecError(f"search {name}: a value is missing. Expected LOW..HIGH or A,B,C.")
    return getattr(TrainSpec(**{name: value}), name)


def distributions(space: Mapping[str, SearchedSetting]) -> dict[str, BaseDistribution]:
    """Return the space as Optuna wants it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, each in space.items():
        if "choices" in each:
            found[name] = CategoricalDistribution(each["choices"])
        elif each["whole"]:
            found[name] = IntDistribution(int(each["low"]), int(each["high"]), log=each["log"])
        else:
            found[name] = FloatDistribution(each["low"], each["high"], log=each["log"])
    return found


def values_of(params: Mapping[str, Any], optimizer: str) -> dict[str, Any]:
    """Return the settings of a trial from Optuna's parameters: three digits, and none that its optimizer lacks.

    `optimizer` is the one that the trial has unless it is searched, too.
    """
    values = {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in params.items()}
    if values.get("optimizer", optimizer) in UNDECAYED:
        values.pop("weight_decay", None)
    return values


def at_the_edge(values: Mapping[str, Any], space: Mapping[str, SearchedSetting]) -> list[str]:
    """Return the settings whose value lies at the end of a logarithmic range: a wider one may help."""
    found = []
    for name, value in values.items():
        each = space.get(name)
        if not each or "choices" in each or not each["log"] or each["whole"]:
            continue
        place = math.log(value / each["low"]) / math.log(each["high"] / each["low"])
        if not EDGE < place < 1 - EDGE:
            found.append(name)
    return found
