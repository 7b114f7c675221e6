"""The input layer and the convolution block that networks of several papers share."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from onsight.models.layers import BatchNormalization, Conv2D


def image_input(image_size: int) -> tuple[Any, Any]:
    """Return the input, uint8 RGB (batch, image_size, image_size, 3), and the same images scaled to -1..1."""
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    return inputs, layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(inputs)


def convolve(
    x: Any,
    filters: int,
    size: int,
    name: str,
    strides: int = 1,
    *,
    padding: str = "same",
    scale: bool = True,
    relu: bool = True,
) -> Any:
    """Return a `size` x `size` convolution without bias, followed by batch norm and, if `relu`, ReLU.

    With "same" padding the output has the size of the input divided by `strides`. `scale` is whether the batch norm
    has a scale in addition to its shift.
    """
    x = Conv2D(
        filters, size, strides, padding=padding, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    x = BatchNormalization(scale=scale, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def convolve_depthwise(x: Any, size: int, strides: int, name: str) -> Any:
    """Return a `size` x `size` convolution within each channel, without bias and with "same" padding.

    With strides it is computed in float32 at any precision: on a CPU, TensorFlow takes six times as long for its input
    gradient in bfloat16.
    """
    return layers.DepthwiseConv2D(
        size,
        strides,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        dtype="float32" if strides > 1 else None,
        name=f"{name}_depthwise_conv",
    )(x)
