"""Plots: each function takes numbers and returns a matplotlib Figure whose title states the finding.

They use no pyplot, open no window and keep no state: figures are drawn with Onsight's settings, and the user's are
restored. Class names come from strangers: they are never read as mathematics, long ones are cut, and characters that no
font has become a box. The colours are Okabe and Ito's, which people with colour blindness can tell apart. A dash, a
tick or a cross always repeats what a colour says.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.text import count, percent, percent_number, rough_duration
from onsight.imaging import heat
from onsight.metrics.intervals import share_interval
from onsight.reporting.plot_style import (
    BLUE,
    BOLD,
    CROSS,
    GREY,
    INK,
    ORANGE,
    TICK,
    WIDTH,
    dots,
    drawing_style,
    fit,
    heading_height,
    history_column,
    rate_drops,
    sheet,
    two_lines,
    write_heading,
    write_heading_above,
    write_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@drawing_style()
def sample_images(images: np.ndarray, labels: Sequence[str], columns: int = 8, title: str | None = None) -> Figure:
    """Draw images, each with its label below it.

    `images` is (n, H, W, 3) uint8, `labels` has n names.
    """
    columns = max(1, min(columns, len(images)))
    classes = len(set(labels))
    cell, line = WIDTH / columns, 0.24
    lines = [title or f"{count(len(images), 'image')} of {count(classes, 'class', 'classes')}, with their labels"]
    top = heading_height(lines)
    figure, axes = sheet(top + math.ceil(len(images) / columns) * (cell + line))
    write_heading(figure, lines)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = i % columns * cell, top + i // columns * (cell + line)
        _draw_image(axes, image, x + 0.04, y + 0.04, cell - 0.08)
        write_text(axes, x + cell / 2, y + cell + line / 2 - 0.04, fit(label, cell - 0.06, 8.5), 8.5, ha="center")
    return figure


@drawing_style()
def learning_curve(points: Sequence[Mapping[str, Any]], fit: Mapping[str, Any] | None, finding: str) -> Figure:
    """Draw validation accuracy against the number of training images per class, with intervals and an extrapolation.

    `points` has one mapping per size: shots (images per class), accuracies (one per seed), accuracy (their mean), low
    and high (its interval). `fit` has a and b of error = a * shots ** -b, and since, its first size; None draws
    no extrapolation, which otherwise ends at twice the largest size. `finding` is the heading.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    shots = np.array([point["shots"] for point in points], float)
    mean, low, high = (100 * np.array([point[key] for point in points]) for key in ("accuracy", "low", "high"))
    axes.errorbar(
        shots, mean, [mean - low, high - mean], color=BLUE, marker="o", capsize=3, label="mean, 95 % interval"
    )
    for point in points:
        values = 100 * np.array(point["accuracies"])
        axes.plot(np.full(len(values), point["shots"]), values, "x", color=GREY, markersize=5, zorder=3)
    axes.plot([], [], "x", color=GREY, label="each seed")
    if fit:
        ahead = np.geomspace(fit["since"], 2 * shots[-1], 50)
        label = f"fit: error ∝ (images per class)^{-fit['b']:.2f}"
        axes.plot(ahead, 100 * (1 - fit["a"] * ahead ** -fit["b"]), "--", color=ORANGE, label=label)
    axes.set_xscale("log")
    axes.set_xticks(shots)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Training images per class")
    axes.set_ylabel("Validation accuracy (%)")
    figure.legend(
        loc="outside lower center", ncols=3, frameon=False, handlelength=1.6, columnspacing=1.4
    )  # below the axes, where it covers no interval
    write_heading_above(figure, [finding])
    return figure


