"""Tests and intervals for whether one of two classifiers is better or the difference could be due to chance.

Uses SciPy and arithmetic only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share, both ends in 0..1 (Wilson 1927, without continuity correction).

    If `n` is 0, nothing is known, and the interval is (0.0, 1.0). Raises ValueError for impossible counts.

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    from scipy.stats import binomtest

    if n == 0 and successes == 0:
        return 0.0, 1.0
    interval = binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def wilson_width(share: float, n: int) -> float:
    """Return how wide the 95 % interval of `wilson` is for a share of n images, n at least 1.

    >>> [round(wilson_width(0.9, n), 3) for n in (8, 37, 140)]
    [0.429, 0.199, 0.1]
    """
    z2 = 1.959963984540054**2
    return 2 * math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)


def wilson_lows(successes: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the lower ends of the 95 % intervals of `wilson`, for arrays."""
    z2 = 1.959963984540054**2
    share = successes / n
    return np.asarray((share + z2 / (2 * n) - np.sqrt(z2 * (share * (1 - share) + z2 / (4 * n)) / n)) / (1 + z2 / n))


CONFIDENCE = 0.95


class Difference(NamedTuple):
    """How much better b is than a, in -1..1, with a 95 % interval.

    `p` is the probability of a difference at least as large if neither is better.
    """

    value: float
    low: float  # NaN, like `high` and `p`, if nothing can be concluded
    high: float
    p: float  # two-sided


def paired(only_a: int, only_b: int, n: int) -> Difference:
    """Return accuracy b - accuracy a on the same `n` images.

    `only_a` and `only_b` are the numbers of images that only a or only b classifies correctly.

    p is from the exact test of McNemar 1947 ("Note on the sampling error of the difference between correlated
    proportions or percentages"): the probability that a fair coin divides the images that only one of them classifies
    correctly at least as unevenly.

    The interval is the adjusted Wald interval of Bonett and Price 2012 ("Adjusted Wald confidence interval for a
    difference of binomial proportions based on paired data", J. Educ. Behav. Stat. 37, 479-488), one of those that
    Fagerland, Lydersen and Laake 2014 recommend for paired proportions. It does not mirror the exact test: near
    p = 0.05 one may show a difference when the other does not.
    """
    from scipy.stats import binomtest, norm

    if not (min(only_a, only_b) >= 0 and only_a + only_b <= n and n > 0):
        raise ValueError(
            f"only_a = {only_a} and only_b = {only_b} do not fit n = {n} images: expected n above 0 and counts from 0 "
            "that sum to at most n"
        )
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = norm.ppf((1 + CONFIDENCE) / 2) * math.sqrt((a + b - (b - a) ** 2) / (n + 2))
    p = binomtest(only_b, only_a + only_b).pvalue if only_a + only_b else 1.0
    return Difference((only_b - only_a) / n, float(max(-1.0, b - a - half)), float(min(1.0, b - a + half)), float(p))


def between_seeds(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Return mean(b) - mean(a) of accuracies over seeds, by Student's t-test with a common variance.

    Welch's test would need at least two seeds on both sides. With one seed on either side, this is the test of Crawford
    and Howell 1998 ("Comparing an individual's test score against norms derived from small samples"). The interval and
    p are NaN if the variance is unknown: one seed each, or seeds that all gave the same result.
    """
    from scipy.stats import t

    value = mean(b) - mean(a)
    freedom = len(a) + len(b) - 2
    squares = sum((x - mean(each)) ** 2 for each in (a, b) for x in each)
    if freedom == 0 or squares < 1e-20:  # only rounding errors
        return Difference(value, math.nan, math.nan, math.nan)
    error = math.sqrt(squares / freedom * (1 / len(a) + 1 / len(b)))
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    low, high = max(-1.0, value - half), min(1.0, value + half)  # a difference of accuracies cannot be larger
    return Difference(value, low, high, float(2 * t.sf(abs(value) / error, freedom)))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple tests, by Holm 1979.

    The source is "A simple sequentially rejective multiple test procedure". Each corrected p-value may be read as if it
    were the only one: the probability of any false alarm among all of them is at most the threshold used. NaN stays NaN
    and does not count as a test.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    known = sorted((i for i, p in enumerate(values) if not math.isnan(p)), key=lambda i: values[i])
    corrected, highest = list(values), 0.0
    for rank, i in enumerate(known):
        highest = max(highest, min(1.0, values[i] * (len(known) - rank)))
        corrected[i] = highest
    return corrected


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (divided by n - 1), or None for fewer than two values."""
    if len(values) < 2:
        return None
    return math.sqrt(math.fsum((x - mean(values)) ** 2 for x in values) / (len(values) - 1))
