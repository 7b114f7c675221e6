"""Smaller models from bigger ones: `distill` trains another network on a run's answers, `prune` thins its own.

Both make a new run that names its teacher, by the same training loop: they stop, resume and survive as `train` does.
Keras' own `Distiller` is not used: it wraps `fit`, which cannot resume within an epoch, and keeps the teacher as a
Keras model, where LiteRT answers three times as fast, whatever the backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onsight.core.errors import SpecError
from onsight.core.progress import Reporter
from onsight.display.reporters import make_reporter
from onsight.runs.run import Run, open_run
from onsight.spec import SHARED, TrainSpec
from onsight.training.train import train

# What a pruned network is trained with again as it was before.
KEPT = (
    "model", "optimizer", "batch_size", "early_size", "weight_decay", "label_smoothing", "class_weight",
    "augmentation", "seed",
)  # fmt: skip
GENTLER = 0.5  # times the learning rate of the first training


def distill(teacher: str | Path | Run, spec: TrainSpec | None = None, *, reporter: Reporter | None = None) -> Run:
    """Train a network on a finished run's images, their labels and, above all, the run's answers for them.

    The teacher answers for the same augmented images that the student sees. The loss: `steps.Loss`.

    Args:
        teacher: a finished run.
        spec: the student's choices; its data, split and image size are the teacher's.
        reporter: where progress goes.

    Raises:
        SpecError: the spec wants what is the teacher's to say, or what `train` refuses.
        OnsightError: as `train` raises them.
    """
    run = open_run(teacher)
    run.require_trained()
    asked = (spec or TrainSpec()).model_dump(exclude_unset=True)
    if taken := sorted(asked.keys() & set(SHARED) - {"min_precision"}):
        raise SpecError(
            f"A student learns from its teacher's images, split as they were; leave out: {', '.join(taken)}."
        )
    with reporter or make_reporter() as show:
        show.note(f"teacher          {run.folder}, {run.spec['model']}")
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
    """Make a run's network smaller and train what is left, beside the labels on the run's own answers.

    Args:
        run: a finished run; it stays as it is.
        sparsity: share of the kernels' numbers that become zero, the smallest of the whole network. That shrinks
            compressed files alone: the zeros are stored and multiplied like other numbers.
        channels: share of the channels to remove, where they can go: of wide layers more than of narrow ones, and of
            each layer the weakest. That shrinks the file and the time of an answer.
        epochs: of training; by default as many as the run had.
        learning_rate: by default half of the run's.
        reporter: where progress goes.

    Raises:
        SpecError: neither or both were asked for, or the network has no channels that can be removed.
        OnsightError: as `train` raises them.
    """
    run = open_run(run)
    run.require_trained()
    run.require_network()
    if bool(sparsity) == bool(channels):
        raise SpecError("Give either --sparsity (zeros, say 0.8) or --channels (removed ones, say 0.5).")
    for name, value in (("sparsity", sparsity), ("channels", channels)):
        if not 0 <= value <= 0.95:
            raise SpecError(f"--{name} is a share from 0 to 0.95, and not {value:g}.")
    before = run.spec
    choices = {name: before[name] for name in KEPT if name in before} | {
        "epochs": before["epochs"] if epochs is None else epochs,
        "learning_rate": GENTLER * before["learning_rate"] if learning_rate is None else learning_rate,
        # Early stopping would take weights from before the last zeros were made.
        "patience": 0,
        "schedule": "cosine" if before["schedule"] == "plateau" else before["schedule"],
        "sparsity": max(sparsity, before.get("sparsity") or 0.0),
        "channels": 1 - (1 - channels) * (1 - (before.get("channels") or 0.0)),
    }
    with reporter or make_reporter() as show:
        show.note(f"teacher          {run.folder}, and the weights to begin with")
        return train(TrainSpec(**shared(run) | choices | {"teacher": run.folder}), reporter=show)


def shared(run: Run) -> dict[str, Any]:
    """Return what a run that learns from `run` has from its spec."""
    spec = {"split_seed": run.spec["seed"]} | run.spec  # an older run has no split_seed
    return {name: spec[name] for name in SHARED if spec.get(name) is not None}
