"""evaluate(run): the only verb that scores on the test set. Every figure derives from the predictions.csv it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import explaining, figures, label_errors, metrics, slices
from .datasets import Dataset, load_dataset
from .engines import EngineName, open_engine
from .errors import DataError, SpecError
from .files import write_json
from .pixels import Pixels, load_pixels
from .prediction import probabilities
from .progress import Reporter, make_reporter
from .reporting import report
from .runs import Run, now, open_run
from .spec import TrainSpec
from .splits import recorded_parts
from .thumbnails import write_thumbnails

SHOWN = 32  # sample pictures
EXAMPLES = 12  # predictions and mistakes shown with their probabilities


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    Attributes:
        folder: holds predictions.csv, metrics.json and the pictures.
        metrics: the content of metrics.json.
    """

    folder: Path
    metrics: dict[str, Any]

    def __str__(self) -> str:
        low, high = self.metrics["accuracy_interval"]
        return (
            f"accuracy {self.metrics['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}, "
            f"n = {self.metrics['n']:,}) on {self.metrics['provenance']}"
        )


def evaluate(
    run: str | Path | Run,
    *,
    data: str | Path | None = None,
    data_dir: Path | None = None,
    folds: int = 0,
    slices_file: Path | None = None,
    batch_size: int = 256,
    engine: EngineName = "auto",
    reporter: Reporter | None = None,
) -> Evaluation:
    """Score a finished run on its test pictures, or on other data, and write predictions, metrics, pictures, report.

    Args:
        run: the run, its folder, or `latest`.
        data: other data, with (some of) the same classes: its test part, or all of it where it has none. Where it turns
            out to be the run's own, moved or renamed, only the run's test pictures count.
        data_dir: where the named data set lies, if it has moved.
        folds: train so many models on the rest of the training pictures to look for wrong labels in these too; 0: not.
        slices_file: a CSV with the column path and others of the user's, to report the accuracy by; see `slices`.
        batch_size: pictures a step; changes speed only.
        engine: what computes: "litert" (no framework is imported), "keras", or "auto": LiteRT where it can be had.
        reporter: where progress goes.

    Raises:
        SpecError: one fold, or folds of other data.
        RunError: there is no such run, or it is not finished, or its test pictures are gone.
        DataError: the other data has classes that the run does not know, or nothing to test on, or the CSV fits none.
    """
    run = open_run(run)
    run.require_trained()
    if folds == 1 or folds < 0:
        raise SpecError(f"folds={folds} leaves no picture out; expected 0, or 2 and more, such as 5.")
    with reporter or make_reporter() as show:
        spec = TrainSpec(**run.spec)
        dataset = load_dataset(data or spec.data, data_dir or (None if data else spec.data_dir), show.work)
        pixels = load_pixels(dataset, spec.image_size, show.work)
        parts = own_parts(run, dataset, pixels, required=data is None)
        if parts is not None:
            name, labels = "test", dataset.labels
        else:
            name, labels = f"{dataset.name}-{dataset.fingerprint[:8]}", map_classes(dataset, run)
            parts = dataset.parts if "test" in dataset.parts else np.full(len(dataset), "test")
        index = np.setdiff1d(np.flatnonzero(parts == "test"), list(pixels.broken))
        if not len(index):
            raise DataError(f"{dataset.name} has no readable test pictures.")
        names = [dataset.names[i] for i in index.tolist()]
        columns = slices.read_columns(slices_file, names) if slices_file else {}
        answering = open_engine(run, engine)
        show.note(f"answering        {answering.name}  ({answering.reason})")
        run.log_test_use(f"evaluate on {dataset.provenance}")
        scores = probabilities(answering, pixels.images, index, batch_size, show)
        folder = run.evaluation_folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        metrics.write_predictions(folder / "predictions.csv", names, labels[index], scores, run.classes)
        found = metrics.score(labels[index], scores, run.classes) | {
            "data": dataset.name,
            "provenance": dataset.provenance,
            "engine": answering.name,
            "evaluated_at": now(),
        }
        write_json(folder / "metrics.json", found)
        look_for_label_errors(run, folder, dataset, pixels, folds, batch_size, show)
        draw(run, folder, found, pixels.images, index, labels[index], scores)
        truth = [run.classes[i] for i in labels[index].tolist()]
        columns = slices.describe(dataset, index, truth, pixels.images) | columns
        write_json(folder / "slices.json", slices.measure(scores.argmax(axis=1) == labels[index], columns))
        write_thumbnails(folder, pixels.images, index, labels[index], scores, names)
        show.note("explaining       the mistakes it was surest of")
        worst = surest_mistakes(labels[index], scores)[: explaining.WORST]
        own, shown, right = [names[i] for i in worst.tolist()], pixels.images[index[worst]], labels[index[worst]]
        model = None if engine == "litert" else explaining.keras_model(run)
        explaining.explain_mistakes(folder, shown, right, scores[worst], own, answering.probabilities, model)
        report(run)
    return Evaluation(folder, found)


