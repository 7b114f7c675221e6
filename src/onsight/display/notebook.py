"""The HTML that a notebook shows for a run, an evaluation, predictions and other results, and for a running training.

All names come from strangers and are escaped. Jupyter sanitises the output of a notebook that somebody else ran: it
removes style sheets and inline SVG, but keeps tables and embedded images. Charts are therefore embedded as images,
which cannot follow the colours of the page. Their colours are readable on both light and dark pages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from markupsafe import Markup, escape

from onsight.core.errors import ImageError
from onsight.core.evaluation_records import Metrics
from onsight.core.records import CheckRecord, DatasetRecord, Item
from onsight.core.text import columns, count, duration, epoch_line, interval, note_line, percent, plain, short
from onsight.display import svg
from onsight.display.page import data_uri
from onsight.imaging import decode
from onsight.imaging.decode import ImageSource
from onsight.imaging.fit import Fit
from onsight.metrics.scores import mistaken


class ShownRun(Protocol):
    """The parts of a `Run` that are shown."""

    spec: dict[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """The name of the folder."""

    @property
    def dataset(self) -> DatasetRecord:
        """The content of dataset.json."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""

    @property
    def is_trained(self) -> bool:
        """Whether training has finished."""

    def history(self) -> list[dict[str, Any]]:
        """Return one dict per epoch."""

    def model_epoch(self, history: list[dict[str, Any]] | None = None) -> dict[str, Any] | None:
        """Return the epoch whose weights the model has."""


class ShownPrediction(Protocol):
    """The parts of a `Prediction` that are shown."""

    @property
    def source(self) -> str:
        """The path of the image."""

    @property
    def top(self) -> Sequence[tuple[str, float]]:
        """The likeliest classes with their probabilities."""

    @property
    def doubt(self) -> str:
        """Why the answer is unsure, in words; an empty string if it is not."""

    @property
    def fit(self) -> Fit:
        """How the model saw the image: its centre square, or all of it."""

    @property
    def error(self) -> str | None:
        """Why the image could not be read."""


ACCENT, GREY = "#2a86c7", "#757a80"  # a contrast of at least 3.9:1 on white and on black

CHART = (
    f"text{{font:12px system-ui,sans-serif;fill:{GREY}}}.grid{{stroke:{GREY};stroke-opacity:.3}}"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    f".first{{stroke:{ACCENT}}}.second{{stroke:{GREY};stroke-dasharray:4 4}}.dot{{stroke:none;fill:{GREY}}}"
    f".dot.first{{fill:{ACCENT}}}.ring{{fill:none;stroke:{ACCENT};stroke-width:1.75}}"
    f".told{{font-weight:700;fill:{ACCENT}}}.middle{{text-anchor:middle}}.end{{text-anchor:end}}"
)

ROWS = 20  # shown of a table
EPOCHS = 5  # the latest ones, shown in the table of a training
THUMBNAIL = 64  # pixels per side

# Results -------------------------------------------------------------------------------------------------------------


def run(run: ShownRun, evaluations: Mapping[str, Metrics]) -> str:
    """Return a run: its model and data, its progress, its accuracies and its curves."""
    history = run.history()
    epoch = run.model_epoch(history) or {}
    state = f"{'trained, ' if run.is_trained else 'not finished: '}{count(len(history), 'epoch')}"
    rows: list[tuple[str, Any]] = [
        ("model", f"{run.spec.get('model')} on {short(run.dataset['name'])}, {len(run.classes):,} classes"),
        ("state", state),
    ]
    if epoch.get("val_accuracy") is not None:
        rows.append(("validation", f"{percent(epoch['val_accuracy'])} correct"))
    for name, found in evaluations.items():
        facts = f"{interval(found['accuracy_interval'])}; n = {found['n']:,}"
        rows.append((short(name), f"{percent(found['accuracy'])} correct ({facts})"))
    if seconds := sum(row.get("seconds") or 0 for row in history):
        rows.append(("training", duration(seconds)))
    if not os.path.isabs(run.folder):  # an absolute path would show the user's name to every reader
        rows.append(("folder", plain(str(run.folder))))
    return _joined(_heading(short(run.name)), _facts(rows), training_curves(history))


