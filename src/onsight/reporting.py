"""report(run) -> report.html: one file that tells the whole truth about a run, and verdict(run): its first lines.

Both read the run folder and nothing else, and work in every state of a run: before the first epoch, while it trains,
trained, evaluated. The page needs no script and asks nothing of any network.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from .errors import RunError
from .files import write_atomic
from .metrics import percent, percent_number, wilson
from .runs import Run

TEMPLATES = Path(__file__).parent / "templates"
# The pictures that `evaluate` leaves beside its figures: file, heading, what to see in it.
CONFUSION = ("confusion.png", "Which classes it confuses", "Rows are what the pictures show, columns what it said.")
PICTURES = (
    ("mistakes.png", "Mistakes", "Wrong answers, with what it thought likely. Some may be wrong labels: look closely."),
    ("predictions.png", "Predictions", "Answers on pictures it never trained on, with the likeliest classes."),
    ("samples.png", "Sample pictures", "What the pictures look like, with their labels."),
)
CIFAR10_FACTS = (
    "One human annotator gets 95.24 % right, the majority of about 51 people 99.21 % (CIFAR-10H).",
    "3.25 % of the test pictures have a near-duplicate in the training set (ciFAIR-10).",
    "54 of the 10,000 test labels are wrong (label-errors).",
    "With 10,000 pictures and an accuracy of about 95 %, the 95 % interval is ±0.43 points.",
)
FOLDED = 25  # a table longer than this shows its first rows and folds the rest away


def report(folder: Path | str | Run) -> Path:
    """Write `report.html` into a run and return its path.

    It is made again each time, from what the run holds by then. Raises RunError when the folder is no run or one of
    its files is damaged.
    """
    run = folder if isinstance(folder, Run) else Run(folder)
    page = _template().render(_page(run))
    path = run.folder / "report.html"
    write_atomic(path, page.encode("utf-8", "replace"))  # a name that is no Unicode is shown with "?"
    return path


def verdict(folder: Path | str | Run, evaluation: str | None = None) -> list[str]:
    """Return what is to be said about a run, in plain sentences, the last with the command to go on with.

    `evaluation` is the folder's name below `evaluations/`; by default `test`, or whichever there is. The sentences are
    safe to print: class names in them hold no control characters. Raises RunError as `report` does.
    """
    run = folder if isinstance(folder, Run) else Run(folder)
    evaluations = _evaluations(run)
    chosen = evaluation or next(iter(evaluations), None)
    if evaluation is not None and evaluation not in evaluations:
        known = ", ".join(evaluations) or "none"
        raise RunError(f"{run.folder} has no evaluation '{evaluation}'. It has: {known}.")
    history = _history(run)
    metrics = evaluations[chosen] if chosen else None
    sentences = _sentences(run, history, metrics, chosen)
    advice, command = _next_step(run, history, metrics)
    return [*sentences, f"{advice}: {command}"]


def train_command(run: Run, **changes: Any) -> str:
    """Return the command that repeats a run, with other settings where `changes` names some."""
    return command_for({"data": run.spec.get("data", ""), **run.record.get("asked", {}), **changes})


def command_for(asked: dict[str, Any]) -> str:
    """Return the command that trains what was `asked`: a part of a spec, with `data`."""
    words = ["onsight", "train", str(asked["data"])]
    for key, value in asked.items():
        if key == "data":
            continue
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return _plain(shlex.join(words))


def _sentences(run: Run, history: list[dict[str, Any]], metrics: dict[str, Any] | None, name: str | None) -> list[str]:
    """Return the findings of `verdict`, without the next step."""
    sentences = []
    if metrics is None:
        sentences.append(_state(run, history))
    else:
        low, high = metrics["accuracy_interval"]
        what = "test pictures" if name == "test" else f"pictures in '{_short(name or '')}'"
        sentences += [
            f"{percent(metrics['accuracy'])} of {metrics['n']:,} {what} right "
            f"(95 %: {percent_number(low)} to {percent_number(high)}). Data: {_plain(str(metrics.get('provenance')))}.",
            _confusions(metrics),
            _weakest(metrics),
            _trust(metrics),
        ]
    sentences.append(_over_fitting(run, history))
    if name == "test" and (uses := len(_lines(run.folder / "test_uses.jsonl"))) > 1:
        sentences.append(
            f"The test set was opened {_times(uses)} for this run: choices made in between flatter the figure."
        )
    return [sentence for sentence in sentences if sentence]


def _state(run: Run, history: list[dict[str, Any]]) -> str:
    """Say how far a run without an evaluation is."""
    epochs = run.spec.get("epochs")
    done = int(history[-1]["epoch"]) if history else 0
    known = [row for row in history if row.get("val_accuracy") is not None]
    held_out = (run.model_epoch(known) or {}).get("val_accuracy")
    so_far = "" if held_out is None else f" On validation pictures {percent(held_out)} right."
    if run.is_trained:
        return f"Trained for {_count(done, 'epoch')}, not evaluated yet: how good it is, nobody knows.{so_far}"
    return f"Training has not finished: {done:,} of {epochs} epochs.{so_far}"


def _confusions(metrics: dict[str, Any]) -> str:
    """Say which two classes are taken for each other most often."""
    counts = np.asarray(metrics["confusion"])
    wrong = counts - np.diag(np.diag(counts))
    if not wrong.any():
        return "No mistakes."
    both = np.triu(wrong + wrong.T)
    i, j = (int(index) for index in np.unravel_index(both.argmax(), both.shape))
    if wrong[i, j] < wrong[j, i]:
        i, j = j, i
    a, b = (_short(metrics["per_class"][index]["class"]) for index in (i, j))
    share = f", {percent(int(both.max()) / int(wrong.sum()))} of all mistakes" if len(counts) > 2 else ""
    return (
        f"Most often confused: {a} and {b} ({a} taken for {b} {_times(int(wrong[i, j]))}, "
        f"{b} for {a} {_times(int(wrong[j, i]))}){share}."
    )


def _weakest(metrics: dict[str, Any]) -> str:
    """Say which class is recognised least."""
    seen = [row for row in metrics["per_class"] if row["recall"] is not None]
    if len(seen) < 2 or metrics["correct"] == metrics["n"]:
        return ""
    row = min(seen, key=lambda row: row["recall"])
    low, high = row["recall_interval"]
    return (
        f"Weakest class: {_short(row['class'])}, {percent(row['recall'])} of {row['support']:,} recognised "
        f"(95 %: {percent_number(low)} to {percent_number(high)})."
    )


def _trust(metrics: dict[str, Any]) -> str:
    """Say whether the probabilities can be believed: mean probability against accuracy, and ECE."""
    sure, right, (low, high) = metrics["confidence"], metrics["accuracy"], metrics["accuracy_interval"]
    error = f"expected calibration error {100 * metrics['ece']:.1f} points"
    facts = f"{percent(sure)} sure on average, {percent(right)} right; {error}"
    if sure > high:
        return f"Over-confident: {facts}."
    if sure < low:
        return f"Under-confident: {facts}."
    if metrics["ece"] > 0.05 and metrics["n"] >= 1000:
        return f"Confident in the wrong places: {facts}."
    few = "" if metrics["n"] >= 1000 else f", as far as {_count(metrics['n'], 'picture')} can tell"
    return f"Neither over- nor under-confident{few}: {facts}."


def _gap(run: Run, history: list[dict[str, Any]]) -> tuple[float, float, float] | None:
    """Return training accuracy, validation accuracy and the latter's 95 % half-width, of the model's epoch."""
    row = run.model_epoch(history)
    if row is None or row.get("accuracy") is None or row.get("val_accuracy") is None:
        return None
    n = sum((run.dataset.get("counts", {}).get("validation") or {}).values())
    low, high = wilson(round(row["val_accuracy"] * n), n)
    return row["accuracy"], row["val_accuracy"], (high - low) / 2


def _over_fitting(run: Run, history: list[dict[str, Any]]) -> str:
    """Say whether the run learned its training pictures by heart."""
    if not history:
        return ""
    gap = _gap(run, history)
    if gap is None:
        return "No validation pictures were held out: over-fitting cannot be told." if not _validated(history) else ""
    training, held_out, noise = gap
    points = 100 * (training - held_out)
    altered = run.spec.get("augmentation", "none") != "none"
    harder = " (on altered pictures, which is harder)" if altered else ""
    facts = f"{percent(training)} right in training{harder}, {percent(held_out)} in validation"
    if points >= 10 and points > 100 * noise:
        text = f"Over-fitted: {facts}."
    elif points >= 4 and points > 100 * noise:
        text = f"Somewhat over-fitted: {facts}."
    else:
        text = f"No sign of over-fitting: {facts}."
    losses = [row["val_loss"] for row in history if row.get("val_loss") is not None]
    if losses and losses[-1] > 1.1 * min(losses) and not run.spec.get("patience"):
        since = min(history, key=lambda row: math.inf if row.get("val_loss") is None else row["val_loss"])["epoch"]
        text += f" Validation loss has risen since epoch {since}: --patience 5 keeps that epoch's weights."
    return text


def _validated(history: list[dict[str, Any]]) -> bool:
    return any(row.get("val_accuracy") is not None for row in history)


def _next_step(run: Run, history: list[dict[str, Any]], metrics: dict[str, Any] | None) -> tuple[str, str]:
    """Return what to do next, and the exact command."""
    place = _place(run)
    if not run.is_trained:
        return "If it was stopped, go on with", f"onsight train --resume {place}"
    if metrics is None:
        return "Next, score it on the test set", f"onsight evaluate {place}"
    if run.spec.get("preset") == "quick":
        return "Next, train longer than the quick preset does", train_command(run, preset="balanced", epochs=None)
    gap = _gap(run, history)
    if gap is not None and gap[0] - gap[1] >= max(0.1, gap[2]):
        if run.spec.get("augmentation") == "none":
            return "Next, train on altered pictures too", train_command(run, augmentation="shift")
        if not run.spec.get("weight_decay"):
            return "Next, add pictures, or hold the weights back", train_command(run, weight_decay=5e-4)
    best = max(history, key=lambda row: row.get("val_accuracy") or 0.0, default=None)
    if gap is not None and gap[0] - gap[1] < 0.04 and best is history[-1] and gap[1] < 0.99:
        return "Next, train longer, as it was still improving", train_command(run, epochs=2 * len(history))
    return "Next, try it on a picture of yours", f"onsight predict {place} picture.jpg"


def _place(run: Run) -> str:
    """Return how a command names the run: below `runs/`, never with the writer's own folders."""
    name = run.folder.resolve()
    return _plain(shlex.quote(f"runs/{name.name}" if name.parent.name == "runs" else name.name))


