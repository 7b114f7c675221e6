"""MODEL_CARD.md: what a model is for, what it learned from, how good it is and where it is weak, on one page.

The page is written from the files of the run alone. It begins with the block of YAML that model hubs read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from onsight.core.evaluation_records import Metrics, Slices
from onsight.core.files import read_lines, write_atomic
from onsight.core.records import CheckSummary, ModelRecord
from onsight.core.text import count, interval, percent, plain, short, times
from onsight.data.load import DATASETS
from onsight.features.published_weights import PUBLISHED
from onsight.reporting import sections
from onsight.reporting.commands import train_command
from onsight.reporting.verdict import sentences
from onsight.runs.run import Run, read_evaluations, read_object

SHOWN = 25  # classes that a list or a table shows
WEAKEST = 5  # classes that are named as the weakest
UNKNOWN = "not recorded: ask whoever collected them"


def write_model_card(run: Run) -> None:
    """Write MODEL_CARD.md into the folder of a trained run, and into its `export/` if it has one.

    Raises:
        RunError: a file of the run is damaged.
    """
    card = model_card(run)
    for folder in (run.folder, run.folder / "export"):
        if folder.is_dir():
            write_atomic(folder / "MODEL_CARD.md", card.encode("utf-8", "replace"))


def model_card(run: Run) -> str:
    """Return the content of MODEL_CARD.md of a trained run.

    Raises:
        RunError: a file of the run is damaged.
    """
    evaluations = read_evaluations(run)
    name = next(iter(evaluations), None)
    parts = [
        front_matter(run, evaluations),
        f"# {text(run.name)}\n",
        "Onsight wrote this page from the files of the run. Shares have 95 % intervals.\n",
        f"## What it is for\n\n{purpose(run)}",
        f"## Data\n\n{data(run)}",
        f"## Figures\n\n{figures(evaluations)}",
    ]
    if name:
        folder = run.evaluation_folder(name)
        with sections.explained_damage(run, name):
            parts += [
                f"## Weak spots\n\n{weak_spots(evaluations[name], folder)}",
                f"## Robustness\n\n{robustness(folder)}",
            ]
    parts += [
        f"## Limits\n\n{limits(run, evaluations, name)}",
        f"## Licences\n\n{licences(run)}",
        f"## How to repeat it\n\n{repeat(run)}",
    ]
    return "\n".join(parts)


def front_matter(run: Run, evaluations: dict[str, Metrics]) -> str:
    """Return the block that model hubs read. Each value is JSON, which YAML includes, so no name can break it."""
    lines = ['license: "unknown"', 'library_name: "onsight"', 'pipeline_tag: "image-classification"']
    lines += ['tags: ["image-classification", "onsight"]']
    scored = {name: plain(str(metrics.get("data", run.dataset["name"]))) for name, metrics in evaluations.items()}
    results = [
        {
            "task": {"type": "image-classification"},
            "dataset": {"name": scored[name], "type": scored[name], "split": name},
            "metrics": [
                {"type": "accuracy", "value": round(metrics["accuracy"], 6)},
                {"type": "f1", "name": "macro F1", "value": round(metrics["macro_f1"], 6)},
            ],
        }
        for name, metrics in evaluations.items()
    ]
    if results:
        lines.append("model-index: " + json.dumps([{"name": plain(run.name), "results": results}], ensure_ascii=False))
    return "\n".join(["---", *lines, "---", ""])


def purpose(run: Run) -> str:
    """Return what the model takes and answers, and what it does with anything else."""
    model = read_object(run.model_folder / "model.json", ModelRecord)
    names = ", ".join(text(name) for name in run.classes[:SHOWN])
    rest = len(run.classes) - SHOWN
    lines = [
        f"It sorts an image into one of {count(len(run.classes), 'class', 'classes')}: {names}"
        + (f" and {rest:,} more." if rest > 0 else "."),
        "It is for images like those in the data below. It has learned no other class, so it names one of these for "
        "any image.",
    ]
    if not model:
        return bullets(lines)
    side = model["image_size"]
    lines.insert(
        1,
        f"The network is `{plain(model['model'])}` with {model['parameters']:,} parameters. It takes {side} × {side} "
        f"pixels, in RGB: {text(model.get('geometry'))}.",
    )
    if (threshold := model.get("threshold")) is not None:
        lines.append(f"An answer with a probability below {threshold:.4g} counts as unsure.")
    if (distance := model.get("distance_threshold")) is not None:
        lines.append(
            f"An image whose distance from the training images is above {distance:.4g} counts as unlike them, and its "
            "answer as unsure."
        )
    return bullets(lines)


def data(run: Run) -> str:
    """Return where the images are from, how they were divided, and what `check` found in them."""
    record = run.dataset
    counted = sections.class_counts(record)
    lines = [
        f"Source: {text(record.get('provenance'))}.",
        f"Fingerprint (SHA-256 of names, labels and content): `{plain(str(record.get('fingerprint')))}`.",
    ]
    if broken := record.get("broken"):
        lines.append(f"{count(len(broken), 'file')} could not be read and took no part.")
    if checked := read_object(run.folder / "check.json", CheckSummary):
        found = [each["text"] for each in sections.findings(run, checked) if each["severity"] != "note"]
        lines += [f"`onsight check` found: {text(sentence, most=1000)}" for sentence in found]
        if not found:
            how = "" if checked.get("complete") else " when it was trained, without the search for near-duplicates"
            lines.append(f"`onsight check` found no error and no warning{how}.")
    rows = [[text(name), *(f"{n:,}" for n in numbers)] for name, numbers in counted["rows"][:SHOWN]]
    if len(counted["rows"]) > SHOWN:
        rows.append([f"{len(counted['rows']) - SHOWN:,} more classes", *("…" for _ in counted["parts"])])
    rows.append(["all", *(f"{n:,}" for n in counted["totals"])])
    return bullets(lines) + "\n" + table(["class", *map(text, counted["parts"])], rows)


def figures(evaluations: dict[str, Metrics]) -> str:
    """Return the scores of every evaluation, with intervals."""
    if not evaluations:
        return "Not evaluated yet: its accuracy is unknown.\n"
    rows = [
        [
            text(name),
            f"{metrics['n']:,}",
            f"{percent(metrics['accuracy'])} ({interval(metrics['accuracy_interval'])})",
            f"{metrics['macro_f1']:.3f}",
            f"{metrics['loss']:.3f}",
            f"{100 * metrics['ece']:.1f} points",
            text(metrics.get("provenance")),
        ]
        for name, metrics in evaluations.items()
    ]
    return table(["images", "n", "accuracy", "macro F1", "loss", "calibration error", "source"], rows)


def weak_spots(metrics: Metrics, folder: Path) -> str:
    """Return the classes with the lowest recall, and the slices that are less accurate than the rest beyond chance."""
    if metrics["correct"] == metrics["n"]:
        return "No image of this evaluation is classified wrongly.\n"
    tested = [row for row in metrics["per_class"] if row["recall"] is not None]
    lowest = sorted(tested, key=lambda row: row["recall"] or 0.0)[:WEAKEST]
    rows = [
        [
            "class",
            text(row["class"]),
            f"{row['support']:,}",
            f"{percent(row['recall'])} ({interval(row['recall_interval'] or [0.0, 1.0])})",
        ]
        for row in lowest
    ]
    found = read_object(folder / "slices.json", Slices) or {"slices": []}
    worse = [row for row in found["slices"] if row["worse"] and row["by"] != "class"]
    rows += [
        [
            text(row["by"]),
            text(row["value"]),
            f"{row['n']:,}",
            f"{percent(row['accuracy'])} ({interval([row['low'], row['high']])})",
        ]
        for row in worse[:SHOWN]
    ]
    note = "" if worse else "\nNo other part of the images is less accurate than the rest beyond chance.\n"
    return "The classes that are recognised least:\n\n" + table(["by", "value", "n", "right"], rows) + note


def robustness(folder: Path) -> str:
    """Return the accuracy on corrupted images, the most harmful corruption first."""
    found = sections.robustness(folder)
    if found is None:
        return "Not measured. `onsight evaluate RUN --robustness` measures it.\n"
    kind, severity, share = found["worst"]
    rows = [
        [text(name), percent(mean), *(percent(value) for value in values)] for name, mean, values, _ in found["rows"]
    ]
    head = (
        f"{text(found['title'])}, on {count(found['n'], 'image')}: {percent(found['mean'])} on average, where clean "
        f"images give {percent(found['clean'])}. Worst: {text(str(kind).replace('_', ' '))} at severity {severity}, "
        f"{percent(share)}.\n"
    )
    return "\n".join([head, table(["corruption", "mean", "1", "2", "3", "4", "5"], rows)])


def limits(run: Run, evaluations: dict[str, Metrics], name: str | None) -> str:
    """Return what the figures do not show, and what is known to go wrong."""
    metrics = evaluations[name] if name else None
    found = sentences(run, run.history(), metrics, name)
    if metrics:  # the first sentence is the accuracy, which `figures` shows
        found = found[1:]
    if metrics and (far := metrics.get("far_off")):
        found.append(
            f"Of {count(far['n'], 'image')} of something else ({far['data']}), {percent(far['unsure'])} are called "
            "unsure; the others are given a class."
        )
    used = len(read_lines(run.folder / "test_uses.jsonl"))
    found.append(f"Its test images were opened {times(used)}.")
    return bullets(text(sentence, most=1000) for sentence in found)


def licences(run: Run) -> str:
    """Return the licences of the images and of the weights, as far as they are known."""
    source = DATASETS.get(str(run.spec.get("data")))
    lines = [f"Images: {source.licence if source else UNKNOWN}."]
    weights, model = str(run.spec.get("weights")), str(run.spec.get("model"))
    if run.record.get("teacher"):
        lines.append(f"It learned from another model, {text(run.record['teacher'].get('run'))}: its card holds too.")
    elif weights == "none":
        lines.append("Weights: trained from scratch, on these images alone.")
    elif weights == "imagenet":
        published = PUBLISHED.get(model)
        given = "Apache-2.0" if published and published.package else "not recorded: ask Keras, which publishes them"
        lines.append(
            f"Weights: training began with ImageNet weights of `{plain(model)}` ({given}). ImageNet's own terms allow "
            "its images for non-commercial research and education."
        )
    else:
        lines.append("Weights: training began with weights from a file. Their licence is not recorded.")
    lines.append("The trained weights: for whoever trained them to say. Onsight itself, Apache-2.0, claims none.")
    return bullets(lines)


def repeat(run: Run) -> str:
    """Return the command that trains the model again, on which versions and for how long, and what identifies it."""
    model = read_object(run.model_folder / "model.json", ModelRecord)
    on = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in run.record.get("environment", {}).items())
    lines = [
        f"Trained {text(str(run.record.get('created', ''))[:10])}: {text(sections.training_time(run.history()))}.",
        f"On: {text(on, most=500)}.",
        f"Seed {run.spec.get('seed')}, seed of the split {run.spec.get('split_seed')}.",
        f"SHA-256 of the weights: `{plain(str(model and model.get('weights_sha256')))}`.",
        "`spec.json` and `dataset.json` of the run hold every setting and which image was in which part.",
    ]
    return f"```\n{train_command(run, shared=True)}\n```\n\n{bullets(lines)}"


def bullets(lines: Iterable[str]) -> str:
    """Return a list in Markdown."""
    return "".join(f"- {line}\n" for line in lines)


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown. Cells have been escaped."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def text(value: Any, most: int = 200) -> str:
    """Return a value of the run as text of Markdown that no name in it can format."""
    return re.sub(r"([\\`*_\[\]<>|#$~&{}])", r"\\\1", short(value, most))
