"""Residual networks for small pictures: He et al. 2015, "Deep Residual Learning for Image Recognition", section 4.2."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from ..layers import BatchNormalization


def resnet20(image_size: int, num_classes: int) -> keras.Model:
    """Return ResNet-20: three stages of three blocks (16, 32, 64 filters); 0.27 million parameters at 10 classes.

    The shortcut is the paper's option A, without parameters: where a stage halves the picture and doubles the filters,
    every other pixel is taken and the missing channels are zeros.
    """
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(inputs)
    x = convolve(x, 16, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage, filters in enumerate((16, 32, 64), start=1):
        for index in (1, 2, 3):
            name = f"block{stage}_{index}"
            strides = 2 if stage > 1 and index == 1 else 1
            shortcut = x
            if strides == 2:
                shortcut = layers.MaxPooling2D(1, strides=2, name=f"{name}_skip")(shortcut)  # pixels 0, 2, 4, …
                # Channels are padded as if they were rows: ZeroPadding2D pads axes 1 and 2 only.
                shortcut = layers.Permute((1, 3, 2), name=f"{name}_skip_turn")(shortcut)
                shortcut = layers.ZeroPadding2D(((0, 0), (filters // 4, filters // 4)), name=f"{name}_skip_pad")(
                    shortcut
                )
                shortcut = layers.Permute((1, 3, 2), name=f"{name}_skip_turn_back")(shortcut)
            x = convolve(x, filters, strides, f"{name}_1")
            x = layers.ReLU(name=f"{name}_1_relu")(x)
            x = convolve(x, filters, 1, f"{name}_2")
            x = layers.Add(name=f"{name}_add")([x, shortcut])
            x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="resnet20")


def convolve(x: Any, filters: int, strides: int, name: str) -> Any:
    """Return a 3x3 convolution, same size (or half), without bias, and its batch norm."""
    x = layers.Conv2D(
        filters, 3, strides, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return BatchNormalization(name=f"{name}_norm")(x)
