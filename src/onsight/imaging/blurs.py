"""Blurs: Gaussian, defocus, motion, zoom, glass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from onsight.imaging.augment import blur
from onsight.imaging.sampling import pixel_scale, to_uint8

ANGLES = 31  # number of directions that a motion can have

# Sums of shifted images --------------------------------------------------------------------------------------------


def gaussian_blur(images: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Blur by a Gaussian of standard deviation `sd`, in pixels."""
    return to_uint8(blur(images.astype(np.float32), np.full((len(images), 2), sd * pixel_scale(images), np.float32)))


def defocus_blur(images: np.ndarray, lens: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Blur by a disk softened by a Gaussian. `lens` is the radius and the standard deviation, in pixels."""
    from scipy.ndimage import gaussian_filter

    radius, sd = (each * pixel_scale(images) for each in lens)
    reach = int(radius + 2 * sd + 1)
    offsets = np.arange(-reach, reach + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float32)
    disk = gaussian_filter(disk / disk.sum(), sd, truncate=2)
    taps = [(y - reach, x - reach, float(disk[y, x])) for y, x in np.argwhere(disk > 1e-4).tolist()]
    return to_uint8(_shifted_sum(images.astype(np.float32), taps, "reflect"))


def motion_blur(images: np.ndarray, motion: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Blur each image along a half-sided Gaussian at a random angle within 45 degrees of horizontal.

    `motion` is the radius and the standard deviation, in pixels.
    """
    return to_uint8(directional_blur(images.astype(np.float32), motion, 0, rng))


def directional_blur(
    images: np.ndarray, motion: tuple[float, float], angle: float, rng: np.random.Generator
) -> np.ndarray:
    """Return (n, side, side, ...) float32 images blurred along random lines within 45 degrees of `angle`.

    The border pixels are repeated. Lines are drawn as in ImageMagick: 2 radius + 1 steps of one pixel, each rounded to
    the nearest pixel.
    """
    radius, sd = (each * images.shape[1] / 32 for each in motion)
    steps = np.arange(2 * np.ceil(radius) + 1)
    weights = np.exp(-0.5 * (steps / sd) ** 2)
    steps = steps[weights > 1e-3]
    weights = (weights / weights[: len(steps)].sum())[: len(steps)].tolist()
    moved = np.empty_like(images)
    chosen = rng.integers(0, ANGLES, len(images))
    for i in np.unique(chosen):
        direction = np.radians(angle + 90 * (i + 0.5) / ANGLES - 45)
        rows, columns = (np.rint(steps * each).astype(int).tolist() for each in (np.sin(direction), np.cos(direction)))
        same = np.flatnonzero(chosen == i)
        moved[same] = _shifted_sum(images[same], list(zip(rows, columns, weights, strict=True)), "edge")
    return moved


def _shifted_sum(images: np.ndarray, taps: Sequence[tuple[int, int, float]], border: str) -> np.ndarray:
    """Return the sum of weight * image shifted by (rows, columns) over `taps` of (rows, columns, weight).

    The images are (n, H, W, ...) float32.
    """
    height, width = images.shape[1:3]
    rows, columns, _ = zip(*taps, strict=True)
    top, left = max(0, -min(rows)), max(0, -min(columns))
    around = [(0, 0), (top, max(0, *rows)), (left, max(0, *columns)), *[(0, 0)] * (images.ndim - 3)]
    padded = np.pad(images, around, border)  # type: ignore[call-overload]
    total, part = np.zeros_like(images), np.empty_like(images)
    for weight in sorted({tap[2] for tap in taps}):
        views = [padded[:, top + y : top + y + height, left + x : left + x + width] for y, x, w in taps if w == weight]
        if len(views) == 1:
            np.multiply(views[0], weight, out=part)
        else:
            np.add(views[0], views[1], out=part)
            for view in views[2:]:
                part += view
            part *= weight
        total += part
    return total


def zoom_blur(images: np.ndarray, end: float, rng: np.random.Generator) -> np.ndarray:
    """Return the mean of the image and its centre enlarged by each of `np.arange(1, end, 0.01)`.

    Rounding makes that include the end for 1.06 and 1.11, as in the published images.
    """
    n, side = images.shape[:2]
    columns = images.transpose(1, 2, 0, 3).reshape(side * side, n * 3).astype(np.float32)
    blurred = _zooms(side, end) @ columns
    return to_uint8(blurred.reshape(side, side, n, 3).transpose(2, 0, 1, 3))


@lru_cache(maxsize=8)
def _zooms(side: int, end: float) -> Any:
    """Return the sparse (side², side²) matrix with which `zoom_blur` multiplies the pixels of an image."""
    from scipy import sparse

    factors = np.arange(1, end, 0.01)
    axes = [sparse.csr_array(zoom_matrix(side, factor)) for factor in factors]
    total = sum((sparse.kron(axis, axis, "csr") for axis in axes), sparse.eye_array(side * side, format="csr"))
    return (total / (len(factors) + 1)).astype(np.float32)


def zoom_matrix(side: int, factor: float) -> np.ndarray:
    """Return the (side, side) float32 matrix that linearly enlarges the centre of a line of pixels to its length."""
    cut = int(np.ceil(side / factor))
    enlarged = round(cut * factor)
    taken = np.arange(side) + (enlarged - side) // 2
    place = (side - cut) // 2 + np.clip(taken * (cut - 1) / max(enlarged - 1, 1), 0, cut - 1)
    weights: np.ndarray = np.clip(1 - np.abs(place[:, None] - np.arange(side)), 0, None)
    return weights.astype(np.float32)


def glass_blur(images: np.ndarray, glass: tuple[float, int, int], rng: np.random.Generator) -> np.ndarray:
    """Blur, replace each pixel by a random neighbour in several passes, and blur again.

    `glass` is (sd of the blur, distance, passes). A neighbour lies at most `distance` pixels up or left, or one less
    down or right. A border of `distance` pixels stays, one more up and left. The published program means to exchange
    two pixels, but copies the neighbour over the pixel; at distance 1, the only one of 32 px, all neighbours are
    copied before they are replaced.
    """
    sd, distance, passes = glass[0], max(1, round(glass[1] * pixel_scale(images))), glass[2]
    n, side = images.shape[:2]
    pixels = gaussian_blur(images, sd, rng)
    every = np.arange(distance + 1, side - distance + 1)
    for _ in range(passes):
        moves = rng.integers(-distance, distance, (2, n, len(every), len(every)))
        rows, columns = every[:, None] + moves[0], every + moves[1]
        pixels[:, every[:, None], every] = pixels[np.arange(n)[:, None, None], rows, columns]
    return gaussian_blur(pixels, sd, rng)
