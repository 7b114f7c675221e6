import numpy as np
import pytest

from onsight.imaging.augment import (
    AUGMENTATIONS,
    BRIGHTNESS,
    CONTRAST,
    DISTORTED,
    GREY,
    NOISE,
    TURN,
    TURNED,
    UNFLIPPED,
    ZOOM,
    augment,
    blur,
    distort,
    draw,
    grainy,
    mirrors,
    unchanged,
)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_contract(name, images):
    draws = draw(name, 20, 16, seed=3, epoch=5)
    changed = augment(images, draws)
    assert changed.shape == images.shape
    assert changed.dtype == np.uint8
    again = draw(name, 20, 16, seed=3, epoch=5)
    assert np.array_equal(changed, augment(images, again))
    # The change of an image does not depend on its batch.
    some = np.array([7, 2])
    assert np.array_equal(changed[some], augment(images[some], draws.of(some)))


def test_none_changes_nothing(images):
    assert augment(images, draw("none", 20, 16, 0, 0)) is images


def test_flip_alternates():
    first, second = (draw("flip", 100, 16, seed=0, epoch=epoch).mirrored for epoch in (0, 1))
    assert np.array_equal(first, ~second)
    assert 30 < first.sum() < 70


def test_shift_moves_and_reflects():
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    moved = augment(image, unchanged(1)._replace(shifts=np.array([[2, -1]], np.int16)))
    assert np.array_equal(moved[0, 2:, :-1], image[0, :-2, 1:])
    assert np.array_equal(moved[0, 0, :-1], image[0, 2, 1:])  # row 0 shows row -2, reflected: row 2


@pytest.mark.parametrize(("name", "reach"), [("shift", 4), ("flip_shift", 4), ("nudge", 2), ("flip_nudge", 2)])
def test_shift_reaches_an_eighth_in_each_direction_and_nudge_a_sixteenth(name, reach):
    shifts = draw(name, 2000, 32, seed=0, epoch=0).shifts
    assert shifts.min() == -reach
    assert shifts.max() == reach


def test_shifts_differ_from_epoch_to_epoch():
    shifts = draw("flip_shift", 2000, 32, seed=0, epoch=0).shifts
    assert not np.array_equal(shifts, draw("flip_shift", 2000, 32, seed=0, epoch=1).shifts)


def test_every_mirroring_augmentation_has_a_version_without_mirroring():
    for name in AUGMENTATIONS:
        assert mirrors(name) == (name in UNFLIPPED)
        assert not mirrors(UNFLIPPED.get(name, name))
        assert UNFLIPPED.get(name, name) in AUGMENTATIONS


def turned(images, angle=0.0, smaller=0.0, **draws):
    turns = np.tile(np.array([angle, smaller], np.float32), (len(images), 1))
    return augment(images, unchanged(len(images))._replace(turns=turns, **draws))


def same(images, expected):  # Pillow truncates instead of rounding
    np.testing.assert_allclose(images.astype(int), expected.astype(int), atol=1)


def test_a_quarter_turn_moves_whole_pixels(images):
    same(turned(images, np.pi / 2), np.rot90(images, 1, axes=(1, 2)))
    same(turned(images, -np.pi / 2), np.rot90(images, -1, axes=(1, 2)))
    mirrored = turned(images, np.pi, mirrored=np.ones(20, bool))
    same(mirrored, np.rot90(images, 2, axes=(1, 2))[:, :, ::-1])


def test_a_rotated_image_is_shifted_like_any_other(images):
    how = {"mirrored": np.arange(20) % 2 == 0, "shifts": np.full((20, 2), (2, -1), np.int16)}
    same(turned(images, np.pi * 2, **how), augment(images, unchanged(20)._replace(**how)))


def test_rotation_and_zoom_agree_with_scipy(images):
    from scipy.ndimage import gaussian_filter, map_coordinates

    smooth = np.stack([gaussian_filter(image, (2, 2, 0)) for image in images])
    angle, smaller = 0.4, -0.08
    rows, columns = np.mgrid[:16, :16] - 7.5
    cos, sin = (1 + smaller) * np.cos(angle), (1 + smaller) * np.sin(angle)
    places = [sin * columns + cos * rows + 7.5, cos * columns - sin * rows + 7.5]
    for image, result in zip(smooth, turned(smooth, angle, smaller), strict=True):
        expected = np.stack(
            [map_coordinates(image[..., c].astype(float), places, order=3, mode="mirror") for c in range(3)], -1
        )
        np.testing.assert_allclose(result, expected, atol=4)  # Pillow and SciPy use different cubics
        assert np.abs(result - expected).mean() < 1


