"""Run a Core ML package with Core ML, on macOS."""

import json
from collections.abc import Callable

import coremltools
import numpy as np
from PIL import Image


def open_model(path: str, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from (n, H, W, 3) uint8 images to (n, classes) float32 probabilities."""
    # Only the processor computes in float32; the neural engine computes in float16, with other answers.
    model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY)
    labels = json.loads(model.user_defined_metadata["labels"])

    def answer(images: np.ndarray) -> np.ndarray:
        found = [model.predict({"image": Image.fromarray(image)})["classLabel_probs"] for image in images]
        return np.array([[each[label] for label in labels] for each in found], np.float32)

    return answer
