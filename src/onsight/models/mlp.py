"""The multi-layer perceptron: the baseline without convolutions."""

from __future__ import annotations

import keras
from keras import layers


def mlp(image_size: int, num_classes: int) -> keras.Model:
    """Return the ANN baseline of the tutorials: flatten, then dense 512 and dense 256, each with ReLU."""
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(inputs)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(512, activation="relu", name="dense1")(x)
    x = layers.Dense(256, activation="relu", name="dense2")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="mlp")
