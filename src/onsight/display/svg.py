"""SVG charts for the report. They follow the colours of the page, light or dark, and can be printed.

Each function returns markup in which every text is escaped. Shapes have CSS classes, and the style of the page gives
them colours. Whatever differs in colour also differs in dashes or position. A chart is 300 units wide, its text 12
units high.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from onsight.core.evaluation_records import Bin, CoveragePoint
from onsight.core.text import count

WIDTH, HEIGHT = 300.0, 210.0
TITLED = 54.0  # where a chart begins whose vertical axis has a title, to the left of its numbers
LETTER = 7.0  # mean width of a bold letter


class Frame(NamedTuple):
    """The ranges of a chart's numbers, and where they lie in its drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    left: float = 42
    right: float = WIDTH - 14
    top: float = 14
    bottom: float = HEIGHT - 40

    def x(self, value: float) -> float:
        """Return the position of a number on the horizontal axis."""
        return self.left + (value - self.x_low) / ((self.x_high - self.x_low) or 1) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Return the position of a number on the vertical axis."""
        return self.bottom - (value - self.y_low) / ((self.y_high - self.y_low) or 1) * (self.bottom - self.top)


def curves(epochs: Sequence[float], series: Sequence[dict[str, Any]], title: str, percents: bool = False) -> Markup:
    """Draw values over epochs. With fewer than two epochs there is no line to draw, and the result is empty.

    Args:
        epochs: the epochs, on the horizontal axis.
        series: dicts with `name`, `values` (one per epoch, None if there is no value), `look` (a CSS class) and
            optionally `best` (`max` or `min`), which draws a ring around the best value.
        title: the accessible name of the chart.
        percents: whether the values are shares, to be drawn as percentages.
    """
    scale = 100.0 if percents else 1.0
    drawn = [{**each, "values": [None if v is None else scale * v for v in each["values"]]} for each in series]
    values = [value for each in drawn for value in each["values"] if value is not None]
    if not values or len(epochs) < 2:
        return Markup("")
    y_ticks = ticks(min(values), max(values))
    frame = Frame(min(epochs), max(epochs), min(y_ticks[0], *values), max(y_ticks[-1], *values))
    x_ticks = [
        tick
        for tick in ticks(frame.x_low, frame.x_high, 5)
        if tick == int(tick) and frame.x_low <= tick <= frame.x_high
    ]
    parts = [_grid(frame, x_ticks, y_ticks, "epoch", "")]
    lines = [
        [(x, value) for x, value in zip(epochs, each["values"], strict=True) if value is not None] for each in drawn
    ]
    for each, known in zip(drawn, lines, strict=True):
        parts.append(_line(frame, known, each["look"]))
        if len(known) == 1:
            parts.append(_dot(frame, *known[0], each["look"]))
    for each, known in zip(drawn, lines, strict=True):  # after all lines, so that none is drawn over a value
        if known and each.get("best"):
            at, value = each["best"](known, key=lambda point: point[1])
            parts.append(_ring(frame, at, value, f"{_number(value)}{' %' if percents else ''}", lines))
    legend = [(each["name"], each["look"]) for each in drawn if any(v is not None for v in each["values"])]
    return _sheet(parts, title, legend if len(legend) > 1 else [])


def reliability(bins: Sequence[Bin], n: int, title: str) -> Markup:
    """Draw a reliability diagram: the accuracy of each bin as a bar, and its mean confidence as a mark.

    The marks are where the bars should end. Bars with fewer images are paler. `bins` are those of `metrics.calibration`
    for `n` images in total.
    """
    frame = Frame(0, 100, 0, 100, left=TITLED)
    parts = [_grid(frame, range(0, 101, 20), range(0, 101, 20), "confidence (%)", "accuracy (%)")]
    for each in bins:
        accuracy, confidence = each["accuracy"], each["confidence"]
        if accuracy is None or confidence is None:  # an empty bin
            continue
        left, wide = frame.x(100 * each["low"]) + 1, frame.x(100 * each["high"]) - frame.x(100 * each["low"]) - 2
        top, mark = frame.y(100 * accuracy), frame.y(100 * confidence)
        text = f"{count(each['count'], 'image')}: confidence {100 * confidence:.1f} %, accuracy {100 * accuracy:.1f} %"
        parts.append(
            Markup(
                '<rect class="bar" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" fill-opacity="{:.2f}">'
                '<title>{}</title></rect><path class="mark" d="M{:.2f} {:.2f}h{:.2f}"/>'
            ).format(
                left, top, wide, frame.bottom - top, 0.3 + 0.7 * (each["count"] / n) ** 0.5, text, left, mark, wide
            )
        )
    parts.append(_line(frame, [(0, 0), (100, 100)], "ideal"))
    return _sheet(parts, title)


def coverage(points: Sequence[CoveragePoint], title: str, threshold: float | None = None) -> Markup:
    """Draw the accuracy of the most confident predictions over their share of the images, with a ring at `threshold`.

    `points` are those of `metrics.coverage_curve`.
    """
    shown = [(100 * each["coverage"], 100 * each["accuracy"]) for each in points]
    y_ticks = ticks(min(y for _, y in shown), 100)
    frame = Frame(0, 100, min(y_ticks[0], *(y for _, y in shown)), 100, left=TITLED)
    parts = [
        _grid(frame, range(0, 101, 20), y_ticks, "most confident images answered (%)", "accuracy (%)"),
        _line(frame, shown, "first"),
    ]
    if threshold is not None:
        answered = [each for each in points if each["threshold"] >= threshold]
        if answered:
            x, y = 100 * answered[-1]["coverage"], 100 * answered[-1]["accuracy"]
            parts.append(_ring(frame, x, y, f"{y:.1f} % of {x:.0f} %", [shown]))
    return _sheet(parts, title)


def trials(
    points: Sequence[tuple[float, float, str]], best: Sequence[tuple[float, float]], title: str, x_title: str
) -> Markup:
    """Draw the results of trainings as dots, and the best so far as a line that ends in a ring.

    `points` are (x, share, CSS class), `best` are (x, share); without points the result is empty.
    """
    if not points:
        return Markup("")
    values = [100 * share for _, share, _ in points]
    middle = sorted(values)[len(values) // 2]
    lowest = max(min(values), 2 * middle - max(values) - 10)  # a failed trial must not flatten the others
    y_ticks = ticks(lowest, max(values))
    frame = Frame(0, max(1.0, *(x for x, *_ in points)), y_ticks[0], y_ticks[-1], left=TITLED)
    inside = [(x, max(frame.y_low, 100 * share)) for x, share, _ in points]
    line = [(x, max(frame.y_low, 100 * share)) for x, share in best]
    stairs = _stairs(line, frame.x_high)
    x_ticks = [tick for tick in ticks(0, frame.x_high) if tick == int(tick) and tick <= frame.x_high]
    parts = [
        _grid(frame, x_ticks, y_ticks, x_title, "accuracy (%)"),
        _line(frame, stairs, "first"),
    ]
    parts += [_dot(frame, x, y, look) for (x, y), (*_, look) in zip(inside, points, strict=True)]
    if line:
        parts.append(_ring(frame, *line[-1], f"{line[-1][1]:.1f} %", [stairs, *([spot] for spot in inside)]))
    return _sheet(parts, title)


def _stairs(points: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """Return the corners of a line that is level between two points, up to `end`."""
    corners = [(x, y) for before, after in itertools.pairwise(points) for x, y in (before, (after[0], before[1]))]
    return [*corners, *points[-1:], *((end, y) for _, y in points[-1:])]


def parallel(
    axes: Sequence[tuple[str, Sequence[str]]], lines: Sequence[tuple[Sequence[float], str, float]], title: str
) -> Markup:
    """Draw parallel coordinates: one upright axis per setting, one line per trial.

    Args:
        axes: (name, labels of the marks from the bottom to the top) of each axis.
        lines: (the place of the trial on each axis in 0..1, its CSS class, its opacity), drawn in this order.
        title: the accessible name of the chart.
    """
    wide = 140.0 * (len(axes) - 1) + 130
    left, top, bottom = 65.0, 36.0, HEIGHT - 14
    gap = (wide - 2 * left) / max(1, len(axes) - 1)
    parts = []
    for number, (name, _) in enumerate(axes):
        x = left + number * gap
        parts.append(
            Markup(
                '<path class="grid" d="M{0:.1f} {1}V{2}"/><text x="{0:.1f}" y="12" class="middle name">{3}</text>'
            ).format(x, top, bottom, name)
        )
    for places, look, opacity in lines:
        path = "L".join(f"{left + i * gap:.1f} {bottom - place * (bottom - top):.1f}" for i, place in enumerate(places))
        parts.append(Markup('<path class="line {}" stroke-opacity="{:.2f}" d="M{}"/>').format(look, opacity, path))
    for number, (_, marks) in enumerate(axes):  # above the lines, so that they can be read
        for i, mark in enumerate(marks):
            y = bottom - (i / max(1, len(marks) - 1) if len(marks) > 1 else 0.5) * (bottom - top)
            at = left + number * gap
            parts.append(
                Markup('<text x="{:.1f}" y="{:.1f}" class="middle mark-text">{}</text>').format(at, y + 4, mark)
            )
    return _sheet(parts, title, size=(wide, HEIGHT))


def severities(values: Sequence[float], clean: float, title: str) -> Markup:
    """Draw the accuracy at the five severities of a corruption in a small chart, with that on clean images dotted."""
    frame = Frame(0, len(values), 0, 100, left=4, right=146, top=6, bottom=86)
    points = list(enumerate([100 * clean, *(100 * value for value in values)]))
    parts = [
        Markup('<path class="grid" d="M4 86h142"/>'),
        _line(frame, [(0, 100 * clean), (len(values), 100 * clean)], "ideal"),
        _line(frame, points, "first"),
        *(_dot(frame, x, y, "first", 2) for x, y in points),
    ]
    return _sheet(parts, title, size=(150, 90))


def as_file(chart: Markup, style: str) -> str:
    """Return a chart without its legend as an SVG file that includes its style, so that it can be used as an image."""
    before, mark, drawing = str(chart).rpartition('<svg viewBox="')
    opening, _, content = drawing.partition(">")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{opening}><style>{style}</style>{content}'
        if mark
        else before
    )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most `most` + 2 round numbers; the first is at or below `low`, the last at or above `high`.

    A single number above 0 is the last one, because nothing lies above an accuracy of 100 %.

    >>> ticks(0.31, 1.7), ticks(40, 86)
    ([0.0, 0.5, 1.0, 1.5, 2.0], [40, 50, 60, 70, 80, 90])
    """
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        first, last = (first - 1, last) if first > 0 else (first, last + 1)
    return [round(step * index, 10) for index in range(first, last + 1)]


