"""Prepare a new run: its resolved spec, its images and their split, and its spec.json, dataset.json and check.json.

Choices that the user left open are made here, and each one is shown with its reason. Nothing is written to the disk.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onsight.checks.check import findings_for_training, summary
from onsight.checks.keep_list import read_keep_list
from onsight.core.backend import (
    Choice,
    choose_backend,
    choose_precision,
    dtype_policy,
    environment,
    share_cores,
    use_backend,
)
from onsight.core.errors import DataError
from onsight.core.files import from_here, located, sha256
from onsight.core.progress import Reporter
from onsight.core.records import CheckSummary, DatasetRecord, SpecRecord
from onsight.core.text import count, short
from onsight.data.dataset import Dataset
from onsight.data.labels import added_images, needless_copies
from onsight.data.load import DATASETS, data_folder, keeps_labels_when_mirrored, load_dataset
from onsight.data.pixel_cache import Pixels, load_pixels, median_side
from onsight.data.split import few_shots, membership, split
from onsight.features.initial_weights import (
    SMALLEST_PHOTO,
    Origin,
    Start,
    default_start,
    find_start,
    weights_file,
)
from onsight.features.published_weights import PUBLISHED
from onsight.models.custom import check_network
from onsight.models.registry import MODELS
from onsight.reporting.commands import check_command_for
from onsight.runs.images import RunImages, find_parts
from onsight.runs.run import Run, open_run
from onsight.runs.seen import FILE, Seen, run_of, seen_before, unknown_text
from onsight.spec import FROM_SCRATCH, IMAGENET, Role, TrainSpec, fields_with
from onsight.training.distributed import here
from onsight.training.network import at_any_size, build
from onsight.training.phases import plan_phases
from onsight.training.resolve import AT_ONCE, ONLY_HEAD, Resolved, resolve
from onsight.training.steps import parts_of
from onsight.training.teacher import reference

PARTS = ("train", "validation", "test")
CLASSES_SHOWN = 10  # as many classes are listed; of more, all but the first nine are left out
NAMED = "named data sets start from scratch unless --weights says otherwise"
USUAL_REASONS = (NAMED, ONLY_HEAD, AT_ONCE, "share of the training images", "the images' own size", "the teacher's")
ALWAYS_USUAL = ("split_seed", "backend", "precision")  # whatever the reason
# The lines into which the usual choices are folded, by their labels.
FOLDED = {
    "preset": (
        "model",
        "weights",
        "image_size",
        "epochs",
        "early_size",
        "head_epochs",
        "batch_size",
        "ghost_batch_size",
        "augmentation",
    ),
    "training": ("optimizer", "learning_rate", "schedule", "weight_decay", "label_smoothing", "patience"),
    "machine": ("backend", "precision", "validation", "split_seed"),
}


class Prepared(NamedTuple):
    """What a new run is made of."""

    spec: TrainSpec  # resolved
    record: SpecRecord  # spec.json
    members: DatasetRecord  # dataset.json
    check: CheckSummary  # check.json
    images: RunImages
    seen: Seen


class Chosen(NamedTuple):
    """A resolved spec, the reason of each choice that the user did not make, and what training starts from."""

    spec: TrainSpec
    reasons: dict[str, str]
    start: Start | None
    teacher: Run | None
    warnings: list[str]  # what the choices cost, and what to do about it


def prepare(spec: TrainSpec, show: Reporter) -> Prepared:
    """Return everything that the run of `spec` is made of, and start Keras on its backend.

    Raises:
        SpecError: a choice cannot work.
        DataError: the images cannot be used.
    """
    backend = choose_backend(spec.backend)
    dataset = load_dataset(spec.data, spec.data_dir, show.work, reading=spec.reading)
    show.note("data", dataset.provenance)
    for text in dataset.notes:
        show.note("data", text)
    used = read_keep_list(spec.keep_list, dataset) if spec.keep_list else np.ones(len(dataset), bool)
    show.note("classes", class_counts(dataset, used))
    chosen = choose(spec, dataset, used, backend, show)
    pixels = load_pixels(dataset, chosen.spec.image_size, show.work, fit=chosen.spec.fit)
    used = used & ~needless_copies(dataset, pixels)
    before = seen_before(chosen.spec.model_dump(mode="json"), dataset, pixels)
    if before.unknown:
        chosen.warnings.append(unknown_text(before.unknown))
    parts = divide(chosen, dataset, pixels, used)
    ancestor = Path(chosen.spec.teacher or chosen.spec.weights).name
    parts, left_out = without_seen(parts, pixels, before, ancestor)
    chosen.warnings.extend([*left_out, *about_labels(dataset, parts, pixels)])
    images = RunImages(dataset, pixels, parts)
    show_choices(chosen, images, show)
    check = summary(*findings_for_training(dataset, pixels, used))
    show_findings(check, spec, show)
    members = dataset_record(chosen.spec, images, used)
    start_keras(chosen.spec, len(dataset.classes), show)
    record = spec_record(spec, chosen, show)
    if before.unknown:
        record["unknown_ancestors"] = list(before.unknown)
    return Prepared(chosen.spec, record, members, check, images, before.with_own(images))


# The spec ------------------------------------------------------------------------------------------------------------


def choose(spec: TrainSpec, dataset: Dataset, used: np.ndarray, backend: Choice, show: Reporter) -> Chosen:
    """Return the spec with every choice made, and why. `used` (n,) bool marks the images of the keep-list."""
    teacher = open_run(spec.teacher) if spec.teacher else None
    if spec.image_size is not None:
        side = spec.image_size
    else:
        side = teacher.spec["image_size"] if teacher else median_side(dataset, fit=spec.fit)
    start, why, warning = choose_start(spec, side, show)
    if start and start.validation and not knows_all(start, dataset):
        start = start._replace(validation=None)  # its share is meant for other images
    resolved = resolve(
        spec,
        images=int(np.count_nonzero(used & np.isin(dataset.parts, ("", "train")))),
        given=set(dataset.parts.tolist()),
        side=side,
        flips=keeps_labels_when_mirrored(dataset),
        classes=len(dataset.classes),
        start=start,
    )
    reasons = dict(resolved.reasons)
    if "weights" in reasons:
        reasons["weights"] = why
    if teacher:
        asked = spec.model_dump(mode="json", exclude_unset=True)
        reasons |= {name: "the teacher's" for name, value in asked.items() if teacher.spec.get(name, ...) == value}
    warnings = [warning] if warning else []
    return Chosen(*settle(Resolved(resolved.spec, reasons), start, backend), start, teacher, warnings)


def choose_start(spec: TrainSpec, side: int, show: Reporter) -> Origin:
    """Return the weights to start from, or None for new ones, and the reason.

    By default, photos start from the ImageNet weights of the network that the user named, if it has any, else from
    those of the default network, as long as these can be had without waiting. `side` is the median shorter side of the
    images in pixels, or the image size that was asked for.
    """
    if spec.weights not in (None, FROM_SCRATCH):
        return Origin(find_start(spec.weights, spec.model), "asked for")
    if spec.weights == FROM_SCRATCH:
        return Origin(None, "asked for")
    if spec.preset == "transfer":
        start = find_start(IMAGENET, spec.model)
        return Origin(start, f"preset transfer: {start.text}")
    if spec.data in DATASETS:
        return Origin(None, NAMED)
    given = [name for name in fields_with(Role.FROM_SCRATCH) if name in spec.model_fields_set]
    if spec.model in PUBLISHED:
        given.remove("model")
    if given:
        names, were = " and ".join(given), "was" if len(given) == 1 else "were"
        why = f"from scratch, because {names} {were} chosen; --weights imagenet starts from pretrained weights"
        return Origin(None, why)
    if side < SMALLEST_PHOTO:
        found = f"the median side of these images is {side} px" if spec.image_size is None else f"image_size is {side}"
        why = f"from scratch: ImageNet weights are for photos of {SMALLEST_PHOTO} px or more, and {found}"
        return Origin(None, why)
    return default_start(side, show.work, spec.model)


def knows_all(start: Start, dataset: Dataset) -> bool:
    """Return whether the data has all images of the run whose weights training starts from, by their names."""
    run = run_of(Path(start.weights))
    names = {name for part in run.dataset.get("split", {}).values() for name in part} if run else set()
    return names <= {*dataset.names}


def settle(resolved: Resolved, start: Start | None, backend: Choice) -> Resolved:
    """Fill in the backend and the precision, and make every path absolute."""
    spec, reasons = resolved.spec, dict(resolved.reasons)
    update: dict[str, Any] = {"backend": backend.value}
    if spec.backend is None:
        reasons["backend"] = backend.reason
    if spec.precision is None and start and start.head_only:
        update["precision"], reasons["precision"] = "float32", "pretrained features lose accuracy in bfloat16"
    elif spec.precision is None:
        update["precision"], reasons["precision"] = choose_precision(backend.value)
    if spec.data not in DATASETS:
        update["data"] = located(spec.data)
    elif folder := data_folder(spec.data_dir):
        update["data_dir"] = folder.resolve()
    for name in ("keep_list", "labels"):
        if path := getattr(spec, name):
            update[name] = path.resolve()
    if start:
        update["weights"] = start.weights
    if spec.teacher:
        update["teacher"] = spec.teacher.resolve()
    return Resolved(spec.model_copy(update=update), reasons)


def start_keras(spec: TrainSpec, num_classes: int, show: Reporter) -> None:
    """Import Keras on the chosen backend, and check the network, so that no run is created that could not be trained.

    Raises:
        SpecError: a custom network breaks the contract, or smaller images do not fit the network.
    """
    start_backend(spec, show)
    if is_custom(spec):
        with dtype_policy(spec.precision):
            check_network(spec.model, spec.image_size, num_classes)
    if spec.early_size:
        at_any_size(build(spec, num_classes), spec.early_size)


def start_backend(spec: TrainSpec, show: Reporter) -> None:
    """Import Keras on the chosen backend, and divide the cores as the parts of a batch need it."""
    show.note("starting", f"Keras on {spec.backend}")
    use_backend(spec.backend)
    share_cores(parts_of(spec.batch_size, spec.ghost_batch_size))


def is_custom(spec: TrainSpec) -> bool:
    """Return whether the network is one of the user's own."""
    return MODELS[spec.model].build is not None


