"""The writer of .tflite files: the run's own in float32, or quantized to float16 or int8, with labels and metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onsight.core.files import write_atomic
from onsight.exporting.judge import Precision
from onsight.exporting.quantize import quantized


def write_litert(model_folder: Path, path: Path, precision: Precision, images: np.ndarray) -> None:
    """Write a .tflite file: the run's own in float32, or a quantized one, with labels and metadata inside."""
    from onsight.exporting.litert_metadata import with_metadata
    from onsight.models.model_file import read_description

    content = litert_content(model_folder)
    if precision != "float32":
        content = quantized(content, precision, images)
    write_atomic(path, with_metadata(content, read_description(model_folder), run_name(model_folder)))


def run_name(model_folder: Path) -> str:
    """Return the name of the run that a model folder belongs to."""
    return model_folder.resolve().parent.name


def litert_content(model_folder: Path) -> bytes:
    """Return the content of the run's verified .tflite file. If training wrote none, convert the model."""
    from onsight.inference.engines import read_litert
    from onsight.models.litert_file import convert
    from onsight.models.model_file import load_model, read_description

    description = read_description(model_folder)
    if description.litert_sha256:
        return read_litert(model_folder, description)
    names = ("probabilities", "distance") if description.prototypes else ("probabilities",)
    return convert(load_model(model_folder, distance=True), names)
