"""The verdict on a run: findings from its files, in plain sentences, and the next step. Does not import Keras."""

from __future__ import annotations

import math
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onsight.core.errors import RunError
from onsight.core.evaluation_records import Metrics, Slices
from onsight.core.files import argument, read_lines
from onsight.core.text import count, interval, percent, plain, short, times
from onsight.metrics.intervals import share_interval
from onsight.metrics.scores import mistaken
from onsight.reporting.commands import check_command, teacher_place, train_command
from onsight.runs.run import UNCALIBRATED, Run, place, read_evaluations, read_object

WIDE = 0.2  # an accuracy whose 95 % interval is wider than this says too little: docs/decisions/evaluation.md
NAMED = 5  # classes named in a sentence


def verdict(folder: Path | str | Run, evaluation: str | None = None) -> list[str]:
    """Return the findings about a run in plain sentences; the last one gives the next step and its command.

    `evaluation` is the name of a folder in `evaluations/`; by default `test`, or the first if there is no `test`. The
    sentences are safe to print: class names in them have no control characters.

    Raises:
        RunError: the folder is not a run, it has no such evaluation, or one of its files is damaged.
    """
    run = folder if isinstance(folder, Run) else Run(folder)
    evaluations = read_evaluations(run)
    chosen = evaluation or next(iter(evaluations), None)
    if evaluation is not None and evaluation not in evaluations:
        known = ", ".join(evaluations) or "none"
        raise RunError(f"{run.folder} has no evaluation '{evaluation}'. It has: {known}.")
    history = run.history()
    metrics = evaluations[chosen] if chosen else None
    findings = sentences(run, history, metrics, chosen)
    advice, command = next_step(run, history, metrics)
    return [*findings, f"{advice}: {command}"]


def sentences(run: Run, history: list[dict[str, Any]], metrics: Metrics | None, name: str | None) -> list[str]:
    """Return the sentences of `verdict` without the next step. If `metrics` is given, the first has the accuracy."""
    found = []
    if metrics is None:
        found.append(_state(run, history))
    else:
        n = metrics["n"]
        what = count(n, "test image") if name == "test" else f"{count(n, 'image')} in '{short(name or '')}'"
        found += [
            f"{percent(metrics['accuracy'])} of {what} are classified correctly "
            f"({interval(metrics['accuracy_interval'])}). Data: {plain(str(metrics.get('provenance')))}.",
            _without_copies(metrics),
            *(plain(str(text)) for text in metrics.get("notes", [])),
            *doubts(metrics),
            _confusions(metrics),
            _weakest(metrics),
            _slices(read_object(run.evaluation_folder(name or "") / "slices.json", Slices)),
            _trust(metrics),
        ]
    if run.is_trained and not run.is_calibrated:
        found.append(f"The probabilities are {UNCALIBRATED}.")
    found.append(_over_fitting(run, history))
    found += [plain(str(text)) for text in run.record.get("warnings", [])]
    scored = sum(use.get("scored") is not False for use in read_lines(run.folder / "test_uses.jsonl"))
    if name == "test" and scored > 1:
        found.append(
            f"The test set was scored {times(scored)} for this run: if earlier scores influenced your choices, this "
            "accuracy is too optimistic."
        )
    return [sentence for sentence in found if sentence]


def doubts(metrics: Metrics) -> list[str]:
    """Return sentences about what an accuracy does not show: that the model beats guessing, or anything at all.

    The model is compared with one that always answers the most frequent class of the test images. It is no better
    unless the 95 % interval of its accuracy lies above that share. An interval wider than 20 points shows too little
    about any model. Classes without test images were never tested.
    """
    (low, high), found = metrics["accuracy_interval"], []
    tested = [row for row in metrics["per_class"] if row["support"]]
    most = max(tested, key=lambda row: row["support"])
    always = f"always answering {short(most['class'])} ({percent(most['support'] / metrics['n'])})"
    beaten = low > most["support"] / metrics["n"] or len(tested) < 2  # with one class, the comparison means nothing
    if high - low > WIDE:
        which = "" if beaten else f" whether the model is better than {always}"
        found.append(f"Too few images to say{which}: the accuracy lies between {percent(low)} and {percent(high)}.")
    elif not beaten:
        found.append(f"No better than {always}.")
    if untested := [short(row["class"]) for row in metrics["per_class"] if not row["support"]]:
        rest = len(untested) - NAMED
        names = ", ".join(untested[:NAMED]) + (f" and {rest:,} more" if rest > 0 else "")
        found.append(f"Never tested, because no test image shows them: {names}.")
    return found


