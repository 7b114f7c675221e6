"""Time the operations of a wide convolution of `fast` in bfloat16, and forms of its filter gradient.

    python benchmarks/filter_gradients.py [--batch 500] [--side 7] [--channels 256]

docs/decisions/speed.md has the figures that the choice rests on. Each operation runs alone, best of 3 x 8.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import tensorflow as tf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--side", type=int, default=7)
    parser.add_argument("--channels", type=int, default=256)
    asked = parser.parse_args()
    side, channels = asked.side, asked.channels
    shape = (asked.batch, side, side, channels)
    filters = (3, 3, channels, channels)
    image, gradient, weights = (tf.cast(tf.random.normal(each), tf.bfloat16) for each in (shape, shape, filters))
    products = 9 * channels**2 * asked.batch * side**2

    def shifted(padded: tf.Tensor, row: int, column: int) -> tf.Tensor:
        return padded[:, row : row + side, column : column + side]

    def product(pieces: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        pieces = tf.reshape(pieces, (-1, pieces.shape[-1]))
        return tf.matmul(pieces, tf.reshape(gradient, (-1, channels)), transpose_a=True)

    def framed(image: tf.Tensor) -> tf.Tensor:
        return tf.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def nine(image: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        padded = framed(image)
        return tf.stack([product(shifted(padded, i, j), gradient) for i in range(3) for j in range(3)])

    def three(image: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        padded = framed(image)
        rows = [tf.concat([shifted(padded, i, j) for j in range(3)], -1) for i in range(3)]
        return tf.stack([product(row, gradient) for row in rows])

    def one(image: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        padded = framed(image)
        return product(tf.concat([shifted(padded, i, j) for i in range(3) for j in range(3)], -1), gradient)

    def exchanged(image: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        images, filters = tf.transpose(image, (3, 1, 2, 0)), tf.transpose(gradient, (1, 2, 0, 3))
        return tf.nn.conv2d(images, filters, 1, [[0, 0], [1, 1], [1, 1], [0, 0]])

    gradient_of_filter = tf.raw_ops.Conv2DBackpropFilter
    forms: dict[str, Callable[..., tf.Tensor]] = {
        "the convolution": lambda image, gradient: tf.nn.conv2d(image, weights, 1, "SAME"),
        "its input gradient": lambda image, gradient: tf.nn.conv2d_transpose(gradient, weights, shape, 1, "SAME"),
        "filter gradient, oneDNN": lambda image, gradient: gradient_of_filter(
            input=image, filter_sizes=filters, out_backprop=gradient, strides=[1, 1, 1, 1], padding="SAME"
        ),
        "nine shifted products": nine,
        "three products, of three shifts each": three,
        "one product of all patches": one,
        "a convolution with batch and channels exchanged": exchanged,
    }
    for name, form in forms.items():
        seconds = timed(tf.function(form, autograph=False), image, gradient)
        print(f"| {name} | {seconds * 1e3:.1f} | {products / seconds / 1e9:,.0f} |", flush=True)


def timed(form: Callable[..., tf.Tensor], *arguments: tf.Tensor) -> float:
    """Return the seconds of one call, the best of three rounds of eight."""
    form(*arguments)
    rounds = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(8):
            form(*arguments).numpy()
        rounds.append((time.perf_counter() - started) / 8)
    return min(rounds)


if __name__ == "__main__":
    main()
