"""Run the model in a page that `onsight export RUN web` wrote, with LiteRT instead of a browser."""

import base64
import gzip
import re
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
    with open(path, encoding="utf-8") as file:
        found = re.search(r'<script type="text/plain" id="model">([A-Za-z0-9+/=]+)</script>', file.read())
    if not found:
        raise ValueError("the page does not contain a model")
    content = gzip.decompress(base64.b64decode(found[1]))
    interpreter = Interpreter(model_content=content, num_threads=threads)
    image = interpreter.get_input_details()[0]["index"]
    # (n, classes) probabilities, then (n,) distances, if the model knows them
    details = sorted(interpreter.get_output_details(), key=lambda each: -len(each["shape"]))
    outputs = [each["index"] for each in details]
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
