"""Heat maps: which parts of an image support a class. Grad-CAM on TensorFlow and JAX, occlusion on any other engine.

A heat map shows what the answer depends on, not whether that is a good reason. Maps are float32 of at least 0: evidence
against the class is set to 0, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from onsight.imaging import heat as colour_scale

if TYPE_CHECKING:
    import keras

    from onsight.inference.engines import Answer


MOST = 32  # images of a figure of heat maps, at most
GRID = 8  # occlusion: number of patches per side
CHUNK = 64  # images per step of Grad-CAM; occlusion computes 8 times as many answers per step
SMALLEST_MAP = 4  # cells per side; a smaller map cannot locate anything


def grad_cam(model: keras.Model, images: np.ndarray, classes: np.ndarray, layer: str | None = None) -> np.ndarray:
    """Return Grad-CAM maps (n, h, w) float32 of a network with a layer `logits`, one map per image and its class.

    If A are the maps (h, w, channels) of a layer and y is the logit of the class, the heat map is
    max(0, sum_k a_k A_k), where a_k is the mean of dy/dA_k over the map (Selvaraju et al. 2017, equations 1 and 2). If
    global average pooling and one dense layer follow, this equals CAM (Zhou et al. 2016) divided by h * w.

    Args:
        model: maps uint8 (n, H, W, 3) to logits or probabilities.
        images: (n, H, W, 3) uint8.
        classes: (n,) integers: the class of each image to explain.
        layer: the layer whose output is A; by default `map_layer(model)`.

    Raises:
        ValueError: the network has no such layer.
    """
    import keras

    layer = layer or map_layer(model)
    if layer is None:
        raise ValueError(f"{model.name} has no maps of at least {SMALLEST_MAP} x {SMALLEST_MAP} cells: use occlusion")
    maps, logits = model.get_layer(layer).output, model.get_layer("logits").output
    body, head = keras.Model(model.input, maps), keras.Model(maps, logits)
    gradient = {"tensorflow": _gradient_tensorflow, "jax": _gradient_jax}[keras.config.backend()](head)
    results = []
    for batch, chosen in _batches(images, classes, CHUNK):
        found = np.asarray(body.predict_on_batch(batch))  # (n, h, w, channels)
        weights = np.asarray(gradient(found, chosen)).mean(axis=(1, 2), keepdims=True)  # (n, 1, 1, channels)
        results.append(np.maximum((found * weights).sum(axis=-1), 0))
    return np.concatenate(results)[: len(images)].astype(np.float32)


def map_layer(model: keras.Model) -> str | None:
    """Return the name of the last layer before the head whose output is convolutional maps (n, h, w, channels).

    Return None if there is no such layer, or if its maps have fewer than 4 x 4 cells.
    """
    names = [layer.name for layer in model.layers]
    convolutions = [index for index, layer in enumerate(model.layers) if "Conv" in type(layer).__name__]
    for index in reversed(range(min(convolutions, default=len(names)), len(names))):
        shape = model.layers[index].output.shape
        if len(shape) == 4:
            return names[index] if min(shape[1:3]) >= SMALLEST_MAP else None
    return None


def _gradient_tensorflow(head: keras.Model) -> Callable[[np.ndarray, np.ndarray], Any]:
    """Return a function from maps and classes to the gradient of the logit of each image's class."""
    import tensorflow as tf

    def gradient(maps: np.ndarray, classes: np.ndarray) -> Any:
        watched = tf.convert_to_tensor(maps)
        with tf.GradientTape() as tape:
            tape.watch(watched)
            own = tf.gather(head(watched, training=False), classes, axis=1, batch_dims=1)
        return tape.gradient(own, watched)

    return gradient


def _gradient_jax(head: keras.Model) -> Callable[[np.ndarray, np.ndarray], Any]:
    """Return a function from maps and classes to the gradient of the logit of each image's class."""
    import jax

    trainable = [variable.value for variable in head.trainable_variables]
    others = [variable.value for variable in head.non_trainable_variables]

    def own(maps: Any, classes: np.ndarray) -> Any:
        logits, _ = head.stateless_call(trainable, others, maps, training=False)
        return jax.numpy.take_along_axis(logits, classes[:, None], axis=1).sum()

    gradient: Callable[[np.ndarray, np.ndarray], Any] = jax.jit(jax.grad(own))
    return gradient


