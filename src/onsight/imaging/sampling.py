"""Helpers that several corruptions share: the scale of their parameters and rounding to uint8."""

from __future__ import annotations

import numpy as np


def pixel_scale(images: np.ndarray) -> float:
    """Return the factor by which parameters in pixels grow: they are given for a side of 32."""
    return float(images.shape[1]) / 32


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Return numbers as uint8, rounded and clipped to 0..255. A float32 array is overwritten."""
    values = np.rint(values, out=values) if values.dtype == np.float32 else np.rint(values)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)
