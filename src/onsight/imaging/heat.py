"""The colours of heat maps, from transparent through violet and orange to yellow, and the legend that explains them.

The colours are those of "inferno" of matplotlib, whose lightness rises evenly: they are readable without colour vision
and in grey print.
"""

from __future__ import annotations

import numpy as np

# The colours at equal steps from the least to the most influence: "inferno" from 0.25 to 0.95.
STOPS = (
    (87, 16, 110), (127, 30, 108), (168, 46, 95), (204, 66, 72),
    (234, 99, 42), (249, 142, 9), (251, 190, 35), (241, 239, 117),
)  # fmt: skip
CLEAR = 0.4  # up to this share of the most influence, the image has no tint
DENSEST = 0.85  # opacity at the most influence: the image remains visible


def relative(heat: np.ndarray) -> np.ndarray:
    """Return a map scaled so that its lowest value is 0 and its highest is 1; 0 everywhere if all values are equal.

    Without this, a map whose lowest value is high would tint the whole image and locate nothing.
    """
    span = float(np.ptp(heat))
    return np.zeros(heat.shape, np.float32) if span < 1e-6 else ((heat - heat.min()) / span).astype(np.float32)


def colours(share: np.ndarray) -> np.ndarray:
    """Return the colours (..., 3) float in 0..255 of shares (...) of the most influence."""
    places = np.linspace(0, 1, len(STOPS))
    return np.stack([np.interp(share, places, channel) for channel in zip(*STOPS, strict=True)], axis=-1)


def opacity(share: np.ndarray) -> np.ndarray:
    """Return the opacity, from 0 to 1, of shares of the most influence: 0 where it is low."""
    return np.asarray(DENSEST * np.clip((np.asarray(share) - CLEAR) / (1 - CLEAR), 0, 1))


def legend(width: int = 200, height: int = 10) -> np.ndarray:
    """Return the colour bar (height, width, 3) uint8, from low to high influence on a grey image."""
    share = np.linspace(0, 1, width)
    cover = opacity(share)[:, None]
    row = np.rint((1 - cover) * 150 + cover * colours(share)).astype(np.uint8)
    return np.broadcast_to(row, (height, width, 3))


def css_gradient() -> str:
    """Return the colour bar as the CSS value of a background."""
    stops = ", ".join("rgb({} {} {})".format(*pixel) for pixel in legend(21, 1)[0].tolist())
    return f"linear-gradient(90deg, {stops})"
