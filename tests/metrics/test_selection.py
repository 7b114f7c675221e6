import numpy as np
import pytest

from onsight.metrics.intervals import share_interval
from onsight.metrics.selection import choose


def answers(rng, skills, n, alike):
    """Return (k, n) bool: answers of candidates with these accuracies, `alike` in which images are hard."""
    from scipy.stats import norm

    hard = np.sqrt(alike) * rng.standard_normal(n) + np.sqrt(1 - alike) * rng.standard_normal((len(skills), n))
    return hard < norm.ppf(skills)[:, None]


@pytest.mark.parametrize(("spread", "alike"), [(0.0, 0.3), (0.0, 0.8), (0.02, 0.6)])
def test_the_interval_covers_the_winners_true_accuracy(spread, alike):
    """Twenty candidates, 300 images: their own figure looks up to 4 points too good, the corrected one does not."""
    rng = np.random.default_rng(7)
    covered = naive = 0
    errors, naive_errors = [], []
    studies = 80
    for _ in range(studies):
        skills = 0.8 + spread * rng.standard_normal(20)
        right = answers(rng, skills, 300, alike)
        found = choose(right, seed=int(rng.integers(2**32)))
        true = skills[found.best]
        covered += found.low <= true <= found.high
        low, high = share_interval(round(found.measured * 300), 300)
        naive += low <= true <= high
        errors.append(found.accuracy - true)
        naive_errors.append(found.measured - true)
    assert covered / studies >= 0.9
    assert covered >= naive
    assert abs(np.mean(errors)) < 0.006
    assert np.mean(naive_errors) > 0.012


def test_equal_candidates_rarely_look_better_than_the_reference():
    rng = np.random.default_rng(3)
    found = [choose(answers(rng, np.full(10, 0.8), 300, 0.5), tried=30).difference for _ in range(100)]
    assert sum(each is not None and each.p < 0.05 for each in found) <= 5
    # Without the correction for the number of trials it would be many.
    assert sum(each is not None and each.p < 0.05 * 30 / 1 and each.p / 30 < 0.05 for each in found) > 15


def test_a_much_better_candidate_is_found_better_by_its_true_lead():
    right = answers(np.random.default_rng(0), np.array([0.7, 0.72, 0.85, 0.71]), 5000, 0.5)
    found = choose(right)
    assert found.best == 2
    assert found.difference.value == pytest.approx(0.15, abs=0.015)
    assert found.difference.low < 0.15 < found.difference.high
    assert found.difference.p < 1e-6


def test_the_reference_wins_a_tie():
    right = np.array([[True, False, True], [True, True, False]])
    found = choose(right)
    assert (found.best, found.difference) == (0, None)


def test_one_candidate_and_one_image():
    alone = choose(np.ones((1, 40), bool))
    assert (alone.measured, alone.accuracy, alone.difference) == (1.0, 1.0, None)
    single = choose(np.array([[False], [True]]))
    assert single.best == 1
    assert 0 <= single.low <= single.high <= 1
