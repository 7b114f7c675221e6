"""`train` and `distill`, apart from the other commands because of TrainSpec: every setting of it is a flag here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from onsight.cli.app import Quiet
from onsight.core.errors import SpecError
from onsight.spec import TrainSpec


def train(
    data: str = "cifar10",
    /,
    *,
    spec: Annotated[TrainSpec | None, Parameter(name="*")] = None,
    resume: Path | None = None,
    seeds: int = 1,
    quiet: Quiet = False,
) -> None:
    """Train a classifier on images and keep it as a run.

    Parameters
    ----------
    data
        a data set's name (`onsight datasets`), or a folder, zip or CSV of images
    spec
        every choice of the training
    resume
        go on with this run (or runs/latest); with --epochs N also one that has finished
    seeds
        train so many runs, with --seed, --seed + 1 and so on, on the same split: how much of a figure is luck?
    """
    from onsight.display.reporters import make_reporter
    from onsight.training import train as train_module

    spec = spec or TrainSpec()
    if resume is None:
        spec = TrainSpec(**{**spec.model_dump(include=spec.model_fields_set), "data": data})
        if seeds != 1:
            runs = train_module.train_seeds(spec, seeds, reporter=make_reporter(quiet))
            print("\n".join(str(run.folder) for run in runs))  # noqa: T201
            if not quiet:
                folders = " ".join(str(run.folder) for run in runs)
                print(f"Next: onsight evaluate each, then: onsight compare {folders}", file=sys.stderr)  # noqa: T201
            return
        run = train_module.train(spec, reporter=make_reporter(quiet))
    else:
        extra = (spec.model_fields_set - {"epochs"}) | ({"seeds"} if seeds != 1 else set())
        if extra or data != "cifar10":
            given = ", ".join(sorted(extra)) or f"data {data}"
            raise SpecError(
                f"A resumed run keeps its own settings; only --epochs can be given with --resume, not {given}."
            )
        run = train_module.resume(resume, epochs=spec.epochs, reporter=make_reporter(quiet))
    print(run.folder)  # noqa: T201
    if not quiet:
        print(f"Next: onsight evaluate {run.folder}", file=sys.stderr)  # noqa: T201


def learning_curve(
    data: str,
    /,
    *,
    spec: Annotated[TrainSpec | None, Parameter(name="*")] = None,
    sizes: Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")] = None,
    seeds: int = 3,
    out: Path | None = None,
    quiet: Quiet = False,
) -> None:
    """Train on ever more images and say whether collecting more pays.

    Parameters
    ----------
    data
        a data set's name (`onsight datasets`), or a folder, zip or CSV of images
    spec
        every choice of the trainings
    sizes
        training images a class (default: 5, 10, 20, 50 and so on, as far as there are any)
    seeds
        trainings of each size, each on other images
    out
        folder for curve.json and curve.png (default: curves/ and the data set's name)
    """
    from onsight.display.reporters import make_reporter
    from onsight.training import learning_curve as learning_curve_module

    spec = spec or TrainSpec()
    spec = TrainSpec(**{**spec.model_dump(include=spec.model_fields_set), "data": data})
    found = learning_curve_module.learning_curve(spec, sizes=sizes, seeds=seeds, out=out, reporter=make_reporter(quiet))
    for line in learning_curve_module.lines(found):
        print(line)  # noqa: T201


def distill(
    teacher: str,
    /,
    *,
    spec: Annotated[TrainSpec | None, Parameter(name="*")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a network on a finished run's images, their labels and the run's answers for them.

    Parameters
    ----------
    teacher
        a run's folder, or runs/latest
    spec
        every choice of the training; data, split and image size are the teacher's
    """
    from onsight.display.reporters import make_reporter
    from onsight.training.compress import distill as distill_run

    run = distill_run(teacher, spec, reporter=make_reporter(quiet))
    print(run.folder)  # noqa: T201
    if not quiet:
        print(f"Next: onsight evaluate {run.folder}", file=sys.stderr)  # noqa: T201
