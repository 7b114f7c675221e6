"""The result of `compare`, and its words: the verdict, the notes, and tables of text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from onsight.core.text import chance, count, percent, percent_number, plain, points, rough_duration
from onsight.metrics.intervals import LEAST_SEEDS, best_of, mean

LEVEL = 0.05  # significance level of every test
Test = Literal["McNemar", "seeds"]  # the exact McNemar test of two runs, or Welch's t-test over seeds
TESTS: dict[Test, str] = {"McNemar": "McNemar", "seeds": "t-test"}  # the names of the tests, for a column of a table
METHODS: dict[Test, str] = {  # of which number each test is, with the method of its interval
    "McNemar": "paired difference (Bonett and Price 2012; exact McNemar test)",
    "seeds": "difference of the means (Welch's t-test over the seeds)",
}


class ComparedRun(TypedDict):
    """One run of a comparison; a value that is not recorded is None."""

    name: str
    model: str
    seed: int | None
    correct: int  # number of images classified correctly
    accuracy: float
    low: float  # lower end of the 95 % interval of the accuracy
    high: float  # upper end
    parameters: int | None
    multiply_adds: int | None  # for one image
    weight_bytes: int | None
    epochs: int
    seconds: float | None  # training time
    spec: int  # index in `Comparison.specs`


class ComparedSpec(TypedDict):
    """One spec of a comparison: a single run, or several runs that differ only in seeds."""

    name: str
    runs: list[int]  # indices in `Comparison.runs`
    mean: float  # mean accuracy over the seeds
    deviation: float | None  # sample standard deviation over the seeds; None for one seed
    middle: int  # index of the run in the middle of the seeds, which represents them when images are shown and counted


class ComparedPair(TypedDict):
    """Two compared sides. The sides are the specs, or the runs if there is only one spec."""

    ahead: str  # name of the side with the higher mean accuracy
    behind: str
    sides: tuple[int, int]  # ranks of `ahead` and `behind` among all sides; 0 is the best
    difference: float  # mean accuracy of `ahead` minus that of `behind`
    low: float  # lower end of the 95 % interval of the difference; NaN, like `high` and `p`, if the seeds do not vary
    high: float  # upper end
    p: float  # probability of a difference at least as large if neither side is better
    test: Test
    only_ahead: int  # images that only `ahead` classifies correctly
    only_behind: int  # images that only `behind` classifies correctly
    both: int  # images that both classify correctly
    neither: int  # images that neither classifies correctly
    corrected: float  # p, corrected by Holm for the number of pairs


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison. Shares are in 0..1.

    Attributes:
        verdict: one sentence.
        n: the number of compared images.
        runs: one dict per run, with the keys of `ComparedRun`.
        specs: one dict per spec, the best first, with the keys of `ComparedSpec`.
        pairs: one dict per pair, with the keys of `ComparedPair`.
        settings: (setting, one value per spec) for each setting that differs.
        recognised: (class, images, one recall per spec, or per run if there is only one spec) for each class.
        notes: sentences on how to read the figures.
        provenance: where the images come from.
    """

    verdict: str
    n: int
    runs: list[ComparedRun] = field(repr=False)
    specs: list[ComparedSpec] = field(repr=False)
    pairs: list[ComparedPair] = field(repr=False)
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


def verdict_on(sides: list[ComparedSpec], pairs: list[ComparedPair], n: int) -> str:
    """Return the verdict in one sentence, which compares the best side with the next best."""
    pair = pairs[0]  # the two best: sides are sorted
    if few := few_seeds(pair, sides):
        facts = f"it cannot be told whether this is chance: with {few}, while a test takes three of each"
    elif math.isnan(pair["p"]):
        facts = "the seeds show no spread, so chance cannot be ruled out"
    else:
        test = (
            f"exact McNemar test on the same {n:,} images"
            if pair["test"] == "McNemar"
            else "Welch's t-test over the seeds"
        )
        corrected = f", corrected for {len(pairs)} pairs" if len(pairs) > 1 else ""
        facts = (
            f"95 % interval {points(pair['low'])} to {points(pair['high'])}; {chance(pair['corrected'])}{corrected}; "
            f"{test}"
        )
    lead = points(pair["difference"])
    if pair["corrected"] < LEVEL:
        return f"{pair['ahead']} is better than {next_best(pair, sides)} by {lead} points ({facts})."
    if pair["difference"] == 0:
        return f"No difference can be shown: {pair['ahead']} and {pair['behind']} are equally accurate ({facts})."
    which = "" if math.isnan(pair["p"]) else ", which could be due to chance"
    return (
        f"No difference can be shown: {pair['ahead']} is ahead of {next_best(pair, sides)} by {lead} points{which} "
        f"({facts})."
    )


def few_seeds(pair: ComparedPair, sides: list[ComparedSpec]) -> str:
    """Return how many seeds the sides of a pair have, if they are too few for a test, and an empty string otherwise."""
    ahead, behind = (len(sides[side]["runs"]) for side in pair["sides"])
    if pair["test"] == "McNemar" or min(ahead, behind) >= LEAST_SEEDS:
        return ""
    return f"{count(ahead, 'seed')} against {behind:,}"


