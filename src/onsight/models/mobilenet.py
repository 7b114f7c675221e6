"""MobileNet for small images: Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile
Vision Applications".
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from onsight.models.blocks import convolve, image_input
from onsight.models.layers import BatchNormalization

# Filters and strides of the paper's table 1.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def mobilenet_cifar(image_size: int, num_classes: int) -> keras.Model:
    """Return MobileNet 1.0 that halves the image four times, not five: 3.2 million parameters at 10 classes.

    No paper has it for CIFAR: the paper's network for 224 px would leave one pixel of 32 after all halvings. As
    kuangliu/pytorch-cifar does, the stem keeps the size; all layers, and so their parameters, are the paper's (4.2
    million with its 1,000 classes).
    """
    inputs, x = image_input(image_size)
    x = convolve(x, 32, 3, "stem")
    for index, (filters, strides) in enumerate(BLOCKS, start=1):
        x = separate(x, filters, strides, f"block{index}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="mobilenet_cifar")


def separate(x: Any, filters: int, strides: int, name: str) -> Any:
    """Return a depthwise separable convolution: 3x3 of each channel by itself, then 1x1 across channels."""
    x = layers.DepthwiseConv2D(
        3, strides, padding="same", use_bias=False, depthwise_initializer="he_normal", name=f"{name}_depthwise_conv"
    )(x)
    x = BatchNormalization(name=f"{name}_depthwise_norm")(x)
    x = layers.ReLU(name=f"{name}_depthwise_relu")(x)
    return convolve(x, filters, 1, f"{name}_pointwise")
