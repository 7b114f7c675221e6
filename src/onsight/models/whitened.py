"""The networks of the fastest published CIFAR-10 recipes: a whitening convolution, then blocks that pool early.

Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", and its successors.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from onsight.models.layers import Activation, BatchNormalization, Conv2D

PIXELS = 5_000 * 32 * 32  # read for the whitening
PATCH = 2  # pixels per side
BIAS = (3 * PATCH**2) ** -0.5  # the largest bias of the whitening: PyTorch's default for so many inputs
# The published 1e-12 fails on grey images: the filters for colours give only their bias there, and batch norm would
# multiply the gradient of such a constant map by 1e6.
EPSILON = 1e-5
WIDTHS = (64, 256, 256)
WIDE = (128, 384, 384)


def whitened(image_size: int, num_classes: int) -> keras.Model:
    """Return the network of the preset `fast`: 1.97 million parameters, 118 million multiply-adds at 32 px."""
    return blocks(image_size, num_classes, WIDTHS, "whitened")


def whitened_wide(image_size: int, num_classes: int) -> keras.Model:
    """Return the network of the preset `best`: 7.4 million parameters, 412 million multiply-adds at 32 px.

    It is wider, and each block has a third convolution with a shortcut around it, as in Jordan's recipe for 96 %.
    """
    return blocks(image_size, num_classes, WIDE, "whitened_wide", parts="abc")


def blocks(image_size: int, num_classes: int, widths: tuple[int, ...], name: str, parts: str = "ab") -> keras.Model:
    """Return a whitening convolution, one block per width, global max-pooling and a dense head.

    A block has one convolution per letter of `parts`: the first is followed by pooling, the third has a shortcut.

    The head starts small, with a standard deviation of 1/256. The published program starts with a standard deviation of
    1 and divides the logits by the number of features, 256, which is the same function.
    """
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 63.75, offset=-2, name="normalise")(inputs)  # about (x - mean) / std of photos
    # `whiten` sets its kernel. The bias stays as drawn: its gradient would cost a twelfth of the training time.
    around_zero = keras.initializers.RandomUniform(-BIAS, BIAS)
    x = layers.Conv2D(2 * 3 * PATCH**2, PATCH, bias_initializer=around_zero, trainable=False, name="whitening")(x)
    x = Activation("silu", name="silu0")(x)
    for block, filters in enumerate(widths, start=1):
        for part in parts:
            number, shortcut = f"{block}{part}", x
            x = Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer=dirac, name=f"conv{number}")(x)
            if part == "a":
                x = layers.MaxPooling2D(name=f"pool{block}")(x)
            x = BatchNormalization(momentum=0.85, epsilon=EPSILON, scale=False, name=f"norm{number}")(x)
            if part == "c":
                x = layers.Add(name=f"add{number}")([x, shortcut])
            x = Activation("silu", name=f"silu{number}")(x)
    x = layers.GlobalMaxPooling2D(name="pool")(x)
    head = keras.initializers.RandomNormal(stddev=1 / 256)
    logits = layers.Dense(num_classes, use_bias=False, kernel_initializer=head, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)


def dirac(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Return a kernel (height, width, inputs, outputs) whose first outputs copy the inputs; the rest is random.

    The random part is uniform within ±1/sqrt(fan in), PyTorch's default.
    """
    height, width, inputs, outputs = shape
    bound = (height * width * inputs) ** -0.5
    passed = min(inputs, outputs)
    identity = np.zeros((height, width, inputs, passed), "float32")
    identity[height // 2, width // 2, range(passed), range(passed)] = 1
    rest = keras.random.uniform((height, width, inputs, outputs - passed), -bound, bound)
    return keras.ops.cast(keras.ops.concatenate([identity, rest], axis=-1), dtype or "float32")


def whiten(model: keras.Model, images: np.ndarray, order: np.ndarray) -> None:
    """Set the first convolution so that its outputs are uncorrelated, with equal variance, on training images.

    The filters are the eigenvectors of the patches' uncentred covariance, each divided by sqrt(eigenvalue + 5e-4), and
    the negatives of these filters.

    Args:
        model: a network from `whitened` or `whitened_wide`.
        images: (all, H, W, 3) uint8.
        order: shuffled indices into `images`. The first 5,000 are read at 32 px, fewer if the images are larger.
    """
    some = np.sort(order[: PIXELS // (images.shape[1] * images.shape[2])])
    scaled = images[some].astype(np.float32) / 63.75 - 2
    windows = np.lib.stride_tricks.sliding_window_view(scaled, (PATCH, PATCH), axis=(1, 2))  # (n, H-1, W-1, 3, 2, 2)
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 3 * PATCH**2)
    values, vectors = np.linalg.eigh((patches.T @ patches / len(patches)).astype(np.float64))
    filters = (vectors / np.sqrt(values + 5e-4))[:, ::-1]  # largest eigenvalue first
    kernel = np.concatenate([filters, -filters], axis=1).reshape(PATCH, PATCH, 3, -1)
    model.get_layer("whitening").kernel.assign(kernel.astype(np.float32))
