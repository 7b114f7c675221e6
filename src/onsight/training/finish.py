"""The end of a training: calibration on validation images, the .tflite file, and `model/`, which is renamed last."""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING

import numpy as np

from onsight.core.files import replace_folder, sync_file, write_atomic
from onsight.core.progress import Reporter
from onsight.core.spread import spread
from onsight.data.batches import Examples
from onsight.inference.litert import add_litert
from onsight.models.manifest import write_manifest
from onsight.models.model_file import Likeness, save_model
from onsight.runs.run import UNCALIBRATED, Run
from onsight.spec import TrainSpec
from onsight.training.calibrate import calibrate, unsmoothed
from onsight.training.network import in_float32, logits_of

if TYPE_CHECKING:
    import keras

COMPARED = 64  # training images on which LiteRT is compared with Keras
SMOOTHED = 1000  # training images whose answers show what label smoothing did to them


def write_model(
    run: Run,
    spec: TrainSpec,
    model: keras.Model,
    training: Examples,
    validation: Examples,
    held_out: tuple[np.ndarray, np.ndarray] | None,
    likeness: Likeness | None,
    batch_size: int,
    show: Reporter,
) -> None:
    """Calibrate the trained network and write `model/` of the run, which appears complete or not at all.

    Args:
        run: the run.
        spec: its choices.
        model: the network with its final weights.
        training: the training images.
        validation: the validation images; there may be none.
        held_out: the logits (n, classes) of images that were not trained on, as training computed them, and their
            labels (n,), the validation images last; None if the finished model computes them otherwise.
        likeness: what tells images that are unlike the training images, if it was learned.
        batch_size: images answered at a time.
        show: where progress goes.
    """
    partial = run.folder / ".model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    logits, labels = held_out or answered(spec, model, validation, batch_size)
    write_right(run, logits, labels, len(validation.labels))
    # A student learns mostly from its teacher's answers, and a head that is trained alone is fitted: both unsmoothed.
    smoothing = 0.0 if spec.teacher or spec.freeze == "all" else spec.label_smoothing
    if len(labels):
        temperature, threshold = calibrate(logits, labels, spec.min_precision, show.note, smoothing)
    else:
        temperature, threshold = uncalibrated(spec, model, training, smoothing, batch_size, show), None
    save_model(partial, model, run.classes, temperature, threshold, spec.channels, spec.fit, likeness)
    chosen = training.chosen[spread(len(training.chosen), COMPARED)]
    if why := add_litert(partial, training.images[chosen]):
        show.note("model.tflite", f"none: {why}. `onsight predict` uses Keras for this run")
    write_manifest(partial, run.newest_checkpoint)
    sync_file(run.folder / "history.jsonl")  # a power cut must not leave a finished run without its epochs
    replace_folder(partial, run.model_folder)


def answered(spec: TrainSpec, model: keras.Model, images: Examples, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of images as the finished model computes them, in float32, and their labels."""
    if not len(images.labels):
        return np.zeros((0, model.output_shape[-1])), images.labels
    return logits_of(in_float32(model, spec).predict_on_batch, images, batch_size), images.labels


def write_right(run: Run, logits: np.ndarray, labels: np.ndarray, validation: int) -> None:
    """Write whether the model classifies each validation image correctly: the last `validation` of the images.

    The order is that of the names in dataset.json.
    """
    content = io.BytesIO()
    np.save(content, (logits.argmax(axis=1) == labels)[len(labels) - validation :])
    write_atomic(run.validation_right, content.getvalue())


def uncalibrated(
    spec: TrainSpec, model: keras.Model, training: Examples, smoothing: float, batch_size: int, show: Reporter
) -> float:
    """Return the temperature of a model for which no images were held out: it only undoes label smoothing."""
    some = spread(len(training.chosen), SMOOTHED if smoothing else 0)
    sample = training._replace(chosen=training.chosen[some], labels=training.labels[some])
    temperature, reason = unsmoothed(answered(spec, model, sample, batch_size)[0], smoothing, UNCALIBRATED)
    show.note("temperature", f"{temperature:.4g}  ({reason})")
    return temperature