def _grid(frame: Frame, x_ticks: Any, y_ticks: Any, x_title: str, y_title: str) -> Markup:
    """Return the grid lines of a chart, with the tick labels and the titles of its axes."""
    line = Markup('<path class="grid" d="M{:.1f} {:.2f}H{:.1f}"/><text x="{:.1f}" y="{:.2f}" class="end">{}</text>')
    below = Markup('<text x="{:.2f}" y="{:.1f}" class="middle">{}</text>')
    parts = [
        line.format(frame.left, frame.y(tick), frame.right, frame.left - 6, frame.y(tick) + 4, label)
        for tick, label in zip(y_ticks, _labels(y_ticks), strict=True)
    ]
    parts += [
        below.format(frame.x(tick), frame.bottom + 16, label)
        for tick, label in zip(x_ticks, _labels(x_ticks), strict=True)
    ]
    parts.append(below.format((frame.left + frame.right) / 2, frame.bottom + 34, x_title))
    if y_title:
        middle = (frame.top + frame.bottom) / 2
        parts.append(
            Markup('<text x="11" y="{:.1f}" class="middle" transform="rotate(-90 11 {:.1f})">{}</text>').format(
                middle, middle, y_title
            )
        )
    return Markup("").join(parts)


def _line(frame: Frame, points: Sequence[tuple[float, float]], look: str) -> Markup:
    path = "L".join(f"{frame.x(x):.2f} {frame.y(y):.2f}" for x, y in points)
    return Markup('<path class="line {}" d="M{}"/>').format(look, path) if points else Markup("")