@drawing_style()
def rate_test(rates: Sequence[float], losses: Sequence[float], suggested: float) -> Figure:
    """Draw the smoothed loss of a range test over the learning rate, and mark the suggested rate."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    low, high = min(losses), max(losses[0], min(losses))
    axes.plot(rates, losses, color=BLUE)
    at = float(np.interp(suggested, rates, losses))
    axes.plot([suggested], [at], "o", color=ORANGE)
    axes.axvline(suggested, color=ORANGE, linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))  # where the loss explodes need not be seen
    axes.set_xlabel("Learning rate")
    axes.set_ylabel("Loss, smoothed")
    write_heading_above(figure, [f"Suggested learning rate: {suggested:g}, safely below the lowest loss"])
    return figure


@drawing_style()
def curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw accuracy, loss and learning rate over the epochs.

    `history` has one mapping per epoch: epoch (from 1), loss, accuracy, learning_rate, seconds and, if the run has
    validation images, val_loss and val_accuracy. Values that are missing, None or not finite are left out. Rings mark
    the best validation values. Dotted lines mark where the learning rate drops after being constant. The values of a
    single epoch are drawn as bars.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    column = functools.partial(history_column, history)
    if len(history) == 1:
        return _only_epoch(history)
    epochs = np.array([row["epoch"] for row in history], float)
    rate = column("learning_rate")
    panels = 3 if np.isfinite(rate).any() else 2
    figure = Figure(figsize=(WIDTH, 5.0 + (panels == 3) * 1.1), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.08)  # type: ignore[union-attr, call-arg]
    upper, lower, *rest = figure.subplots(
        panels, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [3, 2.4, 0.9][:panels]}
    )[:, 0]
    two_lines(upper, epochs, 100 * column("accuracy"), 100 * column("val_accuracy"), best=np.nanargmax, form="{:.1f} %")
    upper.set_ylim(top=min(upper.get_ylim()[1], 101))
    upper.set_ylabel("Accuracy (%)")
    if upper.lines:
        upper.legend(loc="best", frameon=False, handlelength=2.8)
    two_lines(lower, epochs, column("loss"), column("val_loss"), best=np.nanargmin, form="{:.3g}")
    lower.set_ylabel("Loss\n(cross entropy, nats)")
    drops = rate_drops(rate)
    for axes in rest:
        line = {"drawstyle": "steps-mid"} if drops.any() else dots(epochs)
        axes.plot(epochs, rate, color=GREY, linewidth=1.6, **line)
        axes.set_ylabel("Learning\nrate")
        if drops.any() and np.nanmin(rate) > 0:  # drops are factors, so the axis is logarithmic
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(bottom=0)
    for axes in (upper, lower, *rest):
        for drop in epochs[drops]:
            axes.axvline(drop - 0.5, color=GREY, linewidth=1, linestyle=":", zorder=1)
    if len(epochs):
        upper.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)  # the panels share this axis
    upper.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    seconds = column("seconds")
    pace = f" (about {rough_duration(float(np.nanmedian(seconds)))} each)" if np.isfinite(seconds).any() else ""
    note = "; dotted: the learning rate drops" if drops.any() else ""
    (upper, lower, *rest)[-1].set_xlabel(f"Epoch{pace}{note}")
    write_heading_above(figure, _curves_finding(epochs, column("accuracy"), column("val_accuracy")))
    return figure


@drawing_style()
def confusion_matrix(confusion: np.ndarray | Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: counts as text (up to 20 classes), and the share of the true class as colour.

    `confusion` is (C, C) int: rows are true classes, columns predicted ones. The row of a class without images is grey.
    """
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter

    counts = np.asarray(confusion, np.int64)  # (C, C)
    number = len(counts)
    support = counts.sum(axis=1, keepdims=True)  # (C, 1)
    share = counts / np.maximum(support, 1)
    figure = Figure(figsize=(WIDTH, 5.6 if number <= 4 else 7.0), layout="constrained")
    axes = figure.subplots()
    small = 10.0 if number <= 12 else 8.0
    axes.grid(visible=False)
    texts = [[f"{value:,}" for value in row] for row in counts]
    if number <= 4:
        texts = [
            [f"{value:,}\n{percent(part)}" for value, part in zip(*row, strict=True)]
            for row in zip(counts, share, strict=True)
        ]
    # The colour follows the square root of the share: one mistake in fifty must stay visible if nine in ten are right.
    norm = PowerNorm(0.5, 0, 1)
    empty = np.broadcast_to(support == 0, counts.shape)
    few = number <= 20
    mesh = axes.pcolormesh(
        np.ma.array(share, mask=empty), cmap="Blues", norm=norm, rasterized=not few,
        edgecolors="white" if few else "none", linewidth=1 if few else 0,
    )  # fmt: skip
    axes.set(xlim=(0, number), ylim=(number, 0), aspect="equal")
    axes.spines[:].set_visible(False)
    if few:
        widest = max(len(f"{value:,}") for value in counts.flat)
        size = min(16.0 if number <= 4 else 10.5, 72 * 5.0 / number / max(widest, 3) / 0.68)
        bright = colormaps["Blues"](norm(share))[:, :, :3] @ (0.2126, 0.7152, 0.0722)
        for row, column in np.argwhere(~empty).tolist():
            colour = "#262626" if bright[row, column] > 0.5 else "white"
            axes.text(
                column + 0.5, row + 0.5, texts[row][column], color=colour, size=size, ha="center", va="center"
            )  # fmt: skip
    bar: Any = figure.colorbar(mesh, ax=axes, orientation="horizontal", aspect=45, pad=0.02, fraction=0.05)
    bar.outline.set_visible(False)
    bar.ax.xaxis.set_major_locator(FixedLocator([0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1]))
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}"))
    bar.set_label("share of the true class (%)")
    axes.set_facecolor("#d5d9de")
    step = math.ceil(number * small * 1.25 / 72 / 4.8)  # at most one label per line of text
    shown = list(range(0, number, step))
    places = np.array(shown) + 0.5
    labels = [fit(classes[i], 1.15, small) for i in shown]
    axes.set_yticks(places, labels, fontsize=small, rotation=0)
    if number <= 4:
        axes.set_xticks(places, labels, fontsize=small, rotation=0)
    elif number <= 12:
        axes.set_xticks(places, labels, fontsize=small, rotation=40, ha="right", va="top", rotation_mode="anchor")
    else:
        axes.set_xticks(places, labels, fontsize=small, rotation=90)
    axes.tick_params(length=2 if step > 1 else 0, pad=4)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    write_heading_above(figure, _confusion_finding(counts, classes))
    return figure


