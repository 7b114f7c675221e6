"""The contract of networks, as a test for your own: every built-in network that is not pretrained passes it.

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
    """Build the network `name` and raise an error if it would fail in training, evaluation, prediction or export.

    The contract is:

    - The network takes uint8 images in batches of any size, and the result for an image does not depend on the others
      in its batch.
    - Its `logits` are float32 and finite.
    - Its layers and weights are the same each time it is built, and after saving and loading.
    - As a LiteRT file with folded batch norms, it gives the same probabilities within 1e-5.

    Nothing is trained; the batch norms get statistics like those of a trained network.

    Args:
        name: name in the registry; your own network is there after `@onsight.model(name)`.
        image_size: side of the images in pixels; by default 32, or the nearest side that the network takes.
        num_classes: number of classes, at least 2.

    Raises:
        SpecError: the network does not exist or breaks the contract; the message says how.
        ExportError: the converter to LiteRT is not installed, or failed.
    """
    from onsight.core.backend import dtype_policy, to_numpy, use_backend
    from onsight.inference.engines import LitertEngine
    from onsight.inference.parity import edge_images
    from onsight.models.custom import check_network
    from onsight.models.litert_file import convert
    from onsight.models.model_file import load_model, read_description, save_model
    from onsight.models.registry import build_model, check_size, classifier, usual_size

    use_backend()
    size = image_size or usual_size(name)
    check_size(name, size)
    with dtype_policy("bfloat16"):
        if (kind := build_model(name, size, num_classes).output.dtype) != "float32":
            raise SpecError(
                f'{name} has {kind} logits when it trains in bfloat16: give the layer logits dtype="float32".'
            )
    with dtype_policy("float32"):
        model = check_network(name, size, num_classes)
        age_batch_norms(model)
        with_softmax = classifier(model, temperature=1.7)
    images = edge_images(size)
    expected = np.asarray(with_softmax.predict_on_batch(images))
    if not np.isfinite(expected).all():
        raise SpecError(f"{name} returns probabilities that are NaN or infinite: a layer overflows.")
    others = np.concatenate([255 - images[:-2], images[-2:]])
    require_same(name, "with other images in the batch", with_softmax.predict_on_batch(others)[-2:], expected[-2:])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_model(folder, model, tuple(f"class {index}" for index in range(num_classes)), temperature=1.7)
        for saved, loaded in zip(model.weights, load_model(folder).weights, strict=True):
            if not np.array_equal(to_numpy(saved), to_numpy(loaded)):
                raise SpecError(f"{name} has other values in '{saved.path}' after saving and loading.")
        engine = LitertEngine(convert(with_softmax), read_description(folder))
    for count in (len(images), 1, 7):
        found = engine.probabilities(images[:count])
        require_same(name, f"as a LiteRT file in a batch of {count}", found, expected[:count])


def require_same(name: str, how: str, found: Any, expected: np.ndarray) -> None:
    """Raise SpecError if probabilities differ from the expected ones by more than an export may."""
    from onsight.inference.parity import TOLERANCE, compare

    largest = compare(np.asarray(found), expected).largest
    if not largest <= TOLERANCE:
        raise SpecError(
            f"{name} {how} gives other probabilities: they differ by {largest:.2g}, expected at most {TOLERANCE:g}."
        )


def age_batch_norms(model: keras.Model) -> None:
    """Set the statistics, scales and shifts of every batch norm to values like those after training.

    A new batch norm changes its input hardly at all, so errors in its handling would stay hidden.
    """
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
