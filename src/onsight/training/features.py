"""Features: the inputs of the head for each image and, if asked, its mirror image, computed once and cached on disk.

The cache key covers everything that the features depend on: weights, network, images, precision, backend. So further
runs on the same images, with other seeds or learning rates, reuse them, and a resumed run reads exactly the same bits.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onsight.core.errors import TrainingError
from onsight.core.files import cache_folder, create_mapped, is_disk_full, sync_file, sync_folder, temporary_sibling
from onsight.core.text import count
from onsight.data.batches import full_batches
from onsight.models.registry import MODELS
from onsight.training.initial_weights import digest

if TYPE_CHECKING:
    import keras


BATCH = 64
VERSION = 1  # raise it when a change of the code changes the features


def load_features(
    model: keras.Model,
    images: np.ndarray,
    chosen: np.ndarray,
    *,
    mirrored: bool,
    progress: Callable[[int, int], None],
) -> np.ndarray:
    """Return the features of the chosen images, (n, 1 or 2, features) float32, memory-mapped.

    Args:
        model: a network with a layer `logits`; the features are the inputs of this layer.
        images: (all, H, W, 3) uint8.
        chosen: (n,) indices of the chosen images.
        mirrored: also compute the features of each image mirrored left to right; they come second on axis 1.
        progress: called with the number of images done and of all chosen images; an exception in it ends the work.

    Raises:
        TrainingError: the disk that holds the cache is full.
    """
    import keras
    from filelock import FileLock

    precision = model.layers[-2].compute_dtype
    facts = [digest(model), model.name, precision, keras.config.backend(), keras.__version__, mirrored, VERSION]
    mixed = hashlib.sha256(repr([*facts, images.shape[1:]]).encode())
    if MODELS[model.name].build:  # a custom network may have been edited, so the key includes its features of noise
        noise = np.random.default_rng(0).integers(0, 256, (2, *images.shape[1:]), np.uint8)
        mixed.update(np.asarray(body_of(model).predict_on_batch(noise), np.float32).tobytes())
    for start in range(0, len(chosen), 1024):
        mixed.update(images[chosen[start : start + 1024]].tobytes())
    path = cache_folder() / "features" / f"{mixed.hexdigest()[:32]}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():  # another process may have written it while we waited
                try:
                    compute_features(path, model, images, chosen, 1 + mirrored, progress)
                except OSError as error:
                    if not is_disk_full(error):
                        raise
                    raise TrainingError(
                        f"The disk of {path.parent} is full: the features of {count(len(chosen), 'image')} do not fit "
                        "on it. Free some space, or set ONSIGHT_CACHE to a folder on another disk."
                    ) from error
    features: np.ndarray = np.load(path, mmap_mode="r")
    return features


def body_of(model: keras.Model) -> keras.Model:
    """Return the layers below the head as a model."""
    import keras

    return keras.Model(model.inputs[0], model.get_layer("logits").input)


def compute_features(
    path: Path,
    model: keras.Model,
    images: np.ndarray,
    chosen: np.ndarray,
    sides: int,
    progress: Callable[[int, int], None],
) -> None:
    """Compute the features and write them to `path`, which is only ever complete or absent.

    `sides` is 2 to add the features of the mirror images, otherwise 1.
    """
    body = body_of(model)
    partial = temporary_sibling(path)
    try:
        features = create_mapped(partial, (len(chosen), sides, body.output_shape[-1]), np.float32)
        done = 0
        for batch, real in full_batches(images, chosen, min(BATCH, len(chosen))):
            for side in range(sides):
                turned = np.ascontiguousarray(batch[:, :, ::-1]) if side else batch
                features[done : done + real, side] = np.asarray(body.predict_on_batch(turned), np.float32)[:real]
            done += real
            progress(done, len(chosen))
        features.flush()
        del features  # Windows cannot rename a file that is still mapped
        sync_file(partial)
        os.replace(partial, path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)