def evaluation(metrics: Metrics, doubts: Sequence[str] = ()) -> str:
    """Return an evaluation: the accuracy with its interval, other scores, and the classes, weakest first.

    `doubts` are sentences about what the accuracy does not show.
    """
    head = Markup('<p><b style="font-size:1.7em;color:{}">{}</b> of {} correct ({}). Data: {}.</p>').format(
        ACCENT,
        percent(metrics["accuracy"]),
        count(metrics["n"], "image"),
        interval(metrics["accuracy_interval"]),
        short(metrics.get("provenance"), 200),
    )
    said = Markup("").join(Markup("<p><b>{}</b></p>").format(plain(each)) for each in doubts)
    scores = Markup("<p>{}</p>").format(
        f"macro F1 {metrics['macro_f1']:.3f} · loss {metrics['loss']:.3f} · calibration error "
        f"{100 * metrics['ece']:.1f} points · mean confidence {percent(metrics['confidence'])}"
    )
    true, predicted, wrong = mistaken(metrics)
    taken_for: dict[int, tuple[int, int]] = {}  # class -> the class that it is most often taken for, and how often
    for i, j, n in np.stack([true, predicted, wrong], axis=1)[np.argsort(-wrong, kind="stable")].tolist():
        taken_for.setdefault(i, (j, n))
    classes = [row["class"] for row in metrics["per_class"]]
    order = sorted(
        range(len(classes)), key=lambda i: 2.0 if (share := metrics["per_class"][i]["recall"]) is None else share
    )
    rows = []
    for i in order:
        row = metrics["per_class"][i]
        most, n = taken_for.get(i, (0, 0))
        taken = f"{short(classes[most], 24)} ({n:,})" if n else "–"
        f1 = "–" if row["f1"] is None else f"{row['f1']:.3f}"
        meter = "" if row["recall"] is None else _meter(row["recall"])
        cells = short(row["class"], 24), f"{row['support']:,}", meter, percent(row["recall"]), percent(row["precision"])
        rows.append((*cells, f1, taken))
    titles = "class", "images", "", "recognised", "precision", "F1", "most often taken for"
    return _joined(head, said, scores, _table(titles, rows, "classes; metrics.json has them all"))


def prediction(found: ShownPrediction) -> str:
    """Return one prediction, with its image if that is a file which still exists."""
    return predictions([found], [found.source if os.path.exists(found.source) else None])


def predictions(found: Sequence[ShownPrediction], images: Sequence[ImageSource | None]) -> str:
    """Return one row per prediction, with its image; predictions beyond the number of `images` are only counted."""
    rows = []
    for each, image in zip(found, images, strict=False):
        name = short(os.path.basename(each.source) or each.source, 32)
        if each.error:
            rows.append(("", name, "", Markup("<i>unreadable: {}</i>").format(short(each.error, 200)), ""))
            continue
        (label, share), *others = each.top
        doubt = f" ({short(each.doubt, 60)})" if each.doubt else ""
        answer = Markup("<b>{}</b> {}{}").format(short(label, 24), percent(share), doubt)
        further = ", ".join(f"{short(other, 24)} {percent(p)}" for other, p in others)
        rows.append((_thumbnail(image, fit=each.fit), name, _meter(share), answer, further))
    more = len(found) - len(rows)
    note = Markup("<p>and {} more</p>").format(f"{more:,}") if more > 0 else ""
    return _joined(_table(("", "image", "", "answer", "then"), rows), note)


def comparison(verdict: str, tables: Sequence[Sequence[Sequence[str]]], notes: Sequence[str]) -> str:
    """Return a comparison: its verdict, the tables of runs and of pairs (a heading row first), and the notes."""
    runs, pairs = tables
    items = Markup("").join(Markup("<li>{}</li>").format(plain(note)) for note in notes)
    return _joined(
        Markup("<p><b>{}</b></p>").format(plain(verdict)),
        _table(runs[0], runs[1:], "runs"),
        _table(pairs[0], pairs[1:], "pairs"),
        Markup("<details><summary>How to read this</summary><ul>{}</ul></details>").format(items) if items else "",
    )


def exports(cells: Sequence[Sequence[str]], sentences: Sequence[str]) -> str:
    """Return the table of exported files, whose first row is the heading, and sentences about them."""
    paragraphs = (Markup("<p>{}</p>").format(plain(sentence)) for sentence in sentences)
    return _joined(_table(cells[0], cells[1:], "files"), *paragraphs)


