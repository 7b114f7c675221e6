"""What several corruptions share: the scale of their parameters, and rounding to bytes."""

from __future__ import annotations

import numpy as np


def _scale(images: np.ndarray) -> float:
    """Return how many pixels one of the table's is."""
    return float(images.shape[1]) / 32


def _bytes(values: np.ndarray) -> np.ndarray:
    """Return numbers of 0..255 as uint8, rounded; what lies outside is clipped."""
    values = np.rint(values, out=values) if values.dtype == np.float32 else np.rint(values)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)
