"""A training that ends in time: how many steps fit into a time budget, measured before the first of them."""

from __future__ import annotations

import itertools
import re
import time
from typing import TYPE_CHECKING

from onsight.core.errors import TrainingError

if TYPE_CHECKING:
    from onsight.training.loop import Loop


TIMED = 8  # steps that are timed, after one that compiles
LEAST = 20  # fewer steps are no training
MARGIN = 0.9  # share of the time that is planned for: machines are not equally fast all the time
FINISH = 5.0  # seconds for what follows the last epoch, beside answering for the validation pictures once more


def seconds_of(text: str) -> float:
    """Return a duration in seconds.

    >>> seconds_of("90s"), seconds_of("5m"), seconds_of("1.5h")
    (90.0, 300.0, 5400.0)

    Raises:
        ValueError: it is none, or zero.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if not found or not float(found[1]):
        raise ValueError(f"'{text}' is no duration. Expected a number and a unit, like 90s, 5m or 1.5h.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def steps_in(loop: Loop, budget: float) -> int:
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
            f"A time budget of {budget:g} s has room for {max(0, steps)} steps of {loop.batch_size} pictures, and a "
            f"training needs {LEAST} or more. Give it more time, or a smaller model or --image-size."
        )
    return steps
