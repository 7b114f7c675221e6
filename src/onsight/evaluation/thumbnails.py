"""Small images of an evaluation, all in one file: what the cells of the report's confusion matrix open.

One JPEG with the images in rows and columns: 1,547 images of CIFAR-10 take 0.75 MB (a PNG 3.4 MB; WebP no less than
JPEG at equal fidelity). `thumbnails.json` says which is which.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onsight.core.files import write_atomic, write_json
from onsight.imaging.decode import resize

CELL = 30  # images of one true and one predicted class
SIDES = (96, 64, 48, 32)  # pixels a thumbnail may have
ROOM = 3_000_000  # pixels in all: about 1 MB
SAMPLES = 32  # images by chance, right or wrong
# Of the JPEG, the first whose file is small enough: its quality, and 0 for full resolution of colour, 2 for half.
QUALITIES = ((88, 0), (75, 0), (60, 2), (30, 2))
BYTES = 2_500_000


def write_thumbnails(
    folder: Path, images: np.ndarray, index: np.ndarray, labels: np.ndarray, scores: np.ndarray, names: Sequence[str]
) -> None:
    """Write thumbnails.jpg and thumbnails.json into an evaluation's folder.

    Of each pair of true and predicted class at most 30 images are kept: of mistakes the surest, of right answers the
    least sure; fewer, and smaller ones, where there are many classes. The JSON has {"side", "columns", "cells", "path",
    "label", "predicted", "probability", "samples"}: four lists with an item an image, row by row, of which the first
    `cells` belong to the cells, and the places of images taken by chance, some of which are there for that alone.

    Args:
        folder: of the evaluation.
        images: (all, H, W, 3) uint8.
        index: (n,) which of them were scored.
        labels: (n,) true classes.
        scores: (n, classes) probabilities.
        names: n paths.
    """
    predicted, sure = scores.argmax(axis=1), scores.max(axis=1)
    samples = np.random.default_rng(0).permutation(len(index))[:SAMPLES]
    chosen, side = choose(labels, predicted, sure, images.shape[1])
    places = np.concatenate([chosen, np.setdiff1d(samples, chosen)])
    columns = math.ceil(math.sqrt(len(places)))
    rows = math.ceil(len(places) / columns)
    sheet = np.zeros((rows, columns, side, side, 3), np.uint8)
    for place, at in enumerate(places.tolist()):
        sheet[divmod(place, columns)] = resize(images[index[at]], side)
    found: dict[str, Any] = {
        "side": side,
        "columns": columns,
        "cells": len(chosen),
        "path": [names[at] for at in places.tolist()],
        "label": labels[places].tolist(),
        "predicted": predicted[places].tolist(),
        "probability": [round(float(share), 6) for share in sure[places]],
        "samples": np.flatnonzero(np.isin(places, samples)).tolist(),
    }
    whole = sheet.swapaxes(1, 2).reshape(rows * side, columns * side, 3)
    for quality, subsampling in QUALITIES:
        content = jpeg(whole, quality, subsampling)
        if len(content) <= BYTES:
            break
    write_atomic(folder / "thumbnails.jpg", content)
    write_json(folder / "thumbnails.json", found)


def choose(labels: np.ndarray, predicted: np.ndarray, sure: np.ndarray, largest: int) -> tuple[np.ndarray, int]:
    """Return which images become thumbnails, cell after cell, and their side in pixels.

    Args:
        labels: (n,) true classes.
        predicted: (n,) answers.
        sure: (n,) probabilities of the answers.
        largest: pixels a side that the images have.
    """
    right = labels == predicted
    # By true class, by answer, then by what is worth seeing; rank is an image's place in its cell.
    order = np.lexsort((np.where(right, sure, -sure), predicted, labels))
    first = np.r_[True, (np.diff(labels[order]) != 0) | (np.diff(predicted[order]) != 0)]
    starts = np.flatnonzero(first)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    for side in SIDES:
        room = ROOM // side**2 - SAMPLES
        if (side <= largest and (rank < CELL).sum() <= room) or side == SIDES[-1]:
            break
    cell = next((limit for limit in range(CELL, 0, -1) if (rank < limit).sum() <= room), 1)
    kept = order[rank < cell]
    if len(kept) > room:  # hundreds of classes: not even one image a cell fits, so the surest mistakes come first
        worth = np.lexsort((-sure[kept], right[kept]))[:room]
        kept = kept[np.sort(worth)]
    return kept, side


def jpeg(image: np.ndarray, quality: int = 88, subsampling: int = 0) -> bytes:
    """Return (H, W, 3) uint8 as the bytes of a JPEG, by default with the full resolution of colour that tiles need."""
    content = io.BytesIO()
    # Without `optimize`, for which Pillow's buffer is too small where an image is noise (OSError).
    Image.fromarray(image).save(content, "JPEG", quality=quality, subsampling=subsampling)
    return content.getvalue()
