"""The parts of a training, one after another: the head alone on cached features, then the layers below it.

A training from scratch is one phase. From given weights, it is the head first: the other layers stay as they are, so
what they make of each image is computed once. Then the last layers learn too, at a tenth of the rate, all batch
norms as they were (their statistics are of many more images than most folders have).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from onsight.spec import FROM_SCRATCH

FINE = 0.1  # of the learning rate, for layers that have learned before


class Phase(NamedTuple):
    """Some epochs of a training in which the same layers learn."""

    name: str
    start: int  # its first epoch, from 0
    stop: int  # the epoch after its last
    learning_rate: float  # its highest value
    frozen: int | None = None  # the first so many layers stay as they are; None: every batch norm learns too
    head_only: bool = False

    def __str__(self) -> str:
        """Say what it does, for the display and the report."""
        epochs = f"epoch {self.stop}" if self.stop - self.start == 1 else f"epochs {self.start + 1} to {self.stop}"
        return f"{self.name}, {epochs}, learning rate up to {self.learning_rate:g}"


def from_scratch(spec: Any) -> bool:
    """Return whether a resolved spec begins with new weights; older runs say nothing of it."""
    return spec.weights in (None, FROM_SCRATCH)


def plan_phases(spec: Any) -> list[Phase]:
    """Return the phases of a resolved spec."""
    epochs, rate = spec.epochs, spec.learning_rate
    if from_scratch(spec):
        return [Phase("all layers", 0, epochs, rate)]
    if spec.freeze == "none":
        return [Phase("all layers, batch norms as they were", 0, epochs, rate, frozen=0)]
    head = Phase("the head, on features computed once", 0, min(spec.head_epochs, epochs), rate, head_only=True)
    if spec.freeze == "all":
        return [head._replace(stop=epochs)]
    if head.stop >= epochs:
        return [head]
    frozen = int(spec.freeze)
    name = f"the layers from number {frozen} on, batch norms as they were"
    fine = Phase(name, head.stop, epochs, rate * FINE, frozen=frozen)
    return [head, fine] if head.stop else [fine]


def at(phases: list[Phase], epoch: int) -> Phase:
    """Return the phase that an epoch, from 0, belongs to; after the last epoch, the last phase."""
    return next((phase for phase in phases if epoch < phase.stop), phases[-1])