def look_for_label_errors(
    run: Run, folder: Path, dataset: Dataset, pixels: Pixels, folds: int, batch_size: int, show: Reporter
) -> None:
    """Write label_errors.json: suspects among what was scored, and among training pictures that folds have scored."""
    if folds:
        if folder.name != "test":
            raise SpecError("--folds looks at the run's own training pictures, and --data names others: leave one out.")
        from .folds import predict_out_of_fold  # here: it trains

        predict_out_of_fold(run, dataset, pixels, folds, batch_size, show)
    scored = metrics.read_predictions(folder / "predictions.csv")
    tables = [(scored, ["test"] * len(scored.names))]
    kept = run.evaluation_folder("folds") / "predictions.csv"  # perhaps of an earlier evaluation
    if folder.name == "test" and kept.exists():
        scored = metrics.read_predictions(kept)
        validation = set(run.dataset["split"]["validation"])
        tables.append((scored, ["validation" if name in validation else "train" for name in scored.names]))
    count = label_errors.write(folder, tables, dataset.names, pixels.images)
    if count:
        show.note(f"label errors     {count:,} labels to look at, the likeliest first: {folder / 'label_errors.json'}")


def surest_mistakes(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return which answers are wrong, the surest first."""
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    return wrong[np.argsort(-scores[wrong].max(axis=1), kind="stable")]


def own_parts(run: Run, dataset: Dataset, pixels: Pixels, *, required: bool) -> np.ndarray | None:
    """Return the parts that the run recorded, where this is the data it was made from, perhaps moved; else None."""
    try:
        return recorded_parts(run.dataset, dataset, pixels.hashes, ["test"])
    except DataError:
        if required:
            raise
        return None


def map_classes(dataset: Dataset, run: Run) -> np.ndarray:
    """Return the labels of other data as indices into the run's classes, by class name."""
    unknown = sorted(set(dataset.classes) - set(run.classes))
    if unknown:
        raise DataError(
            f"{dataset.name} has classes that {run.name} was not trained on: {', '.join(unknown[:10])}. "
            f"It knows: {', '.join(run.classes[:20])}."
        )
    return np.array([run.classes.index(name) for name in dataset.classes])[dataset.labels]


def draw(
    run: Run,
    folder: Path,
    found: dict[str, Any],
    pictures: np.ndarray,
    index: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Write the pictures of an evaluation: samples, confusion matrix, predictions, and the surest mistakes."""
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(index))[:SHOWN]
    shown = pictures[index[chosen]]
    figures.save(figures.sample_pictures(shown, [run.classes[i] for i in labels[chosen]]), folder / "samples.png")
    figures.save(figures.confusion_matrix(np.array(found["confusion"]), run.classes), folder / "confusion.png")
    surest = surest_mistakes(labels, scores)[:EXAMPLES]
    for name, picked in (("predictions", chosen[:EXAMPLES]), ("mistakes", surest)):
        if len(picked):
            truth = [run.classes[i] for i in labels[picked]]
            title = f"The {len(picked)} mistakes it was surest of" if name == "mistakes" else None
            figure = figures.predictions(pictures[index[picked]], truth, scores[picked], run.classes, title=title)
            figures.save(figure, folder / f"{name}.png")
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier evaluation
