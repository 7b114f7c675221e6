"""Plain convolutional networks: the tutorials' own, and a deeper one."""

from __future__ import annotations

import keras
from keras import layers

from onsight.models.layers import BatchNormalization


def cnn(image_size: int, num_classes: int) -> keras.Model:
    """Return the small CNN that most CIFAR-10 tutorials build: 161,098 parameters at 32 px and 10 classes.

    Three times 3x3 valid convolution (32, 64, 128) with ReLU, batch norm, 2x2 max-pool; then flatten, dense 128,
    dropout 0.5, dense.
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
    """Return conv-conv-pool stages (32, 64, 128) with batch norm and a dense layer, with dropout and L2 throughout."""
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
    """Return three stages (32, 64, 128) that pool right after their first convolution; global max-pool, dense.

    Most of the time of a small CNN goes into its first, largest maps. Pooling before the norm and the activation, as in
    Jordan 2024 ("94% on CIFAR-10 in 3.29 Seconds"), leaves them one convolution: 17 million multiply-adds at 32 px
    against the 39 million of `cnn_dropout`.
    """
    return pooled_early(image_size, num_classes, (32, 64, 128), "cnn_compact")


def micro(image_size: int, num_classes: int) -> keras.Model:
    """Return `cnn_compact` with widths (32, 40, 56), for microcontrollers: 86 thousand parameters, 8.9 million
    multiply-adds at 32 px, 98 kB as an int8 .tflite file.

    MLPerf Tiny's ResNet-8 has as many parameters and 12.5 million; this answers in 0.77 of its time (one thread).
    """
    return pooled_early(image_size, num_classes, (32, 40, 56), "micro")


def pooled_early(image_size: int, num_classes: int, widths: tuple[int, ...], name: str) -> keras.Model:
    """Return stages of two convolutions each that pool right after the first; global max-pool, dense."""
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
