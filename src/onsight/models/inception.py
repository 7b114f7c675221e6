"""A small Inception: Zhang et al. 2017, "Understanding deep learning requires rethinking generalization", figure 3.

Its modules are a simplified form of those of Szegedy et al. 2015, "Going Deeper with Convolutions", whose networks are
made for images of 224 px and more.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from onsight.models.blocks import convolve, image_input


def inception_cifar(image_size: int, num_classes: int) -> keras.Model:
    """Return the paper's Inception for CIFAR-10: 1,649,402 parameters at 10 classes (its table 1).

    That figure is reached if the batch norms have a shift but no scale; the next convolution can do the scaling. The
    paper trains on crops of 28 px, which leave 7 x 7 pixels for the last average pooling. Here the pooling averages
    over as many pixels as the image leaves.
    """
    inputs, x = image_input(image_size)
    x = convolve(x, 96, 3, "stem", scale=False)
    x = module(x, 32, 32, "inception1_1")
    x = module(x, 32, 48, "inception1_2")
    x = downsample(x, 80, "down1")
    for index, (ones, threes) in enumerate(((112, 48), (96, 64), (80, 80), (48, 96)), start=1):
        x = module(x, ones, threes, f"inception2_{index}")
    x = downsample(x, 96, "down2")
    for index in (1, 2):
        x = module(x, 176, 160, f"inception3_{index}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="inception_cifar")


def module(x: Any, ones: int, threes: int, name: str) -> Any:
    """Return a 1x1 and a 3x3 convolution of the same maps, concatenated."""
    sides = [convolve(x, ones, 1, f"{name}_1x1", scale=False), convolve(x, threes, 3, f"{name}_3x3", scale=False)]
    return layers.Concatenate(name=name)(sides)


def downsample(x: Any, filters: int, name: str) -> Any:
    """Return a 3x3 convolution and a 3x3 max-pooling, both with stride 2, concatenated."""
    pooled = layers.MaxPooling2D(3, strides=2, padding="same", name=f"{name}_pool")(x)
    return layers.Concatenate(name=name)([convolve(x, filters, 3, f"{name}_3x3", strides=2, scale=False), pooled])
