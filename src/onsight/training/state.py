"""What a checkpoint stores in addition to the arrays of the training step."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np

from onsight.training.checkpoints import Checkpoint
from onsight.training.schedules import new_judge


class State(TypedDict):
    """The numbers that a checkpoint stores. Together with the step's arrays they decide everything that follows."""

    epoch: int  # finished epochs
    step: int  # finished steps of the current epoch
    loss_sum: float  # over the images seen in this epoch, as are `correct` and `seen`
    correct: int
    seen: int
    seconds: float  # spent in this epoch
    stopped: bool
    total: int | None  # training steps in total, if a time budget sets them
    judge: dict[str, Any]
    history: list[dict[str, Any]]


def new_state() -> State:
    """Return the state before the first step."""
    return State(
        epoch=0, step=0, loss_sum=0.0, correct=0, seen=0, seconds=0.0, stopped=False, total=None, judge=new_judge(),
        history=[],
    )  # fmt: skip


def part(checkpoint: Checkpoint, prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays of a checkpoint whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in checkpoint.arrays.items() if name.startswith(prefix)}
