"""`train`, `learning-curve` and `distill`: the commands with one flag for every training option."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from onsight.cli.app import Quiet
from onsight.cli.flags import Fields, Flag
from onsight.cli.output import hint, say
from onsight.core.errors import SpecError
from onsight.core.files import argument
from onsight.data.reading import names_in
from onsight.display.reporters import make_reporter
from onsight.spec import Role, TrainSpec, fields_with

TOGETHER = "Several processes (docs/scale.md)"  # a heading in the help
Verbose = Annotated[bool, Flag("show every setting with its reason before the first epoch")]
# `distill` refuses these options with a reason, so it reads them, but its help lists only those that it takes.
REFUSED = frozenset(fields_with(Role.TEACHERS)) - {*fields_with(Role.STUDENTS)} | {*fields_with(Role.NO_STUDENTS)}
ELSEWHERE = frozenset({"data", "teacher", "sparsity", "channels"})  # data is an argument; distill and prune set these
Spec = Annotated[TrainSpec | None, Fields(TrainSpec, ELSEWHERE)]


def train(
    data: str | None = None,
    /,
    *,
    spec: Spec = None,
    resume: Path | None = None,
    or_resume: bool = False,
    seeds: int = 1,
    find_learning_rate: bool = False,
    coordinator: Annotated[str | None, Flag(env="JAX_COORDINATOR_ADDRESS", group=TOGETHER)] = None,
    processes: Annotated[int | None, Flag(env="JAX_NUM_PROCESSES", group=TOGETHER)] = None,
    rank: Annotated[int | None, Flag(env="JAX_PROCESS_ID", group=TOGETHER)] = None,
    on: Annotated[str | None, Flag(group=TOGETHER)] = None,
    workers: Annotated[int, Flag(group=TOGETHER)] = 1,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a classifier on images and keep it as a run.

    Parameters
    ----------
    data
        a named data set (`onsight datasets`), or a folder, zip, CSV, shards or address of images (default: cifar10)
    spec
        the training options
    resume
        continue this run (or runs/latest); with --epochs N also a finished one
    or_resume
        if there is a run with the same options, continue it: for jobs that a scheduler starts again
    seeds
        train this many runs, with --seed, --seed + 1 and so on, on the same split, to show how much of a result is luck
    find_learning_rate
        do not train: try rising learning rates for some steps, draw the loss, and suggest a rate
    coordinator
        HOST:PORT at which the first of several processes listens
    processes
        the number of processes that train together; each takes its share of every batch
    rank
        the number of this process, from 0
    on
        ray://HOST:PORT of a Ray cluster that starts the processes; it starts them again after a failure
    workers
        with --on: the number of processes
    """
    from onsight.training import train as training
    from onsight.training.distributed import find_place, here, join

    if find_learning_rate:
        if resume is not None or or_resume or seeds != 1 or on is not None or processes not in (None, 1):
            raise SpecError(
                "--find-learning-rate does not train: leave --resume, --or-resume, --seeds, --on and --processes out."
            )
        from onsight.training import find_learning_rate as rates

        for line in rates.lines(
            rates.find_learning_rate(with_data(spec, data), reporter=make_reporter(quiet, verbose))
        ):
            say(line)
        return
    if on is not None:
        from onsight.training.on_ray import command, train_on

        if resume is not None:
            refuse_with_resume(data, spec, seeds, or_resume)
        if seeds != 1:
            raise SpecError(f"--on trains one run, so it does not go with --seeds {seeds}. Leave one out.")
        words = command(spec if resume else with_data(spec, data), resume) + ["--quiet"] * quiet
        say(train_on(on, workers, words, or_resume=or_resume, reporter=make_reporter(quiet, verbose)))
        return
    if place := find_place(coordinator, processes, rank):
        join(place, "jax" if resume else spec.backend if spec else None)
        quiet = quiet or not here().first
    if resume is not None:
        refuse_with_resume(data, spec, seeds, or_resume)
        finish(
            [training.resume(resume, epochs=spec.epochs if spec else None, reporter=make_reporter(quiet, verbose))],
            quiet,
        )
    elif or_resume:
        if seeds != 1:
            raise SpecError(f"--or-resume continues one run, so it does not go with --seeds {seeds}. Leave one out.")
        finish([training.train_or_resume(with_data(spec, data), reporter=make_reporter(quiet, verbose))], quiet)
    elif seeds == 1:
        finish([training.train(with_data(spec, data), reporter=make_reporter(quiet, verbose))], quiet)
    else:
        finish(training.train_seeds(with_data(spec, data), seeds, reporter=make_reporter(quiet, verbose)), quiet)


def learning_curve(
    data: str,
    /,
    *,
    spec: Spec = None,
    sizes: Annotated[list[int] | None, Flag(several=True)] = None,
    seeds: int = 3,
    out: Path | None = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train on more and more images, to see whether collecting more would help.

    Parameters
    ----------
    data
        a named data set (`onsight datasets`), or a folder, zip, CSV, shards or address of images
    spec
        the training options
    sizes
        training images per class (default: 5, 10, 20, 50 and so on, up to the number that there are)
    seeds
        trainings per size, each on different images
    out
        folder for curve.json and curve.png (default: curves/ and the name of the data set)
    """
    from onsight.training import learning_curve as curves

    show = make_reporter(quiet, verbose)
    found = curves.learning_curve(with_data(spec, data), sizes=sizes, seeds=seeds, out=out, reporter=show)
    for line in curves.lines(found):
        say(line)


def distill(
    teacher: str,
    /,
    *,
    spec: Annotated[TrainSpec | None, Fields(TrainSpec, ELSEWHERE, hidden=REFUSED)] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network on the images of a finished run, their labels and the answers of that run.

    Parameters
    ----------
    teacher
        the folder of a run, or runs/latest
    spec
        the training options; data and split are the teacher's
    """
    from onsight.training.compress import distill as distill_run

    finish([distill_run(teacher, spec, reporter=make_reporter(quiet, verbose))], quiet)


def with_data(spec: TrainSpec | None, data: str | None) -> TrainSpec:
    """Return the options of the command line with its data."""
    given: dict[str, Any] = spec.model_dump(include=spec.model_fields_set) if spec else {}
    for field in {"classes", "exclude"} & {*given}:  # each value is a list with commas
        given[field] = [name for text in given[field] for name in names_in(text)]
    return TrainSpec(**given, data=data or TrainSpec().data)


def refuse_with_resume(data: str | None, spec: TrainSpec | None, seeds: int, or_resume: bool) -> None:
    """Raise SpecError if the command line has options, besides --resume, that a resumed run does not take."""
    extra = set(spec.model_fields_set if spec else ()) - {*fields_with(Role.RESUMABLE)}
    extra |= ({"seeds"} if seeds != 1 else set()) | ({"or_resume"} if or_resume else set())
    extra |= {f"data {data}"} if data is not None else set()
    if extra:
        takes = " and ".join(f"--{name}" for name in fields_with(Role.RESUMABLE))
        given = ", ".join(sorted(extra))
        raise SpecError(f"A resumed run keeps its own options; with --resume only {takes} can be given, not {given}.")


def finish(runs: list[Any], quiet: bool) -> None:
    """Print the folders of the new runs, and the command that usually follows. Of several processes, one does."""
    from onsight.training.distributed import here

    if not here().first:
        return
    for run in runs:
        say(str(run.folder))
    if quiet:
        return
    if len(runs) == 1:
        hint(f"Next: onsight evaluate {argument(runs[0].folder)}")
    else:
        folders = " ".join(argument(run.folder) for run in runs)
        hint(f"Next: onsight evaluate each, then: onsight compare {folders}")
