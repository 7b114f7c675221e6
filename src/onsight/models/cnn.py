"""Plain convolutional networks: the tutorials' CNN, a deeper one, and two that pool early."""

from __future__ import annotations

import keras
from keras import layers

from onsight.models.layers import BatchNormalization


def cnn(image_size: int, num_classes: int) -> keras.Model:
    """Return the small CNN that most CIFAR-10 tutorials build: 161,098 parameters at 32 px and 10 classes.

    Three times 3x3 valid convolution (32, 64, 128 filters) with ReLU, batch norm and 2x2 max-pooling; then flatten,
    dense 128 with ReLU, dropout 0.5 and the dense layer for the logits.
    """
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255, name="normalise")(inputs)
    for stage, filters in enumerate((32, 64, 128), start=1):
        x = layers.Conv2D(filters, 3, activation="relu", name=f"conv{stage}")(x)
        x = BatchNormalization(name=f"norm{stage}")(x)
        x = layers.MaxPooling2D(name=f"pool{stage}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, activation="relu", name="dense")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="cnn")


def cnn_dropout(image_size: int, num_classes: int) -> keras.Model:
    """Return a CNN of three stages of two convolutions and a max-pooling, with batch norm, dropout and L2.

    The stages have 32, 64 and 128 filters. A dense layer of 128 follows.
    """
    decay = keras.regularizers.L2(1e-4)
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(inputs)
    for stage, filters in enumerate((32, 64, 128), start=1):
        for part in "ab":
            name = f"{stage}{part}"
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_regularizer=decay, name=f"conv{name}")(
                x
            )
            x = BatchNormalization(name=f"norm{name}")(x)
            x = layers.ReLU(name=f"relu{name}")(x)
        x = layers.MaxPooling2D(name=f"pool{stage}")(x)
        x = layers.Dropout(0.1 * stage, name=f"dropout{stage}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, activation="relu", kernel_regularizer=decay, name="dense")(x)
    x = layers.Dropout(0.4, name="dropout")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="cnn_dropout")


def cnn_compact(image_size: int, num_classes: int) -> keras.Model:
    """Return a CNN of three stages (32, 64, 128 filters) that pool right after their first convolution.

    A small CNN spends most of its time on its first feature maps, which are the largest. Here they pass through only
    one convolution, because each stage pools before batch norm and activation, as in Jordan 2024 ("94% on CIFAR-10 in
    3.29 Seconds"). This takes 17 million multiply-adds at 32 px; `cnn_dropout` takes 39 million.
    """
    return pooled_early(image_size, num_classes, (32, 64, 128), "cnn_compact")


def micro(image_size: int, num_classes: int) -> keras.Model:
    """Return `cnn_compact` with 32, 40 and 56 filters, for microcontrollers.

    It has 86 thousand parameters, takes 8.9 million multiply-adds at 32 px, and is 95 kB as an int8 .tflite file.
    MLPerf Tiny's ResNet-8 has as many parameters and 12.5 million multiply-adds; the latency of this network is 0.77
    of that of ResNet-8 (one thread).
    """
    return pooled_early(image_size, num_classes, (32, 40, 56), "micro")


def pooled_early(image_size: int, num_classes: int, widths: tuple[int, ...], name: str) -> keras.Model:
    """Return stages of two convolutions that pool after the first one, then global max-pooling and a dense layer."""
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(inputs)
    for stage, filters in enumerate(widths, start=1):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{stage}a")(x)
        x = layers.MaxPooling2D(name=f"pool{stage}")(x)
        x = BatchNormalization(name=f"norm{stage}a")(x)
        x = layers.ReLU(name=f"relu{stage}a")(x)
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{stage}b")(x)
        x = BatchNormalization(name=f"norm{stage}b")(x)
        x = layers.ReLU(name=f"relu{stage}b")(x)
    x = layers.GlobalMaxPooling2D(name="pool")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)
