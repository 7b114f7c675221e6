"""A small ConvNeXt: Liu et al. 2022, "A ConvNet for the 2020s"."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from onsight.models.layers import Activation, Conv2D

DEPTHS, WIDTHS = (2, 2, 6, 2), (40, 80, 160, 320)


def convnext_cifar(image_size: int, num_classes: int) -> keras.Model:
    """Return a ConvNeXt with patches of 2 x 2 pixels: 3.4 million parameters, 44 million multiply-adds at 32 px.

    No paper has this network. The smallest one of the paper, ConvNeXt-T, has 28.6 million parameters and takes patches
    of 4 x 4 pixels; an image of 32 px has too few of them. Depths and widths are those of "Atto", the smallest network
    of Woo et al. 2023 ("ConvNeXt V2", 3.7 million parameters at 1,000 classes). The layer scale is left out, because
    it helps networks with many more layers.
    """
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    # Not centred: x / 127.5 - 1 turns a grey image into little but rounding errors, and the layer norm after the stem
    # amplifies them (LiteRT's probabilities differed from JAX's by 2e-5). That layer norm centres the values anyway.
    x = layers.Rescaling(1 / 255, name="normalise")(inputs)
    x = layers.Conv2D(WIDTHS[0], 2, strides=2, name="stem")(x)
    x = normalise(x, "stem_norm")
    for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True), start=1):
        if stage > 1:
            x = normalise(x, f"down{stage}_norm")
            x = layers.Conv2D(width, 2, strides=2, name=f"down{stage}")(x)
        for index in range(1, depth + 1):
            x = block(x, width, f"block{stage}_{index}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = normalise(x, "pool_norm")
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="convnext_cifar")


def block(x: Any, width: int, name: str) -> Any:
    """Return x plus a branch: 7x7 depthwise convolution, layer norm, 1x1 to four times the width, GELU, 1x1 back."""
    # In float32 at any precision: on a CPU, TensorFlow takes three times as long for its kernel gradient in bfloat16.
    y = layers.DepthwiseConv2D(7, padding="same", dtype="float32", name=f"{name}_depthwise")(x)
    y = normalise(y, f"{name}_norm")
    y = Conv2D(4 * width, 1, name=f"{name}_expand")(y)
    y = Activation("gelu", name=f"{name}_gelu")(y)
    y = Conv2D(width, 1, name=f"{name}_project")(y)
    return layers.Add(name=f"{name}_add")([x, y])


def normalise(x: Any, name: str) -> Any:
    """Return x after a layer norm: each pixel's channels get mean 0 and variance 1, then a scale and a shift."""
    return layers.LayerNormalization(epsilon=1e-6, name=name)(x)
