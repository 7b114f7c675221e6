"""Run an .onnx file with ONNX Runtime."""

from collections.abc import Callable

import numpy as np
import onnxruntime


def open_model(
    path: str, threads: int | None = None
) -> Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, np.ndarray]]:
    """Return a function from (n, H, W, 3) uint8 images to (n, classes) float32 probabilities.

    For a file that also has the output `distance`, the function returns (probabilities, distances), with (n,) float32
    distances.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    known = {output.name for output in session.get_outputs()}
    names = [name for name in ("probabilities", "distance") if name in known]

    def answer(images: np.ndarray) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        found = [np.asarray(each) for each in session.run(names, {"image": images})]
        return (found[0], found[1]) if len(found) > 1 else found[0]

    return answer
