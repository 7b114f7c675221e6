"""Predictions as a file: CSV, JSON lines, Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from onsight.core.errors import SpecError, unknown_name
from onsight.core.files import encoded
from onsight.metrics.predictions_csv import csv_cell

if TYPE_CHECKING:
    from onsight.inference.predict import Prediction

Write = Callable[[Iterable["Prediction"], int, IO[bytes]], None]  # (predictions, classes per answer, file)
ROWS = 10_000  # of a Parquet file that are in memory as Python objects at once


def csv_lines(predictions: Iterable[Prediction], top: int) -> Iterable[str]:
    """Yield a heading, then path,label1,probability1,…,unsure,error,reason,distance.

    Cells that a spreadsheet would run are quoted.
    """
    answers = [f"{kind}{i}" for i in range(1, top + 1) for kind in ("label", "probability")]
    yield ",".join(["path", *answers, "unsure", "error", "reason", "distance"])
    for prediction in predictions:
        cells = [csv_cell(prediction.source)]
        for label, probability in prediction.top:
            cells += [csv_cell(label), f"{probability:.9g}"]
        cells += [""] * (1 + 2 * top - len(cells))  # an unreadable image, or fewer classes than were asked for
        unsure = "" if prediction.error else str(prediction.unsure).lower()
        distance = "" if prediction.distance is None else f"{prediction.distance:.6g}"
        yield ",".join([*cells, unsure, csv_cell(prediction.error or ""), prediction.reason or "", distance])


def json_lines(predictions: Iterable[Prediction], top: int) -> Iterable[str]:
    """Yield one JSON object per image: path, top (label and probability), unsure, error, reason, distance."""
    for prediction in predictions:
        answers = [{"label": label, "probability": probability} for label, probability in prediction.top]
        row = {"path": prediction.source, "top": answers, "unsure": prediction.unsure, "error": prediction.error}
        row |= {"reason": prediction.reason, "distance": prediction.distance}
        yield json.dumps(row, ensure_ascii=False)


def as_lines(lines: Callable[[Iterable[Prediction], int], Iterable[str]]) -> Write:
    """Return what writes predictions as lines."""

    def write(predictions: Iterable[Prediction], top: int, file: IO[bytes]) -> None:
        file.writelines(encoded(lines(predictions, top)))

    return write


def write_parquet(predictions: Iterable[Prediction], top: int, file: IO[bytes]) -> None:
    """Write a Parquet file with the columns of the CSV. What has no answer is null."""
    import pyarrow as arrow
    from pyarrow import parquet

    kinds: dict[str, Any] = {"path": arrow.string()}
    for i in range(1, top + 1):
        kinds |= {f"label{i}": arrow.string(), f"probability{i}": arrow.float32()}
    kinds |= {"unsure": arrow.bool_(), "error": arrow.string(), "reason": arrow.string(), "distance": arrow.float32()}
    rows = map(_row, predictions)
    with parquet.ParquetWriter(file, schema := arrow.schema(kinds.items())) as writer:
        while some := list(islice(rows, ROWS)):
            writer.write_table(arrow.Table.from_pylist(some, schema))


def _row(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {"path": prediction.source.encode(errors="backslashreplace").decode()}
    for i, (label, probability) in enumerate(prediction.top, start=1):
        row |= {f"label{i}": label, f"probability{i}": probability}
    unsure = None if prediction.error else prediction.unsure
    return row | {
        "unsure": unsure,
        "error": prediction.error,
        "reason": prediction.reason,
        "distance": prediction.distance,
    }


WRITERS = {"csv": as_lines(csv_lines), "json": as_lines(json_lines), "parquet": write_parquet}


def check_format(format: str) -> None:  # noqa: A002 - the flag's name
    """Raise SpecError if a format is unknown, or a package for it is missing."""
    if format not in WRITERS:
        raise SpecError(unknown_name("format", format, WRITERS))
    if format == "parquet" and not find_spec("pyarrow"):
        raise SpecError(
            "--format parquet needs pyarrow, which is not installed. Install it: pip install 'onsight[remote]'"
        )
