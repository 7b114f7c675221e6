"""Residual networks for small images, plain and wide."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from onsight.models.blocks import convolve, image_input
from onsight.models.layers import BatchNormalization, Conv2D


def resnet20(image_size: int, num_classes: int) -> keras.Model:
    """Return ResNet-20 of He et al. 2015: 0.27 million parameters at 10 classes."""
    return plain(image_size, num_classes, 3, "resnet20")


def resnet32(image_size: int, num_classes: int) -> keras.Model:
    """Return ResNet-32 of He et al. 2015: 0.46 million parameters at 10 classes."""
    return plain(image_size, num_classes, 5, "resnet32")


def resnet56(image_size: int, num_classes: int) -> keras.Model:
    """Return ResNet-56 of He et al. 2015: 0.85 million parameters at 10 classes."""
    return plain(image_size, num_classes, 9, "resnet56")


def plain(image_size: int, num_classes: int, depth: int, name: str) -> keras.Model:
    """Return three stages of `depth` blocks (16, 32, 64 filters): 6 * depth + 2 layers with weights.

    He et al. 2015, "Deep Residual Learning for Image Recognition", section 4.2. The shortcut is the paper's option A,
    without parameters: if a stage halves the image and doubles the filters, the shortcut takes every other pixel and
    fills the missing channels with zeros.
    """
    inputs, x = image_input(image_size)
    x = convolve(x, 16, 3, "stem")
    for stage, filters in enumerate((16, 32, 64), start=1):
        for index in range(1, depth + 1):
            block = f"block{stage}_{index}"
            shortcut = x
            if stage > 1 and index == 1:
                shortcut = layers.MaxPooling2D(1, strides=2, name=f"{block}_skip")(shortcut)  # pixels 0, 2, 4, …
                # Channels are padded as if they were rows: ZeroPadding2D pads axes 1 and 2 only.
                shortcut = layers.Permute((1, 3, 2), name=f"{block}_skip_turn")(shortcut)
                shortcut = layers.ZeroPadding2D(((0, 0), (filters // 4, filters // 4)), name=f"{block}_skip_pad")(
                    shortcut
                )
                shortcut = layers.Permute((1, 3, 2), name=f"{block}_skip_turn_back")(shortcut)
                x = halve(x, filters, f"{block}_1")
            else:
                x = convolve(x, filters, 3, f"{block}_1")
            x = convolve(x, filters, 3, f"{block}_2", relu=False)
            x = layers.Add(name=f"{block}_add")([x, shortcut])
            x = layers.ReLU(name=f"{block}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)


def wide_resnet16_4(image_size: int, num_classes: int) -> keras.Model:
    """Return WRN-16-4: three stages of two blocks (64, 128, 256 filters); 2.75 million parameters at 10 classes.

    Zagoruyko and Komodakis 2016, "Wide Residual Networks", without its optional dropout. Batch norm and ReLU come
    before each convolution, so nothing changes the sum on its way through the network. If the width changes, the
    shortcut is a 1x1 convolution of the input of the block's first convolution.
    """
    inputs, x = image_input(image_size)
    x = Conv2D(16, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name="stem_conv")(x)
    for stage, filters in enumerate((64, 128, 256), start=1):
        for index in (1, 2):
            name = f"block{stage}_{index}"
            strides = 2 if stage > 1 and index == 1 else 1
            y = activate(x, f"{name}_0")
            if index == 1:
                x = Conv2D(filters, 1, strides, use_bias=False, kernel_initializer="he_normal", name=f"{name}_skip")(y)
            y = halve(y, filters, f"{name}_1") if strides == 2 else convolve(y, filters, 3, f"{name}_1")
            y = Conv2D(
                filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_2_conv"
            )(y)
            x = layers.Add(name=f"{name}_add")([x, y])
    x = activate(x, "last")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="wide_resnet16_4")


def halve(x: Any, filters: int, name: str) -> Any:
    """Return a 3x3 convolution of stride 2, batch norm and ReLU, centred on pixels 0, 2, 4, … like the shortcut.

    The papers' programs do the same, because they pad on both sides. Keras' "same" padding would centre the convolution
    on pixels 1, 3, 5, … if the side is even.
    """
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return convolve(x, filters, 3, name, strides=2, padding="valid")


def activate(x: Any, name: str) -> Any:
    """Return x after batch norm and ReLU."""
    return layers.ReLU(name=f"{name}_relu")(BatchNormalization(name=f"{name}_norm")(x))
