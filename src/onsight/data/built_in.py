"""Data sets that need no file: scikit-learn's digits, and toy images that Onsight draws."""

from __future__ import annotations

import hashlib
import importlib.metadata

import numpy as np
from numpy.typing import NDArray

from onsight.data.dataset import Dataset, fingerprint


def load_digits() -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits as (8, 8, 3) uint8 images, not divided into parts.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
    scikit-learn has its test set, with values from 0 to 16.
    """
    from sklearn.datasets import load_digits as load  # imported here, because it takes two seconds

    scans = load()
    grey = np.rint(scans.images * (255 / 16)).astype(np.uint8)
    return from_arrays(
        "digits",
        classes=tuple("0123456789"),
        images=np.repeat(grey[..., np.newaxis], 3, axis=-1),
        labels=scans.target.astype(np.int64),
        parts=np.full(len(grey), "", dtype="<U10"),
        provenance=f"digits of scikit-learn {importlib.metadata.version('scikit-learn')}",
    )


def draw_toy() -> Dataset:
    """Draw 240 images of 24x24 px, 180 of them for training: a blue, green or red disc or square on noisy grey.

    The colour is the class and the shape is a distraction, so every image has an obvious answer. Every call draws the
    same images.
    """
    rng = np.random.default_rng(0)
    count, side = 240, 24
    classes = ("blue", "green", "red")
    labels = np.arange(count) % len(classes)
    grey = rng.integers(64, 192, (count, side, side, 1), dtype=np.uint8)
    images = np.repeat(grey, 3, axis=-1)
    rows, columns = np.mgrid[:side, :side]
    for image, label in zip(images, labels, strict=True):
        y, x = rng.integers(8, 16, 2)
        radius = rng.integers(5, 9)
        if rng.random() < 0.5:
            inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        else:
            inside = np.maximum(abs(rows - y), abs(columns - x)) < radius
        colour = rng.integers(0, 60, 3)
        colour[2 - label] = rng.integers(180, 256)  # red is channel 0 and the last class
        image[inside] = colour
    return from_arrays(
        "toy",
        classes=classes,
        images=images,
        labels=labels.astype(np.int64),
        parts=np.where(np.arange(count) < 180, "train", "test"),
        provenance="toy images drawn by Onsight",
    )


def from_arrays(
    name: str,
    *,
    classes: tuple[str, ...],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    parts: NDArray[np.str_],
    provenance: str,
) -> Dataset:
    """Return a data set of `images` (n, H, W, 3) uint8, with `labels` (n,) and `parts` (n,) as `Dataset` has them."""
    names = tuple(f"{name}#{index}" for index in range(len(labels)))
    mark = fingerprint(classes, labels, parts, [hashlib.sha256(images.tobytes()).hexdigest()])
    return Dataset(name, classes, names, labels, parts, provenance, mark, images)
