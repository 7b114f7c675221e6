"""evaluate(run): the only verb that scores on the test set. Every figure derives from the predictions.csv it writes."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from onsight.core.errors import DataError, ModelFileError, RunError, SpecError
from onsight.core.evaluation_records import (
    Accuracy,
    AccuracyWithoutCopies,
    AugmentedAccuracy,
    Calibration,
    Metrics,
    Robustness,
)
from onsight.core.extras import missing, require
from onsight.core.files import make_folder, now, read_json, write_json
from onsight.core.progress import Reporter
from onsight.core.text import count
from onsight.data.dataset import Dataset
from onsight.data.pixel_cache import check_unchanged
from onsight.display.reporters import make_reporter
from onsight.evaluation import robustness as corruptions
from onsight.evaluation import slices
from onsight.evaluation.cross_validation import check_folds, predict_out_of_fold
from onsight.evaluation.evaluation import Evaluation
from onsight.evaluation.explain import WORST, explain_mistakes, keras_model
from onsight.evaluation.far_off import far_off
from onsight.evaluation.feature_map import write_map
from onsight.evaluation.held_out import copies_of_learned, images_to_score
from onsight.evaluation.label_errors import EXPECTED, averaged, write_label_errors
from onsight.evaluation.thumbnails import SIDES, largest_side, original, write_thumbnails
from onsight.inference.embed import network_of
from onsight.inference.engines import Answers, Engine, EngineName, open_engine
from onsight.inference.on_ray import answered_on
from onsight.inference.part import Settings
from onsight.inference.predict import answered, probabilities
from onsight.inference.test_time_augmentation import count_views, mirrors, with_views
from onsight.metrics.intervals import share_interval
from onsight.metrics.predictions_csv import Predictions, read_predictions, write_predictions
from onsight.metrics.scores import (
    at_threshold,
    calibration,
    calibration_error,
    confidence_at,
    coverage_curve,
    score,
)
from onsight.models.model_file import ModelDescription, read_description
from onsight.reporting import plot_style, plots
from onsight.reporting.report import report
from onsight.runs.images import RunImages, load_images
from onsight.runs.run import Run, open_run

PLOTS = "samples", "confusion", "predictions", "mistakes"
SAMPLES = 32  # images of samples.png
ALL_COPIED = (
    "Each of these images has a copy among those that the model was trained or judged on, so this accuracy rewards "
    "memorising."
)
EXAMPLES = 12  # predictions and mistakes that are drawn with their probabilities


@dataclass(frozen=True, eq=False)
class Task:
    """What is scored, and what answers."""

    run: Run
    folder: Path  # of the evaluation
    images: RunImages
    index: np.ndarray  # (n,) the images that are scored
    labels: np.ndarray  # (n,) integers, indices into the classes of the run
    engine: Engine
    settings: Settings  # how it answers
    on: str | None  # the Ray cluster whose machines answer; None: this machine
    description: ModelDescription
    columns: slices.Columns  # of the user's CSV
    notes: list[str]  # sentences on images that are not scored, and on what is unknown

    @property
    def names(self) -> list[str]:
        """The names of the n images."""
        return [self.images.dataset.names[i] for i in self.index.tolist()]

    def answers(self, show: Reporter, *, tta: bool = False) -> Answers:
        """Return the answers for the n images."""
        settings, pixels = self.settings._replace(tta=tta), self.images.pixels
        if self.on:
            return answered_on(self.on, self.run, settings, pixels, self.index, show)
        if tta:
            answer = with_views(self.engine.probabilities, mirrors(self.run))
            return Answers(probabilities(answer, pixels.images, self.index, settings.batch_size, show), None)
        return answered(self.engine, pixels.images, self.index, settings.batch_size, show)


def evaluate(
    run: str | Path | Run,
    *,
    data: str | Path | None = None,
    data_dir: Path | None = None,
    folds: int = 0,
    slices_file: Path | None = None,
    robustness: bool = False,
    quick: bool = False,
    tta: bool = False,
    far: str | Path | None = None,
    batch_size: int = 256,
    engine: EngineName = "auto",
    on: str | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Score a finished run on its test images, or on other data; write predictions, metrics, plots and the report.

    If the model can be unsure, metrics.json also says how many images of something else it calls unsure.

    Args:
        run: the run, its folder, or `latest`.
        data: other data with (some of) the same classes: its test part, or all of it if it has none. If it turns out to
            be the run's own data, moved or renamed, only the run's test images are scored. Images that the run has
            seen are left out, wherever they lie.
        data_dir: where the files of the named data set are, if they have moved.
        folds: split the training images into this many folds and train one model per fold on the others, to find
            wrong labels among the training images too; 0: none.
        slices_file: a CSV with the column path and the user's own columns, to report the accuracy by; see `slices`.
        robustness: also measure the accuracy on corrupted images, for robustness.json; takes 75 times the work.
        quick: measure robustness on a tenth of the images.
        tta: also score with test-time augmentation, three views of each image and their mirrors, as separate figures.
        far: images of something else, to count those that the model takes for its own: a named data set, or a folder,
            file or pattern of images; None: a built-in data set.
        batch_size: images per step; changes the speed only.
        engine: what answers: "litert" (no framework is imported), "keras", or "auto": LiteRT if it can answer.
        on: who decodes the images and answers: None for this machine, "ray" for the Ray cluster here, or
            ray://HOST:PORT. All machines see the images and the cache (ONSIGHT_CACHE). Corruptions, folds, heat maps
            and far-off images stay on this machine.
        reporter: receives the progress.

    Raises:
        SpecError: one fold, or folds of other data, or `quick` without `robustness`.
        RunError: there is no such run, it is not finished, or its test images are gone.
        DataError: the other data has unknown classes, or nothing to test on, or the CSV does not fit.
    """
    if quick and not robustness:
        raise SpecError("quick measures robustness on a tenth of the images: it needs --robustness.")
    if folds == 1 or folds < 0:
        raise SpecError(f"folds={folds} holds no image out; expected 0, or at least 2, for example 5.")
    if robustness:
        require("scipy", "--robustness")
    run = open_run(run)
    run.require_trained()
    with reporter or make_reporter() as show:
        measured = ["robustness"] * robustness + [f"{count_views(mirrors(run))} views of each image"] * tta
        task = prepare(
            run, data, data_dir, folds, slices_file, Settings(batch_size=batch_size, engine=engine), on, measured, show
        )
        answers = task.answers(show)
        scores = answers.probabilities
        metrics = compute_metrics(task, answers)
        if found := far_off(run, task.engine, far, show):
            metrics["far_off"] = found
        if tta:
            metrics["tta"] = augmented_accuracy(task, show)
        write_scores(task, scores, metrics)
        find_label_errors(task, scores, folds, show)
        robust = measure_robustness(task, quick, show) if robustness else kept_robustness(task)
        write_slices(task, scores)
        draw(task, scores, metrics, show)
        explain_worst(task, scores, engine, show)
        draw_map(task, scores, engine, show)
        del answers, scores  # the report reads them again, and twice they may fill the memory
        report(run)
    return Evaluation(task.folder, metrics, robust)


