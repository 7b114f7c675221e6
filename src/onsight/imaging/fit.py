"""How an image of any shape fits the square that a network takes: the two geometries, in whole pixels.

`decode.resize` follows them, as does the page of `export RUN web`. This module needs no NumPy.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from onsight.imaging.augment import GREY

Fit = Literal["cut", "pad"]
# Fit -> the geometry as model.json and contract.json name it.
GEOMETRIES: dict[str, str] = {
    "cut": "centre square, scaled to image_size (antialiased)",
    "pad": f"whole image, longer side scaled to image_size (antialiased), centred on grey {GREY}",
}
# What `decode` and `decode.resize` do, as contract.json says it.
DECODED = (
    "the file at full size (a JPEG of more than 25 million pixels at 1/2 or 1/4), turned upright as its EXIF "
    "orientation says, colour profile ignored, transparent pixels blended with white"
)
RESAMPLED = "triangle filter, widened when shrinking (Pillow's BILINEAR): columns, then rows, rounded each time"
# Fit -> the same as a sentence for people; {size} is the number of pixels per side.
SENTENCES: dict[str, str] = {
    "cut": "the centre square of the image, scaled to {size} x {size}",
    "pad": f"the whole image, its longer side scaled to {{size}}, centred on a square of grey ({GREY}, {GREY}, {GREY})",
}


class Place(NamedTuple):
    """What of an image is scaled, to which size, and where that lies in the result. All in pixels."""

    top: int
    left: int
    height: int
    width: int
    to_height: int
    to_width: int
    down: int
    right: int


def place(height: int, width: int, size: int, fit: Fit) -> Place:
    """Return how an image of `height` x `width` pixels fits a square of `size` x `size` pixels.

    `cut` takes the square of side s = min(H, W) that starts at row (H - s) // 2 and column (W - s) // 2.

    `pad` takes all. With l = max(H, W), a side of n pixels is scaled to max(1, (2 n size + l) // (2 l)) pixels, which
    is n size / l rounded to the nearest whole number, halves up. The result starts at row (size - h) // 2 and column
    (size - w) // 2. So an odd pixel of padding lies below or on the right.
    """
    if fit == "cut":
        side = min(height, width)
        return Place((height - side) // 2, (width - side) // 2, side, side, size, size, 0, 0)
    side = max(height, width)
    high, wide = (max(1, (2 * each * size + side) // (2 * side)) for each in (height, width))
    return Place(0, 0, height, width, high, wide, (size - high) // 2, (size - wide) // 2)
