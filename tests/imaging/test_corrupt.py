import io

import numpy as np
import pytest
from PIL import Image

from onsight.imaging import blurs, digital, weather
from onsight.imaging.corrupt import CORRUPTIONS, EXTRA, SCORED, SEVERITIES, corrupt


def rng():
    return np.random.default_rng(0)


def plain(value, n=4, side=32):
    """Return images of one colour."""
    return np.full((n, side, side, 3), value, np.uint8)


@pytest.fixture(scope="module")
def images():
    """Return 16 images of 32 px with smooth shapes, edges and colours."""
    rows, columns = np.mgrid[:32, :32] / 32
    random = rng()
    drawn = []
    for _ in range(16):
        a, b, c, d = random.uniform(2, 9, 4)
        waves = np.stack([np.sin(a * rows + b * columns + i) * np.cos(c * rows - d * columns) for i in range(3)], -1)
        image = 128 + 90 * waves
        top, left = random.integers(4, 16, 2)
        image[top : top + 10, left : left + 10] = random.integers(0, 256, 3)
        drawn.append(image)
    return np.stack(drawn).clip(0, 255).astype(np.uint8)


def error(images, corrupted):
    return float(np.abs(images.astype(float) - corrupted).mean())


def test_fifteen_corruptions_are_scored_and_the_rest_are_for_tuning():
    assert len(SCORED) == 15
    assert set(CORRUPTIONS) == {*SCORED, *EXTRA}
    assert not set(SCORED) & set(EXTRA)
    assert all(len(each.severities) == len(SEVERITIES) == 5 for each in CORRUPTIONS.values())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_contract(name, images):
    before = images.copy()
    errors = []
    for severity in SEVERITIES:
        corrupted = corrupt(images, name, severity, rng())
        assert corrupted.shape == images.shape
        assert corrupted.dtype == np.uint8
        assert np.array_equal(corrupted, corrupt(images, name, severity, rng()))
        errors.append(error(images, corrupted))
    assert np.array_equal(images, before)
    assert errors[0] > 0
    assert errors[-1] > errors[0] or name in ("saturate", "elastic_transform")  # their severities differ in kind
    for side in (8, 33, 64):
        assert corrupt(plain(100, 2, side), name, 3, rng()).shape == (2, side, side, 3)


@pytest.mark.parametrize(
    "name",
    [*(name for name in SCORED if name.endswith(("noise", "blur")) and "glass" not in name),
     "fog", "brightness", "contrast", "pixelate"],
)  # fmt: skip
def test_a_higher_severity_changes_more(name, images):
    errors = [error(images, corrupt(images, name, severity, rng())) for severity in SEVERITIES]
    assert errors == sorted(errors)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if "noise" in name or name in ("snow", "frost", "fog")])
def test_another_seed_gives_another_result(name, images):
    other = corrupt(images, name, 5, np.random.default_rng(1))
    assert not np.array_equal(corrupt(images, name, 5, rng()), other)


def test_wrong_input_is_refused():
    with pytest.raises(KeyError):
        corrupt(plain(0), "rain", 1, rng())
    with pytest.raises(ValueError, match="severity 6"):
        corrupt(plain(0), "fog", 6, rng())
    with pytest.raises(ValueError, match="float32"):
        corrupt(plain(0).astype(np.float32), "fog", 1, rng())
    with pytest.raises(ValueError, match="side, side"):
        corrupt(np.zeros((1, 8, 9, 3), np.uint8), "fog", 1, rng())


@pytest.mark.parametrize(("severity", "sd"), [*enumerate((0.04, 0.06, 0.08, 0.09, 0.10), start=1)])
def test_gaussian_noise_has_its_standard_deviation(severity, sd):
    noise = corrupt(plain(128, 20), "gaussian_noise", severity, rng()) / 255 - 128 / 255
    assert noise.mean() == pytest.approx(0, abs=0.002)
    assert noise.std() == pytest.approx(sd, rel=0.02)


def test_shot_noise_counts_photons():
    for severity, photons in enumerate((500, 250, 100, 75, 50), start=1):
        shot = corrupt(plain(51, 20), "shot_noise", severity, rng()) / 255  # x = 0.2
        assert shot.mean() == pytest.approx(0.2, abs=0.002)
        assert shot.var() == pytest.approx(0.2 / photons, rel=0.06)  # rounding to 255ths adds 4 % at 500
    assert not corrupt(plain(0), "shot_noise", 5, rng()).any()


def test_impulse_noise_is_salt_and_pepper():
    changed = corrupt(plain(128, 20), "impulse_noise", 5, rng())
    assert set(np.unique(changed)) == {0, 128, 255}
    assert (changed == 0).mean() == pytest.approx(0.035, rel=0.05)
    assert (changed == 255).mean() == pytest.approx(0.035, rel=0.05)


