"""Corruptions of pictures by the parameters of CIFAR-10-C: 15 that are scored, 3 to tune on, 5 severities of each.

Parameters: Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations". What is made here is "CIFAR-10-C style", never CIFAR-10-C: other random numbers, and a frost that is
drawn instead of photographed. The parameters are meant for a side of 32: what they give in pixels (radii, standard
deviations, distances, the grain of snow and frost) grows by side / 32; noise, the shares of `pixelate` and the blocks
of JPEG do not.

Everything works on a batch at once, for 750,000 pictures are to be made in minutes. NumPy and SciPy let go of the
interpreter while they compute, so that threads help.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from onsight.imaging.augment import blur

SEVERITIES = (1, 2, 3, 4, 5)
DRAWS = 4096  # noise on a value is one of so many quantiles of its distribution: normal noise ends at 3.7 sd
ANGLES = 31  # directions that a motion can have


def corrupt(images: np.ndarray, name: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Return `images` (n, side, side, 3) uint8 corrupted by the corruption `name`, in a new array of the same kind.

    `severity` is 1 to 5; all that is random is drawn from `rng`, for the whole batch. Raises KeyError for an unknown
    name and ValueError for another severity or for pictures that are not square.
    """
    corruption = CORRUPTIONS[name]
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity} must be 1 to 5")
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"pictures must be (n, side, side, 3) uint8, not {images.shape} {images.dtype}")
    return corruption.function(images, corruption.severities[severity - 1], rng)


# Noise: each value for itself ----------------------------------------------------------------------------------------


