"""The contract of networks, to test your own by: all of the registry that start from new weights pass it.

>>> from onsight.testing import check_model
>>> check_model("mine")  # doctest: +SKIP
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.errors import SpecError

if TYPE_CHECKING:
    import keras


def check_model(name: str, image_size: int | None = None, num_classes: int = 3) -> None:
    """Build the network `name` and raise where it would fail in training, evaluation, prediction or export.

    It takes uint8 images, in batches of any size, each answered by itself; its float32 `logits` are finite; layers
    and weights are the same each time it is built, and after saving and loading; with its batch norms folded, as a
    LiteRT file, it gives the same answers within 1e-5 of probability. Nothing is trained: the batch norms get
    statistics as training would leave them.

    Args:
        name: of the registry; your own after `@onsight.model(name)`.
        image_size: side in pixels; by default 32, or the nearest to it that it takes.
        num_classes: how many, at least 2.

    Raises:
        SpecError: there is no such network, or it breaks the contract; the message says where.
        ExportError: the converter to LiteRT is not installed, or failed.
    """
    from onsight.core.backend import dtype_policy, to_numpy, use_backend
    from onsight.inference.engines import LitertEngine
    from onsight.inference.litert import convert
    from onsight.inference.parity import edge_images
    from onsight.models.custom import check_network
    from onsight.models.model_file import load_model, read_description, save_model
    from onsight.models.registry import build_model, check_size, classifier, usual_size

    use_backend()
    size = image_size or usual_size(name)
    check_size(name, size)
    with dtype_policy("bfloat16"):
        if (kind := build_model(name, size, num_classes).output.dtype) != "float32":
            raise SpecError(f'{name} gives {kind} logits when it trains in bfloat16: give them dtype="float32".')
    with dtype_policy("float32"):
        model = check_network(name, size, num_classes)
        age_batch_norms(model)
        answering = classifier(model, temperature=1.7)
    images = edge_images(size)
    expected = np.asarray(answering.predict_on_batch(images))
    if not np.isfinite(expected).all():
        raise SpecError(f"{name} gives answers that are no numbers: something in it overflows.")
    others = np.concatenate([255 - images[:-2], images[-2:]])
    require_same(name, "beside other images", answering.predict_on_batch(others)[-2:], expected[-2:])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_model(folder, model, tuple(f"class {index}" for index in range(num_classes)), temperature=1.7)
        for saved, loaded in zip(model.weights, load_model(folder).weights, strict=True):
            if not np.array_equal(to_numpy(saved), to_numpy(loaded)):
                raise SpecError(f"{name} comes back from its files with another '{saved.path}'.")
        engine = LitertEngine(convert(answering), read_description(folder))
    for count in (len(images), 1, 7):
        found = engine.probabilities(images[:count])
        require_same(name, f"as a LiteRT file, in a batch of {count}", found, expected[:count])


def require_same(name: str, how: str, found: Any, expected: np.ndarray) -> None:
    """Raise SpecError where probabilities are further from the expected ones than an export may be."""
    from onsight.inference.parity import TOLERANCE, compare

    largest = compare(np.asarray(found), expected).largest
    if not largest <= TOLERANCE:
        raise SpecError(f"{name} {how} answers otherwise: probabilities differ by {largest:.2g}, over {TOLERANCE:g}.")


def age_batch_norms(model: keras.Model) -> None:
    """Give every batch norm statistics, scales and shifts as training would: new ones change hardly anything."""
    import keras

    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.3, shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, shape))
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.5, 1.5, shape))
            if layer.center:
                layer.beta.assign(rng.normal(0, 0.3, shape))
