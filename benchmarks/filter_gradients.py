"""Time the operations of a wide convolution of `fast` in bfloat16, and forms of its filter gradient.

    python benchmarks/filter_gradients.py [--batch 500] [--side 7] [--channels 256] [--kernel 3]
    python benchmarks/filter_gradients.py --depthwise [--strides 2]  # a depthwise convolution in float32 and bfloat16

docs/decisions/speed.md has the figures that the choice rests on. Each operation runs alone, best of 3 x 8. Columns are
milliseconds and billions of multiply-adds per second.
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
    parser.add_argument("--kernel", type=int, default=3)
    parser.add_argument("--depthwise", action="store_true")
    parser.add_argument("--strides", type=int, default=1, help="of the depthwise convolution")
    asked = parser.parse_args()
    if asked.depthwise:
        for dtype in (tf.float32, tf.bfloat16):
            depthwise(asked, dtype)
    else:
        convolution(asked)


def convolution(asked: argparse.Namespace) -> None:
    side, channels, kernel = asked.side, asked.channels, asked.kernel
    shape = (asked.batch, side, side, channels)
    filters = (kernel, kernel, channels, channels)
    image, gradient, weights = (tf.cast(tf.random.normal(each), tf.bfloat16) for each in (shape, shape, filters))
    frame = (kernel // 2, kernel // 2)
    shifts = [(i, j) for i in range(kernel) for j in range(kernel)]

    def shifted(padded: tf.Tensor, row: int, column: int) -> tf.Tensor:
        return padded[:, row : row + side, column : column + side]

    def product(pieces: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        pieces = tf.reshape(pieces, (-1, pieces.shape[-1]))
        return tf.matmul(pieces, tf.reshape(gradient, (-1, channels)), transpose_a=True)

    def framed(image: tf.Tensor) -> tf.Tensor:
        return tf.pad(image, ((0, 0), frame, frame, (0, 0)))

    def each_shift(image: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        padded = framed(image)
        return tf.stack([product(shifted(padded, *shift), gradient) for shift in shifts])

    def each_row(image: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        padded = framed(image)
        rows = [tf.concat([shifted(padded, i, j) for j in range(kernel)], -1) for i in range(kernel)]
        return tf.stack([product(row, gradient) for row in rows])

    def one(image: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        padded = framed(image)
        return product(tf.concat([shifted(padded, *shift) for shift in shifts], -1), gradient)

    def exchanged(image: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        images, filters = tf.transpose(image, (3, 1, 2, 0)), tf.transpose(gradient, (1, 2, 0, 3))
        return tf.nn.conv2d(images, filters, 1, [[0, 0], [*frame], [*frame], [0, 0]])

    gradient_of_filter = tf.raw_ops.Conv2DBackpropFilter
    forms: dict[str, Callable[..., tf.Tensor]] = {
        "the convolution": lambda image, gradient: tf.nn.conv2d(image, weights, 1, "SAME"),
        "its input gradient": lambda image, gradient: tf.nn.conv2d_transpose(gradient, weights, shape, 1, "SAME"),
        "filter gradient, oneDNN": lambda image, gradient: gradient_of_filter(
            input=image, filter_sizes=filters, out_backprop=gradient, strides=[1, 1, 1, 1], padding="SAME"
        ),
        "a product for each shift": each_shift,
        "a product for each row of shifts": each_row,
        "one product of all patches": one,
        "a convolution with batch and channels exchanged": exchanged,
    }
    show(forms, image, gradient, kernel**2 * channels**2 * asked.batch * side**2)


def depthwise(asked: argparse.Namespace, dtype: tf.DType) -> None:
    side, channels, strides = asked.side, asked.channels, asked.strides
    shape, filters = (asked.batch, side, side, channels), (asked.kernel, asked.kernel, channels, 1)
    out = -(-side // strides)
    made = (tf.random.normal(each) for each in (shape, (asked.batch, out, out, channels), filters))
    image, gradient, weights = (tf.cast(each, dtype) for each in made)
    usual = {"strides": [1, strides, strides, 1], "padding": "SAME"}
    forms: dict[str, Callable[..., tf.Tensor]] = {
        f"the depthwise convolution, {dtype.name}": lambda image, gradient: tf.raw_ops.DepthwiseConv2dNative(
            input=image, filter=weights, **usual
        ),
        "its input gradient": lambda image, gradient: tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
            input_sizes=shape, filter=weights, out_backprop=gradient, **usual
        ),
        "its filter gradient": lambda image, gradient: tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=image, filter_sizes=filters, out_backprop=gradient, **usual
        ),
    }
    show(forms, image, gradient, asked.kernel**2 * channels * asked.batch * out**2)


def show(forms: dict[str, Callable[..., tf.Tensor]], image: tf.Tensor, gradient: tf.Tensor, products: int) -> None:
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
