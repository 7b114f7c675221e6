"""The content of each section of a report, read from the files of the run. No Keras is imported, no image is decoded.

A section is None if its file does not exist. A damaged file raises RunError, with how to write the file again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from onsight.core.errors import RunError
from onsight.core.evaluation_records import AugmentedAccuracy, Metrics, Robustness, Slices
from onsight.core.files import argument, read_lines
from onsight.core.records import CheckSummary, DatasetRecord, ExportTable, Finding, ModelRecord, TeacherRecord
from onsight.core.text import count, interval, note_line, percent, percent_number, plain, rough_duration, short
from onsight.display import svg
from onsight.metrics.predictions_csv import read_predictions
from onsight.metrics.scores import calibration, calibration_error, confidence_at, coverage_curve
from onsight.reporting.answers import collection, confusion, feature_map, mistakes, suspects, thumbnails
from onsight.reporting.export_table import HEADING, table_rows
from onsight.reporting.teacher_notes import teacher_notes
from onsight.reporting.verdict import noise_text
from onsight.runs.run import UNCALIBRATED, Run, read_object

CIFAR10_FACTS = (
    "One human annotator gets 95.24 % right; the majority vote of about 51 people gets 99.21 % right (CIFAR-10H).",
    "286 of the 10,000 test images (2.86 %) have a near-duplicate among the training images, and 39 pairs lie within "
    "the test set (ciFAIR-10).",
    "Five people each judged 275 suspected test labels: fewer than three confirmed 54 of them, most rejected 37, and "
    "for 18 most agreed on another class (label-errors).",
    "With 10,000 images and an accuracy of about 95 %, the 95 % interval is ±0.43 points.",
)
FOLDED = 25  # rows of a table that are shown; further rows are folded away
SLICES = 200  # shown at most


def page(run: Run, history: list[dict[str, Any]], evaluations: dict[str, Metrics]) -> dict[str, Any]:
    """Return everything that the page shows below its verdict, as variables of the template."""
    model = read_object(run.model_folder / "model.json", ModelRecord)
    checked = read_object(run.folder / "check.json", CheckSummary)
    reasons, asked = run.record.get("reasons", {}), run.record.get("asked", {})
    shown: list[dict[str, Any]] = []
    for name, metrics in evaluations.items():
        with explained_damage(run, name):
            shown.append(evaluation(run, name, metrics, model, with_images=not shown))
    return {
        "run": run,
        "model": model,
        "training_time": training_time(history),
        "curves": curves(history),
        "only_epoch": only_epoch(history),
        "fitted": is_fitted(history),
        "evaluations": shown,
        "uses": read_lines(run.folder / "test_uses.jsonl"),
        "counts": class_counts(run.dataset),
        "findings": None if checked is None else findings(run, checked),
        "searched_all": checked is not None and bool(checked.get("complete")),
        "multiply_adds": multiply_adds(model),
        "exports": exports(run),
        "exports_head": HEADING,
        "taught": taught(run),
        "recipe": [
            (key, setting(value), reasons.get(key) or ("asked for" if key in asked else "default"))
            for key, value in run.spec.items()
            if value is not None
        ]
        + [(f"phase {n}", plain(str(each)), "") for n, each in enumerate(phases(run), start=1)],
        "environment": {key.replace("_", " "): value for key, value in run.record.get("environment", {}).items()},
        "folded": FOLDED,
    }


def phases(run: Run) -> list[Any]:
    """Return the phases of a training from given weights, as in spec.json; a training from scratch shows none."""
    found = run.record.get("phases")
    return found if isinstance(found, list) and run.spec.get("weights") != "none" else []


@contextlib.contextmanager
def explained_damage(run: Run, name: str) -> Iterator[None]:
    """Turn errors from damaged files of an evaluation into a RunError that says how to write the files again."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise RunError(
            f"A file in {run.evaluation_folder(name)} is damaged ({type(error).__name__}: {plain(str(error))}). "
            f"Write it again with: onsight evaluate {argument(run.folder)}"
        ) from error


def evaluation(run: Run, name: str, metrics: Metrics, model: ModelRecord | None, with_images: bool) -> dict[str, Any]:
    """Return one evaluation. The page embeds images of the first one only (`with_images`), so that it stays small."""
    folder = run.evaluation_folder(name)
    provenance = str(metrics.get("provenance", ""))
    sprite = thumbnails(folder) if with_images else None
    sure = certainty(folder, model, "" if run.is_calibrated else UNCALIBRATED)
    found = read_object(folder / "slices.json", Slices)
    worst = mistakes(folder, run.classes) if with_images else None
    suspected = suspects(folder, sprite) if with_images else None
    return {
        "name": name,
        "metrics": metrics,
        "provenance": provenance,
        "low": metrics["accuracy_interval"][0],
        "high": metrics["accuracy_interval"][1],
        # The pattern must not match CIFAR-100 or CIFAR-10-C.
        "facts": CIFAR10_FACTS if re.match(r"official CIFAR-10(?![\d-])", provenance) else (),
        "numbers": numbers(metrics),
        "confusion": confusion(metrics, sprite),
        "sprite": sprite,
        "map": feature_map(folder, sprite, run.classes) if with_images else None,
        "per_class": sorted(metrics["per_class"], key=lambda row: 2.0 if row["recall"] is None else row["recall"]),
        "mistakes": worst,
        "suspects": suspected,
        "collection": collection(name, run.classes, worst, suspected),
        "certainty": sure,
        "robustness": robustness(folder),
        "slices": None if found is None else found["slices"][:SLICES],
        "slices_in_all": 0 if found is None else len(found["slices"]),
    }