# The images ----------------------------------------------------------------------------------------------------------


def divide(chosen: Chosen, dataset: Dataset, pixels: Pixels, used: np.ndarray) -> np.ndarray:
    """Return (n,) the part of each image: train, validation, test, or "" for an image that is left out.

    A student has its teacher's parts. Otherwise it would be tested on images that its teacher was trained on.
    """
    if chosen.teacher:
        return find_parts(chosen.teacher, dataset, pixels, PARTS).parts
    return split_readable(dataset, pixels, chosen.spec, used)


def split_readable(dataset: Dataset, pixels: Pixels, spec: TrainSpec, used: np.ndarray) -> np.ndarray:
    """Return (n,) train, validation, test, or "" for an image that is not `used`, beyond `shots`, or unreadable.

    What a labels.csv has added is trained on only: it was chosen because a model was unsure of it, so it would bias a
    test, and the images of before stay the test.
    """
    usable = np.setdiff1d(np.flatnonzero(used), list(pixels.broken))
    added = added_images(dataset)[usable]
    readable = usable[~added]
    parts = np.full(len(dataset), "", dtype="<U10")
    parts[usable[added]] = "train"
    parts[readable] = split(
        replace(
            dataset,
            names=tuple(dataset.names[index] for index in readable.tolist()),
            labels=dataset.labels[readable],
            parts=dataset.parts[readable],
        ),
        pixels.hashes[readable],
        validation=spec.validation,
        seed=spec.split_seed,
        allow_tiny=spec.allow_tiny,
    )
    if spec.shots:
        parts[few_shots(dataset.labels, pixels.hashes, parts, spec.shots, spec.seed)] = ""
    return parts


