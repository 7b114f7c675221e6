import numpy as np
import pytest

from onsight.augmentation import AUGMENTATIONS, Draws, augment, draw


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


def test_shift_reaches_an_eighth_in_each_direction():
    shifts = draw("flip_shift", 2000, 32, seed=0, epoch=0).shifts
    assert shifts.min() == -4
    assert shifts.max() == 4
    assert not np.array_equal(shifts, draw("flip_shift", 2000, 32, seed=0, epoch=1).shifts)
