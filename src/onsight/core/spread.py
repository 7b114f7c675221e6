"""`spread`: a sample of positions that is the same each time."""

from __future__ import annotations

import numpy as np


def spread(count: int, sample: int) -> np.ndarray:
    """Return at most `sample` distinct indices below `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(sample, count)).astype(np.int64)) if count else np.arange(0)