def test_speckle_noise_grows_with_the_value():
    spread = [(corrupt(plain(value, 20), "speckle_noise", 1, rng()) / 255.0).std() for value in (50, 150)]
    assert spread[0] == pytest.approx(0.06 * 50 / 255, rel=0.03)
    assert spread[1] == pytest.approx(0.06 * 150 / 255, rel=0.03)
    assert not corrupt(plain(0), "speckle_noise", 5, rng()).any()


def test_contrast_by_hand():
    image = plain(100, 1)
    image[0, :16] = 200  # the mean is 150
    assert np.unique(corrupt(image, "contrast", 2, rng())).tolist() == [125, 175]
    assert np.unique(corrupt(image, "contrast", 5, rng())).tolist() == [142, 158]  # 150 +- 7.5, rounded to even


def test_brightness_adds_to_the_largest_channel_and_keeps_the_hue():
    image = plain(0, 1, 8)
    image[0, 0, 0] = (100, 50, 0)
    image[0, 0, 1] = (250, 125, 250)
    changed = corrupt(image, "brightness", 2, rng())[0, 0]
    assert changed[0].tolist() == [126, 63, 0]  # 100 + 25.5; all values grow by the same factor
    assert changed[1].tolist() == [255, 128, 255]
    assert changed[2].tolist() == [26, 26, 26]  # black turns grey


def test_saturate_by_hand():
    image = plain(0, 1, 8)
    image[0, 0, 0] = (200, 100, 150)  # S is 0.5
    image[0, 0, 1] = (80, 80, 80)
    assert corrupt(image, "saturate", 1, rng())[0, 0, 0].tolist() == [200, 170, 185]  # S is 0.15
    assert corrupt(image, "saturate", 3, rng())[0, 0, 0].tolist() == [200, 50, 125]  # S is 0.75
    assert corrupt(image, "saturate", 3, rng())[0, 0, 1].tolist() == [80, 80, 80]
    assert corrupt(image, "saturate", 4, rng())[0, 0, 1].tolist() == [80, 72, 72]  # S is 0.1, with the hue of red
    import colorsys

    for red, green, blue in ((10, 250, 30), (77, 66, 55)):
        image[0, 0, 0] = (red, green, blue)
        hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        expected = [255 * each for each in colorsys.hsv_to_rgb(hue, min(1, 2.5 * saturation + 0.2), value)]
        np.testing.assert_allclose(corrupt(image, "saturate", 5, rng())[0, 0, 0], expected, atol=0.51)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_equals_pillow(severity, images):
    size = int(32 * CORRUPTIONS["pixelate"].severities[severity - 1])
    ours = corrupt(images, "pixelate", severity, rng())
    for image, changed in zip(images, ours, strict=True):
        small = Image.fromarray(image).resize((size, size), Image.Resampling.BOX)
        assert np.array_equal(changed, np.asarray(small.resize((32, 32), Image.Resampling.BOX)))


def test_jpeg_compression_equals_pillow(images):
    file = io.BytesIO()
    Image.fromarray(images[3]).save(file, "JPEG", quality=40)
    assert np.array_equal(corrupt(images, "jpeg_compression", 5, rng())[3], np.asarray(Image.open(file)))


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "zoom_blur", "gaussian_blur", "glass_blur"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_keeps_a_plain_image(name, severity):
    assert np.array_equal(corrupt(plain(137), name, severity, rng()), plain(137))


def test_defocus_blur_of_a_point():
    point = plain(0, 1)
    point[0, 16, 16] = 90
    seen = corrupt(point, "defocus_blur", 5, rng())[0, ..., 0]  # radius 1.5: nine pixels
    assert np.array_equal(np.argwhere(seen), [(y, x) for y in (15, 16, 17) for x in (15, 16, 17)])
    assert np.unique(seen[seen > 0]).tolist() == [10]
    seen = corrupt(point, "defocus_blur", 4, rng())[0, ..., 0]  # radius 1: five pixels
    assert seen[16, 15:18].tolist() == seen[15:18, 16].tolist() == [18, 18, 18]
    large = plain(0, 1, 64)
    large[0, 32, 32] = 255
    seen = corrupt(large, "defocus_blur", 5, rng())[0, ..., 0]  # radius 3 in an image twice as large
    assert np.abs(np.argwhere(seen > 2) - 32).max() == 3


def test_gaussian_blur_agrees_with_scipy(images):
    from scipy.ndimage import gaussian_filter

    expected = gaussian_filter(images.astype(float), (0, 1, 1, 0))
    np.testing.assert_allclose(corrupt(images, "gaussian_blur", 5, rng()), expected, atol=1.5)


def test_motion_blur_is_a_half_sided_line():
    points = plain(0, 200)
    points[:, 16, 16] = 255
    seen = corrupt(points, "motion_blur", 3, rng())[..., 0]
    assert len(np.unique(seen, axis=0)) > 8  # directions
    for image in seen:
        places = np.argwhere(image)
        rows, columns = np.abs(places - 16).T
        assert (rows <= columns).all()  # within 45 degrees
        assert len(places) >= 5
    assert ((seen[:, :, :16].any(axis=(1, 2))) ^ (seen[:, :, 17:].any(axis=(1, 2)))).all()  # on one side only