@drawing_style()
def predictions(
    images: np.ndarray,
    names: Sequence[str] | None,
    probabilities: np.ndarray,
    classes: Sequence[str],
    columns: int = 4,
    title: str | None = None,
) -> Figure:
    """Draw images, each with its three likeliest classes; a tick or a cross shows whether the likeliest is right.

    `images` is (n, H, W, 3) uint8, `names` has the n true classes or is None if they are unknown, `probabilities` is
    (n, C). A true class that is not among the three replaces the third. The true class of a wrong answer is outlined.
    The title says how many answers are right, or how many mistakes there are if none is.
    """
    from matplotlib.patches import Rectangle

    columns = max(1, min(columns, len(images)))
    rows = min(3, len(classes))
    cell, line = min(WIDTH / columns, 3.2), 0.235
    side = cell - 0.16
    height = 0.3 + side + 0.06 + rows * line + 0.16
    guesses = [classes[int(row.argmax())] for row in probabilities]
    right = sum(map(str.__eq__, guesses, names)) if names is not None else 0
    found = f"{right:,} of {count(len(images), 'image')} correct" if right else count(len(images), "mistake")
    lines = [title or (found if names is not None and len(images) else "Predictions")]
    if names is not None and right < len(images):
        lines.append("black outline: the label")
    top = heading_height(lines)
    figure, axes = sheet(top + math.ceil(len(images) / columns) * height, cell * columns)
    write_heading(figure, lines)
    for i, (image, row) in enumerate(zip(images, np.asarray(probabilities, float), strict=True)):
        true = None if names is None else names[i]
        hit = true is None or true == guesses[i]
        colour = BLUE if hit else ORANGE
        x, y = i % columns * cell + 0.08, top + i // columns * height
        width = cell - 0.16
        mark = "" if true is None else f"{TICK if hit else CROSS} "
        write_text(
            axes,
            x,
            y + 0.17,
            mark + fit(guesses[i], width - 0.22 * bool(mark), 10.5 * BOLD),
            10.5,
            color=colour,
            weight="bold",
        )
        _draw_image(axes, image, x, y + 0.3, side)
        if not hit:
            axes.add_patch(Rectangle((x, y + 0.3), side, side, fill=False, edgecolor=colour, linewidth=2.2))
        shown = list(np.argsort(-row, kind="stable")[:rows])
        if true is not None and true in classes and (own := list(classes).index(true)) not in shown:
            shown[-1] = own
        for k, index in enumerate(shown):
            y_bar = y + 0.3 + side + 0.06 + k * line
            tint = colour if k == 0 else GREY
            axes.add_patch(Rectangle((x, y_bar), width, line - 0.045, color="#f2f4f7", linewidth=0))
            axes.add_patch(
                Rectangle((x, y_bar), width * float(row[index]), line - 0.045, color=tint, alpha=0.28, linewidth=0)
            )
            if classes[index] == true and not hit:
                axes.add_patch(Rectangle((x, y_bar), width, line - 0.045, fill=False, edgecolor=INK, linewidth=1.2))
            middle = y_bar + (line - 0.045) / 2
            write_text(axes, x + 0.05, middle, fit(classes[index], width - 0.52, 8.5), 8.5)
            write_text(axes, x + width - 0.04, middle, _whole_percent(float(row[index])), 8.5, ha="right")
    return figure


