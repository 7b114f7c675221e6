"""How the commands print their answers: aligned columns, tables, CSV and JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from onsight.core.text import plain

if TYPE_CHECKING:
    from onsight.inference.predict import Prediction
    from onsight.runs.run import Run


def say(line: str) -> None:
    """Print a line of the answer to standard output."""
    print(line)  # noqa: T201


def warn(line: str) -> None:
    """Print a line that is not part of the answer to standard error."""
    print(f"onsight: {line}", file=sys.stderr)  # noqa: T201


def hint(line: str) -> None:
    """Print what to do next to standard error."""
    print(line, file=sys.stderr)  # noqa: T201


def run_rows(runs: Iterable[Run]) -> list[tuple[str, ...]]:
    """Return a heading and one row per run: data, network, epochs, validation and test accuracy, time."""
    from onsight.core.errors import RunError
    from onsight.runs.run import read_evaluations

    rows: list[tuple[str, ...]] = [("run", "data", "model", "epochs", "validation", "test", "created")]
    for run in runs:
        history = run.history()
        validation = (run.model_epoch(history) or {}).get("val_accuracy")
        try:
            scores = read_evaluations(run).get("test")
            test = f"{scores['accuracy']:.2%}" if scores else ""
        except RunError:
            test = "damaged"
        rows.append(
            (
                str(run.folder),
                plain(str(run.dataset["name"])),
                str(run.spec.get("model")),
                f"{len(history)}/{run.spec.get('epochs')}" + ("" if run.is_trained else " unfinished"),
                "" if validation is None else f"{validation:.1%}",
                test,
                str(run.record.get("created"))[:16].replace("T", " "),
            )
        )
    return rows


def table_lines(predictions: Iterable[Prediction], top: int) -> Iterable[str]:
    """Yield one line per image: its path and the likeliest classes."""
    for prediction in predictions:
        answers = "   ".join(f"{probability:6.1%} {plain(label)}" for label, probability in prediction.top)
        answers += f"   ({plain(prediction.doubt)})" if prediction.unsure else ""
        yield f"{plain(prediction.source)}   " + (answers or f"unreadable: {plain(prediction.error or '')}")
