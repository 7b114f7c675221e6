"""Out-of-fold predictions: what models that were not trained on a training image say about it."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np

from onsight.core.errors import Interrupted, RunError, SpecError
from onsight.core.files import now, write_json
from onsight.core.progress import Reporter
from onsight.core.text import duration
from onsight.data.batches import Examples
from onsight.data.dataset import Dataset
from onsight.data.pixel_cache import Pixels
from onsight.data.split import recorded_parts, uniform
from onsight.inference.engines import open_engine
from onsight.inference.predict import probabilities
from onsight.metrics import predictions_csv
from onsight.runs.run import SCHEMA, Run
from onsight.spec import TrainSpec
from onsight.training.loop import fit

AS_FOLDS = 2**63  # added to the seed: no seed of a split is as large, so folds are drawn apart from the split


def predict_out_of_fold(
    run: Run, dataset: Dataset, pixels: Pixels, folds: int, batch_size: int, show: Reporter
) -> None:
    """Write evaluations/folds/predictions.csv: held-out probabilities of a run's training and validation images.

    The training images are divided in `folds`; for each a model is trained by the run's own spec on the others, and
    validated as the run's was. The validation images are answered by the run's own model, which never trained on
    them. That costs about folds - 1 times the run's training. The models lie in folds/ while they are made, each a run
    of its own, so that after an interruption the same command goes on; they are removed in the end.

    Raises:
        TrainingError, Interrupted: as training raises them.
    """
    spec = TrainSpec(**run.spec | {"time_budget": None})  # as many epochs as fitted into the run's
    parts = recorded_parts(run.dataset, dataset, pixels.hashes, ("train", "validation"))
    training, validation = (np.flatnonzero(parts == part) for part in ("train", "validation"))
    fold = assign(pixels.hashes[training], dataset.labels[training], folds, spec.seed)
    spent = sum(row.get("seconds") or 0.0 for row in run.history())
    show.note(
        "folds",
        f"{folds} trainings on {round(100 - 100 / folds)} % of {len(training):,} images each: about "
        f"{folds - 1} times the run's own training, {duration((folds - 1) * spent)} at its speed",
    )
    scores = np.zeros((len(dataset), len(run.classes)), np.float32)
    workshop = run.folder / "folds"
    for number in range(folds):
        inside, outside = training[fold == number], training[fold != number]
        model_run = fold_run(run, number, folds)
        if not model_run.is_trained:
            show.note("fold", f"{number + 1} of {folds}")
            learned, judged = (Examples(pixels.images, index, dataset.labels[index]) for index in (outside, validation))
            try:
                fit(model_run, spec, learned, judged, show)
            except Interrupted as stop:
                command = f"onsight evaluate {run.folder} --folds {folds}"
                raise Interrupted(
                    f"Stopped in fold {number + 1} of {folds}. Everything is saved. Go on with: {command}",
                    stop.exit_code,
                ) from None
        scores[inside] = probabilities(open_engine(model_run).probabilities, pixels.images, inside, batch_size, show)
    if len(validation):
        scores[validation] = probabilities(open_engine(run).probabilities, pixels.images, validation, batch_size, show)
    held_out = np.sort(np.concatenate([training, validation]))
    folder = run.evaluation_folder("folds")
    folder.mkdir(parents=True, exist_ok=True)
    names = [dataset.names[i] for i in held_out.tolist()]
    predictions_csv.write_predictions(
        folder / "predictions.csv", names, dataset.labels[held_out], scores[held_out], run.classes
    )
    shutil.rmtree(workshop)


def check_folds(run: Run, dataset: Dataset, pixels: Pixels, folds: int) -> None:
    """Raise, before anything is scored, where `predict_out_of_fold` could not work.

    Raises:
        RunError: the run learned from another one, which knows all training images.
        SpecError: there are fewer different training images than folds.
        DataError: the images are gone or have changed.
    """
    run.require_network()
    if teacher := run.record.get("teacher"):
        raise RunError(
            f"{run.name} learned from the answers of {teacher['run']}, which was trained on all training images: "
            "none can be held out. Ask that run for --folds."
        )
    parts = recorded_parts(run.dataset, dataset, pixels.hashes, ("train", "validation"))
    different = len(np.unique(pixels.hashes[parts == "train"]))
    if folds > different:
        raise SpecError(f"--folds {folds} leaves some without an image: there are {different:,} to train on.")


def assign(hashes: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return (n,) the fold of each image: by content, so that copies stay together, and each class dealt out evenly.

    A copy in another fold would be learned with its label, and a wrong label on both would look right.
    """
    contents, first, content = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.lexsort((uniform(contents, seed + AS_FOLDS), labels[first]))
    fold = np.empty(len(contents), np.int64)
    fold[order] = np.arange(len(contents)) % folds
    return fold[content]


def fold_run(run: Run, number: int, folds: int) -> Run:
    """Return the run of one fold, made anew where its folder is of other folds or another training of `run`."""
    folder = run.folder / "folds" / f"{number + 1}-of-{folds}"
    record: dict[str, Any] = {"schema": SCHEMA, "spec": run.spec, "environment": run.record.get("environment", {})}
    if folder.exists():
        before = Run(folder)
        if all(before.record.get(key) == value for key, value in record.items()):
            return before
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(folder / "dataset.json", {"name": run.dataset["name"], "classes": list(run.classes)})
    write_json(folder / "spec.json", record | {"created": now()})
    return Run(folder)
