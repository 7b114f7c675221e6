"""Corruptions of images with the parameters of CIFAR-10-C: 15 are scored, 3 are for tuning, each has 5 severities.

The parameters are from Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations". The results are "CIFAR-10-C style", never CIFAR-10-C: the random numbers differ, and the frost is
drawn as bright and as fine as the photos. The parameters are meant for a side of 32. Those in pixels (radii, standard
deviations, distances, the grain of snow and frost) grow by side / 32; noise, the shares of `pixelate` and the blocks of
JPEG do not.

Each function works on a whole batch, because 750,000 images must be made in minutes. NumPy and SciPy release the GIL
while they compute, so threads help.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from onsight.imaging.blurs import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from onsight.imaging.digital import brightness, contrast, elastic_transform, jpeg_compression, pixelate, saturate
from onsight.imaging.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from onsight.imaging.weather import Snowfall, fog, frost, snow

SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(images: np.ndarray, name: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Return `images` (n, side, side, 3) uint8 with the corruption `name`, as a new array of the same shape and dtype.

    `severity` is 1 to 5. All random numbers of the batch are drawn from `rng`. Raises KeyError for an unknown name and
    ValueError for another severity or for images that are not square.
    """
    corruption = CORRUPTIONS[name]
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity} must be 1 to 5")
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be (n, side, side, 3) uint8, not {images.shape} {images.dtype}")
    return corruption.function(images, corruption.severities[severity - 1], rng)


class Corruption(NamedTuple):
    """A function of (images, parameters, rng) and its parameters for severities 1 to 5."""

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
# For tuning: choices such as the strength of an augmentation are never made on the scored ones. Spatter is left out.
EXTRA = ("speckle_noise", "gaussian_blur", "saturate")
CORRUPTIONS |= {
    "speckle_noise": Corruption(speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": Corruption(gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),
    "saturate": Corruption(saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
}