@drawing_style()
def explanations(
    images: Sequence[np.ndarray],
    overlays: Sequence[np.ndarray],
    names: Sequence[str],
    probabilities: np.ndarray,
    classes: Sequence[str],
    heading: tuple[str, str],
    top: int = 3,
) -> Figure:
    """Draw one row per image: the image, the image under its heat map, and the likeliest classes as bars.

    A colour bar above the heat maps says which colours mean low and high influence.

    `images` and `overlays` have n arrays of (S, S, 3) uint8, `names` n texts, `probabilities` is (n, C). `heading` has
    two lines.
    """
    from matplotlib.patches import Rectangle

    side, line, room = 1.75, 0.34, 0.24
    rows = min(top, len(classes), 4)
    left = 2 * side + 0.28
    width = WIDTH - left - 0.08
    above = heading_height(heading) + 0.2
    figure, axes = sheet(above + len(images) * (side + room))
    write_heading(figure, heading)
    bar = (side + 0.42, side + 1.02)  # between its words, above the heat maps
    axes.imshow(heat.legend(), extent=(*bar, above - 0.03, above - 0.15), aspect="auto")
    write_text(axes, bar[0] - 0.05, above - 0.09, "low", 8, ha="right", color=GREY)
    write_text(axes, bar[1] + 0.05, above - 0.09, "high influence", 8, color=GREY)
    for i, (image, overlaid, row) in enumerate(zip(images, overlays, probabilities, strict=True)):
        y = above + i * (side + room) + 0.06
        _draw_image(axes, image, 0.06, y, side)
        _draw_image(axes, overlaid, side + 0.12, y, side)
        write_text(axes, left, y + 0.12, fit(names[i], width, 9.5), 9.5, color=GREY)
        for k, index in enumerate(np.argsort(-row, kind="stable")[:rows]):
            y_bar = y + 0.32 + k * line
            share, font = float(row[index]), ({"weight": "bold"} if k == 0 else {})
            axes.add_patch(Rectangle((left, y_bar), width, line - 0.06, color="#f2f4f7", linewidth=0))
            tint = BLUE if k == 0 else GREY
            axes.add_patch(Rectangle((left, y_bar), width * share, line - 0.06, color=tint, alpha=0.28, linewidth=0))
            middle = y_bar + (line - 0.06) / 2
            write_text(axes, left + 0.07, middle, fit(classes[index], width - 0.7, 10 * BOLD), 10, **font)
            write_text(axes, left + width - 0.07, middle, _whole_percent(share), 10, ha="right", **font)
    return figure


