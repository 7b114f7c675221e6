"""compare(runs): which run is better on the same images, by how much, and at what cost. Imports no Keras."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from onsight.comparison.comparison import Comparison, explain, say_verdict
from onsight.comparison.matching import Answers, label_runs, match
from onsight.core.errors import ModelFileError
from onsight.core.files import check_target, write_atomic
from onsight.metrics.intervals import Difference, between_seeds, deviation, holm, mean, paired, wilson
from onsight.models.model_file import read_description
from onsight.runs.run import Run, open_run
from onsight.spec import TrainSpec

DEFAULTS = {name: field.default for name, field in TrainSpec.model_fields.items()}  # of settings newer than a run
SEEDS = ("seed", "split_seed")  # runs that differ in these alone are seeds of one spec


def compare(runs: Sequence[str | Path | Run], *, common: bool = False, page: str | Path | None = None) -> Comparison:
    """Compare evaluated runs on the same test images, and write an HTML page where `page` says.

    Runs whose specs differ in nothing but seeds are grouped. Single runs are compared image by image; where one of
    two specs has several seeds, their means are.

    Args:
        runs: two or more of them, or their folders.
        common: where the runs were tested on different images, compare on those that all have.
        page: the HTML file to write; None writes none.

    Raises:
        SpecError: fewer than two runs.
        RunError: one is no run, not finished, or not evaluated.
        DataError: they were not tested on the same images.
    """
    if page is not None:
        check_target(Path(page))
    opened = [open_run(run) for run in runs]
    names = label_runs(opened)
    answers, notes = match(opened, names, common)
    n = len(answers.names)
    rows = [describe(run, name, right) for run, name, right in zip(opened, names, answers.right, strict=True)]
    specs = group(opened, rows)
    # Seeds of one spec differ by chance; who asks for nothing else still gets the runs compared.
    sides = specs if len(specs) > 1 else sorted(map(alone, rows, range(len(rows))), key=lambda each: -each["mean"])
    pairs = [compare_pair(sides, i, j, rows, answers) for i, j in combinations(range(len(sides)), 2)]
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["corrected"] = corrected
    found = Comparison(
        verdict=say_verdict(sides, pairs, n),
        n=n,
        runs=rows,
        specs=specs,
        pairs=pairs,
        settings=differing(opened, specs),
        recognised=by_class(answers, sides),
        notes=[*notes, *explain(sides, pairs, rows)],
        provenance=str(opened[0].dataset.get("provenance", "of unknown provenance")),
    )
    if page is not None:
        from onsight.comparison.page import render  # here, because no table needs it

        write_atomic(Path(page), render(found, opened, answers, sides, common).encode("utf-8", "replace"))
    return found


def describe(run: Run, name: str, right: np.ndarray) -> dict[str, Any]:
    """Return one run's row: how good it is on the images compared, and what it costs."""
    correct, n = int(right.sum()), len(right)
    low, high = wilson(correct, n)
    parameters, counts = None, [None]
    with contextlib.suppress(ModelFileError):  # of another version: what it costs is not worth refusing to compare
        model = read_description(run.model_folder)
        parameters, counts = model.parameters, [layer.get("multiply_adds") for layer in model.layers]
    history = run.history()
    weights = run.model_folder / "weights.safetensors"
    return {
        "name": name,
        "model": str(run.spec.get("model")),
        "seed": run.spec.get("seed"),
        "correct": correct,
        "accuracy": correct / n,
        "low": low,
        "high": high,
        "parameters": parameters,
        "multiply_adds": None if None in counts else sum(counts),
        "weight_bytes": weights.stat().st_size if weights.exists() else None,
        "epochs": len(history),
        "seconds": sum(row.get("seconds") or 0.0 for row in history) or None,
    }


# Comparing -----------------------------------------------------------------------------------------------------------