def about_labels(dataset: Dataset, parts: np.ndarray, pixels: Pixels) -> list[str]:
    """Return sentences about what a labels.csv means for the test, and about images of it that are not used."""
    if not dataset.relabelled:
        return []
    sentences = []
    if copies := int(needless_copies(dataset, pixels).sum()):
        sentences.append(f"{count(copies, 'added image')} left out as copies of other images of {dataset.name}.")
    corrected = {*dataset.relabelled.corrected}
    tests = sum(dataset.names[index] in corrected for index in np.flatnonzero(parts == "test").tolist())
    if tests:
        sentences.append(
            f"{count(tests, 'test label')} corrected. Compare the accuracy only with that of runs with the same "
            "corrections: if the images to look at were those where a model disagreed, it is flattered."
        )
    return sentences


def without_seen(parts: np.ndarray, pixels: Pixels, before: Seen, ancestor: str) -> tuple[np.ndarray, list[str]]:
    """Return (n,) the parts without test and validation images that an ancestor has seen, and sentences about them.

    Images that only judged an ancestor may judge the run, too, but not test it. `ancestor` names the last one.

    Raises:
        DataError: no test images are left, or no validation images.
    """
    parts, sentences = parts.copy(), []
    for part, known in (("test", before.before), ("validation", before.trained_before)):
        inside = parts == part
        learned = inside & pixels.among(known)
        if not learned.any():
            continue
        found = count(int(learned.sum()), f"{part} image")
        if np.array_equal(learned, inside):
            instead = "" if part == "test" else ", or hold none out: --validation 0"
            raise DataError(
                f"No {part} image is left, because {ancestor}, or a run before it, has seen all of these: {found}. "
                f"Start from other weights, for example --weights none{instead}."
            )
        parts[learned] = ""
        sentences.append(f"{found} left out, because {ancestor}, or a run before it, has seen them.")
    return parts, sentences


