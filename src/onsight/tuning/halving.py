"""Which training comes next: successive halving over rungs, by several processes at once.

A rung is a number of epochs, and each training on it is whole: it has the schedule of that many epochs. A trial begins
on the first rung, and the best third of each rung trains again on the next, from new weights. This is the asynchronous
successive halving of Li et al. 2020 ("A system for massively parallel hyperparameter tuning", MLSys), without its
drawback: no training has to be suspended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

KEPT = 3  # one of this many trials of a rung is promoted
DIVISORS = (9, 3, 1)  # of the epochs, for each rung


class Training(NamedTuple):
    """One training of a study: a trial on one rung."""

    number: int  # of the training, from 0; it names the run folder
    trial: int  # 0 is the preset
    rung: int
    state: Literal["running", "done", "failed"]
    accuracy: float | None = None  # on the validation images; None unless done
    seconds: float | None = None


class Step(NamedTuple):
    """What to do next: train `trial` on `rung`; `trial` is None for a new one."""

    trial: int | None
    rung: int


def rung_divisors(epochs: int, head: int) -> list[int]:
    """Return the divisors of the rungs of a training: fewer than three if it has only a few epochs."""
    lengths = [rung_epochs(epochs, divisor, head) for divisor in DIVISORS]
    return [d for d, length in zip(DIVISORS, lengths, strict=True) if d == 1 or length < lengths[DIVISORS.index(d) + 1]]


def rung_epochs(epochs: int, divisor: int, head: int) -> int:
    """Return the epochs of a rung. The first `head` epochs, in which a head is fitted at once, are never divided."""
    return head + max(1, round((epochs - head) / divisor))


def next_step(trainings: Sequence[Training], rungs: int, more: bool, fits: Sequence[bool]) -> Step | None:
    """Return what this process should train now; None if there is nothing (to train, or to train yet).

    Args:
        trainings: all of the study, by all processes.
        rungs: their number.
        more: whether another trial may begin.
        fits: whether a training on each rung still fits into the time.
    """
    last = rungs - 1
    if not any(each.trial == 0 for each in trainings):
        return Step(0, last)  # the preset: what the winner has to beat, and how long a whole training takes
    for rung in reversed(range(last)):
        waiting = promotable(trainings, rung, closing=not more)
        if waiting and fits[rung + 1]:
            return Step(waiting[0], rung + 1)
    return Step(None, 0) if more and fits[0] else None


def promotable(trainings: Sequence[Training], rung: int, closing: bool) -> list[int]:
    """Return the trials that move from a rung to the next one, the best first.

    They are the best third of those that have finished there. When no trial is to come and all below have moved, at
    least one moves, so that the best of few trials is trained to the end.
    """
    climbing = [each for each in trainings if each.trial != 0]
    above = {each.trial: each.state for each in climbing if each.rung > rung}
    done = [
        each for each in climbing if each.rung == rung and each.state == "done" and above.get(each.trial) != "failed"
    ]
    room = len(done) // KEPT
    if closing and done and not any(each.rung <= rung and each.state == "running" for each in climbing):
        below = rung > 0 and promotable(trainings, rung - 1, closing)
        room = room if below else max(1, room)
    return [each.trial for each in sorted(done, key=worth)[:room] if each.trial not in above]


def worth(training: Training) -> tuple[float, int]:
    """Return what trainings are sorted by: the most accurate first, then the earliest."""
    return -(training.accuracy or 0.0), training.number


def is_over(trainings: Sequence[Training]) -> bool:
    """Return whether no training is running: where `next_step` gives nothing, nothing can follow any more."""
    return not any(each.state == "running" for each in trainings)
