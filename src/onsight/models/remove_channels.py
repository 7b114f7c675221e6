"""Networks with channels removed: fewer filters a layer, the same layers, so that files shrink and answers come faster.

Wide layers lose most of them: each keeps channels in proportion to the root of its width.

A channel can go where nothing but convolutions and dense layers read it, with only what treats each channel alone
(batch norm, activation, pooling, dropout, depthwise convolution) between. Where two paths meet in a sum, as at the end
of a residual block, both would have to lose the same channels: those stay.
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
    """Return a new network like `model` without `share` of all channels that can go.

    Its weights are new too; `inherit` sets them. Which layers have how many channels follows from `model` and `share`
    alone, so a model file needs to name no more than the share.

    Raises:
        SpecError: no layer of the network can lose channels.
    """
    import keras

    layers = {name: layer for name, (layer, _) in removable(model).items()}
    if not layers:
        raise SpecError(
            f"{model.name} has no channels that can be removed: each is also read by something other than a "
            "convolution or a dense layer. `onsight prune --sparsity` works for every network."
        )

    counts = kept_counts([getattr(layer, size_key(layer)) for layer in layers.values()], share)
    widths = dict(zip(layers, counts, strict=True))

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = plain_config(layer)
        if layer.name in widths:
            config[size_key(layer)] = widths[layer.name]
        return type(layer).from_config(config)

    result = keras.models.clone_model(model, clone_function=copy)
    for layer in model.layers:  # which weights do not train is no part of a layer's configuration
        for old, new in zip(layer.weights, result.get_layer(layer.name).weights, strict=True):
            new.trainable = old.trainable
    return result


def kept_counts(widths: Sequence[int], share: float) -> list[int]:
    """Return how many channels each layer keeps, at least one, when `share` of all of them goes.

    In proportion to the root of its width, but no more than it has. The early layers of an image network are narrow and
    see the most pixels; a filter less costs more answers there than in the wide, late ones.

    >>> kept_counts([32, 32, 64, 64, 128, 128], 0.5)
    [25, 25, 36, 36, 51, 51]
    """
    counts = np.array(widths, np.float64)
    low, high = 0.0, float(np.sqrt(counts.max()))
    for _ in range(60):  # to the last digit
        middle = (low + high) / 2
        fits = np.minimum(counts, middle * np.sqrt(counts)).sum() <= (1 - share) * counts.sum()
        low, high = (middle, high) if fits else (low, middle)
    # Rounded, halves up also where another processor's last digit falls below them.
    kept = np.floor(np.minimum(counts, low * np.sqrt(counts)) + 0.5 + 1e-6)
    return [max(1, int(count)) for count in kept]


def size_key(layer: Any) -> str:
    """Return what a layer's configuration calls its number of channels."""
    return "filters" if hasattr(layer, "filters") else "units"


def removable(model: keras.Model) -> dict[str, tuple[Any, list[Any]]]:
    """Return {layer's name: (layer, those that must follow when it loses channels)} of a functional model."""
    users = consumers(model)
    found = {}
    for layer in model.layers:
        if is_weighted(layer) and all(weight.trainable for weight in layer.weights):
            followers = following(layer, users)
            if followers is not None:
                found[layer.name] = (layer, followers)
    return found


def following(layer: Any, users: dict[str, list[Any]]) -> list[Any] | None:
    """Return the layers whose weights are by channel of `layer`, or None where its channels must stay."""
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
        if not using:  # the network's own output
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
    """Return whether the layer filters each channel alone, once."""
    import keras

    return type(layer) is keras.layers.DepthwiseConv2D and bool(layer.depth_multiplier == 1)


def inherit(model: keras.Model, source: keras.Model) -> None:
    """Set the weights of `model` from `source`, the same network with at least as many channels: its strongest ones.

    A channel is as strong as the norm of its filter once the batch norm behind it is folded in (Li et al. 2017,
    "Pruning Filters for Efficient ConvNets", with the scale that the filter really has).

    Args:
        model: from `narrowed`, or as wide as `source`.
        source: trained.
    """
    weights = {layer.name: [to_numpy(weight) for weight in layer.weights] for layer in source.layers}
    for name, (layer, followers) in removable(source).items():
        target = model.get_layer(name)
        count = weights[name][0].shape[-1]
        kept = np.sort(np.argsort(-strength(layer, followers), kind="stable")[: getattr(target, size_key(target))])
        weights[name] = [array[..., kept] for array in weights[name]]
        for follower in followers:
            arrays = weights[follower.name]
            own = arrays[1:] if is_weighted(follower) else []  # a bias is by the follower's own channels
            read = arrays[: len(arrays) - len(own)]
            weights[follower.name] = [taken(array, kept, count, -2 if array.ndim > 1 else -1) for array in read] + own
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(weights[layer.name])


def strength(layer: Any, followers: list[Any]) -> np.ndarray:
    """Return (channels,) how strong each channel of a layer is."""
    import keras

    kernel = to_numpy(layer.kernel).astype(np.float64)
    norms: np.ndarray = np.sqrt((kernel**2).sum(axis=tuple(range(kernel.ndim - 1))))
    if followers and isinstance(followers[0], keras.layers.BatchNormalization):
        scale, _ = affine(followers[0])
        if len(scale) == len(norms):  # behind a flatten it has one for each pixel
            norms *= np.abs(scale)
    return norms


def taken(array: np.ndarray, kept: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Return `array` with only `kept` of every `count` along an axis: behind a flatten channels come once a pixel."""
    length = array.shape[axis]
    index = (np.arange(length // count)[:, None] * count + kept).ravel()
    found: np.ndarray = np.take(array, index, axis=axis)
    return found
