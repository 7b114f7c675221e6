"""What the layers below the head make of each image, computed once, mirrored too, and kept in the cache.

The key is everything that the numbers depend on: weights, network, images, precision, backend. So seeds,
learning rates and further runs on the same images find them there, and a resumed run reads the bits it had.
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
from onsight.data.batches import full_batches
from onsight.models.registry import MODELS
from onsight.training.initial_weights import digest

if TYPE_CHECKING:
    import keras


BATCH = 64
VERSION = 1  # raise it when other numbers would be computed


def load_features(
    model: keras.Model,
    images: np.ndarray,
    chosen: np.ndarray,
    *,
    mirrored: bool,
    progress: Callable[[int, int], None],
) -> np.ndarray:
    """Return (n, 1 or 2, features) float32, memory-mapped: of each chosen image as it is and, if asked, mirrored.

    Args:
        model: a network with a layer `logits`; what goes into it are the features.
        images: (all, H, W, 3) uint8.
        chosen: (n,) indices of those that are meant.
        mirrored: left to right too.
        progress: called with (answers so far, answers in all); what it raises ends the work.

    Raises:
        TrainingError: the disk of the cache is full.
    """
    import keras
    from filelock import FileLock

    precision = model.layers[-2].compute_dtype
    facts = [digest(model), model.name, precision, keras.config.backend(), keras.__version__, mirrored, VERSION]
    mixed = hashlib.sha256(repr([*facts, images.shape[1:]]).encode())
    if MODELS[model.name].build:  # a user's own function may have been edited: what it makes of noise tells
        noise = np.random.default_rng(0).integers(0, 256, (2, *images.shape[1:]), np.uint8)
        mixed.update(np.asarray(body_of(model).predict_on_batch(noise), np.float32).tobytes())
    for start in range(0, len(chosen), 1024):
        mixed.update(images[chosen[start : start + 1024]].tobytes())
    path = cache_folder() / "features" / f"{mixed.hexdigest()[:32]}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():  # another process may have made it while we waited
                try:
                    fill(path, model, images, chosen, 1 + mirrored, progress)
                except OSError as error:
                    if not is_disk_full(error):
                        raise
                    raise TrainingError(
                        f"The disk of {path.parent} is full: the features of {len(chosen):,} images go there. Make "
                        "room, or set ONSIGHT_CACHE to a folder elsewhere."
                    ) from error
    features: np.ndarray = np.load(path, mmap_mode="r")
    return features


def body_of(model: keras.Model) -> keras.Model:
    """Return the layers below the head."""
    import keras

    return keras.Model(model.inputs[0], model.get_layer("logits").input)


def fill(
    path: Path,
    model: keras.Model,
    images: np.ndarray,
    chosen: np.ndarray,
    sides: int,
    progress: Callable[[int, int], None],
) -> None:
    """Compute the features into `path`, which appears whole or not at all."""
    body = body_of(model)
    partial = temporary_sibling(path)
    try:
        features = create_mapped(partial, (len(chosen), sides, body.output_shape[-1]), np.float32)
        done = 0
        for batch, count in full_batches(images, chosen, min(BATCH, len(chosen))):
            for side in range(sides):
                turned = np.ascontiguousarray(batch[:, :, ::-1]) if side else batch
                features[done : done + count, side] = np.asarray(body.predict_on_batch(turned), np.float32)[:count]
            done += count
            progress(done, len(chosen))
        features.flush()
        del features  # nothing stays mapped, as Windows wants it
        sync_file(partial)
        os.replace(partial, path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)
