"""The phases of a training: first the head alone, on cached features, then the last layers, too.

A training from scratch has one phase. A training from given weights begins with the head: all other layers are frozen,
so their features of each image are computed only once, and the head is fitted to them at once (`features.head`). Then
the last layers may be trained, too. All batch norms stay frozen, because their statistics come from many more images
than most folders have.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from onsight.spec import FROM_SCRATCH


class Phase(NamedTuple):
    """Consecutive epochs in which the same layers are trained."""

    name: str
    start: int  # its first epoch, from 0
    stop: int  # the epoch after its last
    learning_rate: float  # its highest value
    frozen: int | None = None  # the first `frozen` layers and all batch norms are frozen; None: no layer is frozen
    head_only: bool = False

    def __str__(self) -> str:
        """Return a description for the display and the report."""
        if self.head_only:
            return self.name
        epochs = f"epoch {self.stop}" if self.stop - self.start == 1 else f"epochs {self.start + 1} to {self.stop}"
        return f"{self.name}, {epochs}, learning rate up to {self.learning_rate:g}"


def from_scratch(spec: Any) -> bool:
    """Return whether a resolved spec starts from new weights. Older runs did not record `weights`, so it is None."""
    return spec.weights in (None, FROM_SCRATCH)


def plan_phases(spec: Any) -> list[Phase]:
    """Return the phases of a resolved spec."""
    epochs, rate = spec.epochs, spec.learning_rate
    if from_scratch(spec):
        return [Phase("all layers", 0, epochs, rate)]
    if spec.freeze == "none":
        return [Phase("all layers, with frozen batch norms", 0, epochs, rate, frozen=0)]
    head = Phase(
        "the head alone, by logistic regression on features computed once",
        0,
        min(spec.head_epochs, epochs),
        rate,
        head_only=True,
    )
    if spec.freeze == "all":
        return [head._replace(stop=epochs)]
    if head.stop >= epochs:
        return [head]
    frozen = int(spec.freeze)
    name = f"the layers from number {frozen} on, with frozen batch norms"
    fine = Phase(name, head.stop, epochs, rate, frozen=frozen)
    return [head, fine] if head.stop else [fine]


def phase_at(phases: list[Phase], epoch: int) -> Phase:
    """Return the phase of an epoch, counted from 0; for epochs after the last one, the last phase."""
    return next((phase for phase in phases if epoch < phase.stop), phases[-1])