def _without_copies(metrics: Metrics) -> str:
    """Return a sentence about the accuracy without images that have copies; empty if none has."""
    if (other := metrics.get("without_copies")) is None:
        return ""
    kind = "a copy or near-duplicate" if other["near"] else "an identical copy"
    return (
        f"Without the {count(other['copies'], 'image that has', 'images that have')} {kind} among those that the model "
        f"was trained or judged on: {percent(other['accuracy'])} ({interval(other['accuracy_interval'])})."
    )


def _state(run: Run, history: list[dict[str, Any]]) -> str:
    """Return a sentence about the progress of a run without an evaluation."""
    epochs = run.spec.get("epochs")
    done = int(history[-1]["epoch"]) if history else 0
    known = [row for row in history if row.get("val_accuracy") is not None]
    held_out = (run.model_epoch(known) or {}).get("val_accuracy")
    so_far = "" if held_out is None else f" Validation accuracy: {percent(held_out)}."
    if run.is_trained:
        return f"Trained for {count(done, 'epoch')}, not evaluated yet: its test accuracy is unknown.{so_far}"
    planned = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    return f"Training has not finished: {done:,} of {planned}.{so_far}"


def _confusions(metrics: Metrics) -> str:
    """Return a sentence about the two classes that are confused with each other most often."""
    true, said, wrong = mistaken(metrics)
    if not len(wrong):
        return "No mistakes."
    classes = metrics["per_class"]
    pairs, number = np.unique(np.minimum(true, said) * len(classes) + np.maximum(true, said), return_inverse=True)
    both = np.bincount(number, wrong)
    most = int(both.argmax())
    of_most = {(i, j): n for i, j, n in np.stack([true, said, wrong], axis=1)[number == most].tolist()}
    i, j = divmod(int(pairs[most]), len(classes))
    if of_most.get((i, j), 0) < of_most.get((j, i), 0):
        i, j = j, i
    a, b = (short(classes[index]["class"]) for index in (i, j))
    share = f": {percent(int(both[most]) / int(wrong.sum()))} of all mistakes" if len(classes) > 2 else ""
    return (
        f"Most often confused: {a} and {b} ({a} taken for {b} {times(of_most.get((i, j), 0))}, "
        f"{b} for {a} {times(of_most.get((j, i), 0))}){share}."
    )


def _weakest(metrics: Metrics) -> str:
    """Return a sentence about the class with the lowest recall; empty if nothing is wrong or there is one class."""
    seen = [(row["recall"], row) for row in metrics["per_class"] if row["recall"] is not None]
    if len(seen) < 2 or metrics["correct"] == metrics["n"]:
        return ""
    _, row = min(seen, key=lambda each: each[0])
    return (
        f"Weakest class: {short(row['class'])}. {percent(row['recall'])} of its {count(row['support'], 'image')} are "
        f"recognised ({interval(row['recall_interval'] or [0.0, 1.0])})."
    )


def _slices(found: Slices | None) -> str:
    """Return a sentence about the slices, other than classes, with significantly lower accuracy than the rest."""
    slices = found.get("slices", []) if found else []
    rows = [row for row in slices if row.get("worse") and row["by"] != "class"][:3]
    if not rows:
        return ""
    named = [f"{short(row['by'])} “{short(row['value'])}” ({percent(row['accuracy'])})" for row in rows]
    return f"Significantly less accurate than the rest: {', '.join(named)}."


def _trust(metrics: Metrics) -> str:
    """Return a sentence about calibration: mean confidence compared with accuracy, and the calibration error (ECE)."""
    sure, right, (low, high) = metrics["confidence"], metrics["accuracy"], metrics["accuracy_interval"]
    error = f"expected calibration error {100 * metrics['ece']:.1f} points"
    error += noise_text(metrics, ", where a perfectly calibrated model shows ")
    facts = f"mean confidence {percent(sure)}, accuracy {percent(right)}; {error}"
    beyond_noise = metrics["ece"] > metrics.get("ece_noise", [0.0, 0.0])[1]
    if sure > high and beyond_noise:
        return f"Over-confident: {facts}."
    if sure < low and beyond_noise:
        return f"Under-confident: {facts}."
    if metrics["ece"] > 0.05 and beyond_noise and "ece_noise" in metrics:
        return f"Calibrated on average, but not at every confidence: {facts}."
    few = "" if metrics["n"] >= 1000 else f", as far as {count(metrics['n'], 'image')} can show"
    return f"Neither over- nor under-confident{few}: {facts}."