def _dot(frame: Frame, x: float, y: float, look: str, radius: float = 3) -> Markup:
    return Markup('<circle class="dot {}" cx="{:.2f}" cy="{:.2f}" r="{}"/>').format(
        look, frame.x(x), frame.y(y), radius
    )


def _ring(frame: Frame, x: float, y: float, text: str, lines: Sequence[Sequence[tuple[float, float]]]) -> Markup:
    """Return a ring with a text next to it, inside the frame and where it covers least of `lines`, as (x, y) points."""
    at, high = frame.x(x), frame.y(y)
    wide = LETTER * len(text)
    drawn = [spot for line in lines for spot in _along([(frame.x(a), frame.y(b)) for a, b in line])]
    best, least = (at, high, "start"), math.inf
    for up in (-10, 19, -24, 33, -38, 47, 4):  # from the ring to the foot of the letters
        for anchor, aside in (("start", -4), ("end", 4), ("middle", 0), ("start", 9), ("end", -9), ("start", 30)):
            foot, start = high + up, at + aside - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
            if foot - 11 < frame.top - 8 or foot > frame.bottom - 3 or start < frame.left or start + wide > WIDTH:
                continue
            covered = sum(start - 2 < a < start + wide + 2 and foot - 12 < b < foot + 3 for a, b in drawn)
            if covered < least:
                best, least = (at + aside, foot, anchor), covered
    return Markup(
        '<circle class="ring" cx="{:.2f}" cy="{:.2f}" r="4.5"/><text x="{:.2f}" y="{:.2f}" class="told {}">{}</text>'
    ).format(at, high, *best, text)


