"""compare(runs): which is better, by how much, whether chance would do, and at what cost. A table and an HTML page.

Reads the runs' own files, and pictures where the data still lies; imports no Keras.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from onsight.comparison.matching import Answers, label_runs, match
from onsight.core.errors import ModelFileError, plain
from onsight.core.files import check_target, write_atomic
from onsight.metrics.intervals import Difference, between_seeds, chance, deviation, holm, mean, paired, points
from onsight.metrics.scores import percent, percent_number, wilson
from onsight.models.model_file import read_description
from onsight.runs.run import Run, open_run
from onsight.spec import TrainSpec

DEFAULTS = {name: field.default for name, field in TrainSpec.model_fields.items()}  # of settings newer than a run
SEEDS = ("seed", "split_seed")  # runs that differ in these alone are seeds of one spec
LEVEL = 0.05  # of every test


@dataclass(frozen=True)
class Comparison:
    """What comparing found; shares are in 0..1.

    Attributes:
        verdict: one sentence.
        n: pictures that were compared.
        runs: a dict a run: name, spec (its number in `specs`), seed, correct, accuracy, low, high (95 % Wilson),
            parameters, multiply_adds, weight_bytes, epochs, seconds; None where a run does not tell.
        specs: a dict a spec, the best first: name, runs (their numbers in `runs`), mean, deviation (sample standard
            deviation over seeds, None with one).
        pairs: a dict a pair, `ahead` and `behind`: their names, difference, low, high, p, corrected (Holm; p itself
            with one pair), test ("McNemar" or "seeds"), only_ahead, only_behind (pictures that only one has right).
        settings: (setting, a value for each of `specs`), those alone that differ.
        recognised: (class, pictures, for each of `specs` the share that was recognised).
        notes: what is to be known about all this, in sentences.
        provenance: of the pictures.
    """

    verdict: str
    n: int
    runs: list[dict[str, Any]] = field(repr=False)
    specs: list[dict[str, Any]] = field(repr=False)
    pairs: list[dict[str, Any]] = field(repr=False)
    settings: list[tuple[str, list[str]]] = field(repr=False)
    recognised: list[tuple[str, int, list[float]]] = field(repr=False)
    notes: list[str] = field(repr=False)
    provenance: str

    def __str__(self) -> str:
        return self.verdict

    def _repr_html_(self) -> str:
        from onsight.display import notebook

        return notebook.comparison(self)


def compare(runs: Sequence[str | Path | Run], *, common: bool = False, page: str | Path | None = None) -> Comparison:
    """Compare evaluated runs on the same test pictures, and write an HTML page where `page` says.

    Runs whose specs differ in nothing but seeds are grouped. Single runs are compared picture by picture; where one of
    two specs has several seeds, their means are.

    Args:
        runs: two or more of them, or their folders.
        common: where the runs were tested on different pictures, compare on those that all have.
        page: the HTML file to write; None writes none.

    Raises:
        SpecError: fewer than two runs.
        RunError: one is no run, not finished, or not evaluated.
        DataError: they were not tested on the same pictures.
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
    """Return one run's row: how good it is on the pictures compared, and what it costs."""
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
    # Where one run has to stand for its seeds, in pictures and counts, it is the middle one (of two, the better).
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
    """Return (class, pictures, the share of them that each side recognises, mean over its seeds)."""
    table = []
    for number, name in enumerate(answers.classes):
        inside = answers.labels == number
        if inside.any():
            shares = [float(answers.right[side["runs"]][:, inside].mean()) for side in sides]
            table.append((name, int(inside.sum()), shares))
    return table


# Words ---------------------------------------------------------------------------------------------------------------


def say_verdict(sides: list[dict[str, Any]], pairs: list[dict[str, Any]], n: int) -> str:
    """Return the verdict in one sentence: the best against the next."""
    pair = pairs[0]  # sides are sorted: the first two
    if math.isnan(pair["p"]):
        facts = "with no spread between seeds, chance cannot be told"
    else:
        test = (
            f"exact McNemar test on the same {n:,} pictures" if pair["test"] == "McNemar" else "t-test over the seeds"
        )
        corrected = f", corrected for {len(pairs)} pairs" if len(pairs) > 1 else ""
        facts = (
            f"95 % interval {points(pair['low'])} to {points(pair['high'])}; {chance(pair['corrected'])}{corrected}; "
            f"{test}"
        )
    size = points(pair["difference"])
    if pair["corrected"] < LEVEL:
        return f"{pair['ahead']} is better than {next_best(pair, sides)} by {size} points ({facts})."
    if pair["difference"] == 0:
        return f"No difference can be shown: {pair['ahead']} and {pair['behind']} are equally often right ({facts})."
    which = "" if math.isnan(pair["p"]) else ", which chance alone could do"
    return (
        f"No difference can be shown: {pair['ahead']} is ahead of {next_best(pair, sides)} by {size} points{which} "
        f"({facts})."
    )


