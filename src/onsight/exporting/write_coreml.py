"""The writer of Core ML packages, for Apple's systems, converted from the SavedModel."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from onsight.core.silence import without_python_output
from onsight.exporting.judge import Precision
from onsight.exporting.write_litert import run_name
from onsight.exporting.write_saved_model import write_saved_model
from onsight.imaging.fit import SENTENCES


def write_coreml(model_folder: Path, path: Path, precision: Precision, images: np.ndarray) -> None:
    """Write a Core ML package: a classifier that takes an image and names its class."""
    import coremltools

    from onsight.models.model_file import read_description

    description = read_description(model_folder)
    size = description.image_size
    with tempfile.TemporaryDirectory() as scratch, without_python_output():
        source = Path(scratch) / "saved_model"
        write_saved_model(model_folder, source, precision, images)
        made = coremltools.convert(
            str(source),
            source="tensorflow",
            convert_to="mlprogram",
            inputs=[coremltools.ImageType(name="image", shape=(1, size, size, 3))],
            classifier_config=coremltools.ClassifierConfig(description.classes),
            compute_precision=coremltools.precision.FLOAT32,
            minimum_deployment_target=coremltools.target.iOS15,
        )
    made.short_description = f"{run_name(model_folder)}: {description.model} that classifies images"
    made.input_description["image"] = SENTENCES[description.fit].format(size=size)
    made.user_defined_metadata["labels"] = json.dumps(description.classes, ensure_ascii=False)
    if description.threshold is not None:
        made.user_defined_metadata["threshold"] = str(description.threshold)
    with without_python_output():
        made.save(str(path))
