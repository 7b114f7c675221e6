import numpy as np
import pytest

from onsight.augmentation import AUGMENTATIONS, Draws, augment, draw, with_views


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_contract(name, pictures):
    draws = draw(name, 20, 16, seed=3, epoch=5)
    changed = augment(pictures, draws)
    assert changed.shape == pictures.shape
    assert changed.dtype == np.uint8
    again = draw(name, 20, 16, seed=3, epoch=5)
    assert np.array_equal(changed, augment(pictures, again))
    # A picture's change does not depend on the batch that it is in.
    some = np.array([7, 2])
    assert np.array_equal(changed[some], augment(pictures[some], Draws(draws.mirrored[some], draws.shifts[some])))


def test_none_changes_nothing(pictures):
    assert augment(pictures, draw("none", 20, 16, 0, 0)) is pictures


def test_flip_alternates():
    first, second = (draw("flip", 100, 16, seed=0, epoch=epoch).mirrored for epoch in (0, 1))
    assert np.array_equal(first, ~second)
    assert 30 < first.sum() < 70


def test_shift_moves_and_reflects():
    picture = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    moved = augment(picture, Draws(np.array([False]), np.array([[2, -1]], np.int16)))
    assert np.array_equal(moved[0, 2:, :-1], picture[0, :-2, 1:])
    assert np.array_equal(moved[0, 0, :-1], picture[0, 2, 1:])  # row 0 shows row -2, reflected: row 2


@pytest.mark.parametrize(("name", "reach"), [("shift", 4), ("flip_shift", 4), ("nudge", 2), ("flip_nudge", 2)])
def test_shift_reaches_an_eighth_in_each_direction_and_nudge_a_sixteenth(name, reach):
    shifts = draw(name, 2000, 32, seed=0, epoch=0).shifts
    assert shifts.min() == -reach
    assert shifts.max() == reach


def test_shifts_differ_from_epoch_to_epoch():
    shifts = draw("flip_shift", 2000, 32, seed=0, epoch=0).shifts
    assert not np.array_equal(shifts, draw("flip_shift", 2000, 32, seed=0, epoch=1).shifts)


def test_views_are_weighted_and_normalised():
    picture = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1).repeat(3, axis=3)
    seen = []

    def answer(pictures):
        seen.append(pictures[0, :, :, 0])
        corner = pictures[:, :1, 0, 0] / 40 + 0.1
        return np.concatenate([corner, 1 - corner], axis=1)

    found = with_views(answer)(picture)
    plain = picture[0, :, :, 0]
    assert len(seen) == 6
    assert np.array_equal(seen[0], plain)
    assert np.array_equal(seen[1], plain[:, ::-1])
    assert np.array_equal(seen[2][1:, 1:], plain[:-1, :-1])
    assert np.array_equal(seen[4][:-1, :-1], plain[1:, 1:])
    p = np.array([view[0, 0] / 40 + 0.1 for view in seen])
    logs = np.array([0.25, 0.25, 0.125, 0.125, 0.125, 0.125]) @ np.log(np.stack([p, 1 - p], axis=1))
    np.testing.assert_allclose(found[0], np.exp(logs) / np.exp(logs).sum(), rtol=1e-5)


def test_views_without_mirrors_leave_a_sure_answer_alone():
    def answer(pictures):
        return np.tile(np.array([[1, 0, 0]], np.float32), (len(pictures), 1))

    np.testing.assert_allclose(
        with_views(answer, flips=False)(np.zeros((5, 8, 8, 3), np.uint8)), answer(range(5)), atol=1e-7
    )