def _along(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return points along a line through `corners`, at most two units apart."""
    points = list(corners[:1])
    for (a, b), (c, d) in itertools.pairwise(corners):
        steps = math.ceil(math.dist((a, b), (c, d)) / 2) or 1
        points += [(a + (c - a) * i / steps, b + (d - b) * i / steps) for i in range(1, steps + 1)]
    return points


def _labels(numbers: Sequence[float]) -> list[str]:
    """Return the labels of an axis, with as many digits as tell them apart: 99.96 and 99.98 are not both 100."""
    for digits in range(3, 9):
        labels = [_number(number, digits) for number in numbers]
        if len(set(labels)) == len(labels):
            break
    return labels


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if abs(value) < 100 else f"{value:,.0f}"


def _sheet(
    parts: Sequence[Markup],
    title: str,
    legend: Sequence[tuple[str, str]] = (),
    size: tuple[float, float] = (WIDTH, HEIGHT),
) -> Markup:
    """Return the whole chart. The legend is HTML above the drawing."""
    head = Markup("").join(
        Markup('<span><svg viewBox="0 0 22 8" class="key"><path class="line {}" d="M0 4H22"/></svg>{}</span>').format(
            look, name
        )
        for name, look in legend
    )
    return (
        (Markup('<div class="legend">{}</div>').format(head) if legend else Markup(""))
        + Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(*size, escape(title))
        + Markup("").join(parts)
        + Markup("</svg>")
    )
