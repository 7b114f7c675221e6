"""The first phase of a transfer: the features of the images, and the head that is fitted to them at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.backend import to_numpy
from onsight.core.spread import spread
from onsight.data.batches import Examples
from onsight.features.extract import Extractor
from onsight.features.head import Head, fit_head
from onsight.features.prototypes import LOOKED_AT, learn_likeness
from onsight.models.model_file import Likeness
from onsight.runs.run import Run
from onsight.runs.seen import read_seen
from onsight.spec import FROM_SCRATCH, IMAGENET, TrainSpec
from onsight.training.network import in_float32
from onsight.training.phases import from_scratch
from onsight.training.steps import Variables

if TYPE_CHECKING:
    import keras


class HeadFit(Variables):
    """Fits the layer `logits` of a network to features at once, in place of a training step.

    The `images` of its methods are features, (n, features) float32. Its arrays are those of the whole network, so
    checkpoints have the same content in all phases.
    """

    fitted: Head | None = None

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer, held_out: bool = True) -> None:
        """Take the network; `held_out` is whether a head that has not seen an image is a judge of it."""
        super().__init__(model, optimizer)
        self.held_out = held_out

    def fit(self, examples: Examples, seed: int, class_weights: np.ndarray | None) -> Head:
        """Fit the head to the features of the training images, and return it with its out-of-fold answers.

        If the layers below the head have learned from these images, no answer was held out, so none is returned.
        """
        layer = self.model.get_layer("logits")
        features = examples.images[examples.chosen]
        head = fit_head(features, examples.labels, int(layer.bias.shape[0]), seed=seed, weights=class_weights)
        layer.kernel.assign(head.kernel)
        layer.bias.assign(head.bias)
        if not self.held_out:
            head = head._replace(held_out=head.held_out[:0], logits=head.logits[:0])
        self.fitted = head
        return head

    def train(self, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Not available: a head takes no steps."""
        raise NotImplementedError

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits (n, classes) float32 of features (n, features)."""
        layer = self.model.get_layer("logits")
        logits: np.ndarray = images @ to_numpy(layer.kernel) + to_numpy(layer.bias)
        return logits


def starts_fresh(run: Run) -> bool:
    """Return whether the initial weights of a run are known not to have learned from its training images."""
    seen = read_seen(run)
    if seen is None:  # an earlier version made the run
        return run.spec.get("weights") in (None, FROM_SCRATCH, IMAGENET)
    return not seen.again and not seen.unknown


def featured(
    model: keras.Model, spec: TrainSpec, parts: tuple[Examples, ...], progress: Callable[[int, int], None]
) -> tuple[Examples, ...]:
    """Return parts of a data set with features in place of images; `progress` is that of `Extractor`."""
    extract = Extractor(in_float32(model, spec))

    def features(part: Examples) -> Examples:
        if not len(part.labels):
            return part
        return Examples(extract(part.images, part.chosen, progress), np.arange(len(part.labels)), part.labels)

    return tuple(features(part) for part in parts)


def likeness_of(
    model: keras.Model,
    spec: TrainSpec,
    training: Examples,
    features: Examples | None,
    progress: Callable[[int, int], None],
) -> Likeness | None:
    """Return what tells images that are unlike the training images; None for a training from scratch.

    Args:
        model: the network with its final weights.
        spec: its choices.
        training: the training images.
        features: their features, if they are known.
        progress: that of `Extractor`.
    """
    if from_scratch(spec):
        return None
    if features is None:
        some = spread(len(training.chosen), LOOKED_AT)
        sample = training._replace(chosen=training.chosen[some], labels=training.labels[some])
        (features,) = featured(model, spec, (sample,), progress)
    return learn_likeness(features.images[features.chosen], spec.seed)
