"""Compute how many training steps fit into a time budget, by timing some steps before training begins."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from onsight.core.errors import TrainingError
from onsight.core.text import count

if TYPE_CHECKING:
    import numpy as np

    from onsight.data.batches import Examples, Plan
    from onsight.training.distributed import Ranks
    from onsight.training.steps import Step

TIMED = 8  # number of steps that are timed, after one that compiles
LEAST = 20  # minimum number of steps of a training
MARGIN = 0.9  # share of the time that is planned for, because the speed of a machine varies
FINISH = 5.0  # seconds for what follows the last epoch, in addition to one more validation


class Timed(Protocol):
    """The part of `loop.Loop` that is used here."""

    step: Step
    ranks: Ranks
    steps: int  # per epoch
    batch_size: int
    validation: Examples
    began: float  # when training began, by time.perf_counter

    def plan(self, epoch: int) -> Plan:
        """Return the plan of an epoch, counted from 0."""

    def outcomes(self, plan: Plan, rates: np.ndarray, start: int) -> Iterator[tuple[Any, Any]]:
        """Train on the batches of an epoch; yield the loss and the number of right answers of each."""

    def validate(self) -> tuple[float, float]:
        """Return the loss and the accuracy on the validation images."""


def steps_in(loop: Timed, budget: float) -> int:
    """Return how many training steps fit into the rest of `budget` seconds, including the validation of each epoch.

    To find out, it takes some steps and then restores everything that they changed.

    Args:
        loop: a training before its first step.
        budget: seconds, counted from `loop.began`.

    Raises:
        TrainingError: so few steps fit that the network would learn nothing.
    """
    import numpy as np  # imported here, so that a spec can be made without NumPy

    before = loop.step.arrays()
    plan, rates = loop.plan(0), np.zeros(loop.steps, np.float32)
    moments = []
    epochs = itertools.chain(loop.outcomes(plan, rates, 0), loop.outcomes(plan, rates, 0))  # one may be a single step
    for loss, _ in itertools.islice(epochs, TIMED + 1):
        float(loss)  # waits for the device
        moments.append(time.perf_counter())
    step = float(np.median(np.diff(moments)))
    validation = 0.0
    if len(loop.validation.labels):
        loop.validate()  # compiles
        started = time.perf_counter()
        loop.validate()
        validation = time.perf_counter() - started
    loop.step.restore(before)
    left = MARGIN * (budget - (time.perf_counter() - loop.began) - validation - FINISH)
    steps = -loop.ranks.largest(-int(left / (step + validation / loop.steps)))  # the fewest that any process counts
    if steps < LEAST:
        raise TrainingError(
            f"A time budget of {budget:g} s has room for {count(max(0, steps), 'step')} of "
            f"{count(loop.batch_size, 'image')}, but a training needs {LEAST} or more. Allow more time, or choose a "
            "smaller model or --image-size."
        )
    return steps
