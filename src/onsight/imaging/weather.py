"""Weather: snow, frost, fog."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from onsight.imaging.blurs import directional_blur, zoom_matrix
from onsight.imaging.sampling import pixel_scale, to_uint8

# Weather -------------------------------------------------------------------------------------------------------------


class Snowfall(NamedTuple):
    """Parameters of `snow`: brightness of the flakes before the threshold, their size, their motion blur, the light."""

    mean: float
    sd: float
    zoom: float
    threshold: float
    radius: float
    motion_sd: float
    kept: float  # share of the image; the rest is its whitened grey


def snow(images: np.ndarray, fall: Snowfall, rng: np.random.Generator) -> np.ndarray:
    """Whiten the image, then add flakes blown by the wind and the same flakes rotated by 180 degrees."""
    side = images.shape[1]
    flakes = rng.standard_normal(images.shape[:3], np.float32) * fall.sd + fall.mean
    if (factor := fall.zoom * pixel_scale(images)) > 1:
        axis = zoom_matrix(side, factor)
        flakes = axis @ flakes @ axis.T
    flakes = np.where(flakes < fall.threshold, 0, np.minimum(flakes, 1))
    flakes = directional_blur(flakes, (fall.radius, fall.motion_sd), -90, rng)
    flakes += flakes[:, ::-1, ::-1].copy()
    snowed = images.astype(np.float32)
    grey = snowed @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601
    grey = grey * (1.5 * (1 - fall.kept)) + 127.5 * (1 - fall.kept)
    white = np.maximum(snowed * (1 - fall.kept), grey[..., None])
    snowed *= fall.kept
    snowed += white
    snowed += flakes[..., None] * 255
    return to_uint8(snowed)


class Window(NamedTuple):
    """Brightness and contrast of a frosted window, in grey levels of 0..255, and the share of them in each channel."""

    mean: float
    sd: float
    tint: tuple[float, float, float]


# As in the five photos from which the published images took their frost, of which two are alike.
WINDOWS = (
    Window(130, 14, (0.6, 1.14, 1.27)),
    Window(205, 18, (0.97, 0.99, 1.04)),
    Window(205, 18, (0.97, 0.99, 1.04)),
    Window(157, 26, (0.91, 1.0, 1.09)),
    Window(115, 34, (0.9, 1.0, 1.1)),
)
# (cells per side of a window, share of the variance): the photos have details of every size, most of them fine.
FROST_GRAIN = ((12, 0.13), (24, 0.11), (48, 0.14), (96, 0.23), (128, 0.39))


def frost(images: np.ndarray, weights: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Add a random section of one of five frosted windows. `weights` are those of the image and of the frost."""
    n, side = images.shape[:2]
    windows = _windows(side)
    places = rng.integers(0, [len(windows), *[windows.shape[1] - side] * 2], (n, 3))
    mixed = images * np.float32(weights[0])
    for image, (window, top, left) in zip(mixed, places.tolist(), strict=True):
        image += windows[window, top : top + side, left : left + side] * np.float32(weights[1])
    return to_uint8(mixed)


@lru_cache(maxsize=2)
def _windows(side: int) -> np.ndarray:
    """Return the drawn windows, (5, 4 side, 4 side, 3) uint8: noise at several sizes."""
    from scipy.ndimage import zoom

    rng = np.random.default_rng(0)
    size = 4 * side
    windows = np.empty((len(WINDOWS), size, size, 3), np.uint8)
    for number, (mean, sd, tint) in enumerate(WINDOWS):
        grain = np.zeros((size, size))
        for cells, share in FROST_GRAIN:
            smooth = zoom(rng.standard_normal((cells + 4, cells + 4)), size / cells, order=3)[:size, :size]
            grain += share**0.5 * (smooth - smooth.mean()) / smooth.std()
        windows[number] = to_uint8((mean + sd * grain)[..., None] * tint)
    return windows


def fog(images: np.ndarray, density: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Add a cloud, then darken the image so that its brightest value stays the same.

    The cloud is a plasma fractal. `density` is its (strength, decay).
    """
    strength, decay = density
    side = images.shape[1]
    brightest = images.max(axis=(1, 2, 3)).astype(np.float32)[:, None, None, None]  # (n, 1, 1, 1)
    clouds = plasma(len(images), 1 << (side - 1).bit_length(), decay, rng)[:, :side, :side, None]
    fogged = images + clouds * np.float32(255 * strength)
    fogged *= brightest / (brightest + 255 * strength)
    return to_uint8(fogged)


def plasma(n: int, side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Return n plasma fractals (n, side, side) float32 from 0 to 1, by the diamond-square algorithm.

    `side` is a power of two. The fractals wrap around at their borders. The random offsets shrink by the square of
    `decay` from one step to the next, as in CIFAR-10-C.
    """
    heights = np.zeros((n, side, side), np.float32)
    step, wobble = side, np.float32(1)

    def middle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the mean of four neighbours, given as the sums of two pairs, plus a random offset."""
        means: np.ndarray = (first + second) / 4
        means += (rng.random(first.shape, np.float32) * 2 - 1) * wobble
        return means

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, 1)
        centres = heights[:, half::step, half::step] = middle(pairs, np.roll(pairs, -1, 2))
        across, down = corners + np.roll(corners, -1, 2), corners + np.roll(corners, -1, 1)
        heights[:, ::step, half::step] = middle(across, centres + np.roll(centres, 1, 1))
        heights[:, half::step, ::step] = middle(down, centres + np.roll(centres, 1, 2))
        step, wobble = half, wobble / np.float32(decay) ** 2
    heights -= heights.min(axis=(1, 2), keepdims=True)
    heights /= heights.max(axis=(1, 2), keepdims=True)
    return heights
