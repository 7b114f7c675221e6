"""One finding of a check as a record; `check` describes its fields."""

from __future__ import annotations

from collections.abc import Iterable

from onsight.core.records import Finding, Item


def finding(
    kind: str, severity: str, number: int, text: str, advice: str, items: Iterable[tuple[list[str], str]]
) -> Finding:
    """Return a finding; `items` are (names of its images, note), the most certain first."""
    shown = [Item(pictures=names, note=note) for names, note in items]
    return {"kind": kind, "severity": severity, "count": number, "text": text, "advice": advice, "items": shown}
