"""Run a SavedModel with TensorFlow."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def open_model(path: str, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from (n, H, W, 3) uint8 images to (n, classes) float32 probabilities."""
    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    model = tf.saved_model.load(str(path))

    def answer(images: np.ndarray) -> np.ndarray:
        return np.asarray(model.signatures["serving_default"](image=tf.constant(images))["probabilities"])

    return answer
