"""Run a .tflite file with LiteRT."""

from collections.abc import Callable

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def open_model(
    path: str, threads: int | None = None
) -> Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, np.ndarray]]:
    """Return a function from (n, H, W, 3) uint8 images to (n, classes) float32 probabilities.

    For a file that also has the output `distance`, the function returns (probabilities, distances), with (n,) float32
    distances.
    """
    interpreter = Interpreter(str(path), num_threads=threads)
    inputs, details = interpreter.get_input_details(), interpreter.get_output_details()
    details.sort(key=lambda each: -len(each["shape"]))  # (n, classes) probabilities, then (n,) distances, if any
    dimensions = [len(each["shape"]) for each in details]
    if len(inputs) != 1 or dimensions not in ([2], [2, 1]):
        raise ValueError(f"expected one input, and outputs of 2 or 2 and 1 dimensions; found {dimensions}")
    image, outputs = inputs[0]["index"], [each["index"] for each in details]
    batch = 0

    def answer(images: np.ndarray) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        nonlocal batch
        if batch != len(images):
            batch = len(images)
            interpreter.resize_tensor_input(image, images.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(image, images)
        interpreter.invoke()
        found = [np.array(interpreter.get_tensor(output)) for output in outputs]
        return (found[0], found[1]) if len(found) > 1 else found[0]

    return answer