def _only_epoch(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the accuracy and the loss of a training with one epoch as bars with their values."""
    from matplotlib.figure import Figure

    column = functools.partial(history_column, history)
    figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.12)  # type: ignore[union-attr, call-arg]
    panels = (("accuracy", "Accuracy (%)", 100.0, "{:.1f} %"), ("loss", "Loss (cross entropy, nats)", 1.0, "{:.3g}"))
    for axes, (key, title, scale, form) in zip(figure.subplots(1, 2), panels, strict=True):
        values = [scale * float(column(name)[0]) for name in (f"val_{key}", key)]
        known = [value for value in values if math.isfinite(value)]
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 100 if key == "accuracy" else 1.25 * max([*known, 1e-9]))
        axes.set_yticks([0, 1], ["validation", "training"])
        axes.set_ylim(-0.6, 1.6)
        axes.set_xlabel(title)
        for place, (value, colour) in enumerate(zip(values, (BLUE, ORANGE), strict=True)):
            if math.isfinite(value):
                axes.barh(place, value, 0.62, color=colour)
                inside = value > 0.6 * axes.get_xlim()[1]
                axes.annotate(
                    form.format(value), (value, place), xytext=(-6 if inside else 6, 0), textcoords="offset points",
                    ha="right" if inside else "left", va="center", fontweight="bold", color="white" if inside else INK,
                )  # fmt: skip
    write_heading_above(
        figure, _curves_finding(np.array([history[0]["epoch"]]), column("accuracy"), column("val_accuracy"))
    )
    return figure


def _curves_finding(epochs: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> tuple[str, str]:
    """Return the finding of the curves, in two lines."""
    if not len(epochs):
        return "No epoch has finished yet", ""
    last = int(epochs[-1])
    if not np.isfinite(held_out).any():
        done = training[np.isfinite(training)]
        accuracy = percent(float(done[-1])) if len(done) else "unknown"
        return (
            f"Training accuracy: {accuracy} after {count(last, 'epoch')}",
            "no validation images were held out",
        )
    at = int(np.nanargmax(held_out))
    first = f"Best validation accuracy: {percent(float(held_out[at]))}, in epoch {epochs[at]:.0f} of {last}"
    if not np.isfinite(training[at]):
        return first, ""
    gap = 100 * (training[at] - held_out[at])
    word = "above" if gap > 0 else "below"
    share = percent(float(training[at]))
    return first, f"training accuracy in the same epoch: {share}, {abs(gap):.1f} points {word} validation"


def _confusion_finding(counts: np.ndarray, classes: Sequence[str]) -> tuple[str, str]:
    """Return the finding of a confusion matrix, in two lines."""
    n, correct = int(counts.sum()), int(np.trace(counts))
    if not n:
        return "No images", ""
    low, high = share_interval(correct, n)
    interval = f"95 %: {percent_number(low)} to {percent_number(high)}"
    first = f"{percent(correct / n)} of {count(n, 'image')} correct ({interval})"
    wrong = counts - np.diag(np.diag(counts))
    if not wrong.any():
        return first, "no mistakes"
    true, guess = np.unravel_index(wrong.argmax(), wrong.shape)
    support = int(counts[true].sum())
    return first, (
        f"most often: {fit(classes[true], 1.4, 10)} taken for {fit(classes[guess], 1.4, 10)}, "
        f"{wrong[true, guess]:,} of {support:,} ({percent(int(wrong[true, guess]) / support)})"
    )


def _draw_image(axes: Axes, image: np.ndarray, x: float, y: float, side: float) -> None:
    """Draw an image centred in a square with its corner at (x, y), keeping its proportions."""
    high, wide = image.shape[:2]
    w, h = side * wide / max(high, wide), side * high / max(high, wide)
    x, y = x + (side - w) / 2, y + (side - h) / 2
    axes.imshow(image, extent=(x, x + w, y + h, y), aspect="auto")


def _whole_percent(share: float) -> str:
    """Return a share in whole percent, without rounding to 0 % or 100 %."""
    if 0 < share < 0.005:
        return "<1 %"
    return ">99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"
