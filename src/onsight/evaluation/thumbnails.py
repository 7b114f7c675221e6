"""Thumbnails of an evaluation, which the cells of the report's confusion matrix show when they are opened.

They are made from the user's files, not from the smaller images that the network sees, and show what a person would
judge. One JPEG holds all of them, in rows and columns: 1,547 images of CIFAR-10 take 0.75 MB (as PNG 3.4 MB; WebP takes
no less than JPEG at equal fidelity). `thumbnails.json` describes which image is where.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onsight.core import threads
from onsight.core.errors import ImageError
from onsight.core.files import write_atomic, write_json
from onsight.data.dataset import Dataset
from onsight.data.pixel_cache import median_side
from onsight.imaging import decode
from onsight.imaging.fit import Fit

Draw = Callable[[int, int], np.ndarray]  # from an image's index and a number of pixels per side

CELL = 30  # images per pair of true and predicted class, at most
SIDES = (96, 64, 48, 32)  # pixels per side that a thumbnail may have
ROOM = 3_000_000  # pixels of all thumbnails together: about 1 MB
SAMPLES = 32  # randomly chosen images, right or wrong
# (quality, chroma subsampling) of the JPEG; the first pair whose file is small enough is used. Subsampling 0 keeps the
# full resolution of colour, 2 halves it.
QUALITIES = ((88, 0), (75, 0), (60, 2), (30, 2))
BYTES = 2_500_000  # the size of a file that is small enough


def write_thumbnails(
    folder: Path,
    draw: Draw,
    largest: int,
    index: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    names: Sequence[str],
) -> None:
    """Write thumbnails.jpg and thumbnails.json into an evaluation's folder.

    At most 30 images are kept per pair of true and predicted class: the most confident mistakes and the least confident
    right answers. With many classes, fewer and smaller ones are kept.

    The JSON has {"side", "columns", "cells", "path", "label", "predicted", "probability", "samples"}. The lists from
    "path" to "probability" have one item per image, row by row. The first `cells` images belong to the cells of the
    confusion matrix. "samples" holds the positions of the randomly chosen images, some of which are not in the cells.

    Args:
        folder: of the evaluation.
        draw: returns image i of the data set at a number of pixels per side; called by several threads.
        largest: pixels per side that the images have.
        index: (n,) the indices of the images that were scored.
        labels: (n,) true classes.
        scores: (n, classes) probabilities.
        names: n paths.
    """
    predicted, confidence = scores.argmax(axis=1), scores.max(axis=1)
    samples = np.random.default_rng(0).permutation(len(index))[:SAMPLES]
    chosen, side = choose(labels, predicted, confidence, largest)
    places = np.concatenate([chosen, np.setdiff1d(samples, chosen)])
    columns = math.ceil(math.sqrt(len(places)))
    rows = math.ceil(len(places) / columns)
    sheet = np.zeros((rows, columns, side, side, 3), np.uint8)

    def fill(place: int) -> None:
        sheet[divmod(place, columns)] = draw(int(index[places[place]]), side)

    for _ in threads.each(fill, len(places)):
        pass
    found: dict[str, Any] = {
        "side": side,
        "columns": columns,
        "cells": len(chosen),
        "path": [names[at] for at in places.tolist()],
        "label": labels[places].tolist(),
        "predicted": predicted[places].tolist(),
        "probability": [round(float(share), 6) for share in confidence[places]],
        "samples": np.flatnonzero(np.isin(places, samples)).tolist(),
    }
    whole = sheet.swapaxes(1, 2).reshape(rows * side, columns * side, 3)
    for quality, subsampling in QUALITIES:
        content = jpeg(whole, quality, subsampling)
        if len(content) <= BYTES:
            break
    write_atomic(folder / "thumbnails.jpg", content)
    write_json(folder / "thumbnails.json", found)


def original(dataset: Dataset, images: np.ndarray, fit: Fit, index: int, side: int) -> np.ndarray:
    """Return image `index` at `side` x `side` pixels from its file, or from `images` (n, H, W, 3) without a file.

    `images` are what the network sees, and `fit` is how they became square. They also serve if the file has become
    unreadable.
    """
    if dataset.images is None:
        with contextlib.suppress(ImageError):
            return decode.load(dataset.read(index), side, fit)
    return decode.resize(images[index], side)


def largest_side(dataset: Dataset, images: np.ndarray) -> int:
    """Return the pixels per side up to which `original` adds detail: those of the files, or of `images`."""
    return int(images.shape[1]) if dataset.images is not None else max(int(images.shape[1]), median_side(dataset))


def choose(labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, largest: int) -> tuple[np.ndarray, int]:
    """Return the indices of the images that become thumbnails, cell by cell, and their side in pixels.

    Args:
        labels: (n,) true classes.
        predicted: (n,) predicted classes.
        confidence: (n,) probabilities of the predicted classes.
        largest: pixels per side of the images.
    """
    right = labels == predicted
    # Sort by true class, by predicted class, then by what is most worth seeing. `rank` is the position in the cell.
    order = np.lexsort((np.where(right, confidence, -confidence), predicted, labels))
    first = np.r_[True, (np.diff(labels[order]) != 0) | (np.diff(predicted[order]) != 0)]
    starts = np.flatnonzero(first)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    for side in SIDES:
        room = ROOM // side**2 - SAMPLES
        if (side <= largest and (rank < CELL).sum() <= room) or side == SIDES[-1]:
            break
    cell = next((limit for limit in range(CELL, 0, -1) if (rank < limit).sum() <= room), 1)
    kept = order[rank < cell]
    if len(kept) > room:  # hundreds of classes: one image per cell is too many, so prefer the most confident mistakes
        worth = np.lexsort((-confidence[kept], right[kept]))[:room]
        kept = kept[np.sort(worth)]
    return kept, side


def jpeg(image: np.ndarray, quality: int = 88, subsampling: int = 0) -> bytes:
    """Return (H, W, 3) uint8 as the bytes of a JPEG. The default keeps the full resolution of colour, as tiles need."""
    content = io.BytesIO()
    # Without `optimize`: with it, Pillow's buffer is too small for an image of noise, and it raises OSError.
    Image.fromarray(image).save(content, "JPEG", quality=quality, subsampling=subsampling)
    return content.getvalue()
