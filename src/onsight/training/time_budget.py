"""A training that ends in time: how many steps fit into a time budget, measured before the first of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from onsight.core.errors import TrainingError

if TYPE_CHECKING:
    import numpy as np

    from onsight.data.batches import Examples, Plan
    from onsight.training.steps import Step

TIMED = 8  # steps that are timed, after one that compiles
LEAST = 20  # fewer steps are no training
MARGIN = 0.9  # share of the time that is planned for: machines are not equally fast all the time
FINISH = 5.0  # seconds for what follows the last epoch, beside answering for the validation images once more


class Timed(Protocol):
    """What is timed of a training (`loop.Loop`)."""

    step: Step
    steps: int  # of an epoch
    batch_size: int
    validation: Examples
    began: float  # by time.perf_counter

    def plan(self, epoch: int) -> Plan:
        """Return what an epoch, from 0, shows."""

    def outcomes(self, plan: Plan, rates: np.ndarray, start: int) -> Iterator[tuple[Any, Any]]:
        """Train on an epoch's batches; yield each one's loss and number of right answers."""

    def validate(self) -> tuple[float, float]:
        """Answer for the validation images."""


def steps_in(loop: Timed, budget: float) -> int:
    """Return how many training steps, each epoch's validation included, fit into what is left of `budget` seconds.

    Some steps are taken for it, and everything that they changed is put back.

    Args:
        loop: before its first step.
        budget: seconds since `loop.began`.

    Raises:
        TrainingError: they are too few to learn anything.
    """
    import numpy as np  # here, so that a spec can be made without it

    before = loop.step.arrays()
    plan, rates = loop.plan(0), np.zeros(loop.steps, np.float32)
    moments = []
    twice = itertools.chain(loop.outcomes(plan, rates, 0), loop.outcomes(plan, rates, 0))  # an epoch may be one step
    for loss, _ in itertools.islice(twice, TIMED + 1):
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
    steps = int(left / (step + validation / loop.steps))
    if steps < LEAST:
        raise TrainingError(
            f"A time budget of {budget:g} s has room for {max(0, steps)} steps of {loop.batch_size} images, and a "
            f"training needs {LEAST} or more. Give it more time, or a smaller model or --image-size."
        )
    return steps