def study(sentences: Sequence[str], rows: Sequence[Sequence[str]], command: str) -> str:
    """Return a study: its verdict, the trials (a heading row first), and the command that repeats the winner."""
    head, *others = (Markup("<p>{}</p>").format(plain(sentence)) for sentence in sentences)
    again = Markup("<p>The winner again: <code>{}</code></p>").format(plain(command)) if command else ""
    return _joined(Markup("<b>{}</b>").format(head), *others, again, _table(rows[0], rows[1:], "trials"))


def rate_test(sentence: str, plot: Path | None, command: str) -> str:
    """Return a range test: its suggestion, its plot, and the command that trains with it."""
    drawn = (
        Markup('<img style="max-width:100%" alt="" src="{}">').format(data_uri("image/png", plot.read_bytes()))
        if plot
        else ""
    )
    again = Markup("<p>Train with it: <code>{}</code></p>").format(plain(command)) if command else ""
    return _joined(_heading(sentence), drawn, again)


def check(record: CheckRecord) -> str:
    """Return a check: the number of findings, and each finding with an example and what to do."""
    counts, rows = record["counts"], []
    for each in record["findings"]:
        item = next(iter(each["items"]), Item(pictures=[], note=""))
        example = " and ".join(short(name, 60) for name in item["pictures"]) or short(item["note"], 60)
        rows.append((each["severity"], plain(each["text"]), example, plain(each["advice"])))
    found = ", ".join(count(counts[f"{severity}s"], severity) for severity in ("error", "warning", "note"))
    images, classes = count(counts["pictures"], "image"), count(counts["classes"], "class", "classes")
    head = f"{short(record['name'])}: {images} in {classes}; {found}"
    table = _table(("", "finding", "for example", "what to do"), rows, "findings") if rows else "Nothing was found."
    return _joined(Markup("<p><b>{}</b></p>").format(head), table)


def dataset(
    name: str,
    classes: Sequence[str],
    labels: np.ndarray,
    parts: np.ndarray,
    provenance: str,
    image: Callable[[int], ImageSource | None],
) -> str:
    """Return a data set: its classes with some images of each, and the number of images in each part.

    `labels` (n,) int and `parts` (n,) str are those of the data set. `image` returns the image at an index, or None if
    it cannot be read.
    """
    present = [part for part in ("train", "validation", "test", "") if part in set(parts.tolist())]
    rows = []
    for label, class_name in enumerate(classes[:ROWS]):
        members = np.flatnonzero(labels == label)
        numbers = [f"{np.count_nonzero(parts[members] == part):,}" for part in present]
        drawn = Markup("").join(_thumbnail(image(i), 48) for i in members[:3].tolist())
        rows.append((drawn, short(class_name), *numbers))
    more = f"and {len(classes) - ROWS:,} more classes. " if len(classes) > ROWS else ""
    head = Markup("<p><b>{}</b>: {}, {} classes. {}.</p>").format(
        short(name), count(len(labels), "image"), f"{len(classes):,}", plain(provenance)
    )
    titles = "", "class", *(part or "not split yet" for part in present)
    return _joined(head, _table(titles, rows), Markup("<p>{}</p>").format(more) if more else "")


# A running training --------------------------------------------------------------------------------------------------


def work(
    bar: tuple[str, int, int | None] | None,
    text: str,
    history: Sequence[Mapping[str, Any]],
    notes: Sequence[tuple[str, str]],
    ended: bool = False,
    trials: Sequence[Sequence[str]] = (),
) -> str:
    """Return the progress of a command: a progress bar with a text, curves, a table of epochs, and notes.

    Args:
        bar: what is being done, the number of finished items, and their total or None; no bar if `bar` is None.
        text: the text next to the bar.
        history: lines of history.jsonl, plus `epochs` in each.
        notes: pairs of a label and a text. The list is open until the first epoch has finished or the command has
            ended, and folded afterwards. Errors and warnings stay visible.
        ended: whether the command has ended.
        trials: a table of trials, a heading row first.
    """
    head = Markup("")
    if bar is not None:
        what, done, total = bar
        value = Markup(' value="{}" max="{}"').format(done, total) if total else ""
        head = Markup("<p>{} <progress{}></progress> {}</p>").format(plain(what), value, text)
    titles = "epoch", "loss", "accuracy", "validation loss", "validation accuracy", "images per second", "time"
    rows = [
        (
            f"{row['epoch']} of {row['epochs']}",
            _figure(row["loss"]),
            percent(row["accuracy"]),
            _figure(row.get("val_loss")),
            percent(row.get("val_accuracy")),
            f"{row['images_per_second']:,.0f}",
            duration(row["seconds"]),
        )
        for row in history[-EPOCHS:]
    ]
    folded = bool(history) or ended
    problems = [f"{label} {text}" for label, text in notes if folded and label in ("error", "warning")]
    return _joined(
        head,
        training_curves(history),
        _table(titles, rows) if rows else "",
        _table(trials[0], trials[1:], "trials") if trials else "",
        *(Markup("<p>{}</p>").format(plain(" ".join(note.split()))) for note in problems),
        Markup("<details{}><summary>{}</summary><pre>{}</pre></details>").format(
            Markup("" if folded else " open"),
            "What was chosen, and why" if history else "Notes",
            "\n".join(plain(note_line(*note)) for note in notes),
        )
        if notes
        else "",
    )


