"""train(spec) -> Run: prepare, create the run, fit, report. `resume` continues a run bit for bit."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onsight.core.backend import choose_backend
from onsight.core.errors import Interrupted, RunError, SpecError
from onsight.core.files import write_json
from onsight.core.progress import Reporter
from onsight.core.text import count, percent, points
from onsight.data.load import DATASETS
from onsight.display.reporters import make_reporter
from onsight.features.initial_weights import find_start
from onsight.metrics.intervals import deviation, mean
from onsight.reporting import plot_style, plots
from onsight.reporting.commands import command_for
from onsight.reporting.report import report
from onsight.runs.images import RunImages, open_images
from onsight.runs.run import Run, list_runs, open_run
from onsight.runs.seen import write_seen
from onsight.spec import FROM_SCRATCH, IMAGENET, TrainSpec
from onsight.training.checkpoints import checkpoint_folders, load_checkpoint
from onsight.training.distributed import here, others_explained
from onsight.training.loop import fit
from onsight.training.phases import plan_phases
from onsight.training.prepare import Prepared, prepare, start_backend
from onsight.training.resolve import KEPT
from onsight.training.shared_run import check_alike, check_shared, from_first, pack_run, unpack_run
from onsight.training.teacher import compare_with_teacher, open_teacher

if TYPE_CHECKING:
    import keras


def train(
    spec: TrainSpec | str | Path | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    reporter: Reporter | None = None,
    **options: Any,
) -> Run:
    """Train a classifier as `spec` says and return its run.

    Args:
        spec: what to train, on what data and how; or only the data, as `TrainSpec(data=...)` takes it. By default the
            default preset on CIFAR-10.
        callbacks: Keras callbacks. Their hooks at the beginning and the end of training and of epochs are called, and
            `model.stop_training` is respected. The schedule sets the learning rate. Their state is not saved.
        reporter: receives the progress; by default it is shown on standard error.
        **options: not accepted: training options belong in the spec, and the error shows how.

    Raises:
        SpecError: a choice cannot work.
        DataError: the images cannot be used.
        TrainingError: training could not continue; the last good state is kept in the run.
    """
    spec, ranks = as_spec(spec, options), here()
    ranks.meet()
    with reporter or make_reporter(quiet=not ranks.first) as show, others_explained():
        prepared = prepare(spec, show)
        check_alike(ranks, prepared.record, prepared.members)
        check_shared(prepared.spec, ranks, len(prepared.images.examples("train").labels))
        with created_run(prepared) as run:
            show.note("run", str(run.folder))
            return fit_and_report(run, prepared.spec, prepared.images, show, callbacks)


def as_spec(spec: TrainSpec | str | Path | None, options: dict[str, Any], verb: str = "train") -> TrainSpec:
    """Return the first argument of `train` as a spec.

    Raises:
        SpecError: it has another type, or there are options outside the spec; the message shows the right call.
    """
    if options or not isinstance(spec, TrainSpec | str | Path | None):
        data = {"data": str(spec)} if isinstance(spec, str | Path) else {}
        given = spec.model_dump(exclude_unset=True) if isinstance(spec, TrainSpec) else data
        words = ", ".join(f"{name}={value!r}" for name, value in {**given, **options}.items()) or 'data="photos/"'
        what = f"not {', '.join(options)} as arguments" if options else f"not {type(spec).__name__}"
        raise SpecError(
            f"onsight.{verb} takes a TrainSpec or the path of your data, {what}. "
            f"Call: onsight.{verb}(onsight.TrainSpec({words}))"
        )
    return spec if isinstance(spec, TrainSpec) else TrainSpec(spec)


@contextlib.contextmanager
def created_run(prepared: Prepared, folder: Path | None = None) -> Iterator[Run]:
    """Create the run, in `folder` if one is given.

    If training fails before its first checkpoint, remove it, because it could not be resumed. Of several processes, the
    first one does so.
    """
    ranks = here()

    def create() -> Run:
        name = f"{prepared.images.dataset.name}-{prepared.spec.model}"
        run = Run.create(name, prepared.record, prepared.members, folder)
        write_json(run.folder / "check.json", prepared.check)
        write_seen(run, prepared.seen)
        return run

    run = from_first(ranks, create, pack_run, unpack_run)
    try:
        yield run
    except BaseException:
        if ranks.first and not checkpoint_folders(run.checkpoints):
            shutil.rmtree(run.folder, ignore_errors=True)
        raise


def fit_and_report(
    run: Run,
    spec: TrainSpec,
    images: RunImages,
    show: Reporter,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Run:
    """Train `run` from where it is, then draw its curves and write its first report.

    Of several processes, the first one writes them, and the others wait for it.
    """
    ranks = here()
    training, validation = images.examples("train"), images.examples("validation")
    teacher = open_teacher(run, spec, images, show)
    fit(run, spec, training, validation, show, callbacks, teacher)
    if teacher:
        compare_with_teacher(run, teacher, validation, show)
    if ranks.first:
        plot_style.save(plots.curves(run.history()), run.folder / "curves.png")
        report(run)
    ranks.largest(0)  # all are here
    return run


def resume(
    run: str | Path | Run,
    *,
    epochs: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    reporter: Reporter | None = None,
) -> Run:
    """Continue a run from its newest valid checkpoint, exactly as if it had never stopped.

    Args:
        run: the run, or its folder; `latest` is the newest unfinished run, with `epochs` the newest of all.
        epochs: the new number of epochs in total. A finished run can be trained longer, too: its schedule (and
            `early_size`) is stretched over the new length.
        callbacks: as for `train`.
        reporter: receives the progress.

    Raises:
        RunError: there is no such run, it has no valid checkpoint, or it has finished.
        DataError: its images are gone or have changed.
    """
    ranks = here()

    def begun() -> tuple[Run, TrainSpec]:
        found = open_run(run, finished=False if epochs is None else None)
        found.require_network()
        return found, spec_to_resume(found, epochs)

    found, spec = from_first(
        ranks,
        begun,
        lambda both: [pack_run(both[0]), both[1].model_dump(mode="json")],
        lambda packed: (unpack_run(packed[0]), TrainSpec(**packed[1])),
    )
    with reporter or make_reporter(quiet=not ranks.first) as show, others_explained():
        choose_backend(spec.backend)
        images = open_images(found, ("train", "validation"), show.work)
        check_shared(spec, ranks, len(images.examples("train").labels))
        start_backend(spec, show)
        return fit_and_report(found, spec, images, show, callbacks)


def train_or_resume(
    spec: TrainSpec,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    reporter: Reporter | None = None,
) -> Run:
    """Continue the newest run with the same options, or begin one; return a finished one as it is.

    A job that a scheduler starts again after a failure therefore ends with the run that it began. Arguments and errors
    are those of `train`.
    """
    asked = spec.model_dump(mode="json", exclude_unset=True)

    def find() -> Run | None:
        same = [run for run in list_runs() if run.record.get("asked") == asked]
        return next((run for run in reversed(same) if run.is_trained or checkpoint_folders(run.checkpoints)), None)

    found: Run | None = from_first(here(), find, lambda run: run and pack_run(run), lambda it: it and unpack_run(it))
    if found is None:
        return train(spec, callbacks=callbacks, reporter=reporter)
    if from_first(here(), lambda: found.is_trained, bool, bool):
        return found
    return resume(found.folder, callbacks=callbacks, reporter=reporter)


def spec_to_resume(run: Run, epochs: int | None) -> TrainSpec:
    """Return the spec that `run` continues with, for `epochs` epochs in total if that is given.

    Raises:
        RunError: nothing is left to train, or another version trains the run in other phases.
    """
    state = load_checkpoint(run.checkpoints).state
    done, stopped = state["epoch"], state["stopped"]
    spec = TrainSpec(**run.spec)
    if epochs == spec.epochs and not run.is_trained:
        epochs = None  # the same command again, after it was stopped
    if epochs is None and run.is_trained and (stopped or done >= spec.epochs):
        raise RunError(f"{run.folder} has finished, after {count(done, 'epoch')}. To train it longer: --epochs N.")
    recorded, planned = run.record.get("phases"), [str(phase) for phase in plan_phases(spec)]
    if recorded and recorded != planned:
        raise RunError(
            f"{run.folder} was begun by an earlier version, which trained in other phases ({'; '.join(recorded)}). "
            "Train again from the start."
        )
    if epochs is None:
        return spec
    if spec.freeze == "all":
        raise RunError(
            f"{run.folder} trained the head alone, in one step, so --epochs {epochs} adds nothing. To train deeper "
            f"layers too, begin a new run with its weights: onsight train DATA --weights {run.folder} --epochs {epochs}"
        )
    changes: dict[str, Any] = {"epochs": epochs, "time_budget": None}  # the epochs replace a time budget
    if spec.patience and run.record.get("reasons", {}).get("patience") == KEPT:
        changes["patience"] = epochs
    changed = TrainSpec(**{**run.spec, **changes})
    if epochs <= done:
        raise RunError(
            f"{run.folder} has already trained {count(done, 'epoch')}, so --epochs {epochs} adds none. Give a larger "
            "number."
        )
    if epochs == run.spec["epochs"] and stopped:
        raise RunError(
            f"{run.folder} already has --epochs {epochs}. It stopped after {done}, because of early stopping or a "
            "callback. To train it longer, give a larger number."
        )
    return changed


# Several seeds -------------------------------------------------------------------------------------------------------


def train_seeds(
    spec: TrainSpec | str | Path | None = None,
    seeds: int = 5,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    reporter: Reporter | None = None,
    **options: Any,
) -> list[Run]:
    """Train `spec` with several consecutive seeds and return the runs, to show how much of a result is luck.

    All runs share one split, drawn by the first seed. Otherwise each would be validated (and tested, if the data set
    has no test part of its own) on other images, and the results would differ for that reason, too.

    Args:
        spec: as for `train`.
        seeds: the number of runs.
        callbacks: as for `train`; every run gets the same ones.
        reporter: receives the progress.
        **options: not accepted, as for `train`.

    Raises:
        SpecError: `seeds` is below 1, or the last seed is too large.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP was received. Finished runs stay, the current one can be resumed, and the
            message has the command for the remaining seeds.
        OnsightError: as `train` raises them.
    """
    spec = as_spec(spec, options, "train_seeds")
    if seeds < 1:
        raise SpecError(f"seeds={seeds} trains nothing; expected 1 or more.")
    split_seed = shared_split_seed(spec)
    asked = spec.model_dump(exclude_unset=True)
    specs = [TrainSpec(**{**asked, "seed": spec.seed + i, "split_seed": split_seed}) for i in range(seeds)]
    show = reporter or make_reporter()
    runs: list[Run] = []
    for done, each in enumerate(specs, start=1):
        show.note("seed", f"{each.seed}  ({done} of {seeds})")
        try:
            runs.append(train(same_start(each, runs), callbacks=callbacks, reporter=show))
        except Interrupted as stop:
            if done == seeds:
                raise
            rest = {"data": spec.data} | same_start(specs[done], runs).model_dump(mode="json", exclude_unset=True)
            command = f"{command_for(rest)} --seeds {seeds - done}"
            raise Interrupted(f"{stop}\nThen train the remaining seeds: {command}", stop.exit_code) from None
    for label, text in seed_notes(runs):
        show.note(label, text)
    return runs


def shared_split_seed(spec: TrainSpec) -> int:
    """Return the seed of the one split of several compared trainings of `spec`, which differ in their own seeds."""
    start = None if spec.weights in (None, FROM_SCRATCH, IMAGENET) else find_start(spec.weights, spec.model)
    inherited = start.split_seed if start else None
    return next(seed for seed in (spec.split_seed, inherited, spec.seed) if seed is not None)


def same_start(spec: TrainSpec, earlier: Sequence[Run]) -> TrainSpec:
    """Return `spec` with the initial weights that the first of several compared trainings had.

    Since then, `latest` names another run, and ImageNet weights may have become available.
    """
    if earlier and not (spec.weights is None and spec.data in DATASETS):
        weights = earlier[0].spec["weights"]
    elif spec.weights in (None, FROM_SCRATCH, IMAGENET):
        return spec
    else:
        weights = find_start(spec.weights, spec.model).weights
    return spec.model_copy(update={"weights": weights})


def seed_notes(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return notes, (label, text), on the runs of `train_seeds`: validation accuracies, mean, standard deviation."""
    notes, shares = [], []
    for run in runs:
        share = (run.model_epoch() or {}).get("val_accuracy")
        notes.append((f"seed {run.spec['seed']}", f"{run.folder}   validation {percent(share)}"))
        shares += [] if share is None else [share]
    if len(shares) > 1:
        spread = f"{percent(mean(shares))} ± {points(deviation(shares) or 0.0)}"
        n = sum(runs[0].dataset["counts"]["validation"].values())
        text = f"validation {spread} (mean, sample standard deviation; n = {n:,})"
        notes.append((f"{len(shares)} seeds", text))
    return notes
