"""MobileNet for small images: Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile
Vision Applications".
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from onsight.models.blocks import convolve, convolve_depthwise, image_input
from onsight.models.layers import BatchNormalization

# (filters, strides) of each block: the paper's table 1.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def mobilenet_cifar(image_size: int, num_classes: int) -> keras.Model:
    """Return MobileNet 1.0, with a stem that keeps the image size: 3.2 million parameters at 10 classes.

    No paper has a MobileNet for CIFAR. The paper's network for 224 px halves the image five times, which would leave
    one pixel of a 32 px image. As in kuangliu/pytorch-cifar, the stem does not halve the image, which leaves four
    halvings. All layers, and so their parameters, are the paper's (4.2 million with its 1,000 classes).
    """
    inputs, x = image_input(image_size)
    x = convolve(x, 32, 3, "stem")
    for index, (filters, strides) in enumerate(BLOCKS, start=1):
        x = separate(x, filters, strides, f"block{index}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="mobilenet_cifar")


def separate(x: Any, filters: int, strides: int, name: str) -> Any:
    """Return a depthwise separable convolution: 3x3 within each channel, then 1x1 across channels."""
    x = convolve_depthwise(x, 3, strides, name)
    x = BatchNormalization(name=f"{name}_depthwise_norm")(x)
    x = layers.ReLU(name=f"{name}_depthwise_relu")(x)
    return convolve(x, filters, 1, f"{name}_pointwise")