def noise_text(metrics: Metrics, lead: str) -> str:
    """Return the calibration error that is noise on so few images, after `lead`; empty for runs that do not know it."""
    if "ece_noise" not in metrics:
        return ""
    mean, most = metrics["ece_noise"]
    return f"{lead}{100 * mean:.1f} (up to {100 * most:.1f})"


def _gap(run: Run, history: list[dict[str, Any]]) -> tuple[float, float, float] | None:
    """Return training accuracy, validation accuracy and the 95 % half-width of the latter, for the model's epoch."""
    row = run.model_epoch(history)
    if row is None or row.get("accuracy") is None or row.get("val_accuracy") is None:
        return None
    n = sum((run.dataset.get("counts", {}).get("validation") or {}).values())
    low, high = share_interval(round(row["val_accuracy"] * n), n)
    return row["accuracy"], row["val_accuracy"], (high - low) / 2


def _over_fitting(run: Run, history: list[dict[str, Any]]) -> str:
    """Return a sentence about over-fitting: whether training accuracy exceeds validation accuracy beyond chance."""
    if not history:
        return ""
    if out_of_fold := history[-1].get("out_of_fold_accuracy"):
        n = count(history[-1].get("out_of_fold_n") or 0, "training image")
        return f"Heads that had not seen them classify {percent(out_of_fold)} of {n} correctly."
    gap = _gap(run, history)
    if gap is None:
        return "No validation images were held out: over-fitting cannot be detected." if not _validated(history) else ""
    training, held_out, noise = gap
    points = 100 * (training - held_out)
    augmented = run.spec.get("augmentation", "none") != "none"
    harder = " (on augmented images, which are harder)" if augmented else ""
    facts = f"training accuracy {percent(training)}{harder}, validation accuracy {percent(held_out)}"
    if points >= 10 and points > 100 * noise:
        text = f"Over-fitted: {facts}."
    elif points >= 4 and points > 100 * noise:
        text = f"Somewhat over-fitted: {facts}."
    else:
        text = f"No sign of over-fitting: {facts}."
    losses = [row["val_loss"] for row in history if row.get("val_loss") is not None]
    if losses and losses[-1] > 1.1 * min(losses) and not run.spec.get("patience"):
        since = min(history, key=lambda row: math.inf if row.get("val_loss") is None else row["val_loss"])["epoch"]
        text += f" Validation loss has risen since epoch {since}: --patience 5 would keep the weights of that epoch."
    return text


def _validated(history: list[dict[str, Any]]) -> bool:
    return any(row.get("val_accuracy") is not None for row in history)


def next_step(
    run: Run, history: list[dict[str, Any]], metrics: Metrics | None, *, shared: bool = False
) -> tuple[str, str]:
    """Return the next step, as the beginning of a sentence, and its exact command.

    The command can be pasted where the user stands. With `shared`, for a file that may be sent to others, it does not
    name the folders of the user's machine.
    """
    where = place(run) if shared else argument(run.folder)
    train = partial(train_command, run, shared=shared)
    if not run.is_trained:
        return "If training was stopped, continue it with", f"onsight train --resume {where}"
    if metrics is None:
        return "Next, evaluate it on the test set", f"onsight evaluate {where}"
    if run.record.get("teacher"):
        teacher = plain(shlex.quote(teacher_place(run, shared=shared)))
        return "Next, compare it with the run that it was made from", f"onsight compare {teacher} {where}"
    if run.spec.get("preset") == "quick":
        return "Next, train longer than the quick preset does", train(preset="balanced", epochs=None)
    if any(sentence.startswith("No better") for sentence in doubts(metrics)):
        return "Next, look for the reason in the images", check_command(run, shared=shared)
    gap = None if "out_of_fold_accuracy" in (history[-1] if history else {}) else _gap(run, history)
    if gap is not None and gap[0] - gap[1] >= max(0.1, gap[2]):
        if run.spec.get("augmentation") == "none" and run.spec.get("freeze") != "all":
            return "Next, train with augmentation", train(augmentation="shift")
        if run.spec.get("optimizer") in ("adamw", "sgd") and not run.spec.get("weight_decay"):
            return "Next, add images, or train with weight decay", train(weight_decay=5e-4)
    best = max(history, key=lambda row: row.get("val_accuracy") or 0.0, default=None)
    if gap is not None and gap[0] - gap[1] < 0.04 and best is history[-1] and gap[1] < 0.99:
        return "Next, train longer, because validation accuracy was still rising", train(
            time_budget=None, epochs=2 * len(history)
        )
    return "Next, try it on an image of your own", f"onsight predict {where} image.jpg"
