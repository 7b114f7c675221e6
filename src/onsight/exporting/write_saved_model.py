"""The writer of TensorFlow SavedModels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.exporting.judge import Precision

if TYPE_CHECKING:
    import keras


def write_saved_model(model_folder: Path, path: Path, precision: Precision, images: np.ndarray) -> None:
    """Write a TensorFlow SavedModel with a single signature, serving_default."""
    import tensorflow as tf

    from onsight.models.model_file import load_model

    model = load_model(model_folder)
    holder = tf.Module()
    holder.weights = [weight.value for weight in model.weights]  # only what the module holds is saved
    holder.answer, _ = tensorflow_function(model)
    tf.saved_model.save(holder, str(path), signatures={"serving_default": holder.answer.get_concrete_function()})


def tensorflow_function(model: keras.Model) -> tuple[Any, list[Any]]:
    """Return a tf.function of the model, whose input and output are named, and its signature."""
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="image")]
    function = tf.function(lambda image: {"probabilities": model(image, training=False)}, input_signature=signature)
    return function, signature