def group(runs: Sequence[Run], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the specs of `Comparison`, the best first, and number them in `rows`."""
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        # A time budget's epochs are what the machine had time for.
        ignored = (*SEEDS, "data_dir", *(["epochs"] if run.spec.get("time_budget") else []))
        settings = {key: value for key, value in (DEFAULTS | run.spec).items() if key not in ignored}
        groups.setdefault(repr((sorted(settings.items()), run.dataset.get("fingerprint"))), []).append(i)
    specs = []
    for numbers in groups.values():
        numbers.sort(key=lambda i: (rows[i]["seed"] or 0, rows[i]["name"]))
        first = rows[numbers[0]]["name"]
        name = first if len(numbers) == 1 else f"{first} ({len(numbers)} seeds)"
        specs.append(summarise(name, numbers, [rows[i]["accuracy"] for i in numbers]))
    specs.sort(key=lambda each: -each["mean"])
    for number, spec in enumerate(specs):
        for i in spec["runs"]:
            rows[i]["spec"] = number
    return specs


def summarise(name: str, numbers: list[int], accuracies: list[float]) -> dict[str, Any]:
    """Return one spec: its runs, their mean accuracy and its spread."""
    # Where one run has to stand for its seeds, in images and counts, it is the middle one (of two, the better).
    middle = sorted(zip(accuracies, numbers, strict=True))[len(numbers) // 2][1]
    return {
        "name": name,
        "runs": numbers,
        "mean": mean(accuracies),
        "deviation": deviation(accuracies),
        "middle": middle,
    }


def alone(row: dict[str, Any], number: int) -> dict[str, Any]:
    """Return one run as if it were a spec of its own."""
    return summarise(row["name"], [number], [row["accuracy"]])


def compare_pair(
    sides: list[dict[str, Any]], i: int, j: int, rows: list[dict[str, Any]], answers: Answers
) -> dict[str, Any]:
    """Return a pair of `Comparison.pairs`: `sides` are sorted, so that `i` is ahead of `j`."""
    ahead, behind = sides[i], sides[j]
    a, b = answers.right[ahead["middle"]], answers.right[behind["middle"]]
    only_ahead, only_behind = int((a & ~b).sum()), int((b & ~a).sum())
    if len(ahead["runs"]) == len(behind["runs"]) == 1:
        test, found = "McNemar", paired(only_behind, only_ahead, len(a))
    else:
        accuracies = [[rows[number]["accuracy"] for number in side["runs"]] for side in (behind, ahead)]
        test, found = "seeds", between_seeds(*accuracies)
    return {
        "ahead": ahead["name"],
        "behind": behind["name"],
        "sides": (i, j),
        "difference": found.value,
        **{key: getattr(found, key) for key in Difference._fields[1:]},
        "test": test,
        "only_ahead": only_ahead,
        "only_behind": only_behind,
        "both": int((a & b).sum()),
        "neither": int((~a & ~b).sum()),
    }


def differing(runs: Sequence[Run], specs: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the settings, machines and versions in which the specs differ, a value for each."""

    def facts(run: Run) -> dict[str, Any]:
        environment = run.record.get("environment") or {}
        return (
            {key: value for key, value in run.spec.items() if key not in SEEDS}
            | {"data's fingerprint": str(run.dataset.get("fingerprint", ""))[:8]}
            | {key.replace("_", " "): environment[key] for key in environment if key not in ("backend", "precision")}
        )

    found = [[facts(runs[i]) for i in spec["runs"]] for spec in specs]
    keys = dict.fromkeys(key for each in found for one in each for key in one)
    rows = []
    for key in keys:
        values = [", ".join(dict.fromkeys(show(one.get(key)) for one in each)) for each in found]
        if len(set(values)) > 1:
            rows.append((key, values))
    return rows


def show(value: Any) -> str:
    """Return a setting as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)


def by_class(answers: Answers, sides: list[dict[str, Any]]) -> list[tuple[str, int, list[float]]]:
    """Return (class, images, the share of them that each side recognises, mean over its seeds)."""
    table = []
    for number, name in enumerate(answers.classes):
        inside = answers.labels == number
        if inside.any():
            shares = [float(answers.right[side["runs"]][:, inside].mean()) for side in sides]
            table.append((name, int(inside.sum()), shares))
    return table
