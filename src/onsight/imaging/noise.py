"""Noise: Gaussian, speckle, shot, impulse."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from onsight.imaging.sampling import to_uint8

DRAWS = 4096  # noise takes this many quantiles of its distribution, so normal noise ends at 3.7 sd

# Noise, independent for each value ------------------------------------------------------------------------------------


def gaussian_noise(images: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise of standard deviation `sd`, for values in 0..1."""
    return _replace(images, _normal_table(sd, multiplied=False), rng)


def speckle_noise(images: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise whose standard deviation is `sd` times the value."""
    return _replace(images, _normal_table(sd, multiplied=True), rng)


def shot_noise(images: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    """Count photons: replace x in 0..1 by a Poisson variable of mean x * `photons`, divided by `photons`."""
    return _replace(images, _poisson_table(photons), rng)


def impulse_noise(images: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Replace this share of the values by 0 or 255, equally often."""
    return _replace(images, _impulse_table(share), rng)


@lru_cache(maxsize=32)
def _normal_table(sd: float, multiplied: bool) -> np.ndarray:
    from scipy.special import ndtri

    levels = np.arange(256)[:, None] / 255
    return to_uint8((levels + sd * ndtri(_quantiles()) * (levels if multiplied else 1)) * 255)


@lru_cache(maxsize=32)
def _poisson_table(photons: float) -> np.ndarray:
    from scipy.special import pdtr

    counts = np.arange(2 * photons + 50)
    shares = [pdtr(counts, photons * level / 255) for level in range(256)]  # probabilities of at most `counts` photons
    return to_uint8(np.stack([np.searchsorted(share, _quantiles()) for share in shares]) * (255 / photons))


@lru_cache(maxsize=32)
def _impulse_table(share: float) -> np.ndarray:
    table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], DRAWS, axis=1)
    changed = round(share * DRAWS)
    table[:, :changed], table[:, : changed // 2] = 255, 0
    return table


def _quantiles() -> np.ndarray:
    return (np.arange(DRAWS) + 0.5) / DRAWS


def _replace(images: np.ndarray, table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each value one of the DRAWS outcomes that `table` (256, DRAWS) lists for it, chosen at random.

    Every kind of noise takes the same time this way.
    """
    index = np.multiply(images, DRAWS, dtype=np.uint32)
    index += rng.integers(0, DRAWS, images.shape, np.uint16)
    replaced: np.ndarray = table.ravel().take(index)
    return replaced