def test_rotate_zoom_reaches_a_tenth():
    turns = draw("rotate_zoom", 2000, 32, seed=0, epoch=0).turns
    np.testing.assert_allclose(np.abs(turns).max(axis=0), (TURN, ZOOM), rtol=0.01)
    assert turns.any(axis=1).mean() == pytest.approx(TURNED, abs=0.04)
    assert np.abs(turns.mean(axis=0)).max() < 0.03
    assert not np.array_equal(turns, draw("rotate_zoom", 2000, 32, seed=0, epoch=1).turns)


def test_cutout_greys_a_square_of_three_eighths_of_the_side():
    black = np.zeros((400, 32, 32, 3), np.uint8)
    draws = draw("flip_shift_cutout", 400, 32, seed=0, epoch=0)
    changed = augment(black, draws)
    assert set(np.unique(changed)) == {0, GREY}
    sizes = (changed[..., 0] == GREY).sum(axis=(1, 2))
    assert sizes.max() == 12 * 12
    assert sizes.min() >= 6 * 6  # if the centre is in a corner
    inside = ((draws.holes >= 6) & (draws.holes <= 26)).all(axis=1)
    assert (sizes[inside] == 144).all()
    assert not black.any()


def test_robust_distorts_half_of_the_images_and_moves_all():
    draws = draw("robust", 2000, 32, seed=0, epoch=0)
    assert np.count_nonzero(draws.distortions) / 2000 == pytest.approx(DISTORTED, abs=0.04)
    assert draws.shifts.any()
    assert draws.mirrored.any()
    assert not draw("robust_shift", 2000, 32, 0, 0).mirrored.any()
    assert not np.array_equal(draws.distortions, draw("robust", 2000, 32, seed=0, epoch=1).distortions)


def test_distortions_have_the_stated_strength():
    """On plain grey, the spread of the values measures the noise and the mean measures the brightness."""
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
    assert 0.2 < (step == 255).mean() < 0.35  # neither the tones nor the noise changed


def test_noise_comes_in_grains():
    noise = grainy(np.random.default_rng(0), (64, 64), 8, 3)
    assert noise.shape == (64, 64, 3)
    assert len(np.unique(noise[..., 0])) in (64, 72, 81)
    fine = grainy(np.random.default_rng(0), (64, 64), 1, 1)
    assert fine.shape == (64, 64, 1)
    assert fine.std() == pytest.approx(1, abs=0.05)


def test_blur_is_a_gaussian():
    from scipy.ndimage import gaussian_filter

    images = np.random.default_rng(0).random((3, 24, 24, 3)).astype(np.float32)
    sds = np.array([[0.5, 1], [1, 0], [2, 1.5]], np.float32)
    for image, result, (down, across) in zip(images, blur(images, sds), sds.tolist(), strict=True):
        np.testing.assert_allclose(result, gaussian_filter(image, (down, across, 0)), atol=0.01)
    np.testing.assert_allclose(blur(images, np.zeros((3, 2), np.float32)), images, atol=1e-6)


def test_augment_does_not_change_the_callers_images(images):
    before = images.copy()
    changed = augment(images, unchanged(20)._replace(distortions=np.arange(20, dtype=np.uint64)))
    assert np.array_equal(images, before)
    assert np.array_equal(changed[0], images[0])
    assert not np.array_equal(changed, images)


def test_draws_are_scaled_to_another_image_size():
    draws = unchanged(2)._replace(
        shifts=np.array([[4, -3], [0, 1]], np.int16), holes=np.array([[-1, -1], [0, 31]], np.int16)
    )
    scaled = draws.scaled(224 / 32)
    assert scaled.shifts.tolist() == [[28, -21], [0, 7]]
    assert scaled.holes.tolist() == [[-1, -1], [3, 220]]  # the centre of a pixel stays where it is
    assert draws.scaled(1).holes.tolist() == draws.holes.tolist()
    assert scaled.shifts.dtype == np.int16
