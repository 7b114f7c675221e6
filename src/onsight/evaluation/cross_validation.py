"""Out-of-fold predictions: each training image is classified by a model that was not trained on it."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np

from onsight.core.errors import Interrupted, RunError, SpecError
from onsight.core.files import argument, make_folder, now, write_json
from onsight.core.progress import Reporter
from onsight.core.text import count, duration
from onsight.data.dataset import Dataset
from onsight.data.pixel_cache import Pixels
from onsight.data.split import uniform
from onsight.inference.engines import open_engine
from onsight.inference.predict import probabilities
from onsight.metrics import predictions_csv
from onsight.runs.images import find_parts
from onsight.runs.run import SCHEMA, Run
from onsight.runs.seen import seen_by, unknown_text
from onsight.spec import TrainSpec
from onsight.training.loop import fit

FOLD_SEED = 2**63  # added to the seed: no seed of a split is this large, so folds are independent of the split


def predict_out_of_fold(
    run: Run, dataset: Dataset, pixels: Pixels, folds: int, batch_size: int, show: Reporter
) -> None:
    """Write evaluations/folds/predictions.csv: held-out probabilities of a run's training and validation images.

    The training images are split into `folds` folds. For each fold, a model is trained on the other folds with the
    run's own spec and validation images. The run's own model predicts the validation images, because it was not trained
    on them. All of this takes about folds - 1 times as long as the run's training. Each model is a run of its own in
    folds/, so that the same command continues after an interruption. At the end these runs are removed.

    Raises:
        TrainingError, Interrupted: as training raises them.
    """
    spec = TrainSpec(**run.spec | {"time_budget": None})  # the spec records how many epochs fitted into the time budget
    images = find_parts(run, dataset, pixels, ("train", "validation"))
    training, validation = (images.examples(part).chosen for part in ("train", "validation"))
    fold = assign(pixels.hashes[training], dataset.labels[training], folds, spec.seed)
    spent = sum(row.get("seconds") or 0.0 for row in run.history())
    show.note(
        "folds",
        f"{folds} models, each trained on {round(100 - 100 / folds)} % of {len(training):,} images: about "
        f"{folds - 1}x the run's training time, {duration((folds - 1) * spent)}",
    )
    scores = np.zeros((len(dataset), len(run.classes)), np.float32)
    fold_runs = run.folder / "folds"
    for number in range(folds):
        inside, outside = training[fold == number], training[fold != number]
        model_run = fold_run(run, number, folds)
        if not model_run.is_trained:
            show.note("fold", f"{number + 1} of {folds}")
            learned, judged = images.at(outside), images.at(validation)
            try:
                fit(model_run, spec, learned, judged, show)
            except Interrupted as stop:
                command = f"onsight evaluate {argument(run.folder)} --folds {folds}"
                raise Interrupted(
                    f"Stopped in fold {number + 1} of {folds}. Everything is saved. Continue with: {command}",
                    stop.exit_code,
                ) from None
        scores[inside] = probabilities(open_engine(model_run).probabilities, pixels.images, inside, batch_size, show)
    if len(validation):
        scores[validation] = probabilities(open_engine(run).probabilities, pixels.images, validation, batch_size, show)
    held_out = np.sort(np.concatenate([training, validation]))
    folder = run.evaluation_folder("folds")
    make_folder(folder)
    names = [dataset.names[i] for i in held_out.tolist()]
    predictions_csv.write_predictions(
        folder / "predictions.csv", names, dataset.labels[held_out], scores[held_out], run.classes
    )
    shutil.rmtree(fold_runs)


def check_folds(run: Run, dataset: Dataset, pixels: Pixels, folds: int, show: Reporter) -> None:
    """Raise an error, before anything is scored, if `predict_out_of_fold` would fail.

    Raises:
        RunError: the run was distilled or pruned from another run, which was trained on all training images.
        SpecError: there are fewer distinct training images than folds.
        DataError: the images are missing or have changed.
    """
    run.require_network()
    if teacher := run.record.get("teacher"):
        raise RunError(
            f"{run.name} learned from {teacher['run']}, which was trained on all training images, so no image can be "
            f"held out. Use --folds with {teacher['run']} instead."
        )
    images = find_parts(run, dataset, pixels, ("train", "validation"))
    seen = seen_by(run, dataset, pixels)
    if seen.again:
        raise RunError(
            f"The weights that {run.name} started from ({run.spec['weights']}) have learned from its training images, "
            "so no image can be held out. Use --folds with a run that started from other weights."
        )
    if seen.unknown:
        show.note("warning", unknown_text(seen.unknown))
    distinct = len(np.unique(pixels.hashes[images.parts == "train"]))
    if folds > distinct:
        raise SpecError(
            f"--folds {folds} leaves some folds without an image: {run.name} has only "
            f"{count(distinct, 'distinct training image')}. Use fewer folds."
        )


def assign(hashes: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return (n,) int64, the fold of each image. Each class is spread evenly over the folds.

    Folds are assigned by content, so that identical images are in the same fold. Otherwise a model would learn an
    image's label from its copy in another fold, and a wrong label on both would look right.
    """
    contents, first, content = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.lexsort((uniform(contents, seed + FOLD_SEED), labels[first]))
    fold = np.empty(len(contents), np.int64)
    fold[order] = np.arange(len(contents)) % folds
    return fold[content]


def fold_run(run: Run, number: int, folds: int) -> Run:
    """Return the run of one fold. Create its folder if it is missing or belongs to another training of `run`."""
    folder = run.folder / "folds" / f"{number + 1}-of-{folds}"
    record: dict[str, Any] = {"schema": SCHEMA, "spec": run.spec, "environment": run.record.get("environment", {})}
    if folder.exists():
        before = Run(folder)
        if all(before.record.get(key) == value for key, value in record.items()):
            return before
        shutil.rmtree(folder)
    make_folder(folder)
    write_json(folder / "dataset.json", {"name": run.dataset["name"], "classes": list(run.classes)})
    write_json(folder / "spec.json", record | {"created": now()})
    return Run(folder)