# The page ------------------------------------------------------------------------------------------------------------


def _page(run: Run) -> dict[str, Any]:
    """Return everything that the template shows."""
    history = _history(run)
    evaluations = _evaluations(run)
    first = next(iter(evaluations), None)
    metrics = evaluations[first] if first else None
    sentences, lead = _sentences(run, history, metrics, first), ""
    if metrics:  # the page sets the accuracy large and the rest of its sentence beside it
        lead = sentences.pop(0).removeprefix(percent(metrics["accuracy"])).strip()
    advice, command = _next_step(run, history, metrics)
    spec, asked = run.spec, run.record.get("asked", {})
    reasons = run.record.get("reasons", {})
    model = _json(run.model_folder / "model.json")
    return {
        "run": run,
        "state": "evaluated" if metrics else "trained" if run.is_trained else "training",
        "progress": f"{history[-1]['epoch'] if history else 0} of {spec.get('epochs')}",
        "lead": lead,
        "sentences": sentences,
        "advice": advice,
        "command": command,
        "repeat": train_command(run),
        "curves": _curves(run, history),
        "training_time": _training_time(history),
        "evaluations": [_evaluation(run, name, each) for name, each in evaluations.items()],
        "uses": _lines(run.folder / "test_uses.jsonl"),
        "counts": _counts(run.dataset),
        "model": model,
        "recipe": [
            (key, _value(value), reasons.get(key) or ("asked for" if key in asked else "default"))
            for key, value in spec.items()
            if value is not None
        ],
        "environment": {key.replace("_", " "): value for key, value in run.record.get("environment", {}).items()},
        "folded": FOLDED,
        "made": datetime.now().astimezone().isoformat(timespec="minutes"),
    }


