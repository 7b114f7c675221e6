"""Run an .onnx file with ONNX Runtime."""

from collections.abc import Callable

import numpy as np
import onnxruntime


def open_model(path: str, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray | list[np.ndarray]]:
    """Return a function from (n, H, W, 3) uint8 images to (n, classes) float32 probabilities.

    If the file has a second output, the function returns [probabilities, distance], the distance (n,) float32.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    has_distance = "distance" in {output.name for output in session.get_outputs()}
    names = ["probabilities", "distance"] if has_distance else ["probabilities"]

    def answer(images: np.ndarray) -> np.ndarray | list[np.ndarray]:
        found = [np.asarray(each) for each in session.run(names, {"image": images})]
        return found if len(found) > 1 else found[0]

    return answer