# Prepare -------------------------------------------------------------------------------------------------------------


def prepare(
    run: Run,
    data: str | Path | None,
    data_dir: Path | None,
    folds: int,
    slices_file: Path | None,
    settings: Settings,
    on: str | None,
    measured: list[str],
    show: Reporter,
) -> Task:
    """Return what is scored and what answers, once everything that could fail has been checked. Log the test use.

    The arguments are those of `evaluate`, and what is `measured` beside the accuracy, for the log.
    """
    dataset, pixels = load_images(run, show.work, data=data, data_dir=data_dir, on=on)
    if on:
        pixels.shared_file()  # or an error before anything is scored
    name, parts, own, notes = images_to_score(run, data, dataset, pixels)
    for text in notes:
        show.note("note", text)
    images = RunImages(dataset, pixels, parts)
    labels = map_classes(dataset, run)
    if folds:
        if name != "test":
            raise SpecError("--folds trains on the run's own images, but --data names others: leave one out.")
        check_folds(run, dataset, pixels, folds, show)
    index = images.readable("test")
    if not len(index):
        raise DataError(f"{dataset.name} has no readable test images.")
    check_unchanged(dataset, pixels, index)
    columns = slices.read_columns(slices_file, [dataset.names[i] for i in index.tolist()]) if slices_file else {}
    opened = open_engine(run, settings.engine)
    show.note("answering", f"{opened.name}  ({opened.reason})")
    if own:
        run.log_test_use(f"{' with '.join(['evaluate', *measured])} on {dataset.provenance}", scored=True)
    folder = run.evaluation_folder(name)
    make_folder(folder)
    description = read_description(run.model_folder)
    return Task(run, folder, images, index, labels[index], opened, settings, on, description, columns, notes)


def map_classes(dataset: Dataset, run: Run) -> np.ndarray:
    """Return the labels of the data as indices into the classes of the run, matched by class name."""
    unknown = sorted(set(dataset.classes) - set(run.classes))
    if unknown:
        raise DataError(
            f"{dataset.name} has classes that {run.name} was not trained on: {', '.join(unknown[:10])}. "
            f"It knows: {', '.join(run.classes[:20])}."
        )
    return np.array([run.classes.index(name) for name in dataset.classes])[dataset.labels]