def next_best(pair: dict[str, Any], sides: list[dict[str, Any]]) -> str:
    """Name whom the best is compared with."""
    return f"the next best of {len(sides)}, {pair['behind']}," if len(sides) > 2 else str(pair["behind"])


def explain(sides: list[dict[str, Any]], pairs: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    """Return what has to be known to read the figures, in sentences."""
    notes = []
    tests = {pair["test"] for pair in pairs}
    if "McNemar" in tests:
        notes.append(
            "Runs are compared picture by picture: the exact McNemar test looks at the pictures that only one of the "
            "two has right. It tells whether these two trained models differ, not whether their recipes would again "
            "with other seeds: onsight train --seeds 5 shows that."
        )
    if "seeds" in tests:
        notes.append(
            "Where a spec has several seeds, mean accuracies are compared by Student's t-test, as if accuracies spread "
            "alike from seed to seed on both sides. It speaks of other seeds, on these test pictures. Counts of single "
            "pictures are those of each side's middle run."
        )
    if len(pairs) > 1:
        notes.append(
            f"{len(pairs)} pairs are compared, and the more one looks the more chance finds: p is corrected after "
            "Holm, so that all findings together have at most one chance in twenty of a false one. Intervals are not "
            "corrected: each is for its pair alone."
        )
    if any(row["multiply_adds"] is None for row in rows):
        notes.append("Costs are missing where another version of Onsight saved the model and did not record them.")
    return notes


def table(found: Comparison) -> list[list[tuple[str, ...]]]:
    """Return two tables of text, the first row of each its heading: the runs, best first, and the pairs."""
    runs: list[tuple[str, ...]] = [("run", "accuracy", "95 %", "parameters", "multiply-adds", "weights", "training")]
    for spec in found.specs:
        if spec["deviation"] is not None:
            runs.append((plain(spec["name"]), spread(spec), *[""] * 5))
        for row in (found.runs[number] for number in spec["runs"]):
            interval = f"{percent_number(row['low'])} to {percent_number(row['high'])}"
            cost = amount(row["multiply_adds"]), size(row["weight_bytes"]), duration(row["seconds"])
            name = "  " * (len(spec["runs"]) > 1) + plain(row["name"])
            runs.append((name, percent(row["accuracy"]), interval, whole(row["parameters"]), *cost))
    pairs: list[tuple[str, ...]] = [("ahead", "behind", "points", "95 %", "only one right", "p")]
    for pair in found.pairs:
        counts = f"{pair['only_ahead']:,} : {pair['only_behind']:,}"
        interval = "–" if math.isnan(pair["low"]) else f"{points(pair['low'])} to {points(pair['high'])}"
        p = chance(pair["corrected"]).removeprefix("p ").removeprefix("= ")
        names = plain(pair["ahead"]), plain(pair["behind"])
        pairs.append((*names, points(pair["difference"]), interval, counts, p))
    return [runs, pairs]


def spread(spec: dict[str, Any]) -> str:
    """Return a mean with its sample standard deviation: 74.3 % ± 0.5 (n = 5)."""
    return f"{percent(spec['mean'])} ± {points(spec['deviation'])} (n = {len(spec['runs'])})"


def whole(count: int | None) -> str:
    """Return a count as text: 161,098."""
    return "–" if count is None else f"{count:,}"


def amount(count: int | None) -> str:
    """Return a large count as text: 845, 17.1 thousand, 40.6 million, 1.8 billion."""
    if count is None:
        return "–"
    for factor, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= factor:
            return f"{count / factor:.1f} {word}"
    return str(count)


def size(count: int | None) -> str:
    """Return bytes as text: 649 kB, 1.2 MB."""
    if count is None:
        return "–"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def duration(seconds: float | None) -> str:
    """Return seconds as text: 42 s, 12 min, 3.1 h."""
    if seconds is None:
        return "–"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