def gaussian_noise(images: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise of this standard deviation, of 1."""
    return _replace(images, _normal_table(sd, multiplied=False), rng)


def speckle_noise(images: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Add to each value normal noise of this share of it."""
    return _replace(images, _normal_table(sd, multiplied=True), rng)


def shot_noise(images: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    """Count photons: a Poisson variable of mean x times `photons`, by `photons`."""
    return _replace(images, _poisson_table(photons), rng)


def impulse_noise(images: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Replace this share of the values by 0 or 255, as often the one as the other."""
    return _replace(images, _impulse_table(share), rng)


@lru_cache(maxsize=32)
def _normal_table(sd: float, multiplied: bool) -> np.ndarray:
    from scipy.special import ndtri

    levels = np.arange(256)[:, None] / 255
    return _bytes((levels + sd * ndtri(_quantiles()) * (levels if multiplied else 1)) * 255)


@lru_cache(maxsize=32)
def _poisson_table(photons: float) -> np.ndarray:
    from scipy.special import pdtr

    counts = np.arange(2 * photons + 50)
    shares = [pdtr(counts, photons * level / 255) for level in range(256)]  # of at most so many photons
    return _bytes(np.stack([np.searchsorted(share, _quantiles()) for share in shares]) * (255 / photons))


@lru_cache(maxsize=32)
def _impulse_table(share: float) -> np.ndarray:
    table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], DRAWS, axis=1)
    changed = round(share * DRAWS)
    table[:, :changed], table[:, : changed // 2] = 255, 0
    return table


def _quantiles() -> np.ndarray:
    return (np.arange(DRAWS) + 0.5) / DRAWS


def _replace(images: np.ndarray, table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each value one of the DRAWS that the table (256, DRAWS) has for it: any noise for the same price."""
    index = np.multiply(images, DRAWS, dtype=np.uint32)
    index += rng.integers(0, DRAWS, images.shape, np.uint16)
    replaced: np.ndarray = table.ravel().take(index)
    return replaced


# Blur: sums of shifted pictures --------------------------------------------------------------------------------------


def gaussian_blur(images: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Blur by a Gaussian of this standard deviation in pixels."""
    return _bytes(blur(images.astype(np.float32), np.full((len(images), 2), sd * _scale(images), np.float32)))


def defocus_blur(images: np.ndarray, lens: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Blur by a disk of this radius, softened by a Gaussian of this standard deviation, both in pixels."""
    from scipy.ndimage import gaussian_filter

    radius, sd = (each * _scale(images) for each in lens)
    reach = int(radius + 2 * sd + 1)
    offsets = np.arange(-reach, reach + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float32)
    disk = gaussian_filter(disk / disk.sum(), sd, truncate=2)
    taps = [(y - reach, x - reach, float(disk[y, x])) for y, x in np.argwhere(disk > 1e-4).tolist()]
    return _bytes(_shifted_sum(images.astype(np.float32), taps, "reflect"))


def motion_blur(images: np.ndarray, motion: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Blur each picture along a half-sided Gaussian of this radius and sd, in pixels, at an angle within 45 degrees."""
    return _bytes(_move(images.astype(np.float32), motion, 0, rng))


def _move(images: np.ndarray, motion: tuple[float, float], angle: float, rng: np.random.Generator) -> np.ndarray:
    """Blur (n, side, side, ...) float32 along lines that lie within 45 degrees of `angle`, the border repeated.

    As ImageMagick draws them: 2 radius + 1 steps of one pixel, to the nearest pixel each.
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
    """Return sum of weight * picture moved by (rows, columns), of (n, H, W, ...) float32; the weights come in taps."""
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
    """Return the mean of the picture and its centre enlarged by 1, 1.01 and so on, up to but without `end`."""
    n, side = images.shape[:2]
    columns = images.transpose(1, 2, 0, 3).reshape(side * side, n * 3).astype(np.float32)
    blurred = _zooms(side, end) @ columns
    return _bytes(blurred.reshape(side, side, n, 3).transpose(2, 0, 1, 3))


@lru_cache(maxsize=8)
def _zooms(side: int, end: float) -> Any:
    """Return the sparse (side², side²) matrix by which `zoom_blur` multiplies the pixels of a picture."""
    from scipy import sparse

    factors = np.arange(1, end - 1e-9, 0.01)
    axes = [sparse.csr_array(_zoom(side, factor)) for factor in factors]
    total = sum((sparse.kron(axis, axis, "csr") for axis in axes), sparse.eye_array(side * side, format="csr"))
    return (total / (len(factors) + 1)).astype(np.float32)


def _zoom(side: int, factor: float) -> np.ndarray:
    """Return the (side, side) float32 matrix that enlarges the centre of a line of pixels to the whole, linearly."""
    cut = int(np.ceil(side / factor))
    enlarged = round(cut * factor)
    taken = np.arange(side) + (enlarged - side) // 2
    place = (side - cut) // 2 + np.clip(taken * (cut - 1) / max(enlarged - 1, 1), 0, cut - 1)
    weights: np.ndarray = np.clip(1 - np.abs(place[:, None] - np.arange(side)), 0, None)
    return weights.astype(np.float32)


def glass_blur(images: np.ndarray, glass: tuple[float, int, int], rng: np.random.Generator) -> np.ndarray:
    """Blur, exchange pixels with a random neighbour in so many passes, and blur again: (sd, distance, passes).

    A neighbour lies at most the distance up or left, or one less down or right, and a pixel moves once a pass: by 0.6
    pixels (root mean square) at distance 1. The published pictures' program copies where it means to exchange, and
    moves them by 0.5; one exchange after the other would carry pixels through the whole picture, 1.2 on average.
    """
    sd, distance, passes = glass[0], max(1, round(glass[1] * _scale(images))), glass[2]
    n, side = images.shape[:2]
    pixels = np.zeros((n, side, side, 4), np.uint8)
    pixels[..., :3] = gaussian_blur(images, sd, rng)
    flat = pixels.view(np.uint32).ravel()  # a pixel is a number
    every = np.arange(distance, side - distance + 1)
    first = np.arange(n)[:, None] * (side * side)
    for _ in range(passes):
        moved = np.zeros(len(flat), bool)
        # Pixels on a grid as wide as two distances cannot meet, so that all of them are exchanged at once.
        for phase in range(4 * distance * distance):
            rows, columns = (every[start :: 2 * distance] for start in divmod(phase, 2 * distance))
            here = (rows[:, None] * side + columns).ravel() + first
            moves = rng.integers(-distance, distance, (2, *here.shape), np.int32)
            there = here + moves[0] * side + moves[1]
            free = ~(moved[here] | moved[there])
            here, there = here[free], there[free]
            moved[here] = moved[there] = True
            flat[here], flat[there] = flat[there], flat[here]  # indexing has copied both
    return gaussian_blur(pixels[..., :3], sd, rng)


# Weather -------------------------------------------------------------------------------------------------------------


class Snowfall(NamedTuple):
    """Brightness of the flakes before the threshold, their size, and how the wind blurs them; the light."""

    mean: float
    sd: float
    zoom: float
    threshold: float
    radius: float
    motion_sd: float
    kept: float  # share of the picture against its whitened grey


def snow(images: np.ndarray, fall: Snowfall, rng: np.random.Generator) -> np.ndarray:
    """Whiten the picture and add flakes blown by the wind, and the same flakes turned by half."""
    side = images.shape[1]
    flakes = rng.standard_normal(images.shape[:3], np.float32) * fall.sd + fall.mean
    if (factor := fall.zoom * _scale(images)) > 1:
        axis = _zoom(side, factor)
        flakes = axis @ flakes @ axis.T
    flakes = np.where(flakes < fall.threshold, 0, np.minimum(flakes, 1))
    flakes = _move(flakes, (fall.radius, fall.motion_sd), -90, rng)
    flakes += flakes[:, ::-1, ::-1].copy()
    snowed = images.astype(np.float32)
    grey = snowed @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601
    grey = grey * (1.5 * (1 - fall.kept)) + 127.5 * (1 - fall.kept)
    white = np.maximum(snowed * (1 - fall.kept), grey[..., None])
    snowed *= fall.kept
    snowed += white
    snowed += flakes[..., None] * 255
    return _bytes(snowed)


def frost(images: np.ndarray, weights: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Add a piece of a frosted window: weights of the picture and of the frost."""
    n, side = images.shape[:2]
    window = _window(side)
    places = rng.integers(0, len(window) - side, (n, 2))
    mixed = images * np.float32(weights[0])
    for picture, (top, left) in zip(mixed, places.tolist(), strict=True):
        picture += window[top : top + side, left : left + side] * np.float32(weights[1])
    return _bytes(mixed)


@lru_cache(maxsize=2)
def _window(side: int) -> np.ndarray:
    """Draw the window, (4 side, 4 side, 3) float32 in 0..255: ridges of smooth noise, bluish white on grey."""
    from scipy.ndimage import map_coordinates, zoom

    rng = np.random.default_rng(0)
    size = 4 * side

    def smooth(cells: int) -> Any:
        return zoom(rng.standard_normal((cells + 4, cells + 4)), size / cells, order=3)[:size, :size]

    rows, columns = np.mgrid[:size, :size].astype(float)
    bend = size / 20
    ridges = np.zeros((size, size))
    for octave, cells in enumerate((12, 24, 48)):
        field = map_coordinates(smooth(cells), [rows + bend * smooth(6), columns + bend * smooth(6)], mode="reflect")
        ridges += np.exp(-3 * np.abs(field)) * 0.75**octave
    thick = 1 / (1 + np.exp(-1.5 * smooth(5)))  # 0 where the window is nearly clear
    white = np.clip(0.12 + 0.55 * ridges * (0.35 + thick), 0, 1)[..., None]
    tinted: np.ndarray = np.clip(white * (1 - 0.16 * (1 - white) * np.array([1.0, 0.4, -0.4])), 0, 1)
    return (255 * tinted).astype(np.float32)


def fog(images: np.ndarray, density: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Add a cloud, a plasma fractal: (strength, decay); then darken, so that the brightest keeps its brightness."""
    strength, decay = density
    side = images.shape[1]
    brightest = images.max(axis=(1, 2, 3)).astype(np.float32)[:, None, None, None]  # (n, 1, 1, 1)
    clouds = _plasma(len(images), 1 << (side - 1).bit_length(), decay, rng)[:, :side, :side, None]
    fogged = images + clouds * np.float32(255 * strength)
    fogged *= brightest / (brightest + 255 * strength)
    return _bytes(fogged)


def _plasma(n: int, side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Return n fractals (n, side, side) float32 from 0 to 1, by the diamond-square algorithm; side a power of two.

    They go on beyond their borders. What is added at random falls by the square of `decay` from one step to the next,
    as it does in CIFAR-10-C.
    """
    heights = np.zeros((n, side, side), np.float32)
    step, wobble = side, np.float32(1)

    def middle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the mean of four neighbours, given as two pairs' sums, and something random."""
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


# Light and colour ----------------------------------------------------------------------------------------------------


def brightness(images: np.ndarray, more: float, rng: np.random.Generator) -> np.ndarray:
    """Add to V of HSV, at most up to 1: hue and saturation stay, so that a pixel's values grow by one factor."""
    values = images.max(axis=3)
    raised = np.minimum(np.arange(256) + 255 * more, 255)
    factors = np.append(0, raised[1:] / np.arange(1, 256)).astype(np.float32)
    brighter = images * factors[values][..., None]
    brighter[values == 0] = raised[0]  # black has no hue
    return _bytes(brighter)


def saturate(images: np.ndarray, change: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Change S of HSV to S times the first and plus the second; a grey has the hue of red."""
    value = images.max(axis=3, keepdims=True).astype(np.float32)
    below = value - images  # how far each channel lies below the largest
    spread = below.max(axis=3, keepdims=True)
    saturation = spread / np.maximum(value, 1)
    wanted = np.clip(saturation * change[0] + change[1], 0, 1) * value
    below *= wanted / np.maximum(spread, 1)
    below[..., 1:] += np.where(spread == 0, wanted, 0)
    return _bytes(value - below)


def contrast(images: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the values to the picture's mean of their channel."""
    means = images.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return _bytes(images * np.float32(factor) + means * np.float32(1 - factor))


# Geometry and files --------------------------------------------------------------------------------------------------


def elastic_transform(images: np.ndarray, rubber: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Move three points and the picture with them, then every pixel: (strength, smoothing sd, shift), of the side."""
    n, side = images.shape[:2]
    strength, sd, shift = (each * side for each in rubber)
    half, arm = side // 2, side // 3
    fixed = np.array([[half + arm, half + arm], [half + arm, half - arm], [half - arm, half - arm]], float)
    moved = np.ones((n, 3, 3))
    moved[..., :2] = fixed + rng.uniform(-shift, shift, (n, 3, 2))
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    grid = np.stack([rows, columns, np.ones_like(rows)], axis=-1)
    back = np.linalg.solve(moved, np.broadcast_to(fixed, (n, 3, 2)))  # from where a point is to where it was
    places = np.tensordot(back.astype(np.float32), grid, ([1], [2]))  # (n, 2, side, side)
    stretched = _sample(images.astype(np.float32), places[:, 0], places[:, 1])
    if strength:
        jolts = rng.random((n, side, side, 2), np.float32) * 2 - 1
        jolts = blur(jolts, np.full((n, 2), sd, np.float32)) * np.float32(strength)
        stretched = _sample(stretched, rows + jolts[..., 0], columns + jolts[..., 1])
    return _bytes(stretched)


def _sample(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return (n, side, side, 3) float32 pictures at places (n, side, side), linear between pixels, border reflected."""
    n, side = images.shape[:2]
    pixels = images.reshape(-1, 3)
    first = (np.arange(n) * side * side)[:, None, None]
    top, left = np.floor(rows), np.floor(columns)
    down, right = rows - top, columns - left
    above, below = (_reflect(top.astype(np.intp) + by, side) * side + first for by in (0, 1))
    before, after = (_reflect(left.astype(np.intp) + by, side) for by in (0, 1))
    sampled = np.zeros_like(images)
    for line, column, weight in (
        (above, before, (1 - down) * (1 - right)),
        (above, after, (1 - down) * right),
        (below, before, down * (1 - right)),
        (below, after, down * right),
    ):
        corner = pixels.take(line + column, axis=0)
        corner *= weight[..., None]
        sampled += corner
    return sampled


def _reflect(places: np.ndarray, side: int) -> np.ndarray:
    """Return integer places brought into 0..side - 1, mirrored at the first and the last pixel."""
    mirrored: np.ndarray = np.clip(side - 1 - np.abs(side - 1 - np.abs(places)), 0, side - 1)
    return mirrored


def pixelate(images: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Scale the picture to this share of its side and back, by Pillow's box filter."""
    side = images.shape[1]
    for size in (int(side * share), side):
        for _ in range(2):  # across, then down: the batch is one tall picture each time
            images = np.ascontiguousarray(_resize_across(images, size).transpose(0, 2, 1, 3))
    return images


def _resize_across(images: np.ndarray, width: int) -> np.ndarray:
    from PIL import Image

    n, height = images.shape[:2]
    tall = Image.fromarray(images.reshape(n * height, -1, 3))
    return np.asarray(tall.resize((width, n * height), Image.Resampling.BOX)).reshape(n, height, width, 3)


def jpeg_compression(images: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    """Write the picture as JPEG of this quality and read it."""
    from PIL import Image

    read = np.empty_like(images)
    for i, picture in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        with Image.open(file) as again:
            read[i] = again
    return read


def _scale(images: np.ndarray) -> float:
    """Return how many pixels one of the table's is."""
    return float(images.shape[1]) / 32


def _bytes(values: np.ndarray) -> np.ndarray:
    """Return numbers of 0..255 as uint8, rounded; what lies outside is clipped."""
    values = np.rint(values, out=values) if values.dtype == np.float32 else np.rint(values)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


class Corruption(NamedTuple):
    """A function (images, parameters, rng) and its parameters for severity 1 to 5."""

    function: Callable[..., np.ndarray]
    severities: tuple[object, ...]


CORRUPTIONS = {
    "gaussian_noise": Corruption(gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": Corruption(shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": Corruption(impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": Corruption(defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": Corruption(glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": Corruption(motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": Corruption(zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "snow": Corruption(
        snow,
        (
            Snowfall(0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            Snowfall(0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            Snowfall(0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            Snowfall(0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            Snowfall(0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": Corruption(frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": Corruption(fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": Corruption(brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption(contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": Corruption(
        elastic_transform, ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
    ),
    "pixelate": Corruption(pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": Corruption(jpeg_compression, (80, 65, 58, 50, 40)),
}
SCORED = tuple(CORRUPTIONS)
# To tune on, for choices such as an augmentation's strength are never made on the scored ones. Spatter is left out.
EXTRA = ("speckle_noise", "gaussian_blur", "saturate")
CORRUPTIONS |= {
    "speckle_noise": Corruption(speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": Corruption(gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),
    "saturate": Corruption(saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
}
