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
    from onsight.runs.summary import summarise

    rows: list[tuple[str, ...]] = [("run", "data", "model", "epochs", "validation", "test", "created")]
    for run in runs:
        row = summarise(run)
        test = "" if row["test"] is None else f"{row['test']:.2%}"
        rows.append(
            (
                str(run.folder),
                plain(row["data"]),
                row["model"],
                f"{row['done']}/{row['epochs']}" + ("" if run.is_trained else " unfinished"),
                "" if row["validation"] is None else f"{row['validation']:.1%}",
                "damaged" if row["damaged"] else test,
                row["created"][:16].replace("T", " "),
            )
        )
    return rows


def table_lines(predictions: Iterable[Prediction], top: int) -> Iterable[str]:
    """Yield one line per image: its path and the likeliest classes."""
    for prediction in predictions:
        answers = "   ".join(f"{probability:6.1%} {plain(label)}" for label, probability in prediction.top)
        answers += f"   ({plain(prediction.doubt)})" if prediction.unsure else ""
        yield f"{plain(prediction.source)}   " + (answers or f"unreadable: {plain(prediction.error or '')}")
