"""Run a .keras file with Keras."""

import os
from collections.abc import Callable

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras


def open_model(path: str, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from (n, H, W, 3) uint8 images to (n, classes) float32 probabilities."""
    if threads and keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    model = keras.models.load_model(path, compile=False)

    def answer(images: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict_on_batch(images))

    return answer
