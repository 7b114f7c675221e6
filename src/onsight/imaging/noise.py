"""Noise: Gaussian, speckle, shot, impulse."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from onsight.imaging.sampling import _bytes

DRAWS = 4096  # noise on a value is one of so many quantiles of its distribution: normal noise ends at 3.7 sd

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
