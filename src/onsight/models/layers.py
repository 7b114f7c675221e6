"""Faster versions of Keras layers, with the same weights and results."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import keras

from onsight.core.limits import SHORTEST


@keras.saving.register_keras_serializable(package="onsight")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch norm over the last axis, computed by TensorFlow's fused kernel in training.

    Keras composes the batch norm of a dozen operations, each of which passes over the whole feature map; the kernel
    makes two passes. Weights and formulas are the same, and results are equal within float tolerance. On other backends
    this is Keras' own batch norm.

    The momentum is 0.9, not Keras' 0.99. A small folder trains for a few hundred steps. Statistics averaged over a
    hundred steps then belong to weights that are long out of date (digits, 225 steps: test accuracy of 11.0 % with
    0.99, 98.9 % with 0.9).
    """

    def __init__(self, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(momentum=momentum, **kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the normalised inputs, of the same shape (batch, H, W, channels) and dtype."""
        plain = len(inputs.shape) == 4 and self.axis in (-1, 3) and self.center and mask is None
        if not (plain and training and self.trainable and keras.config.backend() == "tensorflow"):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value if self.scale else tf.ones_like(self.beta.value),
            offset=self.beta.value,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel divides by n - 1 for the variance, Keras by n.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
        variance *= (count - 1) / count
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable(package="onsight")
class Conv2D(keras.layers.Conv2D):
    """Keras' convolution; on TensorFlow in bfloat16, a kernel's gradient is one matrix product per pixel of the kernel.

    oneDNN takes up to seven times as long for the gradient of a kernel as for the convolution itself. For 1 x 1 kernels
    the product is faster at any number of channels. For 3 x 3 kernels it is faster from 256 channels on: for a batch of
    500 and 256 to 256 channels oneDNN takes 62 ms at 7 px and 20 ms at 3 px, the nine products 49 ms and 8 ms.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Return the convolution without bias and activation, (batch, H, W, filters)."""
        usual = (self.strides, self.dilation_rate, self.groups, self.data_format)
        plain = self.compute_dtype == "bfloat16" and usual == ((1, 1), (1, 1), 1, "channels_last")
        wide = min(self.filters, inputs.shape[-1]) >= 256 and self.padding == "same"
        if plain and _fusing() and (self.kernel_size == (1, 1) or (self.kernel_size == (3, 3) and wide)):
            return _convolution()(inputs, keras.ops.cast(kernel, self.compute_dtype))
        return super().convolution_op(inputs, kernel)


@functools.cache
def _convolution() -> Callable[[Any, Any], Any]:
    """Return TensorFlow's "same" convolution, with the kernel gradient as one matrix product per kernel pixel."""
    import tensorflow as tf

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolution(inputs: Any, kernel: Any) -> tuple[Any, Callable[[Any], Any]]:
        def gradients(gradient: Any) -> tuple[Any, Any]:
            shape, size = tf.shape(inputs), kernel.shape[0]
            frame = (size // 2, size // 2)
            padded = tf.pad(inputs, ((0, 0), frame, frame, (0, 0))) if size > 1 else inputs
            across = tf.reshape(gradient, (-1, gradient.shape[-1]))
            products = [
                tf.matmul(
                    tf.reshape(padded[:, i : i + shape[1], j : j + shape[2]], (-1, inputs.shape[-1])),
                    across,
                    transpose_a=True,
                )
                for i in range(size)
                for j in range(size)
            ]
            back = tf.nn.conv2d_transpose(gradient, kernel, shape, 1, "SAME")
            return back, tf.reshape(tf.stack(products), kernel.shape)

        return tf.nn.conv2d(inputs, kernel, 1, "SAME"), gradients

    found: Callable[[Any, Any], Any] = convolution
    return found


@keras.saving.register_keras_serializable(package="onsight")
class Activation(keras.layers.Activation):
    """Keras' activation, with faster silu and gelu for TensorFlow in training: one pass over the feature map.

    TensorFlow's own gradient of silu makes six passes: 13 ms in bfloat16 instead of 3.4 ms, for a batch of
    500 x 15 x 15 x 64 on two cores. Gelu and its gradient make more. The formulas are the same, computed in float32. On
    other backends, and on platforms where the fast gradients have not been tested, this is Keras' own activation.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the activation of the inputs, of the same shape and dtype."""
        fused = {keras.activations.silu: _silu, keras.activations.gelu: _gelu}.get(self.activation)
        return fused()(inputs) if fused and training and _fusing() else super().call(inputs)


@functools.cache
def _silu() -> Callable[[Any], Any]:
    """Return TensorFlow's silu with a gradient that XLA compiles into one loop."""
    import tensorflow as tf

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def slope(inputs: Any, gradient: Any) -> Any:
        x = tf.cast(inputs, tf.float32)
        sigmoid = tf.sigmoid(x)
        return tf.cast(tf.cast(gradient, tf.float32) * sigmoid * (1 + x * (1 - sigmoid)), inputs.dtype)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def silu(inputs: Any) -> tuple[Any, Callable[[Any], Any]]:
        return inputs * tf.sigmoid(inputs), lambda gradient: slope(inputs, gradient)

    found: Callable[[Any], Any] = silu
    return found


@functools.cache
def _gelu() -> Callable[[Any], Any]:
    """Return gelu, x times the normal distribution function of x: XLA compiles it, and its gradient, into one loop."""
    import tensorflow as tf

    def distribution(x: Any) -> Any:
        return 0.5 * (1 + tf.math.erf(x / math.sqrt(2)))

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def value(inputs: Any) -> Any:
        x = tf.cast(inputs, tf.float32)
        return tf.cast(x * distribution(x), inputs.dtype)

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def slope(inputs: Any, gradient: Any) -> Any:
        x = tf.cast(inputs, tf.float32)
        density = tf.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return tf.cast(tf.cast(gradient, tf.float32) * (distribution(x) + x * density), inputs.dtype)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def gelu(inputs: Any) -> tuple[Any, Callable[[Any], Any]]:
        return value(inputs), lambda gradient: slope(inputs, gradient)

    found: Callable[[Any], Any] = gelu
    return found


def _fusing() -> bool:
    """Return whether our own gradients have been tested on this platform and backend."""
    backend: str = keras.config.backend()
    return sys.platform == "linux" and backend == "tensorflow"


@keras.saving.register_keras_serializable(package="onsight")
class PrototypeDistance(keras.layers.Layer):
    """How unlike its training images an image is: 1 minus the largest cosine of its features to a prototype.

    The prototypes are the centres of clusters of the training images' features (`features.prototypes`).
    """

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the prototypes, (features, count): each column has the length 1."""
        self.prototypes = self.add_weight(shape=(input_shape[-1], self.count), name="prototypes", trainable=False)

    def call(self, inputs: Any) -> Any:
        """Return the distances, (batch,) from 0 to 2, of features (batch, features)."""
        ops = keras.ops
        length = ops.sqrt(ops.sum(inputs * inputs, axis=-1, keepdims=True))
        cosines = ops.matmul(inputs / ops.maximum(length, SHORTEST), self.prototypes)
        return 1.0 - ops.max(cosines, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, for `from_config`."""
        return {**super().get_config(), "count": self.count}


def standard(layer: keras.layers.Layer) -> type[keras.layers.Layer]:
    """Return the class of a layer; for a layer of this module, the Keras class that it replaces."""
    kind = type(layer)
    return kind.mro()[1] if kind.__module__ == __name__ else kind
