"""Run a .tflite file with LiteRT."""

from collections.abc import Callable

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def open_model(path: str, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray | list[np.ndarray]]:
    """Return a function from (n, H, W, 3) uint8 images to (n, classes) float32 probabilities.

    If the file has a second output, the function returns [probabilities, distance], the distance (n,) float32.
    """
    interpreter = Interpreter(str(path), num_threads=threads)
    inputs = interpreter.get_input_details()
    outputs = sorted(interpreter.get_output_details(), key=lambda output: -len(output["shape"]))
    if len(inputs) != 1 or [len(output["shape"]) for output in outputs] not in ([2], [2, 1]):
        raise ValueError(f"expected one input, and probabilities with or without a distance, found {outputs}")
    image = inputs[0]["index"]
    batch = 0

    def answer(images: np.ndarray) -> np.ndarray | list[np.ndarray]:
        nonlocal batch
        if batch != len(images):
            batch = len(images)
            interpreter.resize_tensor_input(image, images.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(image, images)
        interpreter.invoke()
        found = [np.array(interpreter.get_tensor(output["index"])) for output in outputs]
        return found if len(found) > 1 else found[0]

    return answer
