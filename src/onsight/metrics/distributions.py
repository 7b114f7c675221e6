"""Softmax, and the distribution functions that intervals and tests need. Uses NumPy and arithmetic only.

SciPy has them all, but it takes 110 MB and a second to import, and an installation that only answers needs nothing
else of it. `tests/metrics/test_distributions.py` compares each function with SciPy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

STEPS = 200  # of a search for a root, at most: halving alone needs about 60
TERMS = 100_000  # of a continued fraction, at most: it needs about the square root of the larger argument
CLOSE = 1e-14  # relative change at which a search or a fraction has converged


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of each row of (n, C) logits."""
    each = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(each / each.sum(axis=1, keepdims=True))


def root(function: Callable[[float], tuple[float, float]], low: float, high: float, start: float) -> float:
    """Return where a rising function is 0 between `low` and `high`; the nearer end if it is 0 at neither.

    `function` returns a value and its slope. Newton's method, with halving wherever it would leave the bracket.
    """
    at = start
    for _ in range(STEPS):
        value, slope = function(at)
        if value == 0:
            return at
        if value > 0:
            high = at
        else:
            low = at
        following = at - value / slope if slope > 0 else math.inf
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - at) <= CLOSE * abs(following):
            return following
        at = following
    return at


def beta_cdf(a: float, b: float, x: float) -> float:
    """Return the probability that a variable of the beta distribution with a, b > 0 is at most x in 0..1.

    The continued fraction is 8.17.22 of the NIST Digital Library of Mathematical Functions, by the method of Lentz.
    """
    if not 0 < x < 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast below the mean
        return 1 - beta_cdf(b, a, 1 - x)
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, TERMS):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + factor * d)
            c = 1 + factor / c
            fraction *= c * d
        if abs(c * d - 1) < CLOSE:
            break
    return math.exp(_beta_log(a, b, x)) * fraction / a


def _beta_log(a: float, b: float, x: float) -> float:
    """Return the logarithm of x^a (1 - x)^b / B(a, b)."""
    return math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)


def beta_quantile(a: float, b: float, share: float) -> float:
    """Return x for which `beta_cdf(a, b, x)` is `share`, which lies between 0 and 1."""
    a, b = float(a), float(b)  # NumPy's scalars would warn where a step of the search overflows

    def missing(x: float) -> tuple[float, float]:
        return beta_cdf(a, b, x) - share, math.exp(_beta_log(a, b, x)) / (x * (1 - x))

    return root(missing, 0.0, 1.0, a / (a + b))


def t_quantile(share: float, freedom: float) -> float:
    """Return the quantile, above the median, of Student's t distribution with `freedom` > 0 degrees of freedom."""
    x = beta_quantile(freedom / 2, 0.5, 2 * (1 - share))
    return math.sqrt(freedom * (1 - x) / x)


def t_beyond(t: float, freedom: float) -> float:
    """Return the probability that Student's t is further from 0 than `t`, on either side."""
    return beta_cdf(freedom / 2, 0.5, freedom / (freedom + t * t))


def coin(heads: int, tosses: int) -> float:
    """Return the probability that a fair coin falls at least as unevenly as `heads` of `tosses`: two-sided, exact."""
    fewer = min(heads, tosses - heads)
    return min(1.0, 2 * beta_cdf(tosses - fewer, fewer + 1, 0.5)) if 2 * fewer < tosses else 1.0


def normal_cdf(z: np.ndarray) -> np.ndarray:
    """Return the probability that a standard normal variable is at most each z of (n,)."""
    return np.array([NormalDist().cdf(each) for each in z.tolist()])


def hypergeometric_cdf(found: int, draws: int, marked: int, total: int) -> float:
    """Return the probability that `draws` of `total` things hold at most `found` of the `marked` ones."""
    least, most = max(0, draws - (total - marked)), min(draws, marked)
    if found >= most:
        return 1.0

    def ways(of: int, taken: np.ndarray) -> np.ndarray:
        return np.array([math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) for k in taken.tolist()])

    taken = np.arange(least, found + 1)
    logs = ways(marked, taken) + ways(total - marked, draws - taken) - ways(total, np.array([draws]))
    return min(1.0, float(np.exp(logs).sum()))
