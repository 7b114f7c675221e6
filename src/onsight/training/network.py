"""Build the network of a spec, adapt it to any image size, freeze layers, and compute its logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.backend import dtype_policy, to_numpy
from onsight.core.errors import SpecError
from onsight.data.batches import Examples, full_batches
from onsight.models.registry import build_model
from onsight.spec import TrainSpec

if TYPE_CHECKING:
    import keras


def build(spec: TrainSpec, num_classes: int) -> keras.Model:
    """Return the untrained network of `spec`, in the training precision. The seed decides its initial weights."""
    import keras

    keras.utils.set_random_seed(spec.seed % 2**32)
    with dtype_policy(spec.precision):
        return build_model(spec.model, spec.image_size, num_classes, spec.channels)


def at_any_size(model: keras.Model, side: int) -> keras.Model:
    """Return a network that shares the layers and weights of `model` and takes images of any size.

    Raises:
        SpecError: a layer fits one image size only, so images of `side` pixels would need other weights.
    """
    import keras

    def again(side: int | None) -> keras.Model:
        inputs = keras.Input((side, side, 3), dtype="uint8", name="image")
        return keras.models.clone_model(model, input_tensors=inputs, clone_function=lambda layer: layer)

    try:
        again(side)
        return again(None)
    except (ValueError, TypeError):  # a custom layer may raise either
        raise SpecError(
            f"early_size={side} starts with smaller images, but {model.name} has layers that fit one image size only. "
            "Leave early_size out, or choose a network that ends in a global pooling, such as cnn_compact."
        ) from None


def freeze(model: keras.Model, layers: int) -> None:
    """Freeze the first `layers` layers and every batch norm. A frozen batch norm computes as at inference.

    This function never sets `trainable` to True: that would train weights that the model function keeps fixed.
    """
    import keras

    for number, layer in enumerate(model.layers):
        if number < layers or isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def logits_of(answer: Callable[[np.ndarray], Any], examples: Examples, batch_size: int) -> np.ndarray:
    """Return (n, classes) float64 logits of the images, or features, of `examples`.

    Args:
        answer: maps a full batch of them to logits (batch_size, classes).
        examples: n images or features.
        batch_size: of every batch; the last one is padded, so that only one shape is compiled.
    """
    batches = full_batches(examples.images, examples.chosen, batch_size)
    return np.concatenate([np.asarray(answer(images), np.float64)[:count] for images, count in batches])


def in_float32(model: keras.Model, spec: TrainSpec) -> keras.Model:
    """Return the network of `spec` with the weights of `model`, computing in float32, as the finished model does."""
    if spec.precision == "float32":
        return model
    network = build(spec.model_copy(update={"precision": "float32"}), model.output_shape[-1])
    for weight, trained in zip(network.weights, model.weights, strict=True):
        weight.assign(to_numpy(trained))
    return network


def check_freeze(spec: TrainSpec, layers: int) -> None:
    """Raise SpecError if freezing leaves a network of `layers` layers nothing to learn."""
    if isinstance(spec.freeze, int) and spec.freeze >= layers:
        raise SpecError(
            f"freeze={spec.freeze} leaves nothing to learn: {spec.model} has {layers} layers, and the last one is the "
            "head."
        )
