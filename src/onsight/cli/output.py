"""How answers are printed: aligned tables, CSV and JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from onsight.core.text import plain

if TYPE_CHECKING:
    from onsight.inference.predict import Prediction


def say(line: str) -> None:
    """Print an answer to standard output."""
    print(line)  # noqa: T201


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with their cells aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def table_lines(predictions: Iterable[Prediction], top: int) -> Iterable[str]:
    """Yield one line an image: its path, then the likeliest classes."""
    for prediction in predictions:
        answers = "   ".join(f"{probability:6.1%} {plain(label)}" for label, probability in prediction.top)
        answers += "   (unsure)" if prediction.unsure else ""
        yield f"{plain(prediction.source)}   " + (answers or f"unreadable: {plain(prediction.error or '')}")


def csv_lines(predictions: Iterable[Prediction], top: int) -> Iterable[str]:
    """Yield a header, then path,label1,probability1,…,unsure,error; cells that a spreadsheet would run are quoted."""
    from onsight.metrics.predictions_csv import csv_cell

    answers = [f"{kind}{i}" for i in range(1, top + 1) for kind in ("label", "probability")]
    yield ",".join(["path", *answers, "unsure", "error"])
    for prediction in predictions:
        cells = [csv_cell(prediction.source)]
        for label, probability in prediction.top:
            cells += [csv_cell(label), f"{probability:.9g}"]
        cells += [""] * (1 + 2 * top - len(cells))  # an unreadable image, or fewer classes than asked for
        unsure = "" if prediction.error else str(prediction.unsure).lower()
        yield ",".join([*cells, unsure, csv_cell(prediction.error or "")])


def json_lines(predictions: Iterable[Prediction], top: int) -> Iterable[str]:
    """Yield one JSON object an image: path, top (label and probability), unsure, error."""
    import json

    for prediction in predictions:
        answers = [{"label": label, "probability": probability} for label, probability in prediction.top]
        row = {"path": prediction.source, "top": answers, "unsure": prediction.unsure, "error": prediction.error}
        yield json.dumps(row, ensure_ascii=False)