# Compute -------------------------------------------------------------------------------------------------------------


def compute_metrics(task: Task, answers: Answers) -> Metrics:
    """Return the content of metrics.json, without test-time augmentation and far-off images, from n answers."""
    description, labels, scores = task.description, task.labels, answers.probabilities
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    threshold = description.threshold
    metrics = Metrics(
        **score(labels, scores, task.run.classes),  # type: ignore[typeddict-item]  # mypy asks for optional keys
        temperature=description.temperature,
        before_temperature=without_temperature(scores, right, description.temperature),
        coverage=coverage_curve(confidence, right),
        threshold=None if threshold is None else at_threshold(confidence, right, threshold),
        data=task.images.dataset.name,
        provenance=task.images.dataset.provenance,
        engine=task.engine.name,
        weights_sha256=description.weights_sha256,
        evaluated_at=now(),
    )
    leaked, near = copies_of_learned(task.run, task.images, task.index)
    notes = [*task.notes, ALL_COPIED] if leaked.all() else task.notes
    if notes:
        metrics["notes"] = notes
    if leaked.any() and not leaked.all():
        kept = accuracy(labels[~leaked], scores[~leaked])
        metrics["without_copies"] = AccuracyWithoutCopies(**kept, copies=int(leaked.sum()), near=near)
    limit = task.engine.distance_threshold
    if answers.distances is not None and limit is not None:
        share = float((answers.distances > limit).mean())
        metrics["unlike"] = {"threshold": limit, "n": len(labels), "unlike": share}
    return metrics


def without_temperature(scores: np.ndarray, right: np.ndarray, temperature: float) -> Calibration:
    """Return the calibration that the answers would have without the temperature."""
    before = confidence_at(scores, 1 / temperature)
    bins = calibration(before, right)
    return {"ece": calibration_error(bins), "confidence": float(before.mean()), "calibration": bins}


def augmented_accuracy(task: Task, show: Reporter) -> AugmentedAccuracy:
    """Return the accuracy with test-time augmentation."""
    scores = task.answers(show, tta=True).probabilities
    return AugmentedAccuracy(**accuracy(task.labels, scores), views=count_views(mirrors(task.run)))


def accuracy(labels: np.ndarray, scores: np.ndarray) -> Accuracy:
    """Return the accuracy of probabilities (n, classes), with its interval."""
    correct, n = int((scores.argmax(axis=1) == labels).sum()), len(labels)
    return {"accuracy": correct / n, "correct": correct, "n": n, "accuracy_interval": list(share_interval(correct, n))}


# Write ---------------------------------------------------------------------------------------------------------------


def write_scores(task: Task, scores: np.ndarray, metrics: Metrics) -> None:
    """Write predictions.csv and metrics.json."""
    write_predictions(task.folder / "predictions.csv", task.names, task.labels, scores, task.run.classes)
    write_json(task.folder / "metrics.json", metrics)


def find_label_errors(task: Task, scores: np.ndarray, folds: int, show: Reporter) -> None:
    """Write label_errors.json: suspects among the scored images, and among training images that folds have scored."""
    run, (dataset, pixels, _) = task.run, task.images
    if folds:
        predict_out_of_fold(run, dataset, pixels, folds, task.settings.batch_size, show)
    scored, runs = Predictions(task.names, task.labels, scores, list(run.classes)), 1
    if task.folder.name == "test":
        scored, runs = averaged(run, scored)
    tables = [(scored, ["test"] * len(scored.names))]
    kept = run.evaluation_folder("folds") / "predictions.csv"  # perhaps of an earlier evaluation
    if task.folder.name == "test" and kept.exists():
        scored = read_predictions(kept)
        validation = set(run.dataset["split"]["validation"])
        tables.append((scored, ["validation" if name in validation else "train" for name in scored.names]))
    side = min(SIDES[0], largest_side(dataset, pixels.images))
    drawn = functools.partial(original, dataset, pixels.images, task.engine.fit, side=side)
    found = write_label_errors(task.folder, tables, dataset.names, drawn, runs)
    for reason in found.get("not_listed", []):
        show.note("label errors", reason)
    if found["suspects"]:
        path = task.folder / "label_errors.json"
        number = count(len(found["suspects"]), "label")
        by = f", by {count(runs, 'run')} on average" if runs > 1 else ""
        show.note("label errors", f"{number} to check{by}, the most suspicious first: {path}. {EXPECTED}")