def occlusion(answer: Answer, images: np.ndarray, classes: np.ndarray, grid: int = GRID) -> np.ndarray:
    """Return maps (n, H, W) float32: the probability that the class loses if a pixel is covered (Zeiler, Fergus 2014).

    A square patch with sides of two cells, in the mean colour of the image, covers each of `grid` x `grid` positions in
    turn. The heat of a pixel is the mean loss of probability over the patches that cover it, or 0 if the class gains.

    Args:
        answer: maps (n, H, W, 3) uint8 to (n, classes) probabilities, on any engine.
        images: (n, H, W, 3) uint8.
        classes: (n,) integers: the class of each image to explain.
        grid: positions per side. Each image takes grid * grid + 1 answers.
    """
    height, width = images.shape[1:3]
    rows, columns = _patches(height, grid), _patches(width, grid)  # (grid, H), (grid, W) bool
    cover = (rows[:, None, :, None] & columns[None, :, None, :]).reshape(-1, height, width)  # (P, H, W)
    places = len(cover)
    maps = np.empty((len(images), height, width), np.float32)
    step = max(1, 8 * CHUNK // (places + 1))
    for start in range(0, len(images), step):
        batch, chosen = images[start : start + step], classes[start : start + step]
        mean = np.rint(batch.mean(axis=(1, 2), keepdims=True)).astype(np.uint8)  # (n, 1, 1, 3)
        covered = np.where(cover[None, ..., None], mean[:, None], batch[:, None])  # (n, P, H, W, 3)
        every = np.concatenate([batch[:, None], covered], axis=1).reshape(-1, height, width, 3)
        scores = np.asarray(answer(every)).reshape(len(batch), places + 1, -1)
        own = np.take_along_axis(scores, chosen[:, None, None], axis=2)[..., 0]  # (n, P + 1)
        loss = own[:, :1] - own[:, 1:]  # (n, P)
        heat = loss @ cover.reshape(places, -1) / cover.reshape(places, -1).sum(axis=0)
        maps[start : start + step] = np.maximum(heat, 0).reshape(-1, height, width)
    return maps


def _patches(length: int, grid: int) -> np.ndarray:
    """Return (grid, length) bool: the pixels that each of `grid` overlapping patches covers. No pixel is left out."""
    cell = length / grid
    middle = (np.arange(grid) + 0.5)[:, None] * cell
    return np.abs(np.arange(length) + 0.5 - middle) <= max(cell, 0.5)


def heat_maps(
    images: np.ndarray, classes: np.ndarray, answer: Answer, model: keras.Model | None = None
) -> tuple[np.ndarray, str]:
    """Return maps (n, h, w) float32, each with a maximum of 1 (or all 0), and the name of the method.

    The method is Grad-CAM if there is a Keras model with a `map_layer`, else occlusion with `answer`.
    """
    maps: np.ndarray
    if model is not None and map_layer(model):
        maps, method = grad_cam(model, images, classes), "Grad-CAM"
    else:
        maps, method = occlusion(answer, images, classes), "occlusion"
    maps /= np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)
    return maps, method


def overlay(image: np.ndarray, heat: np.ndarray, side: int) -> np.ndarray:
    """Return (side, side, 3) uint8: the image in grey, tinted where the heat is high; `imaging.heat` has the colours.

    Where the heat is low, the grey image has no tint. Under the heat, it remains visible.

    Args:
        image: (H, W, 3) uint8.
        heat: (h, w) float, at least 0. Only the differences within the map count.
        side: pixels.
    """
    scaled = Image.fromarray(colour_scale.relative(heat)).resize((side, side), Image.Resampling.BICUBIC)
    warm = np.clip(np.asarray(scaled), 0, 1)  # (side, side)
    grey = enlarge(image, side) @ np.array([0.299, 0.587, 0.114])  # Rec. 601
    cover = colour_scale.opacity(warm)[..., None]
    shade = 0.4 + 0.6 / 255 * grey[..., None]  # keeps the image's light and dark parts visible under the heat
    blended = (1 - cover) * grey[..., None] + cover * shade * colour_scale.colours(warm)
    return np.asarray(np.rint(blended).clip(0, 255), np.uint8)


def enlarge(image: np.ndarray, side: int) -> np.ndarray:
    """Return (side, side, 3) uint8, interpolated: without that, people see squares instead of the image."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def _batches(images: np.ndarray, classes: np.ndarray, size: int) -> Any:
    """Yield images and classes in batches of one shape. The last batch is padded with copies of its first image."""
    size = min(size, max(1, len(images)))
    for start in range(0, len(images), size):
        index = np.arange(start, start + size)
        index[index >= len(images)] = start
        yield images[index], np.asarray(classes)[index].astype(np.int32)
