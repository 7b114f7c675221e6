"""VGG for small images: plain stacks of 3x3 convolutions, each with a batch norm.

Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition", configurations A and
D. The paper trains on 224 px, without batch norm, and ends in two dense layers of 4,096. No paper describes the
networks for CIFAR-10. The usual form keeps the convolutions, adds batch norms and has one dense layer after the last
pooling. Tests compare parameter counts with a widespread implementation, kuangliu/pytorch-cifar, models/vgg.py.
"""

from __future__ import annotations

import keras
from keras import layers

from onsight.models.blocks import convolve, image_input


def vgg11(image_size: int, num_classes: int) -> keras.Model:
    """Return VGG-11 (A) with batch norm: 9.2 million parameters, 153 million multiply-adds at 32 px."""
    return stages(image_size, num_classes, (1, 1, 2, 2, 2), "vgg11")


def vgg16(image_size: int, num_classes: int) -> keras.Model:
    """Return VGG-16 (D) with batch norm: 14.7 million parameters, 313 million multiply-adds at 32 px."""
    return stages(image_size, num_classes, (2, 2, 3, 3, 3), "vgg16")


def stages(image_size: int, num_classes: int, depths: tuple[int, ...], name: str) -> keras.Model:
    """Return a VGG of five stages, each with `depths` convolutions and a max-pooling, and a dense layer.

    The stages have 64, 128, 256, 512 and 512 filters. The convolutions have no bias, because the following batch norm
    has a shift. At 32 px one pixel is left after the last stage; with larger images the remaining pixels are averaged.
    """
    inputs, x = image_input(image_size)
    for stage, (depth, filters) in enumerate(zip(depths, (64, 128, 256, 512, 512), strict=True), start=1):
        for index in range(1, depth + 1):
            x = convolve(x, filters, 3, f"block{stage}_{index}")
        x = layers.MaxPooling2D(padding="same", name=f"pool{stage}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)
