"""Smaller models: `distill` trains another network on the answers of a run, `prune` shrinks the network of a run.

Both create a new run that names its teacher, and use the same training loop, so they stop and resume as `train` does.
Keras' `Distiller` is not used: it wraps `fit`, which cannot resume within an epoch, and it keeps the teacher as a Keras
model, while LiteRT answers three times as fast on every backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onsight.core.errors import SpecError
from onsight.core.files import argument
from onsight.core.progress import Reporter
from onsight.display.reporters import make_reporter
from onsight.runs.run import Run, open_run
from onsight.spec import Role, TrainSpec, fields_with
from onsight.training.train import train

GENTLER = 0.5  # the learning rate of a pruned run as a share of its teacher's


def distill(teacher: str | Path | Run, spec: TrainSpec | None = None, *, reporter: Reporter | None = None) -> Run:
    """Train a network on the images of a finished run, their labels and, above all, the answers of that run.

    The teacher answers for the same augmented images that the student sees, each at its own image size. The loss is
    `steps.Loss`.

    Args:
        teacher: a finished run.
        spec: the choices of the student. Its data and split are the teacher's.
        reporter: receives the progress.

    Raises:
        SpecError: the spec has an option that is the teacher's, or one that `train` refuses.
        OnsightError: as `train` raises them.
    """
    run = open_run(teacher)
    run.require_trained()
    asked = (spec or TrainSpec()).model_dump(exclude_unset=True)
    if taken := sorted(asked.keys() & {*fields_with(Role.TEACHERS)} - {*fields_with(Role.STUDENTS)}):
        raise SpecError(
            f"A student takes {', '.join(taken)} from its teacher, to learn from the same images in the same split. "
            "Leave these options out."
        )
    with reporter or make_reporter() as show:
        show.note("teacher", f"{run.folder}, {run.spec['model']}")
        return train(TrainSpec(**shared(run) | asked | {"teacher": run.folder}), reporter=show)


def prune(
    run: str | Path | Run,
    *,
    sparsity: float = 0.0,
    channels: float = 0.0,
    epochs: int | None = None,
    learning_rate: float | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Make the network of a run smaller, and train what is left on the labels and on the run's own answers.

    Args:
        run: a finished run. It does not change.
        sparsity: share of the kernel weights that become zero: the smallest of the whole network. Only compressed files
            become smaller, because zeros are stored and multiplied like other numbers.
        channels: share of the channels to remove where that is possible: more of wide layers than of narrow ones, and
            the weakest of each layer. The file and the latency become smaller.
        epochs: of training; by default as many as the run had. Must be given for a run with frozen layers.
        learning_rate: by default half of the run's. Must be given for a run with frozen layers.
        reporter: receives the progress.

    Raises:
        SpecError: neither or both were asked for, the network has no channels that can be removed, or the run does not
            say how to train all layers.
        OnsightError: as `train` raises them.
    """
    run = open_run(run)
    run.require_trained()
    run.require_network()
    if bool(sparsity) == bool(channels):
        raise SpecError("Give either --sparsity (for example 0.8) or --channels (for example 0.5), not both.")
    for name, value in (("sparsity", sparsity), ("channels", channels)):
        if not 0 <= value <= 0.95:
            raise SpecError(f"--{name} must be a share from 0 to 0.95, not {value:g}.")
    before = run.spec
    if before.get("freeze") not in (None, "none") and None in (epochs, learning_rate):
        raise SpecError(
            f"{run.folder} was trained with frozen layers, so nothing says how to train all layers, which pruning "
            "damages. It is rarely worth it: with 300 photos of cats and dogs, 30 % fewer channels cost 6 points of "
            "accuracy. A file of a quarter of the size costs a fraction of a point: onsight export "
            f"{argument(run.folder)} litert --precision int8. To prune all the same, give both: --epochs 10 "
            "--learning-rate 3e-4."
        )
    choices = {name: before[name] for name in fields_with(Role.PRUNED_WITH) if name in before} | {
        "epochs": before["epochs"] if epochs is None else epochs,
        "learning_rate": GENTLER * before["learning_rate"] if learning_rate is None else learning_rate,
        # Early stopping would keep weights from before the last zeros were chosen.
        "patience": 0,
        "schedule": "cosine" if before["schedule"] == "plateau" else before["schedule"],
        "sparsity": max(sparsity, before.get("sparsity") or 0.0),
        "channels": 1 - (1 - channels) * (1 - (before.get("channels") or 0.0)),
    }
    with reporter or make_reporter() as show:
        show.note("teacher", f"{run.folder}, which also gives the initial weights")
        return train(TrainSpec(**shared(run) | choices | {"teacher": run.folder}), reporter=show)


def shared(run: Run) -> dict[str, Any]:
    """Return the options that a student takes from its teacher `run`."""
    spec = {"split_seed": run.spec["seed"]} | run.spec  # an older run has no split_seed
    return {name: spec[name] for name in fields_with(Role.TEACHERS) if spec.get(name) is not None}
