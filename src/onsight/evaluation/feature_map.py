"""The map of the scored images: their features in two dimensions, so that images that the network finds alike are near.

The features are reduced by principal components and t-SNE (van der Maaten and Hinton 2008, "Visualizing Data using
t-SNE"), both deterministic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onsight.core.files import write_json
from onsight.core.progress import Reporter
from onsight.core.spread import spread
from onsight.core.text import count
from onsight.inference.embed import Network

MOST = 2000  # images on the map; t-SNE takes about 10 s for as many
LEAST = 3  # images, below which a map shows nothing
COMPONENTS = 50  # principal components that t-SNE works on


def write_map(
    folder: Path,
    network: Network,
    images: np.ndarray,
    index: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    names: list[str],
    show: Reporter,
) -> None:
    """Write map.json into an evaluation's folder, unless there are too few images for a map.

    The JSON has {"method", "n", "path", "label", "predicted", "x", "y"}: lists with one item per image that is shown,
    and the number of all scored images. x and y are from 0 to 1.

    Args:
        folder: of the evaluation.
        network: gives the features.
        images: (all, H, W, 3) uint8, as the network sees them.
        index: (n,) the indices of the scored images.
        labels: (n,) true classes.
        scores: (n, classes) probabilities.
        names: n paths.
        show: receives the progress.
    """
    if len(index) < LEAST:
        show.note("no map", f"{count(len(index), 'image')}, fewer than {LEAST}")
        return
    chosen = spread(len(index), MOST)
    features = network.extract(images, index[chosen], lambda done, of: show.work("computing features", done, of))
    show.note("drawing", f"the map of {len(chosen):,} images")
    places, method = project(features)
    found: dict[str, Any] = {
        "method": method,
        "n": len(index),
        "path": [names[at] for at in chosen.tolist()],
        "label": labels[chosen].tolist(),
        "predicted": scores[chosen].argmax(axis=1).tolist(),
        "x": [round(float(value), 4) for value in places[:, 0]],
        "y": [round(float(value), 4) for value in places[:, 1]],
    }
    write_json(folder / "map.json", found)


def project(features: np.ndarray) -> tuple[np.ndarray, str]:
    """Return (n, 2) places from 0 to 1 of features (n, d), and the name of the method."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    spreads = features.std(axis=0).max()
    if not spreads > 0:  # all images are the same to the network
        return np.full((len(features), 2), 0.5), "all features are equal"
    scaled = ((features - features.mean(axis=0)) / spreads).astype(np.float64)
    reduced = PCA(min(COMPONENTS, *scaled.shape), svd_solver="full").fit_transform(scaled)
    perplexity = min(30.0, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1) if reduced.shape[1] > 1 else None
    places = tsne.fit_transform(reduced) if tsne else np.repeat(reduced, 2, axis=1)
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.maximum(high - low, 1e-9), f"t-SNE, perplexity {perplexity:.0f}"
