"""Features: the inputs of a network's head for each image, computed once and cached on disk.

They are computed in float32: by LiteRT, which takes half of TensorFlow's time for photos, or by Keras for small images
and where no .tflite file can be made. The cache is kept per network and image: further trainings with other seeds,
classes or fewer images find the features of all images that were ever computed, and a resumed run reads exactly the
same bits.

A finished run has a model.tflite, which gives the features without Keras (`LitertExtractor`).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from onsight.core.backend import dtype_policy, use_backend
from onsight.core.errors import ExportError, ModelFileError, TrainingError
from onsight.core.files import cache_folder, is_disk_full, write_atomic
from onsight.core.text import count
from onsight.data.batches import full_batches
from onsight.data.pixel_cache import hash_rows
from onsight.features.initial_weights import digest, load
from onsight.models.litert_file import below_head, convert
from onsight.models.litert_function import LitertFunction
from onsight.models.registry import MODELS, build_model
from onsight.spec import IMAGENET

if TYPE_CHECKING:
    import keras


SMALL = 64  # pixels per side, up to which converting the network takes longer than Keras takes for most folders
PART = 256  # images between two reports of progress; after each part, threads wait for each other
BATCH = 64  # images that Keras takes at a time
VERSION = 2  # raise it when a change of the code changes the features

Extract = Callable[[np.ndarray], np.ndarray]  # (n, H, W, 3) uint8 to (n, features) float32


class CachedFeatures:
    """Computes the features of images by one network, and remembers them.

    Attributes:
        folder: the cache folder of this network and image size.
        width: the number of features.
        compute: computes features; None before the first ones that are not in the cache.
    """

    folder: Path
    width: int
    compute: Extract | None = None

    def _compile(self) -> Extract:
        """Return the function from images to features."""
        raise NotImplementedError

    def __call__(self, images: np.ndarray, chosen: np.ndarray, progress: Callable[[int, int], None]) -> np.ndarray:
        """Return the features of the chosen images, (n, features) float32.

        Args:
            images: (all, H, W, 3) uint8, may be memory-mapped.
            chosen: (n,) indices of the chosen images.
            progress: called with the number of images done and of all that must be computed. If it raises an exception,
                the work ends, and what has been computed is kept.

        Raises:
            TrainingError: the disk that holds the cache is full.
        """
        keys = hash_rows(images, chosen)
        known, rows = read_chunks(self.folder, self.width)
        _, first = np.unique(keys, return_index=True)
        missing = first[~np.isin(keys[first], known)]
        missing.sort()
        if len(missing):
            added = self._compute(images, chosen[missing], keys[missing], progress)
            known, rows = np.concatenate([known, keys[missing]]), np.concatenate([rows, added])
        order = np.argsort(known, kind="stable")
        return np.asarray(rows[order[np.searchsorted(known, keys, sorter=order)]])

    def _compute(
        self, images: np.ndarray, chosen: np.ndarray, keys: np.ndarray, progress: Callable[[int, int], None]
    ) -> np.ndarray:
        """Return the features of images, and write them to the cache."""
        self.compute = self.compute or self._compile()
        features = np.empty((len(chosen), self.width), np.float32)
        done = 0
        try:
            while done < len(chosen):
                part = slice(done, done + PART)
                features[part] = self.compute(np.ascontiguousarray(images[chosen[part]]))
                done = min(done + PART, len(chosen))
                progress(done, len(chosen))
        finally:
            write_chunk(self.folder, keys[:done], features[:done])
        return features


class Extractor(CachedFeatures):
    """The features of a Keras model."""

    def __init__(self, model: keras.Model) -> None:
        """Take a float32 network with a layer `logits`; the features are the inputs of this layer."""
        import keras

        self.body = body_of(model)
        self.width = int(self.body.output_shape[-1])
        size = model.input_shape[1]
        self.by_litert = size > SMALL and find_spec("ai_edge_litert") is not None
        versions = self.by_litert, keras.config.backend(), keras.__version__, VERSION
        facts = [digest(model), model.name, model.input_shape[1:], *versions]
        mixed = hashlib.sha256(repr(facts).encode())
        if MODELS[model.name].build:  # a custom network may have been edited, so the key includes its features of noise
            noise = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:]), np.uint8)
            mixed.update(np.asarray(self.body.predict_on_batch(noise), np.float32).tobytes())
        self.folder = cache_folder() / "features" / mixed.hexdigest()[:32]

    def _compile(self) -> Extract:
        """Return the fastest function from images to features that can be had here."""
        size = self.body.input_shape[1]
        if self.by_litert:
            try:
                function = LitertFunction(convert(self.body, ["features"]), size, [(self.width,)])
            except (ExportError, ModelFileError):
                pass  # JAX without litert-converter, or a network with an operation that LiteRT lacks
            else:
                return lambda images: function(images)[0]
        return self._by_keras

    def _by_keras(self, images: np.ndarray) -> np.ndarray:
        """Return the features of images, computed by Keras in batches of one shape."""
        batches = full_batches(images, np.arange(len(images)), BATCH)
        found = [np.asarray(self.body.predict_on_batch(batch), np.float32)[:real] for batch, real in batches]
        return np.concatenate(found)


def published_extractor(name: str, size: int) -> Extractor:
    """Return what computes the features of a network with its published ImageNet weights, at an image size.

    Raises:
        DownloadError: the weights are not on this machine and cannot be downloaded.
        ModelFileError: their file is damaged.
    """
    use_backend()
    with dtype_policy("float32"):
        model = build_model(name, size, 2)  # two classes: the head is not used
    load(model, IMAGENET)
    return Extractor(model)


class LitertExtractor(CachedFeatures):
    """The features of a classifier in a .tflite file. No framework is imported."""

    def __init__(self, content: bytes, size: int, classes: int) -> None:
        """Take the bytes of a run's model.tflite, its image size and its number of classes.

        Raises:
            ExportError: the head is not found in the file.
            ModelFileError: LiteRT cannot run the file.
        """
        cut, self.width = below_head(content, classes)
        self.function = LitertFunction(cut, size, [(self.width,)])
        facts = hashlib.sha256(content).hexdigest(), VERSION
        self.folder = cache_folder() / "features" / hashlib.sha256(repr(facts).encode()).hexdigest()[:32]

    def _compile(self) -> Extract:
        return lambda images: self.function(images)[0]


def body_of(model: keras.Model) -> keras.Model:
    """Return the layers below the head as a model."""
    import keras

    return keras.Model(model.inputs[0], model.get_layer("logits").input, name=model.name)


def read_chunks(folder: Path, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the content hashes (n,) uint64 and the features (n, width) float32 of all images in a cache folder.

    A file that is damaged is removed: its features are computed again.
    """
    keys, rows = [np.zeros(0, np.uint64)], [np.zeros((0, width), np.float32)]
    for path in sorted(folder.glob("*.npz")):
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                found: tuple[Any, Any] = file["keys"], file["features"]
            if found[1].shape != (len(found[0]), width):
                raise ValueError("the shapes do not fit")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            path.unlink(missing_ok=True)
            continue
        keys.append(found[0])
        rows.append(found[1])
    return np.concatenate(keys), np.concatenate(rows)


def write_chunk(folder: Path, keys: np.ndarray, features: np.ndarray) -> None:
    """Write the features of some images to the cache, in a file that is complete or absent.

    Raises:
        TrainingError: the disk is full.
    """
    if not len(keys):
        return
    content = io.BytesIO()
    np.savez(content, keys=keys, features=features)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_atomic(folder / f"{hashlib.sha256(keys.tobytes()).hexdigest()[:32]}.npz", content.getvalue())
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise TrainingError(
            f"The disk of {folder} is full: the features of {count(len(keys), 'image')} do not fit on it. Free some "
            "space, or set ONSIGHT_CACHE to a folder on another disk."
        ) from error
