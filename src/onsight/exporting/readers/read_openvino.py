"""Run an OpenVINO model with OpenVINO."""

from collections.abc import Callable

import numpy as np
import openvino


def open_model(path: str, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from (n, H, W, 3) uint8 images to (n, classes) float32 probabilities."""
    # Without the hint, OpenVINO computes in bfloat16 on processors that have it, with other answers.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads or 0}
    model = openvino.Core().compile_model(str(path), "CPU", settings)

    def answer(images: np.ndarray) -> np.ndarray:
        return np.array(model(images)[0])

    return answer
