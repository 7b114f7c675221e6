"""Learning-rate schedules and early stopping: plain functions over a dict that checkpoints store."""

from __future__ import annotations

import math
from typing import Any

PLATEAU_FACTOR = 0.1
WARM_UP = {"cosine": 0.05, "one_cycle": 0.2}  # share of the steps in which the learning rate rises


def rate_factor(schedule: str, done: float, judge: dict[str, Any]) -> float:
    """Return the learning rate as a share of its highest value.

    Args:
        schedule: constant; cosine (linear warm-up over 5 %, then half a cosine wave to 0); linear (to 0); one_cycle
            (linear warm-up over 20 %, then linear to 0); or plateau.
        done: share of all steps that have been taken, 0 to 1.
        judge: as `new_judge` returns it; only plateau uses it.
    """
    rising = WARM_UP.get(schedule, 0.0)
    if done < rising:
        return max(0.04, done / rising)
    done = (done - rising) / (1 - rising)
    if schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if schedule in ("linear", "one_cycle"):
        return 1 - done
    if schedule == "plateau":
        return float(judge["factor"])
    return 1.0


def new_judge() -> dict[str, Any]:
    """Return the state of early stopping before the first epoch: no best epoch, the full learning rate."""
    return {"best": None, "best_epoch": 0, "waited": 0, "factor": 1.0, "stalled": 0}


def restart_judge(judge: dict[str, Any]) -> None:
    """Judge the next epochs on their own: reset the counters and the learning rate. The best epoch stays."""
    judge.update(waited=0, stalled=0, factor=1.0)


def judge_epoch(judge: dict[str, Any], epoch: int, val_loss: float, *, patience: int) -> bool:
    """Record the validation loss of an epoch in `judge`, and return whether it is the lowest so far.

    The factor of the plateau schedule is divided by ten whenever the loss was no lower in half of `patience` epochs, at
    least 2. Without early stopping (`patience` 0), it is divided whenever the loss was no lower in 5 epochs.
    """
    if judge["best"] is None or val_loss < judge["best"]:
        judge.update(best=val_loss, best_epoch=epoch, waited=0, stalled=0)
        return True
    judge["waited"] += 1
    judge["stalled"] += 1
    if judge["stalled"] >= (max(2, patience // 2) if patience else 5):
        judge.update(factor=judge["factor"] * PLATEAU_FACTOR, stalled=0)
    return False
