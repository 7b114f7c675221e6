"""train(spec) -> Run: read, split, build, fit, save. `resume` goes on where a run was stopped, bit for bit."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.checks.check import findings_for_training, summary
from onsight.checks.keep_list import read_keep_list
from onsight.core.backend import choose_backend, choose_precision, dtype_policy, environment, use_backend
from onsight.core.errors import Interrupted, RunError, SpecError
from onsight.core.files import expanded, sha256, write_json
from onsight.core.progress import Reporter
from onsight.core.text import percent, points
from onsight.data.batches import Examples
from onsight.data.dataset import Dataset
from onsight.data.load import DATASETS, UNMIRRORED, load_dataset
from onsight.data.pixel_cache import Pixels, load_pixels, median_side
from onsight.data.split import few_shots, membership, recorded_parts, split
from onsight.display.reporters import make_reporter
from onsight.metrics.intervals import deviation, mean
from onsight.models.custom import check_network
from onsight.models.registry import MODELS
from onsight.reporting import plot_style, plots
from onsight.reporting.commands import command_for
from onsight.reporting.report import report
from onsight.runs.run import Run, open_run
from onsight.spec import FROM_SCRATCH, IMAGENET, TrainSpec
from onsight.training.checkpoints import load_checkpoint, numbered
from onsight.training.initial_weights import Start, default_start, file_of, find_start
from onsight.training.loop import at_any_size, build, fit
from onsight.training.phases import plan_phases
from onsight.training.resolve import resolve
from onsight.training.teacher import named, say_difference

if TYPE_CHECKING:
    import keras


SMALLEST_PHOTO = 96  # pixels of the median side, from which ImageNet's weights are taken by default
# Whoever chooses one of these does not get ImageNet's weights unasked: they go with some networks, or not at all.
STARTERS = ("model", "preset", "optimizer", "freeze", "teacher", "time_budget", "early_size")


def train(
    spec: TrainSpec | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    reporter: Reporter | None = None,
) -> Run:
    """Train a classifier as `spec` says and return its run.

    Args:
        spec: what to train, on what and how; the default is the default preset on CIFAR-10.
        callbacks: Keras callbacks of your own: their hooks at the begin and end of training and of epochs are called,
            and `model.stop_training` is heeded. The learning rate stays the schedule's. Their state is not saved.
        reporter: where progress goes; by default to standard error.

    Raises:
        SpecError: a choice cannot work.
        DataError: the images cannot be used.
        TrainingError: training could not go on; the last good state is kept in the run.
    """
    spec = spec or TrainSpec()
    asked = spec.model_dump(mode="json", exclude_unset=True)
    with reporter or make_reporter() as show:
        backend = choose_backend(spec.backend)
        dataset = load_dataset(spec.data, spec.data_dir, show.work)
        show.note(f"data             {dataset.provenance}, {len(dataset.classes)} classes")
        used = read_keep_list(spec.keep_list, dataset) if spec.keep_list else np.ones(len(dataset), bool)
        side = median_side(dataset) if spec.image_size is None else spec.image_size
        start, why = choose_start(spec, side, show)
        spec, reasons = resolve(
            spec,
            images=int(np.count_nonzero(used & np.isin(dataset.parts, ("", "train")))),
            given=set(dataset.parts.tolist()),
            side=side,
            flips=dataset.name not in UNMIRRORED,
            classes=len(dataset.classes),
            start=start,
        )
        if "weights" in reasons:
            reasons["weights"] = why
        teacher = open_run(spec.teacher) if spec.teacher else None
        if teacher:
            old = teacher.spec
            reasons |= {field: "as the teacher's" for field in asked if field in old and asked[field] == old[field]}
        spec, reasons = settle(spec, reasons, backend.value, backend.reason)
        pixels = load_pixels(dataset, spec.image_size, show.work)
        if teacher:  # its parts, else the student would be judged by images that its teacher has learned by heart
            parts = recorded_parts(teacher.dataset, dataset, pixels.hashes, ("train", "validation", "test"))
        else:
            parts = split_readable(dataset, pixels, spec, used)
        show_choices(show, spec, reasons, dataset, parts, pixels)
        check = summary(*findings_for_training(dataset, pixels, used))
        show_findings(show, check, spec.data)
        members = describe(dataset, parts, pixels)
        if spec.keep_list:
            members["keep_list"] = {"sha256": sha256(spec.keep_list), "kept": int(used.sum()), "of": len(dataset)}
        show.note(f"starting         Keras on {spec.backend}")
        use_backend(spec.backend)
        own = MODELS[spec.model].build is not None
        if own:  # before hours go into a network whose weights would fit no other process
            with dtype_policy(spec.precision):
                check_network(spec.model, spec.image_size, len(dataset.classes))
        if spec.early_size:  # likewise before there is a run
            at_any_size(build(spec, len(dataset.classes)), spec.early_size)
        record = {
            "asked": asked,
            "spec": spec.model_dump(mode="json"),
            "reasons": reasons,
            "phases": [str(phase) for phase in plan_phases(spec)],
            "environment": {**environment(), "precision": spec.precision},
            **({"model_import": MODELS[spec.model].function} if own else {}),
        }
        if start:
            file = file_of(start.weights, spec.model, spec.image_size, show.work)
            record["weights"] = {"of": start.text, "file": file.name, "sha256": sha256(file)}
        if teacher:
            record["teacher"] = named(teacher)
        run = Run.create(f"{dataset.name}-{spec.model}", record, members)
        try:
            write_json(run.folder / "check.json", check)
            show.note(f"run              {run.folder}")
            return fit_and_report(run, spec, dataset, pixels, parts, show, callbacks)
        except BaseException:
            if not numbered(run.checkpoints):  # it never began, so nobody can go on with it
                shutil.rmtree(run.folder, ignore_errors=True)
            raise


def train_seeds(
    spec: TrainSpec | None = None,
    seeds: int = 5,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    reporter: Reporter | None = None,
) -> list[Run]:
    """Train `spec` with its seed, the next, and so on, and return the runs: how much of a figure is luck?

    The images are split alike for all of them, by the first seed: else each would be validated, and where the data
    set has no test images of its own also tested, on others, and figures would differ for that too.

    Args:
        spec: what to train; the default is the default preset on CIFAR-10.
        seeds: how many runs.
        callbacks: as `train` takes them; the same ones for every run.
        reporter: where progress goes; by default to standard error.

    Raises:
        SpecError: `seeds` is below 1, or the last seed too large.
        Interrupted: Ctrl-C or SIGTERM came. Runs that have finished stay, the one at work can be resumed, and the
            message has the command for the seeds that were not begun.
        OnsightError: as `train` raises them.
    """
    spec = spec or TrainSpec()
    if seeds < 1:
        raise SpecError(f"seeds={seeds} trains nothing; expected 1 or more.")
    split_seed = spec.seed if spec.split_seed is None else spec.split_seed
    asked = spec.model_dump(exclude_unset=True)
    specs = [TrainSpec(**{**asked, "seed": spec.seed + i, "split_seed": split_seed}) for i in range(seeds)]
    show = reporter or make_reporter()
    runs: list[Run] = []
    for done, each in enumerate(specs, start=1):
        show.note(f"seed             {each.seed}  ({done} of {seeds})")
        try:
            runs.append(train(same_start(each, runs), callbacks=callbacks, reporter=show))
        except Interrupted as stop:
            if done == seeds:
                raise
            rest = {"data": spec.data} | same_start(specs[done], runs).model_dump(mode="json", exclude_unset=True)
            command = f"{command_for(rest)} --seeds {seeds - done}"
            raise Interrupted(f"{stop}\nThen the seeds that were not begun: {command}", stop.exit_code) from None
    show.note(seed_table(runs))
    return runs


def same_start(spec: TrainSpec, earlier: Sequence[Run]) -> TrainSpec:
    """Return `spec`, beginning as the first of some trainings that are compared did.

    By now `latest` is another run, and ImageNet's weights may have come within reach.
    """
    if earlier and not (spec.weights is None and spec.data in DATASETS):
        weights = earlier[0].spec["weights"]
    elif spec.weights in (None, FROM_SCRATCH, IMAGENET):
        return spec
    else:
        weights = find_start(spec.weights, spec.model).weights
    return spec.model_copy(update={"weights": weights})


def seed_table(runs: Sequence[Run]) -> str:
    """Return the runs of `train_seeds` with their validation accuracy, its mean and sample standard deviation."""
    lines, shares = [], []
    for run in runs:
        share = (run.model_epoch() or {}).get("val_accuracy")
        lines.append(f"seed {run.spec['seed']:<11} {run.folder}   validation {percent(share)}")
        shares += [] if share is None else [share]
    if len(shares) > 1:
        spread = f"{percent(mean(shares))} ± {points(deviation(shares) or 0.0)}"
        lines.append(f"{len(shares)} seeds          validation {spread} (mean, sample standard deviation)")
    return "\n".join(lines)


def resume(
    run: str | Path | Run,
    *,
    epochs: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    reporter: Reporter | None = None,
) -> Run:
    """Go on with a run from its newest valid checkpoint, exactly as if it had never stopped.

    Args:
        run: the run, or its folder; `latest` is the newest unfinished one, with `epochs` the newest of all.
        epochs: train for so many in all; a finished run goes on too, with its schedule (and `early_size`) drawn over
            the new length.
        callbacks: Keras callbacks of your own.
        reporter: where progress goes.

    Raises:
        RunError: there is no such run, it has no valid checkpoint, or it has finished.
        DataError: its images are gone or have changed.
    """
    run = open_run(run, finished=False if epochs is None else None)
    run.require_network()
    state = load_checkpoint(run.checkpoints).state
    # Whoever says how many epochs has no time budget any more.
    spec = TrainSpec(**(run.spec if epochs is None else {**run.spec, "epochs": epochs, "time_budget": None}))
    if epochs is not None and epochs <= state["epoch"]:
        raise RunError(f"{run.folder} has trained {state['epoch']} epochs already; --epochs {epochs} asks for no more.")
    if epochs is not None and epochs == run.spec["epochs"] and state["stopped"]:
        raise RunError(
            f"{run.folder} is meant for {epochs} epochs already, and stopped after {state['epoch']}, as it was told to "
            "or as early stopping judged. To train it longer: --epochs with another number."
        )
    if epochs is None and run.is_trained and (state["stopped"] or state["epoch"] >= spec.epochs):
        raise RunError(f"{run.folder} has finished, after {state['epoch']} epochs. To train it longer: --epochs N.")
    with reporter or make_reporter() as show:
        choose_backend(spec.backend)
        dataset = load_dataset(spec.data, spec.data_dir, show.work)
        pixels = load_pixels(dataset, spec.image_size, show.work)
        parts = recorded_parts(run.dataset, dataset, pixels.hashes, ("train", "validation"))
        show.note(f"starting         Keras on {spec.backend}")
        use_backend(spec.backend)
        return fit_and_report(run, spec, dataset, pixels, parts, show, callbacks)


def fit_and_report(
    run: Run,
    spec: TrainSpec,
    dataset: Dataset,
    pixels: Pixels,
    parts: np.ndarray,
    show: Reporter,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Run:
    """Train in `run` from where it stands, then draw its curves and its first report."""
    chosen = [np.flatnonzero(parts == part) for part in ("train", "validation")]
    training, validation = (Examples(pixels.images, index, dataset.labels[index]) for index in chosen)
    fit(run, spec, training, validation, show, callbacks)
    if spec.teacher:
        say_difference(run, spec.teacher, *validation, show)
    plot_style.save(plots.curves(run.history()), run.folder / "curves.png")
    report(run)
    return run


def choose_start(spec: TrainSpec, side: int, show: Reporter) -> tuple[Start | None, str]:
    """Return the weights to start from, None for new ones, and why.

    Where nobody says, photos start from the default network's ImageNet weights if those can be had without waiting.
    """
    if spec.weights not in (None, FROM_SCRATCH):
        return find_start(spec.weights, spec.model), "asked for"
    if spec.weights == FROM_SCRATCH:
        return None, "asked for"
    if spec.preset == "transfer":
        start = find_start(IMAGENET, spec.model)
        return start, f"preset transfer: {start.text}"
    if spec.data in DATASETS:
        return None, "data sets with a name start anew, unless --weights says otherwise"
    given = [name for name in STARTERS if name in spec.model_fields_set]
    if given:
        return None, f"new ones, as {' and '.join(given)} was chosen; --weights imagenet: pretrained ones"
    if side < SMALLEST_PHOTO:
        return None, f"new ones: ImageNet's are for photos, and the median side of these is {side} px"
    return default_start(side, show.work)


def settle(spec: TrainSpec, reasons: dict[str, str], backend: str, reason: str) -> tuple[TrainSpec, dict[str, str]]:
    """Fill in backend, precision and absolute paths."""
    update: dict[str, Any] = {"backend": backend}
    reasons = reasons | ({} if spec.backend else {"backend": reason})
    if spec.precision is None:
        update["precision"], reasons["precision"] = choose_precision(backend)
    if spec.data not in DATASETS:
        update["data"] = os.path.realpath(expanded(spec.data))
    data_dir = spec.data_dir or os.environ.get("ONSIGHT_DATA")
    if data_dir and "data" not in update:
        update["data_dir"] = expanded(data_dir).resolve()
    if spec.keep_list:
        update["keep_list"] = spec.keep_list.resolve()
    if spec.weights not in (IMAGENET, FROM_SCRATCH):
        update["weights"] = find_start(spec.weights, spec.model).weights  # absolute
    if spec.teacher:
        update["teacher"] = spec.teacher.resolve()
    return spec.model_copy(update=update), reasons


def split_readable(dataset: Dataset, pixels: Pixels, spec: TrainSpec, used: np.ndarray) -> np.ndarray:
    """Return (n,) of train, validation, test, or "" for an image not `used`, beyond `shots` or unreadable."""
    readable = np.setdiff1d(np.flatnonzero(used), list(pixels.broken))
    parts = np.full(len(dataset), "", dtype="<U10")
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


def describe(dataset: Dataset, parts: np.ndarray, pixels: Pixels) -> dict[str, Any]:
    """Return what dataset.json will say."""
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "provenance": dataset.provenance,
        "fingerprint": dataset.fingerprint,
        "broken": {dataset.names[index]: reason for index, reason in pixels.broken.items()},
        **membership(dataset, pixels.hashes, parts),
    }


def show_choices(
    show: Reporter, spec: TrainSpec, reasons: dict[str, str], dataset: Dataset, parts: np.ndarray, pixels: Pixels
) -> None:
    """Say what will be trained on what, and why each choice was made that the user did not make."""
    counts = {part: int(np.count_nonzero(parts == part)) for part in ("train", "validation", "test")}
    show.note("split            " + ", ".join(f"{part} {count:,}" for part, count in counts.items()))
    if spec.keep_list:
        show.note(f"keep-list        {np.count_nonzero(parts != ''):,} of {len(dataset):,} images are used")
    if pixels.broken:
        show.note(f"passed over {len(pixels.broken)} unreadable images; dataset.json in the run names them")
    for field, reason in reasons.items():
        show.note(f"{field:<16} {getattr(spec, field)}  ({reason})")


def show_findings(show: Reporter, check: dict[str, Any], data: str) -> None:
    """Say what is wrong with the images, as far as it is known, and how to know more."""
    for each in check["findings"]:
        if each["severity"] != "note":
            show.note(f"{each['severity']:<16} {each['text']}")
    if not check["complete"]:
        show.note(f"not checked      for near-copies and more: onsight check {shlex.quote(data)}")