# The files of the run ------------------------------------------------------------------------------------------------


def spec_record(asked: TrainSpec, chosen: Chosen, show: Reporter) -> SpecRecord:
    """Return the content of spec.json. Keras must have been started."""
    spec, start = chosen.spec, chosen.start
    record: SpecRecord = {
        "asked": asked.model_dump(mode="json", exclude_unset=True),
        "spec": spec.model_dump(mode="json"),
        "reasons": chosen.reasons,
        "phases": [str(phase) for phase in plan_phases(spec)],
        "environment": {**environment(), "precision": spec.precision},
    }
    if here().size > 1:
        record["processes"] = here().size
    if chosen.warnings:
        record["warnings"] = chosen.warnings
    if is_custom(spec):
        record["model_import"] = MODELS[spec.model].function
    if start:
        file = weights_file(start.weights, spec.model, spec.image_size, show.work)
        record["weights"] = {"of": start.text, "file": file.name, "sha256": sha256(file)}
        if (run := run_of(Path(start.weights))) and (run.folder / FILE).is_file():
            record["weights"]["seen_sha256"] = sha256(run.folder / FILE)
    if chosen.teacher:
        record["teacher"] = reference(chosen.teacher)
    return record


def dataset_record(spec: TrainSpec, images: RunImages, used: np.ndarray) -> DatasetRecord:
    """Return the content of dataset.json."""
    dataset, pixels, parts = images
    record = DatasetRecord(
        name=dataset.name,
        classes=list(dataset.classes),
        provenance=dataset.provenance,
        fingerprint=dataset.fingerprint,
        broken={**{dataset.names[index]: why for index, why in pixels.broken.items()}, **dataset.unusable},
        **membership(dataset, pixels.hashes, parts),  # type: ignore[typeddict-item]  # mypy asks for optional keys
    )
    if spec.keep_list:
        record["keep_list"] = {"sha256": sha256(spec.keep_list), "kept": int(used.sum()), "of": len(dataset)}
    if changes := dataset.relabelled:
        record["labels"] = {
            "bytes": changes.size,
            "sha256": changes.sha256,
            "corrected": [*changes.corrected],
            "added": [*changes.added],
            "left_out": [*changes.left_out],
            "conflicts": [*changes.conflicts],
        }
    return record


