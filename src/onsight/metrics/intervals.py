"""Whether one of two classifiers is better, or chance would do: tests, intervals, correction. SciPy and arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share, both ends in 0..1 (Wilson 1927, without continuity correction).

    With `n` 0 nothing is known: (0.0, 1.0). Raises ValueError for impossible counts.

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    from scipy.stats import binomtest

    if n == 0 and successes == 0:
        return 0.0, 1.0
    interval = binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def _wilson_low(successes: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the lower ends of the 95 % intervals of `wilson`, for arrays."""
    z2 = 1.959963984540054**2
    share = successes / n
    return np.asarray((share + z2 / (2 * n) - np.sqrt(z2 * (share * (1 - share) + z2 / (4 * n)) / n)) / (1 + z2 / n))


CONFIDENCE = 0.95


class Difference(NamedTuple):
    """How much better b is than a, in 0..1; its interval; and the chance of as much where neither is better."""

    value: float
    low: float  # NaN, as `high` and `p`, where nothing can be said
    high: float
    p: float  # two-sided


def paired(only_a: int, only_b: int, n: int) -> Difference:
    """Return accuracy b - accuracy a on the same `n` images, of which `only_a` and `only_b` are right in one alone.

    p: the exact test of McNemar 1947 ("Note on the sampling error of the difference between correlated proportions
    or percentages"): how often a fair coin would share out the images that only one has right at least as unevenly.
    Interval: the adjusted Wald interval of Bonett and Price 2012 ("Adjusted Wald confidence interval for a difference
    of binomial proportions based on paired data", J. Educ. Behav. Stat. 37, 479-488), one of those that Fagerland,
    Lydersen and Laake 2014 recommend for paired proportions. It is no mirror of the exact test: near p = 0.05 one may
    see a difference where the other does not.
    """
    from scipy.stats import binomtest, norm

    if not (min(only_a, only_b) >= 0 and only_a + only_b <= n and n > 0):
        raise ValueError(f"{only_a} and {only_b} of {n} images cannot be right in one alone")
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = norm.ppf((1 + CONFIDENCE) / 2) * math.sqrt((a + b - (b - a) ** 2) / (n + 2))
    p = binomtest(only_b, only_a + only_b).pvalue if only_a + only_b else 1.0
    return Difference((only_b - only_a) / n, float(max(-1.0, b - a - half)), float(min(1.0, b - a + half)), float(p))


def between_seeds(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Return mean(b) - mean(a) of accuracies that differ by their seeds, by Student's t-test with a common variance.

    Welch's test would need two seeds or more of both; with one of either this is the test of Crawford and Howell 1998
    ("Comparing an individual's test score against norms derived from small samples"). NaN where no variance is known:
    one seed each, or seeds that all came out alike.
    """
    from scipy.stats import t

    value = mean(b) - mean(a)
    freedom = len(a) + len(b) - 2
    squares = sum((x - mean(each)) ** 2 for each in (a, b) for x in each)
    if freedom == 0 or squares < 1e-20:  # rounding alone
        return Difference(value, math.nan, math.nan, math.nan)
    error = math.sqrt(squares / freedom * (1 / len(a) + 1 / len(b)))
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    low, high = max(-1.0, value - half), min(1.0, value + half)  # no difference of accuracies is larger
    return Difference(value, low, high, float(2 * t.sf(abs(value) / error, freedom)))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Each may be read as if it stood alone: the chance of any false alarm among all is then at most its threshold. NaN
    stays NaN and does not count.

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
    """Return the sample standard deviation (divided by n - 1), None of fewer than two."""
    if len(values) < 2:
        return None
    return math.sqrt(math.fsum((x - mean(values)) ** 2 for x in values) / (len(values) - 1))
