"""find_learning_rate(spec) -> RateTest: the learning-rate range test, which shows where the loss falls and diverges."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onsight.core.errors import SpecError, TrainingError
from onsight.core.files import argument, make_folder, numbered_folder
from onsight.core.progress import Reporter
from onsight.data.batches import plan_epoch, steps_per_epoch
from onsight.display.reporters import make_reporter
from onsight.features.initial_weights import load
from onsight.models.registry import prepare_model
from onsight.reporting import plot_style, plots
from onsight.reporting.commands import command_for
from onsight.spec import TrainSpec
from onsight.training.losses import Loss, balanced_weights
from onsight.training.network import build, check_freeze, freeze
from onsight.training.phases import from_scratch, plan_phases
from onsight.training.prepare import Prepared, prepare
from onsight.training.steps import make_optimizer, make_step
from onsight.training.train import as_spec

LOWEST, HIGHEST = 1e-5, 10.0  # rates of the test
STEPS = 150  # of which each raises the rate by the same factor
SMOOTH = 0.9  # share of the mean loss that stays when a step is added
# The suggestion lies this factor below the lowest loss.
SAFE = {"adam": 10.0, "adamw": 10.0, "sgd": 2.0, "muon": 2.0, "muon_sgd": 2.0}
NEARLY = 0.01  # share of the fall of the loss that is as good as nothing
DIVERGED = 4.0  # a mean loss this many times the lowest ends the test


class RateTest(NamedTuple):
    """A range test.

    Attributes:
        rate: the suggested learning rate.
        rates: the rate of each step.
        losses: the loss of each step, smoothed.
        plot: the image with the curve; None if it was not drawn.
        command: trains with the suggested rate.
    """

    rate: float
    rates: list[float]
    losses: list[float]
    plot: Path | None = None
    command: str = ""

    def _repr_html_(self) -> str:
        from onsight.display import notebook

        return notebook.rate_test(f"A learning rate of {self.rate:g} is suggested.", self.plot, self.command)


def find_learning_rate(
    spec: TrainSpec | str | Path | None = None,
    *,
    out: Path | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> RateTest:
    """Train some steps at rising learning rates, draw the loss over them, and suggest a rate. No run is made.

    This is the range test of Smith 2017 ("Cyclical learning rates for training neural networks"). The suggestion
    is a tenth of the rate with the lowest loss, or half of it with sgd, muon and muon_sgd.

    Args:
        spec: as for `train`; its learning rate is not used.
        out: folder for rates.png; by default a new one in rates/.
        reporter: receives the progress.
        **options: not accepted, as for `train`.

    Raises:
        SpecError: the training has no learning rate.
        TrainingError: the loss never falls.
        DataError: the images cannot be used.
    """
    spec = as_spec(spec, options, "find_learning_rate")
    if out:
        make_folder(out)
    with reporter or make_reporter() as show:
        prepared = prepare(spec, show)
        found = find_rate(prepared, show)
        plot = (out or numbered_folder(Path("rates"), prepared.images.dataset.name)) / "rates.png"
        plot_style.save(plots.rate_test(found.rates, found.losses, found.rate), plot)
    asked = {"data": spec.data} | spec.model_dump(mode="json", exclude_unset=True) | {"learning_rate": found.rate}
    return found._replace(plot=plot, command=command_for(asked))


def find_rate(prepared: Prepared, show: Reporter) -> RateTest:
    """Do the range test of a prepared training."""
    rates, losses = [], []
    lowest = mean = math.inf
    for number, (rate, loss) in enumerate(measure(prepared)):
        mean = loss if number == 0 else SMOOTH * mean + (1 - SMOOTH) * loss
        lowest = min(lowest, mean)
        if not math.isfinite(mean) or mean > DIVERGED * lowest:
            break
        rates.append(rate)
        losses.append(mean)
        show.work("trying learning rates", number + 1, STEPS)
    show.work("trying learning rates", STEPS, STEPS)
    rate = suggest(rates, losses, prepared.spec.optimizer)
    show.note("learning rate", f"{rate:g}  (suggested by a range test from {LOWEST:g} to {rates[-1]:.2g})")
    return RateTest(rate, rates, losses)


def measure(prepared: Prepared) -> Iterator[tuple[float, float]]:
    """Train a network of its own at rising rates; yield the rate and the loss of each step."""
    spec, images = prepared.spec, prepared.images
    phase = plan_phases(spec)[-1]
    if phase.head_only:
        raise SpecError(
            "Only the head is trained here, at once and without a learning rate. To train the last layers too, add "
            "--epochs 10; to train from scratch, add --weights none."
        )
    training = images.examples("train")
    classes = len(images.dataset.classes)
    model = build(spec, classes)
    check_freeze(spec, len(model.layers))
    if from_scratch(spec):
        prepare_model(model, training.images, np.random.default_rng([spec.seed, 3]).permutation(training.chosen))
    else:
        load(model, spec.weights)
    if phase.frozen is not None:
        freeze(model, phase.frozen)
    weights = balanced_weights(training.labels, classes) if spec.class_weight == "balanced" else None
    optimizer = make_optimizer(spec.optimizer, LOWEST, spec.weight_decay)
    step = make_step(model, optimizer, Loss(spec.label_smoothing, weights), spec.ghost_batch_size)
    batch_size = min(spec.batch_size, len(training.labels))
    steps = steps_per_epoch(len(training.labels), batch_size)
    rising = np.geomspace(LOWEST, HIGHEST, STEPS).astype(np.float32)
    for epoch in range(-(-STEPS // steps)):
        rates = rising[epoch * steps : (epoch + 1) * steps]
        filled = np.pad(rates, (0, steps - len(rates)), "edge")  # an epoch wants a rate for each step
        plan = plan_epoch(training, spec.augmentation, spec.seed, epoch)
        for rate, (loss, _) in zip(rates.tolist(), step.epoch(training, plan, filled, batch_size, 0), strict=False):
            yield rate, float(loss)


def suggest(rates: list[float], losses: list[float], optimizer: str) -> float:
    """Return a rate safely below the one where the loss is lowest, with two digits.

    Where the data are easy, the loss stays low at all higher rates, so the first rate that is nearly as good counts.

    Raises:
        TrainingError: the loss never falls.
    """
    low = min(losses, default=0.0)
    near = next((i for i, loss in enumerate(losses) if loss <= low + NEARLY * (losses[0] - low)), 0)
    if near == 0:
        raise TrainingError(
            "The loss falls at no learning rate of the range test, so none can be suggested. Check the data with "
            "`onsight check`, or try another --optimizer."
        )
    return float(f"{rates[near] / SAFE[optimizer]:.1e}")


def lines(found: RateTest) -> list[str]:
    """Return the lines that the command prints."""
    assert found.plot is not None
    return [
        f"Suggested learning rate: {found.rate:g}",
        f"Plot: {argument(found.plot)}",
        f"Train with it: {found.command}",
    ]
