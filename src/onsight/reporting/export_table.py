"""table.json of an export, as cells for people."""

from __future__ import annotations

from typing import Any

HEADING = (
    "file", "kB", "validation", "max |Δp|", "same top-1", "ms (95 %)", "all threads", "images/s", "all threads", "MB",
    "first answer",
)  # fmt: skip


def table_rows(table: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return table.json's rows as cells for people, a row for each file; `HEADING` names them."""
    return [table_row(row) for row in table]


def table_row(row: dict[str, Any]) -> tuple[str, ...]:
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