def _evaluation(run: Run, name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return one evaluation for the template."""
    folder = run.evaluation_folder(name)
    provenance = str(metrics.get("provenance", ""))
    rows = sorted(metrics["per_class"], key=lambda row: 2.0 if row["recall"] is None else row["recall"])
    return {
        "name": name,
        "metrics": metrics,
        "provenance": provenance,
        "low": metrics["accuracy_interval"][0],
        "high": metrics["accuracy_interval"][1],
        # CIFAR-100 and CIFAR-10-C begin with the same letters.
        "facts": CIFAR10_FACTS if re.match(r"official CIFAR-10(?![\d-])", provenance) else (),
        "numbers": _numbers(metrics),
        "confusion": _figure(folder, *CONFUSION),
        "pictures": [figure for each in PICTURES if (figure := _figure(folder, *each))],
        "per_class": rows,
        "trust": _trust(metrics),
    }


def _numbers(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and one line of explanation of every single figure."""
    low, high = metrics["accuracy_interval"]
    interval = f"95 % interval {percent_number(low)} to {percent_number(high)}"
    numbers = [
        ("accuracy", percent(metrics["accuracy"]), f"{metrics['correct']:,} of {metrics['n']:,} right; {interval}")
    ]
    if top := metrics.get("top_k"):
        numbers.append(
            (f"top-{top['k']} accuracy", percent(top["accuracy"]), f"true class among the {top['k']} likeliest")
        )
    numbers.append(("macro F1", f"{metrics['macro_f1']:.3f}", "mean over the classes, each counting the same"))
    if metrics.get("roc_auc") is not None:
        positive = f"'{_short(metrics['per_class'][1]['class'])}'"
        numbers += [
            (
                "ROC area",
                f"{metrics['roc_auc']:.3f}",
                f"chance that a picture of {positive} ranks above one of the other",
            ),
            ("precision-recall area", f"{metrics['average_precision']:.3f}", f"average precision of {positive}"),
        ]
    return [
        *numbers,
        ("loss", f"{metrics['loss']:.3f}", "cross entropy, nats; 0 is perfect"),
        ("Brier score", f"{metrics['brier']:.3f}", "squared error, summed over classes; 0 to 2"),
        ("calibration error", f"{100 * metrics['ece']:.1f} points", "ECE, top label, 15 equal-width bins"),
    ]


def _figure(folder: Path, name: str, heading: str, caption: str) -> dict[str, str] | None:
    """Return a PNG file as the template shows it, None where there is none."""
    with contextlib.suppress(OSError):
        content = (folder / name).read_bytes()
        if content.startswith(b"\x89PNG\r\n\x1a\n"):  # a run may come by mail, with anything under that name
            return {"heading": heading, "caption": caption, "source": _data_uri(content)}
    return None


def _curves(run: Run, history: list[dict[str, Any]]) -> dict[str, str] | None:
    """Return the learning curves: the run's own, or drawn now while it has none that is complete."""
    heading, caption = "Learning curves", "Accuracy and loss after each epoch, on training and on validation pictures."
    kept = _figure(run.folder, "curves.png", heading, caption) if run.is_trained else None
    if kept or not history:
        return kept
    from . import figures

    return {"heading": heading, "caption": caption, "source": _data_uri(figures.encode(figures.curves(history)))}


def _data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _counts(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return the pictures of each class and part, and their totals."""
    parts = dataset.get("counts") or {}
    rows = [(name, [part.get(name, 0) for part in parts.values()]) for name in dataset["classes"]]
    totals = [sum(column) for column in zip(*(numbers for _, numbers in rows), strict=True)]
    return {"parts": list(parts), "rows": rows, "totals": totals}


def _training_time(history: list[dict[str, Any]]) -> str:
    """Return how long training took and how fast it was, empty if nobody measured."""
    seconds = sum(row.get("seconds") or 0 for row in history)
    if not seconds:
        return ""
    amount = (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
    speeds = sorted(row["images_per_second"] for row in history if row.get("images_per_second"))
    speed = f", {speeds[len(speeds) // 2]:,.0f} pictures a second" if speeds else ""
    return f"{_count(len(history), 'epoch')} in {amount}{speed}"


def _template() -> Any:
    """Return the page's template: everything that it shows is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda share: _unbroken(percent(share)),
        "unbroken": _unbroken,
        "width": lambda share: f"{100 * min(1.0, max(0.0, float(share))):.2f}",
        "times": _times,
        "name": _short,
        "shape": _shape,
        "time": _time,
    }
    return environment.get_template("report.html.j2")


def _unbroken(text: str) -> str:
    """Return `text` with its percent signs tied to their numbers."""
    return text.replace(" %", "\u00a0%")


def _shape(sizes: Any) -> str:
    """Return a layer's output shape as text, without the batch: 32 × 32 × 16."""
    if not isinstance(sizes, list):
        return str(sizes)
    return " × ".join(str(size) for size in (sizes[1:] if sizes and sizes[0] is None else sizes))


def _time(text: Any) -> str:
    """Return an ISO time to the minute; what is none, as it is."""
    with contextlib.suppress(ValueError):
        return f"{datetime.fromisoformat(str(text)):%Y-%m-%d %H:%M %Z}".strip()
    return str(text)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


# What the folder holds -----------------------------------------------------------------------------------------------


def _evaluations(run: Run) -> dict[str, dict[str, Any]]:
    """Return every finished evaluation's metrics by name, `test` first."""
    folders = sorted(run.evaluation_folder().parent.glob("*/metrics.json"), key=lambda path: path.parent.name)
    found = {path.parent.name: _json(path) for path in folders}
    for name, metrics in found.items():
        if not isinstance(metrics, dict) or "accuracy" not in metrics:
            raise RunError(
                f"{run.evaluation_folder(name) / 'metrics.json'} is damaged. Mend it: onsight evaluate {_place(run)}"
            )
    return {name: metrics for name, metrics in sorted(found.items(), key=lambda item: item[0] != "test") if metrics}


def _history(run: Run) -> list[dict[str, Any]]:
    """Return the epochs in order; of one that was repeated after a crash, the last. Not-finite figures become None."""
    rows = {}
    for line in _lines(run.folder / "history.jsonl"):
        if line.get("event") == "epoch" and isinstance(line.get("epoch"), int):
            rows[line["epoch"]] = {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in line.items()
            }
    return [rows[epoch] for epoch in sorted(rows)]


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file; a line that a crash tore is left out."""
    lines = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError, RecursionError):
                value = json.loads(line)
                if isinstance(value, dict):
                    lines.append(value)
    return lines


def _json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, None where there is no file."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError:
        return None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}.") from None
    return value if isinstance(value, dict) else None


def _plain(text: str) -> str:
    """Return `text` without what a terminal would obey: escapes, newlines, marks that turn the reading direction."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _short(name: str) -> str:
    text = _plain(str(name))
    return text if len(text) <= 40 else text[:39] + "…"


def _times(n: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(n, f"{n:,} times")


def _count(n: int, one: str) -> str:
    return f"{n:,} {one}{'' if n == 1 else 's'}"
