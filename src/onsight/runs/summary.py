"""A run in one row of a table: what `onsight runs` prints and `onsight studio` shows."""

from __future__ import annotations

from typing import TypedDict

from onsight.core.errors import RunError
from onsight.runs.run import Run, read_evaluations


class Summary(TypedDict):
    """One row."""

    data: str
    model: str
    done: int  # epochs
    epochs: int | None
    validation: float | None  # accuracy of the epoch whose weights the model has, so far
    test: float | None  # accuracy
    damaged: bool  # whether the evaluation cannot be read
    created: str  # ISO 8601


def summarise(run: Run) -> Summary:
    """Return the row of a run.

    Raises:
        RunError: its dataset.json cannot be read.
    """
    history = run.history()
    damaged = False
    test = None
    try:
        if scores := read_evaluations(run).get("test"):
            test = scores["accuracy"]
    except RunError:
        damaged = True
    return {
        "data": str(run.dataset["name"]),
        "model": str(run.spec.get("model")),
        "done": len(history),
        "epochs": run.spec.get("epochs"),
        "validation": (run.model_epoch(history) or {}).get("val_accuracy"),
        "test": test,
        "damaged": damaged,
        "created": str(run.record.get("created")),
    }
