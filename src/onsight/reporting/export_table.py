"""The table of exported files, from table.json, as cells for people."""

from __future__ import annotations

from collections.abc import Iterable

from onsight.core.records import ExportRow
from onsight.core.text import plain

HEADING = (
    "file", "kB", "validation", "max |Δp|", "same top-1", "ms (95 %)", "ms, all threads", "images/s",
    "images/s, all threads", "MB", "first answer",
)  # fmt: skip


class Exports(list[ExportRow]):
    """The exported files of a run: the rows of table.json."""

    def cells(self) -> list[tuple[str, ...]]:
        """Return the heading and one row per file, as text."""
        return [HEADING, *table_rows(self)]

    def sentences(self) -> list[str]:
        """Return for each int8 file how much validation accuracy it costs, and which classes lose most."""
        return [drop_sentence(row) for row in self if "drop" in row]

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
        "–" if row["validation_accuracy"] is None else f"{row['validation_accuracy']:.2%}",
        f"{row['max_difference']:.1e}",
        f"{row['agreement']:.2%}",
        f"{row['latency_ms']:.2f} ({row['latency_p95_ms']:.2f})",
        f"{row['latency_ms_all']:.2f} ({row['latency_p95_ms_all']:.2f})",
        f"{row['images_per_second']:,.0f}",
        f"{row['images_per_second_all']:,.0f}",
        "–" if row["peak_mb"] is None else f"{row['peak_mb']:,.0f}",
        f"{row['first_answer_seconds']:.2f} s",
    )


def drop_sentence(row: ExportRow) -> str:
    """Return how much validation accuracy an int8 file costs, in points, and which classes lose most."""
    low, high = row["drop_interval"]
    hurt = ", ".join(f"{plain(each['class'])} {each['drop'] * 100:.1f}" for each in row["hurt_most"])
    return (
        f"{row['file']}: {row['drop'] * 100:.2f} points less accurate on validation (95 %: {low * 100:.2f} to "
        f"{high * 100:.2f}; n = {row['validation_n']:,}). These classes lose most, in points: {hurt or 'none'}."
    )