def numbers(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Return (name, value, one line of explanation) for each score except the accuracy."""
    found = []
    top = metrics.get("top_k")
    if top and 4 * top["k"] <= len(metrics["per_class"]):  # guessing gets a quarter right at most
        found.append((f"top-{top['k']} accuracy", percent(top["accuracy"]), f"label among the {top['k']} likeliest"))
    found.append(("macro F1", f"{metrics['macro_f1']:.3f}", "mean over the classes, all with the same weight"))
    if metrics.get("roc_auc") is not None:
        positive = f"'{short(metrics['per_class'][1]['class'])}'"
        ranks = f"probability that an image of {positive} ranks above one of the other class"
        found += [
            ("ROC area", f"{metrics['roc_auc']:.3f}", ranks),
            ("precision-recall area", f"{metrics['average_precision']:.3f}", f"average precision of {positive}"),
        ]
    return [
        *found,
        ("loss", f"{metrics['loss']:.3f}", "cross entropy, nats; 0 is perfect"),
        ("Brier score", f"{metrics['brier']:.3f}", "squared error, summed over classes; 0 to 2"),
        *augmented(metrics.get("tta")),
        (
            "calibration error",
            f"{100 * metrics['ece']:.1f} points",
            f"ECE, top label, 15 equal-width bins{noise_text(metrics, '; noise alone shows ')}",
        ),
    ]


def augmented(tta: AugmentedAccuracy | None) -> list[tuple[str, str, str]]:
    """Return the accuracy with test-time augmentation as one of `numbers`, if it was measured."""
    if tta is None:
        return []
    meaning = f"{count(tta['views'], 'view')} per image; {interval(tta['accuracy_interval'])}, n = {tta['n']:,}"
    return [("with augmentation", percent(tta["accuracy"]), meaning)]


# Training ------------------------------------------------------------------------------------------------------------


def curves(history: list[dict[str, Any]]) -> list[tuple[str, Markup]] | None:
    """Return the charts of accuracy, loss and learning rate, each with its name; None before the second epoch."""
    epochs = [row["epoch"] for row in history]

    def two(key: str, best: Callable[..., Any]) -> list[dict[str, Any]]:
        return [
            {"name": "training", "values": [row.get(key) for row in history], "look": "second"},
            {"name": "validation", "values": [row.get(f"val_{key}") for row in history], "look": "first", "best": best},
        ]

    rate = [{"name": "learning rate", "values": [row.get("learning_rate") for row in history], "look": "third"}]
    drawn = [
        ("Accuracy (%)", svg.curves(epochs, two("accuracy", max), "Accuracy after each epoch", percents=True)),
        ("Loss (nats)", svg.curves(epochs, two("loss", min), "Cross entropy after each epoch")),
        ("Learning rate", svg.curves(epochs, rate, "Learning rate of each epoch")),
    ]
    return [(name, chart) for name, chart in drawn if chart] or None


def only_epoch(history: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return (name, value, explanation) of each number of a training with one epoch, of which no curve is drawn."""
    if len(history) != 1:
        return []
    row = history[0]
    known = [
        ("training accuracy", row.get("accuracy"), percent, "mean over the epoch, while the network changed"),
        ("validation accuracy", row.get("val_accuracy"), percent, "after the epoch"),
        ("training loss", row.get("loss"), "{:.3f}".format, "cross entropy, nats; 0 is perfect"),
        ("validation loss", row.get("val_loss"), "{:.3f}".format, "cross entropy, nats"),
        ("out-of-fold accuracy", row.get("out_of_fold_accuracy"), percent, "of training images, by heads without them"),
        ("learning rate", row.get("learning_rate") or None, "{:.3g}".format, "at the end of the epoch"),
    ]
    return [(name, form(value), meaning) for name, value, form, meaning in known if value is not None]


def is_fitted(history: list[dict[str, Any]]) -> bool:
    """Return whether training only fitted a head, on features computed once."""
    return len(history) == 1 and "out_of_fold_accuracy" in history[0]


def training_time(history: list[dict[str, Any]]) -> str:
    """Return how long training took and its median throughput; an empty string if the history has no times."""
    seconds = sum(row.get("seconds") or 0 for row in history)
    if not seconds:
        return ""
    if is_fitted(history):
        return f"the head fitted in {rough_duration(seconds)}"
    speeds = sorted(row["images_per_second"] for row in history if row.get("images_per_second"))
    speed = f", {speeds[len(speeds) // 2]:,.0f} images per second" if speeds else ""
    return f"{count(len(history), 'epoch')} in {rough_duration(seconds)}{speed}"


# Trust ---------------------------------------------------------------------------------------------------------------


def certainty(folder: Path, model: ModelRecord | None, uncalibrated: str) -> dict[str, Any] | None:
    """Return calibration before and after the temperature, and the coverage curve, from predictions.csv.

    `uncalibrated` says why the temperature was fitted on no images, if so.
    """
    if not (folder / "predictions.csv").exists():
        return None
    _, labels, probabilities, _ = read_predictions(folder / "predictions.csv")
    temperature = model.get("temperature", 1.0) if model else 1.0
    threshold = model.get("threshold") if model else None
    n, right = len(labels), probabilities.argmax(axis=1) == labels
    points = coverage_curve(probabilities.max(axis=1), right, 200)
    raw = calibration(confidence_at(probabilities, 1 / temperature), right)
    bins = calibration(probabilities.max(axis=1), right)
    marks = []
    for share in (1.0, 0.9, 0.8, 0.5):
        kept = [each for each in points if each["coverage"] <= share + 1e-9]
        if kept:
            marks.append((kept[-1]["coverage"], kept[-1]["accuracy"], kept[-1]["threshold"]))
    return {
        "temperature": temperature,
        "uncalibrated": uncalibrated,
        "threshold": threshold,
        "ece": calibration_error(bins),
        "ece_before": calibration_error(raw) if temperature != 1 else None,
        "reliability": svg.reliability(bins, n, "Accuracy by probability of the answer"),
        "before": svg.reliability(raw, n, "The same before the temperature") if temperature != 1 else None,
        "coverage": svg.coverage(points, "Accuracy by share of images answered", threshold),
        "marks": marks,
    }


def robustness(folder: Path) -> dict[str, Any] | None:
    """Return the content of robustness.json with one small chart per corruption, the most harmful one first."""
    found = read_object(folder / "robustness.json", Robustness)
    if found is None:
        return None
    clean = float(found["clean"])
    rows = []
    for name, values in found["corruptions"].items():
        shown = short(str(name).replace("_", " "))
        numbers = ", ".join(percent_number(value) for value in values)
        title = f"{shown}: accuracy {numbers} % at severities 1 to 5"
        rows.append((shown, float(np.mean(values)), values, svg.severities(values, clean, title)))
    return {**found, "rows": sorted(rows, key=lambda row: row[1]), "kind": str(found["worst"][0]).replace("_", " ")}


# The rest ------------------------------------------------------------------------------------------------------------


def class_counts(dataset: DatasetRecord) -> dict[str, Any]:
    """Return the number of images of each class in each part, and the totals."""
    parts = dataset.get("counts") or {}
    rows = [(name, [part.get(name, 0) for part in parts.values()]) for name in dataset["classes"]]
    totals = [sum(column) for column in zip(*(each for _, each in rows), strict=True)]
    return {"parts": list(parts), "rows": rows, "totals": totals}


def findings(run: Run, checked: CheckSummary) -> list[Finding]:
    """Return the findings of `onsight check`, errors first."""
    order = {"error": 0, "warning": 1, "note": 2}
    try:
        return sorted(checked["findings"], key=lambda each: order.get(each["severity"], 3))
    except (KeyError, TypeError) as error:
        raise RunError(f"{run.folder / 'check.json'} is damaged. Remove it: the report does not need it.") from error


def exports(run: Run) -> list[tuple[str, ...]]:
    """Return the cells of each exported file, an empty list if there is none; `HEADING` names the columns."""
    try:
        table = read_object(run.export_folder / "table.json", ExportTable)
        return [] if table is None else table_rows(table["files"])
    except (RunError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{run.folder / 'export' / 'table.json'} is damaged. Remove that folder and export again: "
            f"onsight export {argument(run.folder)} litert"
        ) from error


def taught(run: Run) -> list[str]:
    """Return how a run compares with its teacher, one line per fact; an empty list if it has no teacher."""
    try:
        found = read_object(run.folder / "teacher.json", TeacherRecord)
        return [] if found is None else [note_line(*note) for note in teacher_notes(found)]
    except (RunError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.folder / 'teacher.json'} is damaged. Remove it: the report does not need it.") from error


def multiply_adds(model: ModelRecord | None) -> int | None:
    """Return the multiply-adds of one image, or None if they are unknown."""
    counts = [layer.get("multiply_adds") for layer in model["layers"]] if model else []
    known = [each for each in counts if each is not None]
    return sum(known) if known and len(known) == len(counts) else None


def setting(value: Any) -> str:
    """Return a setting's value as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
