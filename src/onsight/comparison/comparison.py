"""compare(runs): which is better, by how much, whether chance would do, and at what cost. A table and an HTML page.

Reads the runs' own files, and images where the data still lies; imports no Keras.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from onsight.core.text import chance, percent, percent_number, plain, points

LEVEL = 0.05  # of every test


@dataclass(frozen=True)
class Comparison:
    """What comparing found; shares are in 0..1.

    Attributes:
        verdict: one sentence.
        n: images that were compared.
        runs: a dict a run: name, spec (its number in `specs`), seed, correct, accuracy, low, high (95 % Wilson),
            parameters, multiply_adds, weight_bytes, epochs, seconds; None where a run does not tell.
        specs: a dict a spec, the best first: name, runs (their numbers in `runs`), mean, deviation (sample standard
            deviation over seeds, None with one).
        pairs: a dict a pair, `ahead` and `behind`: their names, difference, low, high, p, corrected (Holm; p itself
            with one pair), test ("McNemar" or "seeds"), only_ahead, only_behind (images that only one has right).
        settings: (setting, a value for each of `specs`), those alone that differ.
        recognised: (class, images, for each of `specs` the share that was recognised).
        notes: what is to be known about all this, in sentences.
        provenance: of the images.
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

        return notebook.comparison(self.verdict, table(self), self.notes)


# Words ---------------------------------------------------------------------------------------------------------------


def say_verdict(sides: list[dict[str, Any]], pairs: list[dict[str, Any]], n: int) -> str:
    """Return the verdict in one sentence: the best against the next."""
    pair = pairs[0]  # sides are sorted: the first two
    if math.isnan(pair["p"]):
        facts = "with no spread between seeds, chance cannot be told"
    else:
        test = f"exact McNemar test on the same {n:,} images" if pair["test"] == "McNemar" else "t-test over the seeds"
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
            "Runs are compared image by image: the exact McNemar test looks at the images that only one of the "
            "two has right. It tells whether these two trained models differ, not whether their recipes would again "
            "with other seeds: onsight train --seeds 5 shows that."
        )
    if "seeds" in tests:
        notes.append(
            "Where a spec has several seeds, mean accuracies are compared by Student's t-test, as if accuracies spread "
            "alike from seed to seed on both sides. It speaks of other seeds, on these test images. Counts of single "
            "images are those of each side's middle run."
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
