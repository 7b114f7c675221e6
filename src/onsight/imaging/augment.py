"""Augmentation: random changes of training images.

All random numbers derive from (seed, epoch, index) alone, so a resumed epoch draws the same changes as an
uninterrupted one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


AUGMENTATIONS = {
    "none": "images unchanged",
    "flip": "mirrored left to right in every other epoch",
    "shift": "moved by up to an eighth of the side, with a reflected border",
    "flip_shift": "flip and shift, as many tutorials teach",
    "nudge": "moved by up to a sixteenth of the side, for runs of a few epochs",
    "flip_nudge": "flip and nudge",
    "rotate_zoom": "half of the images rotated by up to a tenth of a turn either way and zoomed by up to a tenth",
    "flip_rotate_zoom": "flip and rotate_zoom, as tutorials with Keras' layers teach",
    "shift_cutout": "shift, and a grey square of three eighths of the side, centred anywhere",
    "flip_shift_cutout": "flip and shift_cutout",
    "robust": "flip_shift; half of the images also get blur, noise and another contrast and brightness",
    "robust_shift": "robust without mirroring",
}
# Augmentation -> the same without mirroring, for data in which a mirror changes the label.
UNFLIPPED = {"flip": "none", "robust": "robust_shift"} | {
    name: name.removeprefix("flip_") for name in AUGMENTATIONS if name.startswith("flip_")
}
TURN, ZOOM = 0.1 * 2 * math.pi, 0.1  # as in Keras's RandomRotation(0.1) and RandomZoom(0.1)
TURNED = 0.5  # share of the images: a network trained only on interpolated (blurred) images fails on sharp ones
GREY = 128
# Constants of `robust`, tuned on speckle noise, Gaussian blur and saturation, never on the scored corruptions.
DISTORTED = 0.5  # share of the images
BLUR = 1.6  # largest standard deviation in pixels, in an image of 32 px
CONTRAST, BRIGHTNESS = 0.9, 64  # contrast falls by up to this share; brightness changes by up to this, of 255
# Largest standard deviation at grain 1, of 255; grains in pixels, in an image of 32 px.
NOISE, GRAINS = 30, (1, 1, 1, 2, 4, 8)


class Draws(NamedTuple):
    """The changes of each image of a data set in one epoch."""

    mirrored: np.ndarray  # (n,) bool
    shifts: np.ndarray  # (n, 2) int16: pixels down and right
    turns: np.ndarray  # (n, 2) float32: angle in radians, share by which the image shrinks; (0, 0): unchanged
    holes: np.ndarray  # (n, 2) int16: row and column of the centre of a grey square; (-1, -1): no square
    distortions: np.ndarray  # (n,) uint64: the seed of the image's distortions; 0: none

    @property
    def only_move(self) -> bool:
        """Whether images are only mirrored and shifted by whole pixels."""
        return not (self.turns.any() or (self.holes >= 0).any() or self.distortions.any())

    def of(self, chosen: np.ndarray) -> Draws:
        """Return the draws of the chosen images."""
        return Draws(*(each[chosen] for each in self))

    def scaled(self, factor: float) -> Draws:
        """Return the same changes for images whose sides are `factor` times as long."""
        import numpy as np

        shifts = np.rint(self.shifts * factor).astype(np.int16)
        holes = np.where(self.holes < 0, self.holes, np.rint((self.holes + 0.5) * factor - 0.5)).astype(np.int16)
        return self._replace(shifts=shifts, holes=holes)


def mirrors(augmentation: str) -> bool:
    """Return whether `augmentation` mirrors images."""
    return "flip" in augmentation or augmentation == "robust"


def unchanged(count: int) -> Draws:
    """Return draws that leave `count` images unchanged."""
    import numpy as np  # imported here so that the names above can be listed without NumPy

    return Draws(
        np.zeros(count, bool),
        np.zeros((count, 2), np.int16),
        np.zeros((count, 2), np.float32),
        np.full((count, 2), -1, np.int16),
        np.zeros(count, np.uint64),
    )


def draw(augmentation: str, count: int, size: int, seed: int, epoch: int) -> Draws:
    """Return the changes that `augmentation` makes in `epoch` to each of `count` images of `size` x `size` pixels."""
    import numpy as np

    mirrored, shifts, turns, holes, distortions = unchanged(count)
    if mirrors(augmentation):
        # Alternating flip (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds"): a coin decides once for each image, which
        # then flips every epoch. So two consecutive epochs show both sides of every image.
        mirrored = np.random.default_rng([seed, 1]).random(count) < 0.5
        mirrored ^= epoch % 2 == 1
    reach = 0
    if "nudge" in augmentation:
        reach = size // 16
    elif "shift" in augmentation or augmentation == "robust":
        reach = size // 8
    if reach:
        shifts = np.random.default_rng([seed, 2, epoch]).integers(-reach, reach + 1, (count, 2), np.int16)
    if "rotate_zoom" in augmentation:
        extremes = np.array([TURN, ZOOM], np.float32)
        rng = np.random.default_rng([seed, 4, epoch])
        turns = rng.uniform(-extremes, extremes, (count, 2)).astype(np.float32)
        turns[rng.random(count) >= TURNED] = 0
    if "cutout" in augmentation:
        holes = np.random.default_rng([seed, 5, epoch]).integers(0, size, (count, 2), np.int16)
    if "robust" in augmentation:
        rng = np.random.default_rng([seed, 3, epoch])
        distortions = rng.integers(1, 2**64, count, np.uint64)
        distortions[rng.random(count) >= DISTORTED] = 0
    return Draws(mirrored, shifts, turns, holes, distortions)


def augment(images: np.ndarray, draws: Draws) -> np.ndarray:
    """Return `images` (batch, H, W, 3) uint8 changed by `draws` of the same length. The border is reflected."""
    import numpy as np

    changed = move(images, draws)
    if changed is images and not draws.only_move:
        changed = images.copy()
    chosen = np.flatnonzero(draws.turns.any(axis=1))
    if len(chosen):
        changed[chosen] = turn(images[chosen], draws.of(chosen))
    cut_out(changed, draws.holes)
    chosen = np.flatnonzero(draws.distortions)
    if len(chosen):
        changed[chosen] = distort(changed[chosen], draws.distortions[chosen])
    return changed


def move(images: np.ndarray, draws: Draws) -> np.ndarray:
    """Return `images` mirrored and shifted, or the same array if no image changes."""
    import numpy as np

    reach = int(np.abs(draws.shifts).max(initial=0))
    if reach == 0 and not draws.mirrored.any():
        return images
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "reflect") if reach else images
    changed = np.empty_like(images)
    for i, (mirror, (down, right)) in enumerate(zip(draws.mirrored.tolist(), draws.shifts.tolist(), strict=True)):
        top, left = reach - down, reach - right
        view = padded[i, top : top + height, left : left + width]
        changed[i] = view[:, ::-1] if mirror else view
    return changed


def turn(images: np.ndarray, draws: Draws) -> np.ndarray:
    """Return `images` mirrored, shifted, rotated about their centre and zoomed.

    Pillow interpolates bicubically. The border is reflected.
    """
    import numpy as np
    from PIL import Image

    height, width = images.shape[1:3]
    scales = 1 + draws.turns[:, 1]
    # How far a corner of a rotated image lies outside, plus two pixels for the bicubic interpolation.
    corner = float((scales * (np.abs(np.cos(draws.turns[:, 0])) + np.abs(np.sin(draws.turns[:, 0])))).max())
    margin = math.ceil(max(0.0, corner - 1) * max(height, width) / 2 + np.abs(draws.shifts).max()) + 2
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), "reflect")
    across, down = scales * np.cos(draws.turns[:, 0]), scales * np.sin(draws.turns[:, 0])
    sides = np.where(draws.mirrored, -1, 1)
    x, y = width / 2, height / 2
    # Pillow's coefficients: output (x, y) shows input (a x + b y + c, d x + e y + f), both measured from the corner.
    a, b, d, e = sides * across, -down, sides * down, across
    c = margin + x - a * x - b * y - draws.shifts[:, 1]
    f = margin + y - d * x - e * y - draws.shifts[:, 0] + np.arange(len(images)) * padded.shape[1]
    # One Pillow image for the whole batch: one per image would take a third longer.
    tall = Image.fromarray(padded.reshape(-1, *padded.shape[2:]))
    turned = np.empty_like(images)
    for image, matrix in zip(turned, np.stack([a, b, c, d, e, f], axis=1).tolist(), strict=True):
        image[:] = tall.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return turned


def cut_out(images: np.ndarray, holes: np.ndarray) -> None:
    """Paint a grey square of three eighths of the side on each image that has a centre in `holes`, in place.

    The square may lie partly outside the image. DeVries and Taylor 2017, "Improved Regularization of Convolutional
    Neural Networks with Cutout", use half the side for hundreds of epochs; runs of a few dozen epochs use less.
    """
    reach = images.shape[1] * 3 // 16
    for image, (row, column) in zip(images, holes.tolist(), strict=True):
        if row >= 0:
            image[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach] = GREY


def distort(images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return `images` (n, H, W, 3) uint8 blurred, then with less contrast and another brightness, then with noise.

    Each of these three changes applies to half of the images. The blur is drawn separately for rows and columns. The
    noise is grey or coloured and has a grain of 1, 2, 4 or 8 pixels; its strength grows with the square root of the
    grain. Weak blur and noise are more frequent than strong ones. The changes of an image are drawn from its own seed
    in `seeds`, (n,) uint64, and do not depend on the other images.
    """
    import numpy as np

    unit = max(1, images.shape[1] // 32)
    coins = np.empty((len(images), 10), np.float32)
    changed = images.astype(np.float32)
    noise = np.zeros_like(changed)
    for i, seed in enumerate(seeds.tolist()):
        rng = np.random.Generator(np.random.SFC64(seed))  # NumPy's fastest generator to create and to draw from
        coins[i] = rng.random(10, np.float32)
        if coins[i, 2] < 0.5:
            grain = GRAINS[int(coins[i, 8] * len(GRAINS))]
            noise[i] = grainy(rng, images.shape[1:3], grain * unit if grain > 1 else 1, 1 if coins[i, 9] < 0.5 else 3)
            noise[i] *= NOISE * coins[i, 5] ** 2 * grain**0.5
    blurred = np.flatnonzero(coins[:, 0] < 0.5)
    changed[blurred] = blur(changed[blurred], coins[blurred, 3:7:3] ** 2 * np.float32(BLUR * images.shape[1] / 32))
    tones = np.where(coins[:, 1] < 0.5, coins[:, 4], 0)
    means = changed.mean(axis=(1, 2), keepdims=True)  # (n, 1, 1, 3)
    changed -= means
    changed *= _column(1 - tones * CONTRAST)
    changed += means + _column(tones * (coins[:, 7] * 2 - 1) * BRIGHTNESS)
    changed += noise
    np.rint(changed, out=changed)
    return changed.clip(0, 255, out=changed).astype(np.uint8)


def grainy(rng: np.random.Generator, shape: tuple[int, ...], grain: int, channels: int) -> np.ndarray:
    """Return normal noise (H, W, channels) float32 in squares of `grain` pixels on a randomly placed grid."""
    import numpy as np

    height, width = shape
    cells = rng.standard_normal((height // grain + 2, width // grain + 2, channels), np.float32)
    if grain > 1:
        top, left = rng.integers(0, grain, 2).tolist()
        cells = cells.repeat(grain, 0).repeat(grain, 1)[top:, left:]
    return cells[:height, :width]


def blur(images: np.ndarray, sds: np.ndarray) -> np.ndarray:
    """Return `images` (n, H, W, C) float32 blurred by Gaussians of the standard deviations `sds`.

    `sds` is (n, 2): pixels down and across. The border is mirrored. The kernel ends at 3 standard deviations.
    """
    import numpy as np

    for axis, along in zip((1, 2), sds.T, strict=True):
        reach = int(np.ceil(3 * along.max(initial=0)))
        offsets = np.arange(reach + 1, dtype=np.float32)
        weights = np.exp(-0.5 * (offsets / np.maximum(along, 0.05)[:, None]) ** 2)  # (n, reach + 1)
        weights /= weights[:, :1] + 2 * weights[:, 1:].sum(axis=1, keepdims=True)
        length = images.shape[axis]
        padded = np.pad(images, [(reach, reach) if each == axis else (0, 0) for each in range(4)], "symmetric")
        images = images * _column(weights[:, 0])
        for offset in range(1, reach + 1):
            before, after = (
                (slice(None),) * axis + (slice(reach + by, reach + by + length),) for by in (-offset, offset)
            )
            pair = padded[before] + padded[after]
            pair *= _column(weights[:, offset])
            images += pair
    return images


def _column(values: np.ndarray) -> np.ndarray:
    """Return (n,) numbers shaped to broadcast over (n, H, W, 3) images."""
    return values[:, None, None, None]
