"""compare(runs): find which run is better on the same images, by how much, and at what cost.

Reads the files of the runs, and for the page the images of the data set if they still exist. Does not import Keras.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from onsight.comparison.comparison import (
    ComparedPair,
    ComparedRun,
    ComparedSpec,
    Comparison,
    Test,
    notes_on,
    verdict_on,
)
from onsight.comparison.matching import Answers, label_runs, match
from onsight.core.errors import ModelFileError
from onsight.core.files import check_target, write_atomic
from onsight.metrics.intervals import between_seeds, deviation, holm, mean, paired, share_interval
from onsight.models.model_file import read_description
from onsight.runs.run import Run, open_run
from onsight.spec import TrainSpec

DEFAULTS = {name: field.default for name, field in TrainSpec.model_fields.items()}  # for settings newer than a run
SEEDS = ("seed", "split_seed")  # runs that differ only in these settings are seeds of one spec


def compare(runs: Sequence[str | Path | Run], *, common: bool = False, page: str | Path | None = None) -> Comparison:
    """Compare evaluated runs on the same test images, and write the HTML file `page` if given.

    Runs whose specs differ only in seeds are grouped. Two specs of one run each are compared image by image. If a spec
    has several seeds, mean accuracies are compared.

    Args:
        runs: at least two runs or run folders.
        common: compare on the images that all runs were tested on, instead of refusing runs tested on different images.
        page: the HTML file to write; None writes none.

    Raises:
        SpecError: fewer than two runs are given.
        RunError: one of them is not a run, not finished, or not evaluated.
        DataError: the runs were not tested on the same images.
    """
    if page is not None:
        check_target(Path(page))
    opened = [open_run(run) for run in runs]
    names = label_runs(opened)
    answers, notes = match(opened, names, common)
    n = len(answers.names)
    rows = [describe(run, name, right) for run, name, right in zip(opened, names, answers.right, strict=True)]
    specs = group(opened, rows)
    # Seeds of one spec differ only by chance, but if there is no other spec, the runs are compared with each other.
    sides = specs if len(specs) > 1 else sorted(map(as_spec, rows, range(len(rows))), key=lambda each: -each["mean"])
    pairs = [compare_pair(sides, i, j, rows, answers) for i, j in combinations(range(len(sides)), 2)]
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["corrected"] = corrected
    found = Comparison(
        verdict=verdict_on(sides, pairs, n),
        n=n,
        runs=rows,
        specs=specs,
        pairs=pairs,
        settings=differing_settings(opened, specs),
        recognised=by_class(answers, sides),
        notes=[*notes, *notes_on(sides, pairs, rows, n)],
        provenance=str(opened[0].dataset.get("provenance", "of unknown provenance")),
    )
    if page is not None:
        from onsight.comparison.page import render  # imported here because only a page needs it

        write_atomic(Path(page), render(found, opened, answers, sides, common).encode("utf-8", "replace"))
    return found


def describe(run: Run, name: str, right: np.ndarray) -> ComparedRun:
    """Return one of `Comparison.runs`: the accuracy of a run on the compared images, and its cost.

    `right` (n,) bool marks the images that the run classifies correctly.
    """
    correct, n = int(right.sum()), len(right)
    low, high = share_interval(correct, n)
    parameters: int | None = None
    counts: list[Any] = [None]
    with contextlib.suppress(ModelFileError):  # another version wrote it: the cost is missing, but runs still compare
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
        "spec": -1,  # set by `group`
    }


# Comparing -----------------------------------------------------------------------------------------------------------


def group(runs: Sequence[Run], rows: list[ComparedRun]) -> list[ComparedSpec]:
    """Return `Comparison.specs`, the best first, and set the number of its spec in each of `rows`."""
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        # Under a time budget, the number of epochs depends on the speed of the machine.
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


def summarise(name: str, numbers: list[int], accuracies: list[float]) -> ComparedSpec:
    """Return one of `Comparison.specs` with its `middle` run.

    The middle run (of two, the better one) represents the seeds where images are shown and counted.
    """
    middle = sorted(zip(accuracies, numbers, strict=True))[len(numbers) // 2][1]
    return {
        "name": name,
        "runs": numbers,
        "mean": mean(accuracies),
        "deviation": deviation(accuracies),
        "middle": middle,
    }


def as_spec(row: ComparedRun, number: int) -> ComparedSpec:
    """Return a spec that consists of one run."""
    return summarise(row["name"], [number], [row["accuracy"]])


def compare_pair(sides: list[ComparedSpec], i: int, j: int, rows: list[ComparedRun], answers: Answers) -> ComparedPair:
    """Return one of `Comparison.pairs`. `sides` are sorted, so side `i` is ahead of side `j`."""
    ahead, behind = sides[i], sides[j]
    a, b = answers.right[ahead["middle"]], answers.right[behind["middle"]]
    only_ahead, only_behind = int((a & ~b).sum()), int((b & ~a).sum())
    test: Test
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
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "test": test,
        "only_ahead": only_ahead,
        "only_behind": only_behind,
        "both": int((a & b).sum()),
        "neither": int((~a & ~b).sum()),
        "corrected": found.p,  # `compare` corrects it for the number of pairs
    }


def differing_settings(runs: Sequence[Run], specs: list[ComparedSpec]) -> list[tuple[str, list[str]]]:
    """Return the settings, machines and versions that differ between the specs, with one value per spec."""

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
        values = [", ".join(dict.fromkeys(setting_text(one.get(key)) for one in each)) for each in found]
        if len(set(values)) > 1:
            rows.append((key, values))
    return rows


def setting_text(value: Any) -> str:
    """Return a setting as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)


def by_class(answers: Answers, sides: list[ComparedSpec]) -> list[tuple[str, int, list[float]]]:
    """Return (class, images, recall of each side) for each class; the recall of a side is the mean over its seeds."""
    table = []
    for number, name in enumerate(answers.classes):
        inside = answers.labels == number
        if inside.any():
            shares = [float(answers.right[side["runs"]][:, inside].mean()) for side in sides]
            table.append((name, int(inside.sum()), shares))
    return table
