"""Tests and intervals for whether one of two classifiers is better or the difference could be due to chance.

Uses NumPy and arithmetic only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from onsight.metrics.distributions import beta_quantile, coin, normal_cdf, t_beyond, t_quantile

CONFIDENCE = 0.95
FEW, SMALL = 10, 100  # fewer right or wrong answers, or fewer images: Wilson's interval can cover 84 % only


def share_interval(correct: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a share of n images, both ends in 0..1; (0.0, 1.0) without images.

    >>> [round(end, 3) for end in share_interval(90, 100)], [round(end, 3) for end in share_interval(20, 20)]
    ([0.826, 0.945], [0.832, 1.0])

    Raises:
        ValueError: the counts are impossible.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} is no share; expected 0 to n of n")
    low, high = share_intervals(np.array([correct]), np.array([n]))
    return float(low[0]), float(high[0])


def share_intervals(correct: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of many 95 % intervals.

    They are Wilson's, except where that may cover much less than 95 %: with fewer than 100 images, ten right answers
    or ten wrong ones. There they are exact (Clopper and Pearson 1934, "The Use of Confidence or Fiducial Limits
    Illustrated in the Case of the Binomial"). docs/decisions/evaluation.md has the coverage.
    """
    correct, n = np.asarray(correct, float), np.asarray(n, float)
    wrong, tail = n - correct, (1 - CONFIDENCE) / 2
    exact = (n < SMALL) | (np.minimum(correct, wrong) < FEW)
    low, high = wilson_bounds(correct, np.maximum(n, 1))
    for i in np.flatnonzero(exact).tolist():
        low[i] = beta_quantile(correct[i], wrong[i] + 1, tail) if correct[i] > 0 else 0.0
        high[i] = upper_bound(correct[i], wrong[i], tail)
    return low, high


def upper_bound(correct: float, wrong: float, tail: float) -> float:
    """Return the share that the true one exceeds with probability `tail` at most (Clopper and Pearson 1934)."""
    return beta_quantile(correct + 1, wrong, 1 - tail) if wrong > 0 else 1.0


def wilson_bounds(correct: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of the 95 % score intervals of Wilson 1927, without continuity correction; n is at least 1.

    For a share p and the normal quantile z: (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n).
    """
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    share = correct / n
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(0, (middle - half) / (1 + z**2 / n)), np.minimum(1, (middle + half) / (1 + z**2 / n))


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
    if not (min(only_a, only_b) >= 0 and only_a + only_b <= n and n > 0):
        raise ValueError(
            f"only_a = {only_a} and only_b = {only_b} do not fit n = {n} images: expected n above 0 and counts from 0 "
            "that sum to at most n"
        )
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt((a + b - (b - a) ** 2) / (n + 2))
    p = coin(only_b, only_a + only_b)
    return Difference((only_b - only_a) / n, float(max(-1.0, b - a - half)), float(min(1.0, b - a + half)), p)


LEAST_SEEDS = 3  # on either side: with two, Welch's test depends on a deviation that is known from two numbers


def between_seeds(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Return mean(b) - mean(a) of accuracies over seeds, by the t-test of Welch 1947, which lets the deviations differ.

    The interval and p are NaN where the variance is not known well enough: fewer than three seeds on either side, or
    seeds that all gave the same result.
    """
    value = mean(b) - mean(a)
    # The variances of both means; fewer than three seeds say too little of them.
    parts = [(deviation(each) or 0.0) ** 2 / len(each) for each in (a, b)]
    if min(len(a), len(b)) < LEAST_SEEDS or sum(parts) < 1e-20:  # only rounding errors
        return Difference(value, math.nan, math.nan, math.nan)
    error = math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(part**2 / (len(each) - 1) for part, each in zip(parts, (a, b), strict=True))
    half = t_quantile((1 + CONFIDENCE) / 2, freedom) * error
    low, high = max(-1.0, value - half), min(1.0, value + half)  # a difference of accuracies cannot be larger
    return Difference(value, low, high, t_beyond(value / error, freedom))


def best_of(k: int) -> float:
    """Return how many standard deviations the best of k equals lies above their mean, on average.

    >>> [round(best_of(k), 2) for k in (1, 2, 3, 10)]
    [0.0, 0.56, 0.85, 1.54]
    """
    z = np.linspace(-8, 8, 4001)
    below = normal_cdf(z)
    return float(np.trapezoid(below - below**k, z))


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
