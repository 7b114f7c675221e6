"""Run a .tflite file with LiteRT."""

from collections.abc import Callable

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def open_model(path: str, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from (n, H, W, 3) uint8 images to (n, classes) float32 probabilities."""
    interpreter = Interpreter(str(path), num_threads=threads)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if (len(inputs), len(outputs)) != (1, 1):
        raise ValueError(f"expected one input and one output, found {len(inputs)} and {len(outputs)}")
    image, probabilities = inputs[0]["index"], outputs[0]["index"]
    batch = 0

    def answer(images: np.ndarray) -> np.ndarray:
        nonlocal batch
        if batch != len(images):
            batch = len(images)
            interpreter.resize_tensor_input(image, images.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(image, images)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(probabilities))

    return answer
