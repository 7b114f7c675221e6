"""Optimizers that Keras does not have."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="onsight")
class Muon(keras.optimizers.Muon):  # type: ignore[misc]  # Keras exports it untyped
    """Muon for convolutions: the update of a kernel is made orthogonal, so it is equally large in every direction.

    Keras' own Muon takes only matrices and would leave every convolution to AdamW. Here a kernel (height, width,
    inputs, outputs) is first scaled to the Frobenius norm sqrt(outputs), and then updated as a matrix (height x width x
    inputs, outputs). Hidden dense kernels are updated without scaling. AdamW updates all other variables, at
    `adam_lr_ratio` of the learning rate, and the head `logits` at `head_lr_ratio` of that. The kernels of depthwise
    convolutions are among the others, because they are not matrices between channels.

    The update of kernels is that of Jordan 2024 (github.com/KellerJordan/cifar10-airbench): Nesterov momentum 0.6,
    three Newton-Schulz steps. It rescales kernels, so it is meant for convolutions that are followed by a batch norm.
    """

    def __init__(self, learning_rate: Any = 0.24, *, head_lr_ratio: float = 0.1, **kwargs: Any) -> None:
        defaults: dict[str, Any] = {
            "weight_decay": None,
            "adam_weight_decay": None,
            "adam_lr_ratio": 0.1,
            "adam_beta_1": 0.85,
            "adam_beta_2": 0.95,
            "momentum": 0.6,
            "ns_steps": 3,
            "rms_rate": None,
            "exclude_layers": ["logits"],
        }
        super().__init__(learning_rate, **(defaults | kwargs))
        self.head_lr_ratio = head_lr_ratio

    def _is_kernel(self, variable: Any) -> bool:
        depthwise = len(variable.shape) == 4 and variable.shape[-1] == 1
        matrix = len(variable.shape) in (2, 4) and not depthwise
        return matrix and not self._in_head(variable)

    def _should_use_adamw(self, variable: Any) -> bool:
        return not self._is_kernel(variable)

    def _in_head(self, variable: Any) -> bool:
        return any(name in variable.path for name in self.exclude_layers)

    def build(self, variables: Any) -> None:
        """Create the momentum of each variable, and note which ones are in the head."""
        super().build(variables)
        self._heads = [self._in_head(variable) for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable: a kernel by Muon, another one by AdamW, the head by AdamW at a lower rate."""
        if self._heads[self._get_variable_index(variable)]:
            learning_rate = learning_rate * self.head_lr_ratio
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, for `from_config`."""
        return {**super().get_config(), "head_lr_ratio": self.head_lr_ratio}

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign(m, m * self.momentum + gradient)
        update = gradient + m * self.momentum if self.nesterov else m
        outputs = variable.shape[-1]
        # In float32 at any training precision: a norm in bfloat16 is so coarse that the iteration diverges.
        update = ops.reshape(ops.cast(update, "float32"), (-1, outputs))
        update = ops.reshape(self.zeropower_via_newtonschulz5(update, self.ns_steps), variable.shape)
        scale = 1.0
        if len(variable.shape) == 4:
            scale = outputs**0.5 / (ops.norm(ops.reshape(variable, (-1, outputs))) + 1e-7)
        self.assign(variable, variable * ops.cast(scale, variable.dtype) - ops.cast(lr * update, variable.dtype))

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        """Return the matrix x, (m, n), with all its singular values brought near 1: what Keras' Muon returns, sooner.

        Each step multiplies x by a polynomial of the small matrix x' x, or of x x' if that is smaller. The polynomials
        commute, so they are multiplied with each other, and with x only once, at the end. That takes two large products
        for any number of steps, instead of two for each.
        """
        x = x / (ops.norm(x) + 1e-7)
        tall = x.shape[0] > x.shape[1]
        gram = ops.matmul(ops.transpose(x), x) if tall else ops.matmul(x, ops.transpose(x))
        identity = ops.eye(gram.shape[0], dtype=x.dtype)
        product = identity
        for step in range(steps):
            factor = self.muon_a * identity + ops.matmul(gram, self.muon_b * identity + self.muon_c * gram)
            product = ops.matmul(product, factor)
            if step < steps - 1:
                gram = ops.matmul(gram, ops.matmul(factor, factor))
        return ops.matmul(x, product) if tall else ops.matmul(product, x)


@keras.saving.register_keras_serializable(package="onsight")
class MuonSGD(Muon):
    """Muon for kernels, and SGD with Nesterov momentum for biases and the head: the published recipe of `whitened`.

    Jordan 2024 publishes the rates 0.24 for kernels, 0.053 for biases and 0.67 for the head, for the sum of the losses
    of a batch of 2,000, and for logits that are divided by 256. The shares below are the same for the mean of the
    losses, and for undivided logits. They do not fit networks whose norms have a scale.

    A step adds at most `LIMIT` learning rates to the momentum. CIFAR-10 stays below that. Grey images do not: they have
    constant feature maps, and the gradient behind such a map grows with each batch norm (docs/decisions/training.md).
    """

    BIAS_SHARE = 0.053 * 2000 / 0.24  # of the learning rate
    HEAD_SHARE = 0.67 * 2000 / 256**2 / 0.24
    DECAY = 2e-6 * 2000 / 0.24  # of the learning rate: the share of a variable that is added to its step
    LIMIT = 3.0
    SGD_MOMENTUM = 0.85

    def build(self, variables: Any) -> None:
        """Create the momentum of each variable, and note which ones are kernels."""
        super().build(variables)
        self._kernels = [self._is_kernel(variable) for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable: a kernel by Muon, a bias or the head by SGD."""
        index = self._get_variable_index(variable)
        momentum = self.momentums[index]
        if self._kernels[index]:
            self._muon_update_step(gradient, variable, learning_rate, momentum)
            return
        step = gradient * (self.HEAD_SHARE if self._heads[index] else self.BIAS_SHARE)
        step = ops.clip(step, -self.LIMIT, self.LIMIT) + variable * self.DECAY
        self.assign(momentum, momentum * self.SGD_MOMENTUM + step)
        self.assign_sub(variable, learning_rate * (step + momentum * self.SGD_MOMENTUM))

    def _should_use_adamw(self, variable: Any) -> bool:
        return False
