"""The end of a training: calibration on validation images, the .tflite file, and `model/`, which is renamed last."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from onsight.core.files import sync_folder
from onsight.core.progress import Reporter
from onsight.core.spread import spread
from onsight.data.batches import Examples
from onsight.inference.litert import add_litert
from onsight.models.model_file import Likeness, save_model
from onsight.runs.run import Run
from onsight.spec import TrainSpec
from onsight.training.calibrate import calibrate
from onsight.training.network import in_float32, logits_of

if TYPE_CHECKING:
    import keras

COMPARED = 64  # training images on which LiteRT is compared with Keras


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
            labels (n,); None if the finished model computes them otherwise.
        likeness: what tells images that are unlike the training images, if it was learned.
        batch_size: images answered at a time.
        show: where progress goes.
    """
    folder, partial, old = (run.folder / name for name in ("model", ".model.partial", ".model.old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    temperature, threshold = calibrated(spec, model, validation, held_out, batch_size, show)
    save_model(partial, model, run.classes, temperature, threshold, spec.channels, spec.fit, likeness)
    chosen = training.chosen[spread(len(training.chosen), COMPARED)]
    if why := add_litert(partial, training.images[chosen]):
        show.note("model.tflite", f"none: {why}. `onsight predict` uses Keras for this run")
    if folder.exists():  # a finished run that was trained longer
        folder.rename(old)
    partial.rename(folder)
    sync_folder(run.folder)
    shutil.rmtree(old, ignore_errors=True)


def calibrated(
    spec: TrainSpec,
    model: keras.Model,
    validation: Examples,
    held_out: tuple[np.ndarray, np.ndarray] | None,
    batch_size: int,
    show: Reporter,
) -> tuple[float, float | None]:
    """Return the temperature and the threshold of the final weights, both chosen on images that were not trained on."""
    if held_out:
        logits, labels = held_out
    else:  # the finished model computes in float32, so calibrate what it answers
        labels = validation.labels
        if len(labels):
            logits = logits_of(in_float32(model, spec).predict_on_batch, validation, batch_size)
    if not len(labels):
        show.note("temperature", "1  (there are no validation images to fit it on)")
        return 1.0, None
    return calibrate(logits, labels, spec.min_precision, show.note)
