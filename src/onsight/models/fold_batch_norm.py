"""Batch norms folded into the weights beside them: the same answers with fewer passes over the maps.

Once training is over a batch norm is y = scale * x + shift, a number each for every channel. Converters fold it where
it follows a convolution at once, and leave a multiplication and an addition where an activation or a pooling lies
between. No layer may be used twice in the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.backend import to_numpy

if TYPE_CHECKING:
    import keras


def fold_batch_norms(model: keras.Model) -> keras.Model:
    """Return a model with the answers of `model`, for inference only, and none of the batch norms that can be folded.

    A batch norm goes into the convolution or dense layer before it, or else into the one behind it. Pooling by maximum
    may lie between where every scale is positive; what cannot be moved past what lies between stays as it is.

    Args:
        model: a functional model in float32; it is not changed.
    """
    import keras

    users = consumers(model)
    weights: dict[str, list[np.ndarray]] = {}  # layer -> kernel, bias
    folded: set[str] = set()
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.axis in (-1, len(layer.output.shape) - 1):
            scale, shift = affine(layer)
            if target := weighted_before(layer, users, scale):
                kernel, bias = weights.setdefault(target.name, kernel_and_bias(target))
                weights[target.name] = [kernel * scale.reshape(filters(target)), bias * scale + shift]
            elif target := weighted_behind(layer, users, scale):
                kernel, bias = weights.setdefault(target.name, kernel_and_bias(target))
                # A flattened map has the channels innermost, so each comes round once a pixel.
                repeated = kernel.shape[-2] // len(scale)
                scale, shift = np.tile(scale, repeated), np.tile(shift, repeated)
                moved = (kernel * shift[:, None]).reshape(-1, kernel.shape[-1]).sum(axis=0)
                weights[target.name] = [kernel * scale[:, None], bias + moved]
            else:
                continue
            folded.add(layer.name)

    def copy(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation such as `x + 3` has no weights
        config = plain_config(layer)
        if layer.name in weights:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
        return inputs[0] if layer.name in folded else layer(*inputs, **options)

    result = keras.models.clone_model(model, clone_function=copy, call_function=call)
    for layer in result.layers:
        if layer.name in weights:
            layer.set_weights([array.astype(np.float32) for array in weights[layer.name]])
        elif layer.weights:
            layer.set_weights([to_numpy(weight) for weight in model.get_layer(layer.name).weights])
    return result


def plain_config(layer: Any) -> dict[str, Any]:
    """Return the configuration of a layer whose weights will be set: without initializers, of which some are ours."""
    config: dict[str, Any] = layer.get_config()
    return config | {name: "zeros" for name in config if name.endswith("_initializer")}


def affine(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and shift, (channels,) float64, of a batch norm at inference."""
    mean, variance = (to_numpy(value).astype(np.float64) for value in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale *= to_numpy(layer.gamma)
    shift = -mean * scale
    if layer.center:
        shift += to_numpy(layer.beta)
    return scale, shift


def kernel_and_bias(layer: Any) -> list[np.ndarray]:
    """Return the kernel and the bias, zero where there is none, of a convolution or dense layer in float64."""
    kernel = to_numpy(layer.kernel).astype(np.float64)
    return [kernel, to_numpy(layer.bias).astype(np.float64) if layer.use_bias else np.zeros(layer.output.shape[-1])]


def filters(layer: Any) -> tuple[int, ...]:
    """Return the shape of the kernel's last axes that has a number for each channel of the output."""
    shape: tuple[int, ...] = layer.kernel.shape
    return shape[-2:] if is_depthwise(layer) else shape[-1:]


def weighted_before(layer: Any, users: dict[str, list[Any]], scale: np.ndarray) -> Any:
    """Return the layer whose weights can take up a batch norm behind it, or None."""
    import keras

    before = producer(layer.input)
    if isinstance(before, keras.layers.MaxPooling2D) and (scale > 0).all() and users[before.name] == [layer]:
        layer, before = before, producer(before.input)
    if not (is_weighted(before) or is_depthwise(before)) or users[before.name] != [layer]:
        return None
    return before if before.activation is keras.activations.linear else None


def weighted_behind(layer: Any, users: dict[str, list[Any]], scale: np.ndarray) -> Any:
    """Return the layer whose weights can take up a batch norm before it, or None."""
    import keras

    passing = (keras.layers.Dropout, keras.layers.Flatten, keras.layers.GlobalAveragePooling2D)
    while len(users[layer.name]) == 1:
        layer = users[layer.name][0]
        pooled = isinstance(layer, keras.layers.MaxPooling2D | keras.layers.GlobalMaxPooling2D)
        if pooled and not (scale > 0).all():
            return None
        if is_weighted(layer):
            # Where zeros are padded the shift would be missing at the border.
            return layer if getattr(layer, "padding", "valid") == "valid" else None
        if not (pooled or isinstance(layer, passing)):
            return None
    return None


def is_weighted(layer: Any) -> bool:
    """Return whether the layer is a plain convolution or a dense layer, its channels last and in one group."""
    import keras

    from onsight.models.layers import standard  # imports Keras

    if standard(layer) is keras.layers.Conv2D:
        return bool(layer.groups == 1 and layer.data_format == "channels_last")
    return type(layer) is keras.layers.Dense


def is_depthwise(layer: Any) -> bool:
    """Return whether the layer convolves each channel by itself; its kernel is (height, width, inputs, multiplier)."""
    import keras

    return type(layer) is keras.layers.DepthwiseConv2D and layer.data_format == "channels_last"


def producer(tensor: Any) -> Any:
    """Return the layer that gives a tensor of a functional model."""
    return tensor._keras_history.operation


def consumers(model: keras.Model) -> dict[str, list[Any]]:
    """Return layer name -> the layers of `model` that take its output, seen from the model's own output.

    Operations that are no layers (`x + 3`) count as such.
    """
    users: dict[str, list[Any]] = {operation.name: [] for operation in model.operations}
    seen: set[tuple[int, int]] = set()
    waiting = list(model.outputs)
    while waiting:
        operation, node, _ = waiting.pop()._keras_history
        if (id(operation), node) in seen:
            continue
        seen.add((id(operation), node))
        for tensor in operation._inbound_nodes[node].input_tensors:
            users[producer(tensor).name].append(operation)
            waiting.append(tensor)
    return users
