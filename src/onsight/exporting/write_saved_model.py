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
    """Return a tf.function of the model, whose input and outputs are named, and its signature.

    The outputs are `probabilities` and, if the model has two, `distance`.
    """
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="image")]

    def answer(image: Any) -> dict[str, Any]:
        found = model(image, training=False)
        return dict(zip(("probabilities", "distance"), found if len(model.outputs) > 1 else [found], strict=False))

    return tf.function(answer, input_signature=signature), signature
