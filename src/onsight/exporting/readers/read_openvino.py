"""Answers of an OpenVINO model."""

from collections.abc import Callable

import numpy as np
import openvino


def open_model(path: str, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return what gives (n, classes) float32 probabilities for (n, H, W, 3) uint8 images."""
    # Without the hint a processor that has bfloat16 computes in it, and answers otherwise.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads or 0}
    model = openvino.Core().compile_model(str(path), "CPU", settings)

    def answer(images: np.ndarray) -> np.ndarray:
        return np.array(model(images)[0])

    return answer
