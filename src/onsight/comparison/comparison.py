"""The result of `compare`, and its words: the verdict, the notes, and tables of text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from onsight.core.text import chance, percent, percent_number, plain, points, rough_duration

LEVEL = 0.05  # significance level of every test


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison. Shares are in 0..1.

    Attributes:
        verdict: one sentence.
        n: the number of compared images.
        runs: one dict per run: name, model, spec (its index in `specs`), seed, correct, accuracy, low, high (95 %
            Wilson), parameters, multiply_adds, weight_bytes, epochs, seconds. A value that is not recorded is None.
        specs: one dict per spec, the best first: name, runs (indices into `runs`), mean, deviation (sample standard
            deviation over the seeds, None for one seed), middle (the index of the run in the middle of the seeds).
        pairs: one dict per pair: ahead, behind (names), difference, low, high, p, corrected (by Holm; equals p for a
            single pair), test ("McNemar" or "seeds"), only_ahead, only_behind (images that only one side classifies
            correctly).
        settings: (setting, one value per spec) for each setting that differs.
        recognised: (class, images, one recall per spec) for each class.
        notes: sentences on how to read the figures.
        provenance: where the images come from.
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


def verdict_on(sides: list[dict[str, Any]], pairs: list[dict[str, Any]], n: int) -> str:
    """Return the verdict in one sentence, which compares the best side with the next best."""
    pair = pairs[0]  # the two best: sides are sorted
    if math.isnan(pair["p"]):
        facts = "the seeds show no spread, so chance cannot be ruled out"
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
        return f"No difference can be shown: {pair['ahead']} and {pair['behind']} are equally accurate ({facts})."
    which = "" if math.isnan(pair["p"]) else ", which could be due to chance"
    return (
        f"No difference can be shown: {pair['ahead']} is ahead of {next_best(pair, sides)} by {size} points{which} "
        f"({facts})."
    )


def next_best(pair: dict[str, Any], sides: list[dict[str, Any]]) -> str:
    """Return the name of the side behind the best one, introduced as the next best if there are more than two sides."""
    return f"the next best of {len(sides)}, {pair['behind']}," if len(sides) > 2 else str(pair["behind"])


def notes_on(sides: list[dict[str, Any]], pairs: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    """Return notes on how to read the figures."""
    notes = []
    tests = {pair["test"] for pair in pairs}
    if "McNemar" in tests:
        notes.append(
            "Runs are compared image by image: the exact McNemar test uses the images that only one of the two "
            "classifies correctly. It shows whether these two trained models differ, not whether their settings would "
            "make a difference with other seeds too. To test that, train with several seeds: onsight train --seeds 5"
        )
    if "seeds" in tests:
        notes.append(
            "If a spec has several seeds, mean accuracies are compared by Student's t-test, which assumes the same "
            "spread between seeds on both sides. The result holds for other seeds, but only on these test images. "
            "Counts of images are those of the middle run of each side."
        )
    if len(pairs) > 1:
        notes.append(
            f"{len(pairs)} pairs are compared. The more pairs, the more differences appear by chance, so p is "
            "corrected after Holm: the probability of any false finding among all pairs is at most 5 %. Intervals are "
            "not corrected: each holds for its pair alone."
        )
    if any(row["multiply_adds"] is None for row in rows):
        notes.append("Some costs are missing: another version of Onsight saved the model and did not record them.")
    return notes


def table(found: Comparison) -> list[list[tuple[str, ...]]]:
    """Return two tables of text: the runs, best first, and the pairs. The first row of each table is its heading."""
    runs: list[tuple[str, ...]] = [("run", "accuracy", "95 %", "parameters", "multiply-adds", "weights", "training")]
    for spec in found.specs:
        if spec["deviation"] is not None:
            runs.append((plain(spec["name"]), spread(spec), *[""] * 5))
        for row in (found.runs[number] for number in spec["runs"]):
            interval = f"{percent_number(row['low'])} to {percent_number(row['high'])}"
            cost = amount(row["multiply_adds"]), size(row["weight_bytes"]), rough_duration(row["seconds"])
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
    """Return a mean accuracy with its sample standard deviation, for example "74.3 % ± 0.5 (n = 5)"."""
    return f"{percent(spec['mean'])} ± {points(spec['deviation'])} (n = {len(spec['runs'])})"


def whole(count: int | None) -> str:
    """Return a count as text, for example "161,098"; None is a dash."""
    return "–" if count is None else f"{count:,}"


def amount(count: int | None) -> str:
    """Return a large count as text: 845, 17.1 thousand, 40.6 million or 1.8 billion; None is a dash."""
    if count is None:
        return "–"
    for factor, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= factor:
            return f"{count / factor:.1f} {word}"
    return str(count)


def size(count: int | None) -> str:
    """Return a number of bytes as text: 649 kB or 1.2 MB; None is a dash."""
    if count is None:
        return "–"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
