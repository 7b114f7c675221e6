"""Run an .onnx file with ONNX Runtime."""

from collections.abc import Callable

import numpy as np
import onnxruntime


def open_model(path: str, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from (n, H, W, 3) uint8 images to (n, classes) float32 probabilities."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def answer(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(["probabilities"], {"image": images})[0])

    return answer
