"""VGG for small images: plain stacks of 3x3 convolutions, each with a batch norm.

Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition", configurations A and
D. The paper trains on 224 px, without batch norm, and ends in two dense layers of 4,096. The networks for CIFAR-10 are
no paper's: everybody keeps the convolutions, adds batch norms and puts one dense layer behind the last pooling. Counts
are compared with the widespread code of that kind, kuangliu/pytorch-cifar, models/vgg.py.
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
    """Return five stages of `depths` convolutions (64, 128, 256, 512, 512 filters) and a max-pool each; dense.

    Convolutions have no bias: the batch norm behind each has one. At 32 px one pixel is left at the end; of larger
    images the mean is taken.
    """
    inputs, x = image_input(image_size)
    for stage, (depth, filters) in enumerate(zip(depths, (64, 128, 256, 512, 512), strict=True), start=1):
        for index in range(1, depth + 1):
            x = convolve(x, filters, 3, f"block{stage}_{index}")
        x = layers.MaxPooling2D(padding="same", name=f"pool{stage}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)
