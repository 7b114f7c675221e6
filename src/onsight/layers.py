"""Layers that Keras has and that run faster another way."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="onsight")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch norm over the last axis, by TensorFlow's fused kernel while it trains.

    Keras composes it from a dozen operations that each walk through the whole picture; the kernel walks twice. Same
    weights, same formulas, same results within float tolerance; on other backends it is Keras' own.

    The momentum is 0.9, not Keras' 0.99: a small folder trains in some hundred steps, and statistics that remember a
    hundred steps then belong to weights of long ago (digits, 225 steps: 11.0 % right on test pictures with 0.99,
    98.9 % with 0.9).
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
        # The kernel's variance divides by n - 1, Keras' by n.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
        variance *= (count - 1) / count
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs
