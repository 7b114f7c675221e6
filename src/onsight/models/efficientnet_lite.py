"""EfficientNet-Lite: EfficientNet (Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks") without squeeze-and-excitation and with ReLU6, so that it computes well in integers.

The scaling is that of TensorFlow's reference code for EfficientNet-Lite, and so are batch norm and preprocessing:
`features.torch_weights` reads ImageNet weights that were converted from its checkpoints.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers

from onsight.models.blocks import convolve_depthwise
from onsight.models.layers import BatchNormalization, Conv2D

# (repeats, kernel size, stride of the first block, expansion, channels) of each stage: table 1 of the paper.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280  # channels; the same at every width
MOMENTUM = 0.9  # of batch norm; the reference's 0.99 suits ImageNet's hundreds of thousands of steps


def efficientnet_lite0(image_size: int, num_classes: int) -> keras.Model:
    """Return EfficientNet-Lite0, meant for 224 px: 3.4 million parameters without the head."""
    return build("efficientnet_lite0", image_size, num_classes, width=1.0, depth=1.0)


def efficientnet_lite1(image_size: int, num_classes: int) -> keras.Model:
    """Return EfficientNet-Lite1, meant for 240 px: a deeper Lite0."""
    return build("efficientnet_lite1", image_size, num_classes, width=1.0, depth=1.1)


def efficientnet_lite2(image_size: int, num_classes: int) -> keras.Model:
    """Return EfficientNet-Lite2, meant for 260 px: a deeper and wider Lite0."""
    return build("efficientnet_lite2", image_size, num_classes, width=1.1, depth=1.2)


def build(name: str, image_size: int, num_classes: int, *, width: float, depth: float) -> keras.Model:
    """Return the network whose channels and repeats are those of `STAGES` times `width` and `depth`."""
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="normalise")(inputs)
    x = convolve(x, STEM, 3, "stem", strides=2)
    number = 0
    for stage, (repeats, size, stride, expansion, channels) in enumerate(STAGES):
        inner = 0 < stage < len(STAGES) - 1  # the first and the last stage keep their repeats
        for repeat in range(math.ceil(repeats * depth) if inner else repeats):
            x = inverted_residual(
                x, f"block{number}", size, stride if repeat == 0 else 1, expansion, scaled(channels, width)
            )
            number += 1
    x = convolve(x, HEAD, 1, "head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)


def scaled(channels: int, width: float) -> int:
    """Return channels times `width`, rounded to a multiple of 8 that is at least 90 % of it."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def inverted_residual(x: Any, name: str, size: int, strides: int, expansion: int, channels: int) -> Any:
    """Return an inverted residual block: expand by 1x1, convolve within each channel, project by 1x1.

    The input is added where the shapes allow it.
    """
    before = x
    if expansion > 1:
        x = convolve(x, x.shape[-1] * expansion, 1, f"{name}_expand")
    x = convolve_depthwise(x, size, strides, name)
    x = activate(x, f"{name}_depthwise")
    x = convolve(x, channels, 1, f"{name}_project", relu=False)
    if strides == 1 and before.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([before, x])
    return x


def convolve(x: Any, filters: int, size: int, name: str, strides: int = 1, *, relu: bool = True) -> Any:
    """Return a convolution without bias, followed by batch norm and, if `relu`, ReLU6."""
    x = Conv2D(
        filters, size, strides, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return activate(x, name, relu=relu)


def activate(x: Any, name: str, *, relu: bool = True) -> Any:
    """Return batch norm followed by ReLU6, or batch norm alone."""
    x = BatchNormalization(momentum=MOMENTUM, epsilon=1e-3, name=f"{name}_norm")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x
