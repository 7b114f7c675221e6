"""Measures of each image of a data set that need no training. They are computed once and stored in the cache."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onsight.checks.near_duplicates import Pairs, find_pairs, no_pairs
from onsight.core.files import cache_folder, write_atomic
from onsight.core.progress import Progress
from onsight.data.dataset import Dataset
from onsight.data.pixel_cache import Pixels, hash_rows, load_pixels, median_side

VERSION = 3  # raise it whenever a measure changes, so that stored ones are not reused
CHUNK = 1024  # images measured at a time


@dataclass(frozen=True, eq=False)
class Facts:
    """Measures of n images; NaN or 0 if not measured.

    Attributes:
        content: (n,) int64, index of the first image with the same content; its own index if there is none before it.
        pairs: near-duplicates among these first images.
        brightness: (n,) float32, mean of the grey levels, 0 to 255.
        contrast: (n,) float32, standard deviation of the grey levels.
        colour: (n,) float32, mean difference between the strongest and the weakest of red, green and blue.
        sides: (n, 2) int32, width and height in pixels as stored in the file.
        orientation: (n,) uint8, the EXIF orientation; 1 is upright.
        broken: index -> reason, of images that cannot be read.
    """

    content: NDArray[np.int64]
    pairs: Pairs
    brightness: NDArray[np.float32]
    contrast: NDArray[np.float32]
    colour: NDArray[np.float32]
    sides: NDArray[np.int32]
    orientation: NDArray[np.uint8]
    broken: dict[int, str]

    @property
    def readable(self) -> NDArray[np.bool_]:
        """(n,) bool: whether an image can be read."""
        mask = np.ones(len(self.content), bool)
        mask[list(self.broken)] = False
        return mask


def known_facts(dataset: Dataset, pixels: Pixels) -> Facts:
    """Return the facts that loading for training yields: which images are broken, and which are identical."""
    count = len(dataset)
    unknown = np.full(count, np.nan, np.float32)
    return Facts(
        content=_first_of_equal(pixels.hashes, pixels.broken),
        pairs=no_pairs(),
        brightness=unknown,
        contrast=unknown,
        colour=unknown,
        sides=np.zeros((count, 2), np.int32),
        orientation=np.ones(count, np.uint8),
        broken=pixels.broken,
    )


def load_small(dataset: Dataset, progress: Progress | None = None, *, on: str | None = None) -> Pixels:
    """Return all images at the size at which they are measured: 64 px, or 32 if most are smaller."""
    size = 64 if median_side(dataset) >= 64 else 32
    return load_pixels(dataset, size, progress, pass_over_all=True, on=on)


def measure(dataset: Dataset, pixels: Pixels, progress: Progress | None = None) -> Facts:
    """Measure every image and find duplicates, or return the stored result of an earlier call.

    Images have the same content if their pixels are equal at the size of `pixels`, a multiple of 32.
    """
    kept = load_facts(dataset)
    if kept is not None and kept.broken == pixels.broken:
        return kept
    brightness, contrast, colour = _levels(pixels.images)
    content = _first_of_equal(hash_rows(pixels.images), pixels.broken)
    firsts = np.setdiff1d(np.unique(content), list(pixels.broken))
    turned = pixels.headers[:, 2]
    facts = Facts(
        content=content,
        pairs=find_pairs(pixels.images, firsts, progress),
        brightness=brightness,
        contrast=contrast,
        colour=colour,
        sides=pixels.headers[:, :2],
        orientation=np.where((turned >= 1) & (turned <= 8), turned, 1).astype(np.uint8),  # invalid means upright
        broken=pixels.broken,
    )
    _save(_path(dataset), facts)
    return facts


def load_facts(dataset: Dataset) -> Facts | None:
    """Return the stored result of `measure` for exactly these images; None if there is none or it is damaged."""
    try:
        with np.load(io.BytesIO(_path(dataset).read_bytes()), allow_pickle=False) as kept:
            table = {name: kept[name] for name in kept.files}
        broken = {int(index): reason for index, reason in json.loads(table.pop("broken").tobytes()).items()}
        limit = float(table.pop("pairs_limit"))
        pairs = Pairs(**{name: table.pop(f"pairs_{name}") for name in Pairs._fields if name != "limit"}, limit=limit)
        facts = Facts(pairs=pairs, broken=broken, **table)
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None
    return facts if len(facts.content) == len(dataset) else None


def _path(dataset: Dataset) -> Path:
    return cache_folder() / "checks" / f"{dataset.fingerprint[:32]}-{VERSION}.npz"


def _save(path: Path, facts: Facts) -> None:
    table: dict[str, Any] = {
        name: value for name, value in vars(facts).items() if isinstance(value, np.ndarray) and name != "pairs"
    }
    table |= {f"pairs_{name}": np.asarray(value) for name, value in facts.pairs._asdict().items()}
    table["broken"] = np.frombuffer(json.dumps(facts.broken).encode(), np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, **table)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content.getvalue())


def _first_of_equal(hashes: NDArray[np.uint64], broken: dict[int, str]) -> NDArray[np.int64]:
    """Return (n,) index of the first image with the same hash; a broken image equals only itself."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    index = np.arange(len(hashes))
    content = first[inverse]
    # Broken images are stored as zeros and share one hash, but they are no copies of each other.
    content[list(broken)] = index[list(broken)]
    return np.asarray(content, np.int64)


def _levels(images: np.ndarray) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return brightness, contrast and colour, (n,) each, of (n, S, S, 3) uint8."""
    brightness, contrast, colour = (np.empty(len(images), np.float32) for _ in range(3))
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        chunk = np.asarray(images[part])
        grey = chunk @ np.array([0.299, 0.587, 0.114], np.float32)
        brightness[part], contrast[part] = grey.mean(axis=(1, 2)), grey.std(axis=(1, 2))
        red, green, blue = chunk[..., 0], chunk[..., 1], chunk[..., 2]  # max() along the last axis is far slower
        spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
        colour[part] = spread.mean(axis=(1, 2))
    return brightness, contrast, colour
