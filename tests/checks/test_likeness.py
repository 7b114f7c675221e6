import numpy as np
import pytest

from onsight.checks.likeness import POSSIBLE, SURE, TOO_ALIKE, judge

FLOOR, LOWEST = 0.9, 0.88


def compared(images, mean, spread, rng):
    """Return (first, second, score) of all pairs of different images whose Fisher z is normal, and at least 0.1."""
    first, second = np.triu_indices(images, 1)
    z = rng.normal(mean, spread, len(first))
    kept = z > 0.1
    return first[kept], second[kept], np.tanh(z[kept]).astype(np.float32)


def with_copies(pairs, images, score):
    """Return the pairs, with one copy of each of the first images added: (first, second, scores, images)."""
    first, second, scores = pairs
    count = len(score)
    return (
        np.concatenate([first, np.arange(count)]),
        np.concatenate([second, images + np.arange(count)]),
        np.concatenate([scores, score.astype(np.float32)]),
        images + count,
    )


@pytest.mark.parametrize(("mean", "spread"), [(0.6, 0.2), (1.2, 0.12), (1.6, 0.08)])
def test_different_images_of_a_set_that_is_alike_are_not_called_copies(mean, spread):
    rng = np.random.default_rng(0)
    pairs = compared(1_000, mean, spread, rng)
    assert (pairs[2] >= FLOOR).any()
    doubt, limit = judge(*pairs, 1_000, FLOOR, LOWEST)
    assert np.count_nonzero(doubt <= SURE) == 0
    assert np.count_nonzero(doubt <= POSSIBLE) <= 1
    assert FLOOR < limit < TOO_ALIKE


@pytest.mark.parametrize(("mean", "spread"), [(0.6, 0.2), (1.2, 0.12), (1.6, 0.08)])
def test_copies_among_alike_images_stay_sure(mean, spread):
    rng = np.random.default_rng(0)
    score = rng.uniform(0.99, 0.9999, 100)
    first, second, scores, images = with_copies(compared(1_000, mean, spread, rng), 1_000, score)
    doubt, _ = judge(first, second, scores, images, FLOOR, LOWEST)
    assert (doubt[-100:] <= SURE).all()
    assert np.count_nonzero(doubt[:-100] <= SURE) == 0


def test_the_doubt_is_about_the_share_of_different_images():
    # Of the pairs between 0.91 and 0.95, about half are of different images.
    shares, doubts = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        first, second, scores, images = with_copies(compared(1_000, 0.6, 0.25, rng), 1_000, rng.uniform(0.9, 0.95, 300))
        doubt, _ = judge(first, second, scores, images, FLOOR, LOWEST)
        among = (scores >= 0.91) & (scores < 0.95)
        shares.append(among[:-300].sum() / among.sum())
        doubts.append(doubt[among].mean())
    assert 0.5 * np.mean(shares) < np.mean(doubts) < 2 * np.mean(shares)


def test_a_higher_score_has_no_more_doubt():
    rng = np.random.default_rng(0)
    first, second, scores, images = with_copies(compared(1_000, 0.7, 0.25, rng), 1_000, rng.uniform(0.9, 0.99, 200))
    doubt, _ = judge(first, second, scores, images, FLOOR, LOWEST)
    assert (np.diff(doubt[np.argsort(scores)]) <= 0).all()


def test_a_set_of_nearly_equal_images_is_too_alike():
    pairs = compared(300, 3.5, 0.15, np.random.default_rng(0))
    doubt, limit = judge(*pairs, 300, FLOOR, LOWEST)
    assert limit > TOO_ALIKE
    assert (doubt == 1).all()


def test_few_alike_pairs_are_judged_by_the_fixed_limit():
    first, second = np.arange(0, 60, 2), np.arange(1, 60, 2)
    scores = np.linspace(0.5, 1, 30, dtype=np.float32)
    doubt, limit = judge(first, second, scores, 60, FLOOR, LOWEST)
    assert limit == FLOOR
    assert ((doubt == 0) == (scores >= FLOOR)).all()


def test_many_groups_of_copies_do_not_raise_the_limit():
    # 50 images, each stored 20 times: 9,500 pairs of copies, in groups that are small for the set.
    one, other = np.triu_indices(20, 1)
    first, second = ((20 * np.arange(50)[:, None] + each).ravel() for each in (one, other))
    scores = np.random.default_rng(0).uniform(0.92, 1, len(first)).astype(np.float32)
    doubt, limit = judge(first, second, scores, 1_000, FLOOR, LOWEST)
    assert limit == FLOOR
    assert (doubt == 0).all()


def test_no_pairs():
    none = np.empty(0, np.int64)
    doubt, limit = judge(none, none, np.empty(0, np.float32), 0, FLOOR, LOWEST)
    assert len(doubt) == 0
    assert limit == FLOOR


def test_a_score_just_below_the_floor_is_possibly_a_copy_and_never_more():
    first, second = np.array([0, 2, 4]), np.array([1, 3, 5])
    doubt, _ = judge(first, second, np.array([0.91, 0.89, 0.87], np.float32), 6, FLOOR, LOWEST)
    assert doubt[0] <= SURE < doubt[1] <= POSSIBLE < doubt[2]
