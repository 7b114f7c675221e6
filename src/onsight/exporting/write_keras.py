"""The writer of .keras files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onsight.exporting.judge import Precision

if TYPE_CHECKING:
    import keras


def write_keras(model_folder: Path, path: Path, precision: Precision, images: np.ndarray) -> None:
    """Write a .keras file that needs only Keras: Onsight's layers are replaced by Keras' own with the same results."""
    import keras

    from onsight.core.backend import to_numpy
    from onsight.models.fold_batch_norm import plain_config
    from onsight.models.layers import standard
    from onsight.models.model_file import load_model
    from onsight.models.pretrained import LayerScale

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, LayerScale):
            return keras.layers.DepthwiseConv2D(1, use_bias=False, name=layer.name)
        return standard(layer).from_config(plain_config(layer))

    model = load_model(model_folder)
    plain = keras.models.clone_model(model, clone_function=copy)
    for weight, own in zip(plain.weights, model.weights, strict=True):
        weight.assign(to_numpy(own).reshape(weight.shape))
    plain.save(path)
