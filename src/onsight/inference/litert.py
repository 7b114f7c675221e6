"""The .tflite file of a run: kept only if its answers match those of Keras.

It includes normalisation, temperature and softmax.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from onsight.core.errors import ExportError, ModelFileError
from onsight.core.files import write_atomic
from onsight.inference.engines import LitertEngine
from onsight.inference.parity import TOLERANCE, compare, edge_images, farthest, why_not_probabilities
from onsight.models.litert_file import convert
from onsight.models.model_file import load_model, read_description, write_description

FILE = "model.tflite"


def add_litert(folder: Path, images: np.ndarray) -> str | None:
    """Convert the model in `folder` to model.tflite in the same folder, and record its SHA-256 in model.json.

    Args:
        folder: a model folder that nothing reads yet.
        images: (n, H, W, 3) uint8 real images. The answers are compared with Keras' on these and on edge images.

    Returns:
        None, or the reason why no file was written: no converter is installed, or the answers differ from Keras'.
    """
    if not find_spec("ai_edge_litert"):
        return "ai-edge-litert is not installed"
    model = load_model(folder, distance=True)
    images = np.concatenate([images, edge_images(model.input_shape[1])])
    description = read_description(folder)
    try:
        content = convert(model, ("probabilities", "distance") if description.prototypes else ("probabilities",))
        found = LitertEngine(content, description).answer(images)
    except (ExportError, ModelFileError) as error:
        return str(error)
    if why := why_not_probabilities(found.probabilities):
        return f"the answers of the converted model are not probabilities: {why}"
    expected = model.predict_on_batch(images)
    probabilities, distances = expected if description.prototypes else (expected, None)
    largest = compare(found.probabilities, np.asarray(probabilities)).largest
    if found.distances is not None:
        largest = max(largest, farthest(found.distances, np.asarray(distances)))
    if not largest <= TOLERANCE:
        return f"the answers of the converted model differ from Keras' by {largest:.2g}, more than {TOLERANCE:g}"
    write_atomic(folder / FILE, content)
    write_description(folder, replace(description, litert_sha256=hashlib.sha256(content).hexdigest()))
    return None