def measure_robustness(task: Task, quick: bool, show: Reporter) -> Robustness:
    """Measure the accuracy under corruptions, write robustness.json, and return its content."""
    images = task.images.pixels.images
    measured = corruptions.measure(task.engine.probabilities, images, task.index, task.labels, quick=quick, show=show)
    if task.images.dataset.images is None and any(name.lower().endswith((".jpg", ".jpeg")) for name in task.names):
        measured["notes"].append("The files are JPEG: jpeg_compression compresses them a second time.")
    measured["weights_sha256"] = task.description.weights_sha256
    write_json(task.folder / "robustness.json", measured)
    return measured


def kept_robustness(task: Task) -> Robustness | None:
    """Return robustness.json of an earlier evaluation. If it was measured with other weights, remove it."""
    path = task.folder / "robustness.json"
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = read_json(path)
        if found.get("weights_sha256") == task.description.weights_sha256:
            return cast(Robustness, found)
    path.unlink(missing_ok=True)
    return None


def write_slices(task: Task, scores: np.ndarray) -> None:
    """Write slices.json: the accuracy by class, brightness, size, file type and the user's columns."""
    classes, (dataset, pixels, _) = task.run.classes, task.images
    truth = [classes[label] for label in task.labels.tolist()]
    columns = slices.describe(dataset, task.index, truth, pixels) | task.columns
    write_json(task.folder / "slices.json", slices.measure(scores.argmax(axis=1) == task.labels, columns))


def draw(task: Task, scores: np.ndarray, metrics: Metrics, show: Reporter) -> None:
    """Write the thumbnails and, if Matplotlib is installed, the plots. Plots of an earlier evaluation are removed."""
    for name in PLOTS:
        (task.folder / f"{name}.png").unlink(missing_ok=True)
    if said := missing("matplotlib"):
        show.note("no plots", said)
    else:
        draw_plots(task, scores, metrics)
    images = task.images.pixels.images
    write_thumbnails(
        task.folder,
        functools.partial(original, task.images.dataset, images, task.engine.fit),
        largest_side(task.images.dataset, images),
        task.index,
        task.labels,
        scores,
        task.names,
    )


def draw_plots(task: Task, scores: np.ndarray, metrics: Metrics) -> None:
    """Write the plots: samples, confusion matrix, predictions, the most confident mistakes."""
    folder, classes, images, labels = task.folder, task.run.classes, task.images.pixels.images, task.labels
    chosen = np.random.default_rng(0).permutation(len(task.index))[:SAMPLES]
    samples = plots.sample_images(images[task.index[chosen]], [classes[i] for i in labels[chosen]])
    plot_style.save(samples, folder / "samples.png")
    if metrics["confusion"]:
        plot_style.save(plots.confusion_matrix(np.array(metrics["confusion"]), classes), folder / "confusion.png")
    wrong = mistakes(labels, scores)[:EXAMPLES]
    title = f"The {count(len(wrong), 'most confident mistake')}"
    for name, picked, heading in (("predictions", chosen[:EXAMPLES], None), ("mistakes", wrong, title)):
        if len(picked):
            truth = [classes[i] for i in labels[picked]]
            figure = plots.predictions(images[task.index[picked]], truth, scores[picked], classes, title=heading)
            plot_style.save(figure, folder / f"{name}.png")


def explain_worst(task: Task, scores: np.ndarray, engine: EngineName, show: Reporter) -> None:
    """Write heat maps of the most confident mistakes."""
    show.note("explaining", "the most confident mistakes")
    worst = mistakes(task.labels, scores)[:WORST]
    explain_mistakes(
        task.folder,
        task.images.pixels.images[task.index[worst]],
        task.labels[worst],
        scores[worst],
        [task.names[i] for i in worst.tolist()],
        task.engine.probabilities,
        None if engine == "litert" else keras_model(task.run),
    )


def draw_map(task: Task, scores: np.ndarray, engine: EngineName, show: Reporter) -> None:
    """Write the map of the images. With `engine` "litert", no framework is imported for it."""
    (task.folder / "map.json").unlink(missing_ok=True)
    if said := missing("sklearn"):
        show.note("no map", said)
        return
    try:
        network = network_of(task.run, by_keras=engine != "litert")
    except (SpecError, RunError, ModelFileError) as error:  # an evaluation does not fail for want of a map
        show.note("no map", str(error))
        return
    images = task.images.pixels.images
    write_map(task.folder, network, images, task.index, task.labels, scores, task.names, show)


def mistakes(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the indices of the wrong answers, the most confident first."""
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    return wrong[np.argsort(-scores[wrong].max(axis=1), kind="stable")]
