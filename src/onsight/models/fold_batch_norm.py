"""Folding of batch norms into the weights of a neighbouring layer: same outputs, fewer passes over the feature maps.

After training, a batch norm is y = scale * x + shift, with one scale and one shift per channel. Converters fold it only
if it directly follows a convolution; if an activation or a pooling lies between, they keep a multiplication and an
addition. No layer of the network may be used twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.backend import to_numpy

if TYPE_CHECKING:
    import keras


def fold_batch_norms(model: keras.Model) -> keras.Model:
    """Return a model for inference with the outputs of `model`, in which batch norms are folded where possible.

    A batch norm is folded into the convolution or dense layer before it, or else into the one after it. Max-pooling may
    lie between if every scale is positive. A batch norm that cannot be moved past the layers between stays.

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
            elif target := weighted_after(layer, users, scale):
                kernel, bias = weights.setdefault(target.name, kernel_and_bias(target))
                # A flattened map has the channels innermost, so each channel occurs once per pixel.
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
    """Return a layer's configuration without its initializers, some of which are our own: its weights are set later."""
    config: dict[str, Any] = layer.get_config()
    return config | {name: "zeros" for name in config if name.endswith("_initializer")}


def affine(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale and the shift, (channels,) float64 each, of a batch norm at inference."""
    mean, variance = (to_numpy(value).astype(np.float64) for value in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale *= to_numpy(layer.gamma)
    shift = -mean * scale
    if layer.center:
        shift += to_numpy(layer.beta)
    return scale, shift


def kernel_and_bias(layer: Any) -> list[np.ndarray]:
    """Return the kernel and the bias of a convolution or dense layer in float64; a missing bias is zero."""
    kernel = to_numpy(layer.kernel).astype(np.float64)
    return [kernel, to_numpy(layer.bias).astype(np.float64) if layer.use_bias else np.zeros(layer.output.shape[-1])]


def filters(layer: Any) -> tuple[int, ...]:
    """Return the shape of the kernel's last axes, which together have one entry per output channel."""
    shape: tuple[int, ...] = layer.kernel.shape
    return shape[-2:] if is_depthwise(layer) else shape[-1:]


def weighted_before(layer: Any, users: dict[str, list[Any]], scale: np.ndarray) -> Any:
    """Return the layer before a batch norm into whose weights the batch norm can be folded, or None."""
    import keras

    before = producer(layer.input)
    if isinstance(before, keras.layers.MaxPooling2D) and (scale > 0).all() and users[before.name] == [layer]:
        layer, before = before, producer(before.input)
    if not (is_weighted(before) or is_depthwise(before)) or users[before.name] != [layer]:
        return None
    return before if before.activation is keras.activations.linear else None


def weighted_after(layer: Any, users: dict[str, list[Any]], scale: np.ndarray) -> Any:
    """Return the layer after a batch norm into whose weights the batch norm can be folded, or None."""
    import keras

    passing = (keras.layers.Dropout, keras.layers.Flatten, keras.layers.GlobalAveragePooling2D)
    while len(users[layer.name]) == 1:
        layer = users[layer.name][0]
        pooled = isinstance(layer, keras.layers.MaxPooling2D | keras.layers.GlobalMaxPooling2D)
        if pooled and not (scale > 0).all():
            return None
        if is_weighted(layer):
            # Zero padding comes after the batch norm: the border would not get the shift.
            return layer if getattr(layer, "padding", "valid") == "valid" else None
        if not (pooled or isinstance(layer, passing)):
            return None
    return None


def is_weighted(layer: Any) -> bool:
    """Return whether the layer is a dense layer, or an ungrouped convolution with channels last."""
    import keras

    from onsight.models.layers import standard  # imports Keras

    if standard(layer) is keras.layers.Conv2D:
        return bool(layer.groups == 1 and layer.data_format == "channels_last")
    return type(layer) is keras.layers.Dense


def is_depthwise(layer: Any) -> bool:
    """Return whether the layer is a depthwise convolution; its kernel is (height, width, inputs, multiplier)."""
    import keras

    return type(layer) is keras.layers.DepthwiseConv2D and layer.data_format == "channels_last"


def producer(tensor: Any) -> Any:
    """Return the layer whose output a tensor of a functional model is."""
    return tensor._keras_history.operation


def consumers(model: keras.Model) -> dict[str, list[Any]]:
    """Return {layer name: layers of `model` that take its output}, found from the model's outputs backwards.

    Operations that are not layers (`x + 3`) are included like layers.
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
