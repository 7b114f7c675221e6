"""Removal of channels: the same layers with fewer filters, for smaller files and faster inference.

Wide layers lose the most channels: a layer keeps channels in proportion to the square root of its width.

A channel can be removed if only convolutions and dense layers read it, with nothing between that mixes channels (batch
norm, activation, pooling, dropout and depthwise convolution do not). Where two paths meet in a sum, as at the end of a
residual block, both would have to lose the same channels, so these channels are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.backend import to_numpy
from onsight.core.errors import SpecError
from onsight.models.fold_batch_norm import affine, consumers, is_weighted, plain_config

if TYPE_CHECKING:
    import keras


def narrowed(model: keras.Model, share: float) -> keras.Model:
    """Return a new network like `model`, without `share` of its removable channels.

    Its weights are new; `inherit` sets them. The number of channels of each layer follows from `model` and `share`
    alone, so a model file only needs to record the share.

    Raises:
        SpecError: no layer of the network has removable channels.
    """
    import keras

    layers = {name: layer for name, (layer, _) in removable(model).items()}
    if not layers:
        raise SpecError(
            f"{model.name} has no channels that can be removed: each one is read by something other than a "
            "convolution or a dense layer. Use `onsight prune --sparsity`, which works for every network."
        )

    counts = kept_counts([getattr(layer, size_key(layer)) for layer in layers.values()], share)
    widths = dict(zip(layers, counts, strict=True))

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = plain_config(layer)
        if layer.name in widths:
            config[size_key(layer)] = widths[layer.name]
        return type(layer).from_config(config)

    result = keras.models.clone_model(model, clone_function=copy)
    for layer in model.layers:  # a layer's configuration does not say which of its weights are frozen
        for old, new in zip(layer.weights, result.get_layer(layer.name).weights, strict=True):
            new.trainable = old.trainable
    return result


def kept_counts(widths: Sequence[int], share: float) -> list[int]:
    """Return how many channels each layer keeps, at least one, if `share` of all channels is removed.

    A layer keeps channels in proportion to the square root of its width, but no more than it has. The early layers of
    an image network are narrow and see the most pixels: removing a filter costs more accuracy there than in the wide,
    late layers.

    >>> kept_counts([32, 32, 64, 64, 128, 128], 0.5)
    [25, 25, 36, 36, 51, 51]
    """
    counts = np.array(widths, np.float64)
    low, high = 0.0, float(np.sqrt(counts.max()))
    for _ in range(60):  # enough for full float64 precision
        middle = (low + high) / 2
        fits = np.minimum(counts, middle * np.sqrt(counts)).sum() <= (1 - share) * counts.sum()
        low, high = (middle, high) if fits else (low, middle)
    # Round half up; 1e-6 makes this the same on CPUs whose last digit falls just below a half.
    kept = np.floor(np.minimum(counts, low * np.sqrt(counts)) + 0.5 + 1e-6)
    return [max(1, int(count)) for count in kept]


def size_key(layer: Any) -> str:
    """Return the key of a layer's configuration that holds its number of channels."""
    return "filters" if hasattr(layer, "filters") else "units"


def removable(model: keras.Model) -> dict[str, tuple[Any, list[Any]]]:
    """Return {layer name: (layer, layers that must follow if it loses channels)} for a functional model."""
    users = consumers(model)
    found = {}
    for layer in model.layers:
        if is_weighted(layer) and all(weight.trainable for weight in layer.weights):
            followers = following(layer, users)
            if followers is not None:
                found[layer.name] = (layer, followers)
    return found


def following(layer: Any, users: dict[str, list[Any]]) -> list[Any] | None:
    """Return the layers whose weights depend on the channels of `layer`, or None if its channels must stay."""
    import keras

    kinds = keras.layers
    passing = (
        kinds.ReLU, kinds.LeakyReLU, kinds.Activation, kinds.Dropout, kinds.SpatialDropout2D, kinds.Flatten,
        kinds.MaxPooling2D, kinds.AveragePooling2D, kinds.GlobalMaxPooling2D, kinds.GlobalAveragePooling2D,
        kinds.ZeroPadding2D,
    )  # fmt: skip
    followers, waiting = [], [layer]
    while waiting:
        using = users[waiting.pop().name]
        if not using:  # this is the network's output
            return None
        for user in using:
            if is_weighted(user):
                followers.append(user)
            elif isinstance(user, kinds.BatchNormalization) or is_depthwise(user):
                followers.append(user)
                waiting.append(user)
            elif isinstance(user, passing):
                waiting.append(user)
            else:
                return None
    return followers


def is_depthwise(layer: Any) -> bool:
    """Return whether the layer is a depthwise convolution with one output per channel."""
    import keras

    return type(layer) is keras.layers.DepthwiseConv2D and bool(layer.depth_multiplier == 1)


def inherit(model: keras.Model, source: keras.Model) -> None:
    """Set the weights of `model` from the strongest channels of `source`, the same network but at least as wide.

    The strength of a channel is the norm of its filter after folding in the following batch norm. This is the criterion
    of Li et al. 2017, "Pruning Filters for Efficient ConvNets", with the filter's effective scale.

    Args:
        model: a network from `narrowed`, or one as wide as `source`.
        source: the trained network.
    """
    weights = {layer.name: [to_numpy(weight) for weight in layer.weights] for layer in source.layers}
    for name, (layer, followers) in removable(source).items():
        target = model.get_layer(name)
        count = weights[name][0].shape[-1]
        kept = np.sort(np.argsort(-strength(layer, followers), kind="stable")[: getattr(target, size_key(target))])
        weights[name] = [array[..., kept] for array in weights[name]]
        for follower in followers:
            arrays = weights[follower.name]
            own = arrays[1:] if is_weighted(follower) else []  # a bias belongs to the follower's own channels
            read = arrays[: len(arrays) - len(own)]
            weights[follower.name] = [taken(array, kept, count, -2 if array.ndim > 1 else -1) for array in read] + own
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(weights[layer.name])


def strength(layer: Any, followers: list[Any]) -> np.ndarray:
    """Return the strength of each channel of a layer, (channels,)."""
    import keras

    kernel = to_numpy(layer.kernel).astype(np.float64)
    norms: np.ndarray = np.sqrt((kernel**2).sum(axis=tuple(range(kernel.ndim - 1))))
    if followers and isinstance(followers[0], keras.layers.BatchNormalization):
        scale, _ = affine(followers[0])
        if len(scale) == len(norms):  # after a flatten it has one per pixel and channel
            norms *= np.abs(scale)
    return norms


def taken(array: np.ndarray, kept: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Return `array` with only the entries `kept` of every `count` along `axis`.

    After a flatten, the channels repeat for every pixel.
    """
    length = array.shape[axis]
    index = (np.arange(length // count)[:, None] * count + kept).ravel()
    found: np.ndarray = np.take(array, index, axis=axis)
    return found