def test_zoom_blur_is_the_mean_of_zooms(images):
    from scipy.ndimage import zoom

    x = images[:2].astype(float)
    zoomed = []
    for factor in np.arange(1, 1.11, 0.01):  # twelve: rounding makes it include 1.11
        cut = int(np.ceil(32 / factor))
        top = (32 - cut) // 2
        large = zoom(x[:, top : top + cut, top : top + cut], (1, factor, factor, 1), order=1)
        trim = (large.shape[1] - 32) // 2
        zoomed.append(large[:, trim : trim + 32, trim : trim + 32])
    expected = (x + sum(zoomed)) / (len(zoomed) + 1)
    np.testing.assert_allclose(corrupt(images[:2], "zoom_blur", 2, rng()), expected, atol=0.51)


def test_glass_blur_copies_neighbours_as_the_published_program_does():
    rows, columns = np.mgrid[:32, :32]
    image = np.stack([rows * 8, columns * 8, np.zeros_like(rows)], -1).astype(np.uint8)[None].repeat(20, 0)
    moved = (blurs.glass_blur(image, (0.05, 1, 1), rng()).astype(int) - image)[..., :2] // 8
    inner = moved[:, 2:, 2:]
    assert {*np.unique(inner)} == {-1, 0}  # each pixel is itself or a neighbour above or left
    assert inner.mean() == pytest.approx(-0.5, abs=0.02)
    assert not moved[:, :2].any()
    assert not moved[:, :, :2].any()
    twice = (blurs.glass_blur(image, (0.05, 1, 2), rng()).astype(int) - image)[..., :2] // 8
    assert twice.min() == -2
    assert twice[:, 3:, 3:].mean() == pytest.approx(-1, abs=0.03)


def test_snow_is_white_and_falls():
    black = corrupt(plain(0, 50), "snow", 3, rng())
    assert (black == black[..., :1]).all()  # no colour
    assert np.array_equal(black, black[:, ::-1, ::-1])  # flakes and the same flakes rotated by 180 degrees
    assert black.min() >= 12  # 0.1 of the whitened grey, which is 0.5 for black
    flakes = black[..., 0].astype(float) - black.min()
    down, across = (np.abs(np.diff(flakes, axis=axis)).mean() for axis in (1, 2))
    assert down < across  # streaks are steep


def test_frost_adds_light_and_varies():
    frosted = corrupt(plain(40, 10), "frost", 3, rng())
    assert frosted.mean() > 60
    assert frosted.std() > 10
    assert len(np.unique(frosted, axis=0)) == 10


def test_frost_is_as_bright_and_as_varied_as_the_photos():
    """The five photos have a mean of 162, means of 115 to 205 and sections whose deviation is 22 on average."""
    added = corrupt(plain(0, 500), "frost", 5, rng()) / 0.45
    assert added.mean() == pytest.approx(162, abs=5)
    grey = added.mean(axis=3)
    assert grey.std(axis=(1, 2)).mean() == pytest.approx(22, abs=3)
    assert np.ptp(np.round(grey.mean(axis=(1, 2)), -1)) >= 80
    fine = np.abs(np.diff(grey, axis=2)).mean() / grey.std(axis=(1, 2)).mean()
    assert 0.5 < fine < 1.0  # neighbours differ by most of the deviation: the grain is fine


def test_fog_keeps_the_brightest_and_is_smooth():
    clouds = weather.plasma(20, 32, 3, rng())
    assert clouds.min(axis=(1, 2)).tolist() == [0] * 20
    assert clouds.max(axis=(1, 2)).tolist() == [1] * 20
    rough = weather.plasma(20, 32, 1.75, rng())
    assert np.abs(np.diff(clouds, axis=1)).mean() < np.abs(np.diff(rough, axis=1)).mean()
    white = corrupt(plain(255, 5), "fog", 5, rng())
    assert white.max() == 255
    assert white.min() == 102  # 255 / (1 + 1.5), where there is no fog


def test_elastic_transform_moves_points():
    columns = np.arange(32) * np.ones((32, 1))
    ramp = np.repeat((100 + columns * 3)[None, ..., None], 200, 0).repeat(3, -1).astype(np.uint8)
    moved = (corrupt(ramp, "elastic_transform", 1, rng()).astype(float) - ramp)[:, 8:24, 8:24] / 3
    assert 0.5 < np.abs(moved).mean() < 2.56  # pixels: three points by up to 0.08 of 32
    assert np.abs(moved).max() < 2.56 * 4
    still = digital.elastic_transform(ramp, (0, 0, 0), rng())
    assert np.array_equal(still, ramp)