def flattery(sides: list[ComparedSpec], pairs: list[ComparedPair], n: int) -> float:
    """Return by how much the accuracy of the best side would exceed its true one, on average, if all were equally good.

    Equally good runs differ on these n images only by the images that one has right and another has not. A share d of
    such images gives each run a variance of d / 2n that it does not share with the others.
    """
    apart = mean([(pair["only_ahead"] + pair["only_behind"]) / n for pair in pairs])
    seeds = mean([len(side["runs"]) for side in sides])
    return best_of(len(sides)) * math.sqrt(apart / (2 * n * seeds))


def next_best(pair: ComparedPair, sides: list[ComparedSpec]) -> str:
    """Return the name of the side behind the best one, introduced as the next best if there are more than two sides."""
    return f"the next best of {len(sides)}, {pair['behind']}," if len(sides) > 2 else pair["behind"]


def methods_of(pairs: list[ComparedPair]) -> str:
    """Return which differences the pairs show, with the interval and the test of each kind."""
    used = [test for test in METHODS if any(pair["test"] == test for pair in pairs)]
    if len(used) == 1:
        return METHODS[used[0]]
    return f"{METHODS['McNemar']} for two single runs, and of the {METHODS['seeds']} where a side has several seeds"


def notes_on(sides: list[ComparedSpec], pairs: list[ComparedPair], rows: list[ComparedRun], n: int) -> list[str]:
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
            "If a spec has several seeds, mean accuracies are compared by Welch's t-test, which takes three seeds or "
            "more on both sides. The result holds for other seeds, but only on these test images. Counts of images are "
            "those of the middle run of each side."
        )
    if len(pairs) > 1:
        notes.append(
            f"{len(pairs)} pairs are compared. The more pairs, the more differences appear by chance, so p is "
            "corrected after Holm: the probability of any false finding among all pairs is at most 5 %. Intervals are "
            "not corrected: each holds for its pair alone."
        )
        flattered = points(flattery(sides, pairs, n))
        notes.append(
            f"The best of {len(sides)} is flattered: if all were equally good, its accuracy on these images would "
            f"still be {flattered} points too high on average. Images that took no part in the choice give its true "
            "accuracy."
        )
    if any(row["multiply_adds"] is None for row in rows):
        notes.append("Some costs are missing: another version of Onsight saved the model and did not record them.")
    return notes


def table(found: Comparison) -> list[list[tuple[str, ...]]]:
    """Return two tables of text: the runs, best first, and the pairs. The first row of each table is its heading."""
    runs: list[tuple[str, ...]] = [("run", "accuracy", "95 %", "parameters", "multiply-adds", "weights", "training")]
    for spec in found.specs:
        if spec["deviation"] is not None:
            runs.append((plain(spec["name"]), mean_and_deviation(spec, found.n), *[""] * 5))
        for row in (found.runs[number] for number in spec["runs"]):
            interval = f"{percent_number(row['low'])} to {percent_number(row['high'])}"
            cost = rough_count(row["multiply_adds"]), file_size(row["weight_bytes"]), rough_duration(row["seconds"])
            name = "  " * (len(spec["runs"]) > 1) + plain(row["name"])
            runs.append((name, percent(row["accuracy"]), interval, with_commas(row["parameters"]), *cost))
    pairs: list[tuple[str, ...]] = [("ahead", "behind", "points", "95 %", "only one right", "p")]
    for pair in found.pairs:
        counts = f"{pair['only_ahead']:,} : {pair['only_behind']:,}"
        interval = "–" if math.isnan(pair["low"]) else f"{points(pair['low'])} to {points(pair['high'])}"
        p = chance(pair["corrected"]).removeprefix("p ").removeprefix("= ")
        names = plain(pair["ahead"]), plain(pair["behind"])
        pairs.append((*names, points(pair["difference"]), interval, counts, p))
    return [runs, pairs]


def mean_and_deviation(spec: ComparedSpec, n: int) -> str:
    """Return a mean accuracy with its standard deviation, for example "74.3 % ± 0.5 (5 seeds, n = 1,000 each)"."""
    deviation = "–" if spec["deviation"] is None else points(spec["deviation"])
    return f"{percent(spec['mean'])} ± {deviation} ({len(spec['runs'])} seeds, n = {n:,} each)"


def with_commas(count: int | None) -> str:
    """Return a count as text, for example "161,098"; None is a dash."""
    return "–" if count is None else f"{count:,}"


def rough_count(count: int | None) -> str:
    """Return a large count as text: 845, 17.1 thousand, 40.6 million or 1.8 billion; None is a dash."""
    if count is None:
        return "–"
    for factor, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= factor:
            return f"{count / factor:.1f} {word}"
    return str(count)


def file_size(count: int | None) -> str:
    """Return a number of bytes as text: 649 kB or 1.2 MB; None is a dash."""
    if count is None:
        return "–"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
