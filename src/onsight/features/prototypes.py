"""Prototypes: a few points in the space of features that stand for all training images.

An image whose features are far from every prototype is unlike the training images, whatever class the head gives it.
The threshold needs no test image: each training image is measured against prototypes of the other folds.
"""

from __future__ import annotations

import numpy as np

from onsight.core.limits import SHORTEST
from onsight.models.model_file import Likeness

MOST = 32  # prototypes; 64 tell far images no better (docs/decisions/transfer.md)
FOLDS = 5
OWN = 0.95  # share of images like the training images that the threshold lets pass
LEAST = 20  # training images; of fewer, nothing is said
LOOKED_AT = 20_000  # most training images that are clustered


def learn_likeness(features: np.ndarray, seed: int = 0) -> Likeness | None:
    """Return the prototypes of training images and the threshold of the distance, or None for fewer than 20 images.

    Args:
        features: (n, features) float32.
        seed: of the clusters and the folds.
    """
    if len(features) < LEAST:
        return None
    rng = np.random.default_rng([seed, 11])
    directions = unit(features[np.sort(rng.permutation(len(features))[:LOOKED_AT])])
    fold = rng.permutation(len(directions)) % FOLDS
    held_out = np.empty(len(directions))
    for number in range(FOLDS):
        held_out[fold == number] = distance(directions[fold == number], centres(directions[fold != number], seed))
    return Likeness(centres(directions, seed), float(np.quantile(held_out, OWN)))


def centres(directions: np.ndarray, seed: int) -> np.ndarray:
    """Return the centres of clusters of unit vectors (n, features), as columns of length 1: (features, m) float32."""
    from sklearn.cluster import MiniBatchKMeans

    number = min(MOST, len(directions) // 4)
    found = MiniBatchKMeans(number, n_init=1, random_state=seed % 2**32, batch_size=1024).fit(directions)
    return np.ascontiguousarray(unit(found.cluster_centers_).T.astype(np.float32))


def unit(features: np.ndarray) -> np.ndarray:
    """Return features divided by their length, (n, features)."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, SHORTEST))


def distance(directions: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Return (n,): 1 minus the largest cosine of unit vectors (n, features) to prototypes (features, m)."""
    return np.asarray(1 - (directions @ prototypes).max(axis=1))
