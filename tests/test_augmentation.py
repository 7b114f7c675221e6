import numpy as np
import pytest

from onsight.augmentation import (
    AUGMENTATIONS,
    BRIGHTNESS,
    CONTRAST,
    DISTORTED,
    NOISE,
    Draws,
    augment,
    blur,
    distort,
    draw,
    grainy,
)


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
    assert np.array_equal(changed[some], augment(pictures[some], draws.of(some)))


def test_none_changes_nothing(pictures):
    assert augment(pictures, draw("none", 20, 16, 0, 0)) is pictures


def test_flip_alternates():
    first, second = (draw("flip", 100, 16, seed=0, epoch=epoch).mirrored for epoch in (0, 1))
    assert np.array_equal(first, ~second)
    assert 30 < first.sum() < 70


def test_shift_moves_and_reflects():
    picture = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    moved = augment(picture, Draws(np.array([False]), np.array([[2, -1]], np.int16), np.zeros(1, np.uint64)))
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


def test_robust_distorts_half_of_the_pictures_and_moves_all():
    draws = draw("robust", 2000, 32, seed=0, epoch=0)
    assert np.count_nonzero(draws.distortions) / 2000 == pytest.approx(DISTORTED, abs=0.04)
    assert draws.shifts.any()
    assert draws.mirrored.any()
    assert not draw("robust_shift", 2000, 32, 0, 0).mirrored.any()
    assert not np.array_equal(draws.distortions, draw("robust", 2000, 32, seed=0, epoch=1).distortions)


def test_distortions_do_what_they_say():
    """On plain grey the spread of the values is the noise and the mean the brightness."""
    grey = np.full((600, 32, 32, 3), 128, np.uint8)
    changed = distort(grey, np.arange(1, 601, dtype=np.uint64)).astype(float)
    spread, mean = changed.std(axis=(1, 2, 3)), changed.mean(axis=(1, 2, 3))
    assert (spread == 0).mean() == pytest.approx(0.5, abs=0.06)
    assert 0.7 * NOISE < spread.max() < 3 * NOISE
    assert np.median(spread[spread > 0]) < 0.5 * NOISE
    assert 0.7 * BRIGHTNESS < np.abs(np.where(spread == 0, mean, 128) - 128).max() <= BRIGHTNESS
    bars = np.zeros((600, 32, 32, 3), np.uint8)
    bars[:, :, 16:] = 255
    edges = distort(bars, np.arange(1, 601, dtype=np.uint64)).astype(int)
    step = edges[:, :, 24:].mean(axis=(1, 2, 3)) - edges[:, :, :8].mean(axis=(1, 2, 3))
    assert step.min() < 255 * (1 - 0.9 * CONTRAST)
    assert 0.2 < (step == 255).mean() < 0.35  # neither tones nor noise


def test_noise_comes_in_grains():
    noise = grainy(np.random.default_rng(0), (64, 64), 8, 3)
    assert noise.shape == (64, 64, 3)
    assert len(np.unique(noise[..., 0])) in (64, 72, 81)
    fine = grainy(np.random.default_rng(0), (64, 64), 1, 1)
    assert fine.shape == (64, 64, 1)
    assert fine.std() == pytest.approx(1, abs=0.05)


def test_blur_is_a_gaussian():
    from scipy.ndimage import gaussian_filter

    pictures = np.random.default_rng(0).random((3, 24, 24, 3)).astype(np.float32)
    sds = np.array([[0.5, 1], [1, 0], [2, 1.5]], np.float32)
    for picture, result, (down, across) in zip(pictures, blur(pictures, sds), sds.tolist(), strict=True):
        np.testing.assert_allclose(result, gaussian_filter(picture, (down, across, 0)), atol=0.01)
    np.testing.assert_allclose(blur(pictures, np.zeros((3, 2), np.float32)), pictures, atol=1e-6)


def test_the_callers_pictures_stay_as_they_are(pictures):
    before = pictures.copy()
    still = Draws(np.zeros(20, bool), np.zeros((20, 2), np.int16), np.arange(20, dtype=np.uint64))
    changed = augment(pictures, still)
    assert np.array_equal(pictures, before)
    assert np.array_equal(changed[0], pictures[0])
    assert not np.array_equal(changed, pictures)