# What is shown -------------------------------------------------------------------------------------------------------


def class_counts(dataset: Dataset, used: np.ndarray) -> str:
    """Return the classes with their numbers of images that are `used` (n,) bool; a long list is cut."""
    counts = np.bincount(dataset.labels[used], minlength=len(dataset.classes)).tolist()
    each = [f"{short(name, 24)} {number:,}" for name, number in zip(dataset.classes, counts, strict=True)]
    shown = each if len(each) <= CLASSES_SHOWN else [*each[: CLASSES_SHOWN - 1], "…"]
    return f"{', '.join(shown)} ({len(each):,} classes)"


def show_choices(chosen: Chosen, images: RunImages, show: Reporter) -> None:
    """Show the split, what is left out, and the choices that the user did not make.

    Choices that follow from the data are shown with their reasons. The usual ones are folded into a few lines, unless
    the reporter is verbose.
    """
    parts, n = images.parts, len(images.dataset)
    show.note("split", ", ".join(f"{part} {np.count_nonzero(parts == part):,}" for part in PARTS))
    if chosen.spec.keep_list:
        show.note("keep-list", f"{np.count_nonzero(parts != ''):,} of {count(n, 'image')} are used")
    if broken := len(images.pixels.broken) + len(images.dataset.unusable):
        show.note("skipped", f"{count(broken, 'unreadable image')}; dataset.json in the run names them")
    for text in chosen.warnings:
        show.note("warning", text)
    spec, usual = chosen.spec, set() if show.verbose else usual_choices(chosen)
    for field, reason in chosen.reasons.items():
        if field not in usual:
            show.note(field, f"{getattr(spec, field)}  ({reason})")
    for label, fields in FOLDED.items():
        if label == "training" and spec.freeze == "all":  # a head that is fitted at once has no optimizer
            continue
        told = [f"{field} {getattr(spec, field)}" for field in fields if field in usual and getattr(spec, field)]
        if told:
            name = f"{spec.preset}: " if label == "preset" else ""
            hint = "  (the reasons: --verbose, or spec.json in the run)" if label == "machine" else ""
            show.note(label, name + ", ".join(told) + hint)


def usual_choices(chosen: Chosen) -> set[str]:
    """Return the fields that were chosen as usual: as the preset, the teacher or any training on such data has them."""
    folded = {field for fields in FOLDED.values() for field in fields}
    return {
        field
        for field, reason in chosen.reasons.items()
        if field in folded and (field in ALWAYS_USUAL or reason in USUAL_REASONS or reason.startswith("preset "))
    }


def show_findings(check: CheckSummary, spec: TrainSpec, show: Reporter) -> None:
    """Show the errors and warnings about the data that are known, and how to find more."""
    for each in check["findings"]:
        if each["severity"] != "note":
            show.note(each["severity"], each["text"])
    if not check["complete"]:
        data = from_here(spec.data) if os.path.isabs(spec.data) else spec.data
        command = check_command_for({**spec.model_dump(exclude_unset=True), "data": data})
        show.note("not checked", f"near-duplicates and more: run {command}")
