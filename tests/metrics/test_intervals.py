import itertools
import math

import numpy as np
import pytest
from scipy import stats

from onsight.core.text import chance, points
from onsight.metrics.intervals import between_seeds, deviation, holm, mean, paired


def test_the_paired_interval_is_the_published_one():
    # statpsych's documentation of ci.prop.ps(.05, 12, 4, 26, 6), by the authors of the interval.
    _, low, high, _ = paired(only_a=4, only_b=26, n=48)
    assert (low, high) == (pytest.approx(0.2548067, abs=1e-7), pytest.approx(0.6251933, abs=1e-7))


def test_mcnemar_is_the_binomial_tail_by_hand():
    assert paired(2, 8, 100).p == pytest.approx(2 * sum(math.comb(10, k) for k in (0, 1, 2)) / 2**10)
    assert paired(2, 8, 100).value == 0.06
    assert paired(5, 5, 20).p == 1.0
    assert paired(0, 0, 7)[0] == 0.0
    assert paired(0, 0, 7).p == 1.0
    a, b = paired(30, 50, 1000), paired(50, 30, 1000)
    assert (a.value, a.low, a.high, a.p) == (-b.value, pytest.approx(-b.high), pytest.approx(-b.low), b.p)
    low, high = paired(0, 3, 3)[1:3]
    assert -1 <= low < high <= 1
    with pytest.raises(ValueError, match="do not fit n = 5 images"):
        paired(3, 3, 5)


@pytest.mark.parametrize(
    ("n", "only_a", "only_b"), [(40, 0.1, 0.1), (40, 0.05, 0.3), (100, 0.02, 0.05), (20, 0.2, 0.4)]
)
def test_the_interval_covers_and_the_test_keeps_its_level(n, only_a, only_b):
    """Computed exactly, by summing over every possible table."""
    covered = rejected = 0.0
    for a, b in itertools.product(range(n + 1), repeat=2):
        if a + b > n:
            continue
        chance = stats.multinomial.pmf([a, b, n - a - b], n, [only_a, only_b, 1 - only_a - only_b])
        if chance < 1e-9:
            continue
        found = paired(a, b, n)
        covered += chance * (found.low <= only_b - only_a <= found.high)
        rejected += chance * (found.p < 0.05)
    assert 0.94 < covered < 0.99
    if only_a == only_b:
        assert rejected < 0.05


def test_between_seeds_agrees_with_scipy():
    a, b = [0.70, 0.72, 0.71, 0.69], [0.74, 0.73, 0.76]
    expected = stats.ttest_ind(b, a, equal_var=False)
    interval = expected.confidence_interval()
    found = between_seeds(a, b)
    assert found.value == pytest.approx(np.mean(b) - np.mean(a))
    assert found[1:] == (pytest.approx(interval.low), pytest.approx(interval.high), pytest.approx(expected.pvalue))


@pytest.mark.parametrize("seeds", [(3, 5), (5, 3), (3, 3), (4, 10)])
def test_seeds_of_unlike_deviations_are_rarely_called_different(seeds):
    """Deviations of 0.2 and 1 point, equal means: a test at 5 % may reject 5 %, and Welch's hardly more."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.9, 0.01, (2000, seeds[0])), rng.normal(0.9, 0.002, (2000, seeds[1]))
    p = np.array([between_seeds(*pair).p for pair in zip(a.tolist(), b.tolist(), strict=True)])
    assert np.mean(p < 0.05) < 0.075


def test_fewer_than_three_seeds_tell_nothing():
    """With a common variance, two seeds against five of a fifth of their deviation reject 27 % at 5 %."""
    few = [0.70, 0.72], [0.750, 0.751, 0.749, 0.750, 0.752]
    for a, b in (few, few[::-1], (few[1], [0.72])):
        found = between_seeds(a, b)
        assert found.value == pytest.approx(np.mean(b) - np.mean(a))
        assert all(math.isnan(each) for each in found[1:])


def test_seeds_without_a_variance_give_no_p_value():
    for a, b in (([0.5], [0.6]), ([0.5, 0.5, 0.5], [0.6, 0.6, 0.6])):
        found = between_seeds(a, b)
        assert found.value == pytest.approx(0.1)
        assert math.isnan(found.p)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    corrected = holm([math.nan, 0.01, 0.02])
    assert math.isnan(corrected[0])
    assert corrected[1:] == pytest.approx([0.02, 0.02])


def test_mean_and_sample_deviation():
    values = [0.1, 0.4, 0.3]
    assert mean(values) == pytest.approx(np.mean(values))
    assert deviation(values) == pytest.approx(np.std(values, ddof=1))
    assert deviation([0.1]) is None


def test_points_and_chance_as_text():
    assert (points(0.0319), points(-0.0004), points(-1e-17)) == ("3.2", "−0.04", "0.0")
    assert [chance(p) for p in (0.0312, 1e-9, 0.5, 1.0)] == ["p = 0.031", "p < 0.0001", "p = 0.50", "p = 1"]
