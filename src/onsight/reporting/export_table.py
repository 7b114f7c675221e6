"""The table of exported files, from table.json, as cells for people."""

from __future__ import annotations

from collections.abc import Iterable

from onsight.core.records import ExportRow
from onsight.core.text import plain

HEADING = (
    "file", "kB", "validation", "max |Δp|", "same top-1", "ms (95 %)", "ms, all threads", "images/s",
    "images/s, all threads", "MB", "first answer",
)  # fmt: skip

BUSY = 3  # times the median: a 95 % quantile above that is not the file's own


class Exports(list[ExportRow]):
    """The exported files of a run: the rows of table.json."""

    def cells(self) -> list[tuple[str, ...]]:
        """Return the heading and one row per file, as text."""
        return [HEADING, *table_rows(self)]

    def sentences(self) -> list[str]:
        """Return what int8 costs, whether the machine was busy, and how well quantized files know unlike images."""
        drops = [drop_sentence(row) for row in self if "drop" in row]
        drops += busy_sentences(self)
        return drops + [unlike_sentence(row) for row in self if "unlike_agreement" in row and is_quantized(row)]

    def _repr_html_(self) -> str:
        from onsight.display import notebook

        return notebook.exports(self.cells(), self.sentences())


def table_rows(table: Iterable[ExportRow]) -> list[tuple[str, ...]]:
    """Return the cells of each file; `HEADING` names the columns."""
    return [table_row(row) for row in table]


def table_row(row: ExportRow) -> tuple[str, ...]:
    """Return the cells of one file."""
    return (
        str(row["file"]),
        f"{row['bytes'] / 1000:,.0f}",
        cell("{:.2%}", row["validation_accuracy"]),
        "not proven" if row["max_difference"] is None else f"{row['max_difference']:.1e}",
        cell("{:.2%}", row["agreement"]),
        latency(row["latency_ms"], row["latency_p95_ms"]),
        latency(row["latency_ms_all"], row["latency_p95_ms_all"]),
        cell("{:,.0f}", row["images_per_second"]),
        cell("{:,.0f}", row["images_per_second_all"]),
        cell("{:,.0f}", row["peak_mb"]),
        cell("{:.2f} s", row["first_answer_seconds"]),
    )


def cell(pattern: str, value: float | None) -> str:
    """Return a value as text; a dash if it was not measured."""
    return "–" if value is None else pattern.format(value)


def latency(median: float | None, high: float | None) -> str:
    """Return the median and the 95 % quantile of a latency in ms; "busy" if others used the machine meanwhile."""
    if median is None or high is None:
        return "–"
    return f"{median:.2f} ({high:.2f}{', busy' if is_busy(median, high) else ''})"


def is_busy(median: float | None, high: float | None) -> bool:
    """Return whether a quantile is so far above the median that other programs used the machine meanwhile."""
    return median is not None and high is not None and high > BUSY * median


def busy_sentences(table: Iterable[ExportRow]) -> list[str]:
    """Return what "busy" means in the table, if it is there."""
    files = [
        row["file"]
        for row in table
        if is_busy(row["latency_ms"], row["latency_p95_ms"])
        or is_busy(row["latency_ms_all"], row["latency_p95_ms_all"])
    ]
    if not files:
        return []
    return [
        f"The speed of {', '.join(files)} is not to be trusted: one answer in twenty took over {BUSY} times the "
        "median, so the machine was busy. Export again when it is idle."
    ]


def is_quantized(row: ExportRow) -> bool:
    """Return whether a file has another precision than float32, so that its distances may differ from Keras'."""
    return row["precision"] != "float32"


def unlike_sentence(row: ExportRow) -> str:
    """Return for how many images a file and Keras agree on whether they are unlike the training images."""
    return (
        f"{row['file']}: whether an image is unlike the training images is answered as by Keras for "
        f"{row['unlike_agreement']:.2%} of {row['compared']:,} images; the distances differ by at most "
        f"{row['max_distance_difference']:.2g}."
    )


def drop_sentence(row: ExportRow) -> str:
    """Return how much validation accuracy an int8 file costs, in points, and which classes lose most."""
    low, high = row["drop_interval"]
    hurt = ", ".join(f"{plain(each['class'])} {each['drop'] * 100:.1f}" for each in row["hurt_most"])
    return (
        f"{row['file']}: {row['drop'] * 100:.2f} points less accurate on validation (95 %: {low * 100:.2f} to "
        f"{high * 100:.2f}; n = {row['validation_n']:,}). These classes lose most, in points: {hurt or 'none'}."
    )
