"""Run the model in model.cc with TensorFlow Lite Micro."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tflite_micro.python.tflite_micro.runtime import Interpreter


def open_model(
    path: str, threads: int | None = None
) -> Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, np.ndarray]]:
    """Return a function from (n, H, W, 3) uint8 images to (n, classes) float32 probabilities.

    For a model that also has the output `distance`, the function returns (probabilities, distances), with (n,) float32
    distances. There is always one thread.
    """
    content = bytes.fromhex("".join(re.findall(r"\b0x([0-9a-f]{2})\b", Path(path).read_text("utf-8"))))
    header = Path(path).with_name("model.h").read_text("utf-8")
    (arena,) = re.findall(r"kArenaSize = (\d+);", header)
    interpreter = Interpreter.from_bytes(content, arena_size=int(arena))
    outputs = 2 if "kHasDistance = true;" in header else 1

    def answer(images: np.ndarray) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        found: list[list[np.ndarray]] = [[] for _ in range(outputs)]
        for image in images:
            interpreter.set_input(image[None], 0)
            interpreter.invoke()
            for number in range(outputs):
                found[number].append(interpreter.get_output(number).copy().reshape(-1))
        probabilities = np.stack(found[0])
        return (probabilities, np.concatenate(found[1])) if outputs > 1 else probabilities

    return answer
