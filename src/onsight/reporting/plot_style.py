"""The style of every plot: colours, fonts, text that fits its space, headings, and saving."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WIDTH = 6.4  # inches; 10-point text is then 15 pixels high in a report 700 pixels wide, and 8 pixels on a phone
DPI = 200
BOLD = 1.13  # width of bold letters relative to regular ones
BLUE, ORANGE, INK, GREY, PALE = "#0072B2", "#D55E00", "#1b1f24", "#5b6570", "#e3e8ee"
TICK, CROSS, BOX = "\u2713", "\u2717", "\u25a1"
# Fonts for scripts that matplotlib's own font lacks, in order of preference. Only installed ones are used.
FALLBACK_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "PingFang SC", "Yu Gothic", "Microsoft YaHei",
    "Malgun Gothic", "Apple SD Gothic Neo", "Noto Sans Devanagari", "Nirmala UI", "Noto Sans Thai", "Leelawadee UI",
    "Arial Unicode MS", "Noto Emoji",
)  # fmt: skip


@contextlib.contextmanager
def drawing_style() -> Iterator[None]:
    """Apply matplotlib's defaults and Onsight's settings, and restore the user's settings afterwards.

    The user's matplotlibrc has no effect on the plots.
    """
    from matplotlib import style

    ours = {
        "font.family": [family for family, _ in _fonts()],
        "font.size": 10,
        "text.parse_math": False,  # a class name may be $x$
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#9aa4b0",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": PALE,
        "grid.linewidth": 0.8,
        "xtick.color": "#9aa4b0",
        "ytick.color": "#9aa4b0",
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "svg.hashsalt": "onsight",  # gives the same bytes each time
    }
    with style.context(["default", ours]):
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, depending on the suffix of `path`.

    The file is written atomically. The same figure gives the same bytes.

    Raises:
        ValueError: the suffix is another one.
    """
    path = Path(path)
    write_atomic(path, encode(figure, path.suffix.lower().removeprefix(".")))


@drawing_style()
def encode(figure: Figure, kind: str = "png") -> bytes:
    """Return a figure as the bytes of a "png" (200 dots per inch) or an "svg", without a date or a version."""
    if kind not in ("png", "svg"):
        raise ValueError(f"figures are saved as .png or .svg, not '.{kind}'")
    content = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    figure.savefig(content, format=kind, dpi=DPI, facecolor="white", metadata=metadata)
    return content.getvalue()


def fit(text: str, inches: float, points: float) -> str:
    """Return `text` as it can be drawn at a size of `points` in a width of `inches`, cut with an ellipsis if too long.

    Characters that are not printable are removed. Those that no font has become a box, and so does an empty text.

    >>> fit("a name that is much too long", 0.8, 10)
    'a name t…'
    """
    text = "".join(BOX if _advance(letter) is None else letter for letter in text if letter.isprintable()).strip()
    ends = list(itertools.accumulate((_advance(letter) or 1.0) * points / 72 for letter in text))
    if not ends or ends[-1] <= inches:
        return text or BOX
    room = inches - points / 72  # an ellipsis is one em wide
    return text[: max(1, sum(end <= room for end in ends))].rstrip() + "…"


@functools.cache
def _fonts() -> list[tuple[str, frozenset[int]]]:
    """Return the names of the fonts, each with its characters: matplotlib's own first, then the installed ones."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    installed = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *(family for family in FALLBACK_FONTS if family in installed)]
    return [(family, frozenset(FT2Font(installed[family]).get_charmap())) for family in families]


@functools.cache
def _advance(letter: str) -> float | None:
    """Return the width of a character in em, or None if no font has it."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    (_, own), *others = _fonts()
    if ord(letter) in own:
        font = FT2Font(font_manager.findfont("DejaVu Sans"))
        font.set_size(100, 72)
        return font.load_char(ord(letter)).linearHoriAdvance / 6_553_600  # 16.16 fixed point at 100 points
    return 1.0 if any(ord(letter) in characters for _, characters in others) else None


def history_column(history: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """Return one value per epoch, (n,) float; NaN if it is missing, None or not finite."""
    values = [row.get(key) for row in history]
    numbers = np.array([math.nan if value is None else value for value in values], float)
    return np.where(np.isfinite(numbers), numbers, math.nan)


def rate_drops(rate: np.ndarray) -> np.ndarray:
    """Return (n,) bool: the epochs in which the learning rate drops to 70 % or less of the previous epoch's.

    A drop counts only if the rate was constant just before or just after it, so a smooth schedule has none.
    """
    before, after = rate[:-1], rate[1:]
    constant = after == before
    adjacent = np.append(False, constant[:-1]) | np.append(constant[1:], False) if len(constant) else constant
    return np.append(False, (after <= 0.7 * before) & adjacent)[: len(rate)].astype(bool)


def dots(epochs: np.ndarray) -> dict[str, Any]:
    """Return the marker of a line: dots for up to 30 epochs, none for more, because dots would merge."""
    return {"marker": "o", "markersize": 3.5} if len(epochs) <= 30 else {}


def two_lines(axes: Axes, epochs: np.ndarray, training: np.ndarray, held_out: np.ndarray, best: Any, form: str) -> None:
    """Draw the training and the validation values of a metric, with a ring around the best validation value.

    `best` returns the index of the best value, ignoring NaN; `form` formats that value.
    """
    if np.isfinite(training).any():
        axes.plot(
            epochs, training, color=ORANGE, linestyle=(0, (4, 2)), linewidth=1.8, label="training", **dots(epochs)
        )
    if not np.isfinite(held_out).any():
        return
    axes.plot(epochs, held_out, color=BLUE, linewidth=2.2, label="validation", **dots(epochs))
    at = int(best(held_out))
    x, y = float(epochs[at]), float(held_out[at])
    axes.plot(x, y, "o", markersize=10, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.5, clip_on=False)
    # Above the plot, where it covers no line.
    told = f"best {form.format(y)}, in epoch {x:.0f}"
    axes.set_title(told, loc="right", fontsize=10, fontweight="bold", color=BLUE, pad=4)
    axes.margins(y=0.1)


def heading_height(lines: Sequence[str]) -> float:
    """Return the height of a heading in inches."""
    return 0.14 + 0.23 * sum(map(bool, lines))


def write_heading(figure: Figure, lines: Sequence[str]) -> None:
    """Write a heading at the top of a figure: the first line, the finding, is bold; further lines are grey."""
    width, height = figure.get_size_inches()
    for i, line in enumerate(filter(None, lines)):
        size, font = (11.0, {"weight": "bold"}) if i == 0 else (9.5, {"color": GREY})
        text = fit(line, width - 0.12, size * (BOLD if i == 0 else 1))
        x, y = 0.06 / width, 1 - (0.17 + 0.23 * i) / height
        figure.text(x, y, text, None, fontsize=size, va="center_baseline", **font)


def write_heading_above(figure: Figure, lines: Sequence[str]) -> None:
    """Write a heading above the plots of a figure, and limit its constrained layout to the space below."""
    write_heading(figure, lines)
    share = 1 - heading_height(lines) / float(figure.get_figheight())
    figure.get_layout_engine().set(rect=(0, 0, 1, share))  # type: ignore[union-attr, call-arg]


def sheet(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Return a figure with one set of axes that covers it, without ticks; x and y are inches from the top left."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure, axes


def write_text(axes: Axes, x: float, y: float, text: str, size: float, **font: Any) -> None:
    """Write text at (x, y), with its middle at y."""
    axes.text(x, y, text, fontsize=size, va="center_baseline", **font)
