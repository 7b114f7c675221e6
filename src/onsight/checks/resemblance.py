"""Which images resemble each other in content, and which resemble no other of their class, by features. NumPy only.

The resemblance of two images is the cosine of their features. It is judged by the set, as that of pixels is: in one set
all images look alike, and in another hardly any.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST = 0.6  # least cosine of two images of one scene
RATIO = 0.7  # most distance (1 - cosine) of two images of one scene, as a share of that of the next most similar image
CHUNK = 1024  # images compared with all others at a time
NEAREST = 0.25  # share of a class that the resemblance of an image to its class is averaged over
FEWEST = 20  # images of a class in which an image can be odd
ODD = 4.0  # least distance of an odd image from the median of its class, in standard deviations
FLAT = 0.01  # least standard deviation, so that rounding errors are not odd


class Alike(NamedTuple):
    """Pairs of images that may show one scene, those that stand out most first."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    cosine: NDArray[np.float32]


def directions(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features divided by their lengths. A plain grey image, with almost none, resembles nothing."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-3 * float(np.median(lengths)) + 1e-12), np.float32)


def alike_pairs(towards: NDArray[np.float32]) -> Alike:
    """Return the pairs of n images, given their `directions`, that are far more similar than to any other image.

    Each must be the other's most similar image, and the next one must be clearly farther away (the ratio test of D. G.
    Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004). In a set of images that are all alike,
    the next one is as near. Of three images of one scene, none may be found.
    """
    number = len(towards)
    nearest, next_one = np.zeros(number, np.int64), np.full(number, -1.0, np.float32)
    cosine = np.full(number, -1.0, np.float32)
    for start in range(0, number if number > 1 else 0, CHUNK):
        found = towards[start : start + CHUNK] @ towards.T
        rows = np.arange(len(found))
        found[rows, start + rows] = -2  # no image is its own neighbour
        best = found.argmax(axis=1)
        nearest[start + rows], cosine[start + rows] = best, found[rows, best]
        found[rows, best] = -1
        next_one[start + rows] = found.max(axis=1)
    ratio = (1 - cosine) / np.maximum(1 - next_one, 1e-6)
    ratio = np.maximum(ratio, ratio[nearest])
    first = np.flatnonzero(
        (nearest[nearest] == np.arange(number)) & (np.arange(number) < nearest) & (cosine >= LEAST) & (ratio <= RATIO)
    )
    first = first[np.argsort(ratio[first], kind="stable")]
    return Alike(first, nearest[first], np.minimum(cosine[first], 1))


def oddness(towards: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n,) how far each image is from the median of its class, in standard deviations; 0 in a small class.

    What is compared is the mean cosine to the nearest quarter of the class. A few foreign images are odd even if they
    resemble each other: they are no quarter. The standard deviation is a robust one: the mean of that of the class,
    which is uncertain, and that of the median class.
    """
    near, middles, deviations = np.zeros(len(labels)), {}, {}
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        if len(members) < FEWEST:
            continue
        count = max(5, round(NEAREST * (len(members) - 1)))
        for start in range(0, len(members), CHUNK):
            part = members[start : start + CHUNK]
            found = towards[part] @ towards[members].T
            found[np.arange(len(part)), start + np.arange(len(part))] = -2
            near[part] = -np.partition(-found, count - 1, axis=1)[:, :count].mean(axis=1)
        middles[label] = float(np.median(near[members]))
        deviations[label] = 1.4826 * float(np.median(np.abs(near[members] - middles[label])))
    odd = np.zeros(len(labels))
    typical = float(np.median([*deviations.values()])) if deviations else 0.0
    for label, middle in middles.items():
        mine = labels == label
        odd[mine] = (middle - near[mine]) / max(FLAT, (deviations[label] + typical) / 2)
    return odd
