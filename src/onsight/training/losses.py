"""The loss of a training step: cross entropy, with the weights of classes and with a teacher's answers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

SOFTNESS = 4.0  # the temperature at which the answers of teacher and student are compared
TAUGHT = 0.9  # the share of this comparison in the loss; the labels have the rest


class Loss(NamedTuple):
    """The mean loss of a batch."""

    label_smoothing: float = 0.0
    class_weights: np.ndarray | None = None  # (classes,) float32: the weight of each image of a class; None: all 1

    def cross_entropy(self, labels: Any, logits: Any) -> Any:
        """Return the mean cross entropy. The labels are integers; they become one-hot only if smoothing needs that."""
        from keras import losses, ops

        if not self.label_smoothing:
            each = losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        else:
            one_hot = ops.one_hot(labels, logits.shape[-1], dtype="float32")
            each = losses.categorical_crossentropy(
                one_hot, logits, from_logits=True, label_smoothing=self.label_smoothing
            )
        return ops.mean(self.weighted(each, labels))

    def weighted(self, each: Any, labels: Any) -> Any:
        """Return the losses of the images, (batch,), multiplied by the weights of their classes."""
        from keras import ops

        return each if self.class_weights is None else each * ops.take(self.class_weights, labels)

    def __call__(self, labels: Any, logits: Any, taught: Any) -> Any:
        """Return the mean cross entropy or, with a teacher, mostly the divergence from the teacher's answers.

        Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network": both answers are softened by a
        temperature. The divergence is multiplied by its square, so that the gradients keep their size.
        """
        from keras import ops

        loss = self.cross_entropy(labels, logits)
        if taught is None:
            return loss
        wanted = ops.log_softmax(ops.log(ops.maximum(taught, 1e-7)) / SOFTNESS)
        apart = ops.sum(ops.exp(wanted) * (wanted - ops.log_softmax(logits / SOFTNESS)), axis=-1)
        return (1 - TAUGHT) * loss + TAUGHT * SOFTNESS**2 * ops.mean(self.weighted(apart, labels))


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return class weights (classes,) float32 that make all classes count the same: n / (classes x its images).

    These are scikit-learn's "balanced" weights. A class without images gets the weight of a class with one image.
    """
    counts = np.bincount(labels, minlength=classes)
    weights: np.ndarray = len(labels) / (classes * np.maximum(counts, 1))
    return weights.astype(np.float32)
