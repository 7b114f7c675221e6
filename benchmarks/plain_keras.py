#!/usr/bin/env python3
"""The script of most tutorials: a small CNN in plain Keras on CIFAR-10, with everything in memory.

The network has 161,098 parameters. `run.py` compares Onsight with this script. To run it alone:

    KERAS_BACKEND=tensorflow python benchmarks/plain_keras.py DATA [EPOCHS]

DATA is a folder with CIFAR-10's .bin files. The script prints seconds per epoch, then the test accuracy.
"""

import sys
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers


def read(folder: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    raw = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in names])
    images = raw[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images.astype("float32") / 255, keras.utils.to_categorical(raw[:, 0], 10)


def build() -> keras.Model:
    stack = [keras.Input((32, 32, 3))]
    for filters in (32, 64, 128):
        stack += [layers.Conv2D(filters, 3, activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D()]
    stack += [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.5)]
    return keras.Sequential([*stack, layers.Dense(10, activation="softmax")])


def main() -> None:
    folder, epochs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100
    train = read(folder, [f"data_batch_{i}.bin" for i in range(1, 6)])
    test = read(folder, ["test_batch.bin"])
    keras.utils.set_random_seed(0)
    model = build()
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    started = time.perf_counter()
    history = model.fit(
        *train,
        validation_split=0.2,
        epochs=epochs,
        batch_size=64,
        verbose=2,
        callbacks=[
            keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau(factor=0.1, patience=5),
        ],
    )
    seconds = time.perf_counter() - started
    print(f"{seconds:.0f} s, {seconds / len(history.epoch):.1f} s per epoch, {len(history.epoch)} epochs")
    print("test loss {:.4f}, accuracy {:.4f}".format(*model.evaluate(*test, verbose=0)))


if __name__ == "__main__":
    main()
