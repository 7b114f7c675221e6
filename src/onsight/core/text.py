"""Text for people: percentages, durations, counts, and strangers' names made safe for one line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def printable(text: str) -> str:
    """Return text that is safe in a terminal: control characters become U+FFFD, line breaks stay.

    File and class names come from strangers and may hold escape sequences.
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def plain(text: str) -> str:
    """Return text as one safe line: line breaks, escapes and marks of writing direction become U+FFFD."""
    return printable(text).replace("\n", "\ufffd")


def epoch_line(row: Mapping[str, Any]) -> str:
    """Return the numbers of an epoch in columns that line up: a line of history.jsonl, plus `epochs`."""
    parts = [f"epoch {row['epoch']:>{len(str(row['epochs']))}}/{row['epochs']}"]
    parts.append(f"loss {row['loss']:.3f}  {row['accuracy']:6.1%}")
    if row.get("val_loss") is not None:
        parts.append(f"validation {row['val_loss']:.3f}  {row['val_accuracy']:6.1%}")
    parts.append(f"{row['images_per_second']:,.0f} img/s  {duration(row['seconds'])}")
    if row.get("seconds_left"):
        parts.append(f"{duration(row['seconds_left'])} left")
    return "  ".join(parts)


def note_line(label: str, text: str) -> str:
    """Return a note of a `Reporter` as one line, its text in a column.

    >>> note_line("data", "toy, 3 classes")
    'data             toy, 3 classes'
    """
    return f"{label:<16} {text}"


def duration(seconds: float) -> str:
    """Return a duration as on a clock: 8.4 s, 0:42, 12:05 or 1:02:05.

    >>> duration(8.44), duration(42), duration(3725)
    ('8.4 s', '0:42', '1:02:05')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rough_duration(seconds: float | None) -> str:
    """Return a duration in one unit, for sentences and tables: 8.4 s, 42 s, 12 min or 3.1 h; None is a dash.

    >>> rough_duration(8.44), rough_duration(42), rough_duration(725), rough_duration(11160)
    ('8.4 s', '42 s', '12 min', '3.1 h')
    """
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def percent(share: float | None) -> str:
    """Return a share as text, "78.4 %"; decimals are added rather than rounding 99.96 % to 100 % or 0.04 % to 0 %.

    >>> percent(0.78412), percent(0.99961), percent(1.0), percent(None)
    ('78.4 %', '99.96 %', '100.0 %', '–')
    """
    return "–" if share is None else f"{percent_number(share)} %"


def percent_number(share: float) -> str:
    """Return `percent` without its sign, for intervals: "77.6 to 79.2"."""
    for decimals in range(1, 7):
        text = f"{100 * share:.{decimals}f}"
        if float(text) not in (0.0, 100.0) or share in (0.0, 1.0):
            break
    return text


def interval(ends: Sequence[float]) -> str:
    """Return a 95 % interval of a share as text.

    >>> interval([0.776, 0.792])
    '95 %: 77.6 to 79.2'
    """
    low, high = ends
    return f"95 %: {percent_number(low)} to {percent_number(high)}"


def points(share: float) -> str:
    """Return a difference of shares in percentage points.

    >>> points(0.0319), points(-0.0004), points(0.0)
    ('3.2', '−0.04', '0.0')
    """
    text = f"{100 * share:.1f}"
    if float(text) == 0:
        text = f"{100 * share:.2f}" if abs(share) >= 5e-5 else "0.0"
    return text.replace("-", "−")


def chance(p: float) -> str:
    """Return a p-value as text.

    >>> chance(0.0312), chance(1e-9), chance(0.5), chance(1.0)
    ('p = 0.031', 'p < 0.0001', 'p = 0.50', 'p = 1')
    """
    if math.isnan(p):
        return "p unknown"
    if p < 1e-4:
        return "p < 0.0001"
    return "p = 1" if p > 0.995 else f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.2g}"


def short(name: Any, most: int = 40) -> str:
    """Return a name for a sentence: one safe line, cut to `most` characters with an ellipsis."""
    text = plain(str(name))
    return text if len(text) <= most else text[: most - 1] + "…"


def quoted(names: Iterable[str]) -> str:
    """Return the sorted names in quotes, at most three: "'a', 'b', 'c' and 4 more".

    >>> quoted(["dog", "cat"]), quoted("edcba")
    ("'cat', 'dog'", "'a', 'b', 'c' and 2 more")
    """
    names = sorted(names)
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return f"{shown} and {len(names) - 3:,} more" if len(names) > 3 else shown


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with aligned cells.

    >>> columns([("run", "model"), ("a", "cnn")])
    ['run  model', 'a    cnn']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def times(n: int) -> str:
    """Return how often something happened: never, once, twice, 3 times."""
    return {0: "never", 1: "once", 2: "twice"}.get(n, f"{n:,} times")


def count(n: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun; `many` is the plural where it is not `one` with an s.

    >>> count(1, "image"), count(2000, "image"), count(2, "class", "classes")
    ('1 image', '2,000 images', '2 classes')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def seconds_of(text: str) -> float:
    """Return a duration in seconds.

    >>> seconds_of("90s"), seconds_of("5m"), seconds_of("1.5h")
    (90.0, 300.0, 5400.0)

    Raises:
        ValueError: the text is not a duration, or the duration is zero.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if not found or not float(found[1]):
        raise ValueError(f"'{text}' is not a duration. Expected a number and a unit, like 90s, 5m or 1.5h.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]
