"""Digital corruptions: brightness, saturation, contrast, elastic deformation, pixelation, JPEG."""

from __future__ import annotations

import io

import numpy as np

from onsight.imaging.augment import blur
from onsight.imaging.sampling import to_uint8

# Light and colour ----------------------------------------------------------------------------------------------------


def brightness(images: np.ndarray, more: float, rng: np.random.Generator) -> np.ndarray:
    """Add `more` to V of HSV, up to 1. Hue and saturation stay, so all values of a pixel grow by the same factor."""
    values = images.max(axis=3)
    raised = np.minimum(np.arange(256) + 255 * more, 255)
    factors = np.append(0, raised[1:] / np.arange(1, 256)).astype(np.float32)
    brighter = images * factors[values][..., None]
    brighter[values == 0] = raised[0]  # black has no hue
    return to_uint8(brighter)


def saturate(images: np.ndarray, change: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Set S of HSV to S times the first number of `change` plus the second. A grey has the hue of red."""
    value = images.max(axis=3, keepdims=True).astype(np.float32)
    below = value - images  # how far each channel lies below the largest
    spread = below.max(axis=3, keepdims=True)
    saturation = spread / np.maximum(value, 1)
    wanted = np.clip(saturation * change[0] + change[1], 0, 1) * value
    below *= wanted / np.maximum(spread, 1)
    below[..., 1:] += np.where(spread == 0, wanted, 0)
    return to_uint8(value - below)


def contrast(images: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply the distance of each value from the mean of its channel in the image by `factor`."""
    means = images.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return to_uint8(images * np.float32(factor) + means * np.float32(1 - factor))


# Geometry and files --------------------------------------------------------------------------------------------------


def elastic_transform(images: np.ndarray, rubber: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Move three points and the image with them, then every pixel independently.

    `rubber` is (strength of the pixel moves, standard deviation that smooths them, largest shift of the points), each
    as a share of the side.
    """
    n, side = images.shape[:2]
    strength, sd, shift = (each * side for each in rubber)
    half, arm = side // 2, side // 3
    fixed = np.array([[half + arm, half + arm], [half + arm, half - arm], [half - arm, half - arm]], float)
    moved = np.ones((n, 3, 3))
    moved[..., :2] = fixed + rng.uniform(-shift, shift, (n, 3, 2))
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    grid = np.stack([rows, columns, np.ones_like(rows)], axis=-1)
    back = np.linalg.solve(moved, np.broadcast_to(fixed, (n, 3, 2)))  # maps where a point is to where it was
    places = np.tensordot(back.astype(np.float32), grid, ([1], [2]))  # (n, 2, side, side)
    stretched = _sample(images.astype(np.float32), places[:, 0], places[:, 1])
    if strength:
        jolts = rng.random((n, side, side, 2), np.float32) * 2 - 1
        jolts = blur(jolts, np.full((n, 2), sd, np.float32)) * np.float32(strength)
        stretched = _sample(stretched, rows + jolts[..., 0], columns + jolts[..., 1])
    return to_uint8(stretched)


def _sample(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return (n, side, side, 3) float32 images sampled bilinearly at places (n, side, side), the border reflected."""
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
    """Return integer places mapped into 0..side - 1 by mirroring at the first and the last pixel."""
    mirrored: np.ndarray = np.clip(side - 1 - np.abs(side - 1 - np.abs(places)), 0, side - 1)
    return mirrored


def pixelate(images: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Scale the image to this share of its side and back with Pillow's box filter."""
    side = images.shape[1]
    for size in (int(side * share), side):
        for _ in range(2):  # across, then down; each time the batch is one tall image
            images = np.ascontiguousarray(_resize_across(images, size).transpose(0, 2, 1, 3))
    return images


def _resize_across(images: np.ndarray, width: int) -> np.ndarray:
    from PIL import Image

    n, height = images.shape[:2]
    tall = Image.fromarray(images.reshape(n * height, -1, 3))
    return np.asarray(tall.resize((width, n * height), Image.Resampling.BOX)).reshape(n, height, width, 3)


def jpeg_compression(images: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    """Write the image as a JPEG of this quality and read it back."""
    from PIL import Image

    read = np.empty_like(images)
    for i, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        with Image.open(file) as again:
            read[i] = again
    return read