def work_text(
    history: Sequence[Mapping[str, Any]], notes: Sequence[tuple[str, str]], trials: Sequence[Sequence[str]] = ()
) -> str:
    """Return the content of `work` as text, for notebooks that do not show HTML."""
    return "\n".join([*(plain(note_line(*note)) for note in notes), *map(epoch_line, history), *columns(trials)])


def training_curves(history: Sequence[Mapping[str, Any]]) -> Markup:
    """Return accuracy and loss over the epochs as two embedded images; empty before the second epoch."""
    if len(history) < 2:
        return Markup("")
    epochs = [row["epoch"] for row in history]
    drawn = Markup("")
    for key, best, title in (("accuracy", max, "Accuracy (%)"), ("loss", min, "Loss (nats)")):
        series: list[dict[str, Any]] = [
            {"name": "training", "values": [row.get(key) for row in history], "look": "second"},
            {"name": "validation", "values": [row.get(f"val_{key}") for row in history], "look": "first", "best": best},
        ]
        chart = svg.curves(epochs, series, title, percents=key == "accuracy")
        source = data_uri("image/svg+xml", svg.as_file(chart, CHART).encode())
        drawn += Markup('<img width="300" height="210" alt="{}" src="{}">').format(title, source)
    legend = Markup('Accuracy (%) and loss: <span style="color:{}">━ validation</span>, {} training').format(
        ACCENT, "┅"
    )
    return Markup("<div>{}<br><small>{}</small></div>").format(drawn, legend)


# Parts ---------------------------------------------------------------------------------------------------------------


def _joined(*parts: str) -> str:
    return str(Markup('<div style="max-width:60em">{}</div>').format(Markup("").join(map(escape, parts))))


def _heading(text: str) -> Markup:
    return Markup("<p><b>{}</b></p>").format(text)


def _facts(rows: Iterable[tuple[str, Any]]) -> Markup:
    line = Markup('<tr><td style="text-align:left">{}</td><td style="text-align:left">{}</td></tr>')
    return Markup("<table>{}</table>").format(Markup("").join(line.format(*row) for row in rows))


def _table(titles: Sequence[str], rows: Sequence[Sequence[Any]], more: str = "") -> Markup:
    """Return a table of the first 20 rows and the number of others, which `more` names; without `more`, of all rows."""
    shown = rows[:ROWS] if more else rows
    cell, head = Markup('<td style="text-align:left">{}</td>'), Markup('<th style="text-align:left">{}</th>')
    lines = [Markup("<tr>{}</tr>").format(Markup("").join(map(cell.format, row))) for row in shown]
    table = Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(
        Markup("").join(map(head.format, titles)), Markup("").join(lines)
    )
    rest = len(rows) - len(shown)
    return table + (Markup("<p>and {} more {}</p>").format(f"{rest:,}", more) if rest else Markup(""))


def _meter(share: float) -> Markup:
    return Markup('<meter min="0" max="1" value="{:.4f}"></meter>').format(share)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _thumbnail(image: ImageSource | None, side: int = THUMBNAIL, fit: Fit = "cut") -> Markup:
    """Return a small square image, cut or padded as `fit` says; empty if the image can no longer be read."""
    if image is None:
        return Markup("")
    try:
        if not isinstance(image, np.ndarray):  # an array is not enlarged: that would add bytes but no detail
            image = decode.load(image, side, fit)
        content = decode.thumbnail(image, side, fit)
    except (ImageError, OSError):
        return Markup("")
    return Markup('<img width="{0}" height="{0}" alt="" src="{1}">').format(side, data_uri("image/webp", content))
