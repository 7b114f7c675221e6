"""evaluate(run): the only verb that scores on the test set. Every figure derives from the predictions.csv it writes."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onsight.core import text
from onsight.core.errors import DataError, SpecError
from onsight.core.files import expanded, now, write_json
from onsight.core.progress import Reporter
from onsight.data.dataset import Dataset
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import Pixels, load_pixels
from onsight.data.split import recorded_parts
from onsight.display.reporters import make_reporter
from onsight.evaluation import explain, label_errors, slices
from onsight.evaluation.robustness import measure
from onsight.evaluation.thumbnails import write_thumbnails
from onsight.inference.engines import Answer, EngineName, open_engine
from onsight.inference.predict import probabilities
from onsight.inference.test_time_augmentation import count_views, mirrors, with_views
from onsight.metrics import intervals, predictions_csv
from onsight.metrics import scores as scores_module
from onsight.models.model_file import ModelDescription, read_description
from onsight.reporting import plot_style, plots
from onsight.reporting.report import report
from onsight.runs.run import Run, open_run
from onsight.spec import TrainSpec

SHOWN = 32  # sample images
EXAMPLES = 12  # predictions and mistakes shown with their probabilities
FAR_OFF = ("digits", "toy")  # images of other things, always at hand: the first whose classes the run does not know


class Scored(NamedTuple):
    """What was scored, and how it was answered."""

    folder: Path  # of the evaluation
    names: list[str]  # n paths
    images: np.ndarray  # (all, side, side, 3) uint8
    chosen: np.ndarray  # (n,) which of them
    labels: np.ndarray  # (n,) integers
    scores: np.ndarray  # (n, classes) float32 probabilities
    classes: tuple[str, ...]

    def mistakes(self, most: int) -> np.ndarray:
        """Return the places of the wrong answers, the surest first."""
        wrong = np.flatnonzero(self.scores.argmax(axis=1) != self.labels)
        return wrong[np.argsort(-self.scores[wrong].max(axis=1), kind="stable")][:most]


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    Attributes:
        folder: holds predictions.csv, metrics.json and the images.
        metrics: the content of metrics.json.
    """

    folder: Path
    metrics: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        low, high = self.metrics["accuracy_interval"]
        return (
            f"accuracy {self.metrics['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}, "
            f"n = {self.metrics['n']:,}) on {self.metrics['provenance']}"
        )

    def _repr_html_(self) -> str:
        from onsight.display import notebook

        return notebook.evaluation(self.metrics)


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
    batch_size: int = 256,
    engine: EngineName = "auto",
    reporter: Reporter | None = None,
) -> Evaluation:
    """Score a finished run on its test images, or on other data, and write predictions, metrics, plots, report.

    Where the model has a threshold, metrics.json says too how many far-off images it catches.

    Args:
        run: the run, its folder, or `latest`.
        data: other data, with (some of) the same classes: its test part, or all of it where it has none. Where it turns
            out to be the run's own, moved or renamed, only the run's test images count.
        data_dir: where the named data set lies, if it has moved.
        folds: train so many models on the rest of the training images to look for wrong labels in these too; 0: not.
        slices_file: a CSV with the column path and others of the user's, to report the accuracy by; see `slices`.
        robustness: measure the accuracy on corrupted images too, for robustness.json: 75 times the work.
        quick: of that, on a tenth of the images.
        tta: score with test-time augmentation too, three views of each image and their mirrors: a figure of its own.
        batch_size: images a step; changes speed only.
        engine: what computes: "litert" (no framework is imported), "keras", or "auto": LiteRT where it can be had.
        reporter: where progress goes.

    Raises:
        SpecError: one fold, or folds of other data, or `quick` without `robustness`.
        RunError: there is no such run, or it is not finished, or its test images are gone.
        DataError: the other data has classes that the run does not know, or nothing to test on, or the CSV fits none.
    """
    if quick and not robustness:
        raise SpecError("quick is a tenth of the robustness measurement: ask for --robustness --quick.")
    run = open_run(run)
    run.require_trained()
    if folds == 1 or folds < 0:
        raise SpecError(f"folds={folds} leaves no image out; expected 0, or 2 and more, such as 5.")
    with reporter or make_reporter() as show:
        spec = TrainSpec.recorded(run.spec)
        dataset = load_dataset(data or spec.data, data_dir or (None if data else spec.data_dir), show.work)
        pixels = load_pixels(dataset, spec.image_size, show.work)
        name, parts, own = parts_to_score(run, data, dataset, pixels, show)
        labels = map_classes(dataset, run)
        if folds:
            if name != "test":
                raise SpecError(
                    "--folds looks at the run's own training images, and --data names others: leave one out."
                )
            from onsight.evaluation.cross_validation import check_folds  # here: it trains

            check_folds(run, dataset, pixels, folds)
        index = np.setdiff1d(np.flatnonzero(parts == "test"), list(pixels.broken))
        if not len(index):
            raise DataError(f"{dataset.name} has no readable test images.")
        names = [dataset.names[i] for i in index.tolist()]
        columns = slices.read_columns(slices_file, names) if slices_file else {}
        engine_ = open_engine(run, engine)
        show.note(f"answering        {engine_.name}  ({engine_.reason})")
        if own:
            run.log_test_use(f"evaluate on {dataset.provenance}", scored=True)
        folder = run.evaluation_folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        scores = probabilities(engine_.probabilities, pixels.images, index, batch_size, show)
        scored = Scored(folder, names, pixels.images, index, labels[index], scores, run.classes)
        predictions_csv.write_predictions(folder / "predictions.csv", names, scored.labels, scores, run.classes)
        description = read_description(run.model_folder)
        found = scores_module.score(scored.labels, scores, run.classes) | trust(scored.labels, scores, description)
        if description.threshold is not None:
            found["far_off"] = far_off(engine_.probabilities, run, spec.image_size, description.threshold, show)
        if tta:
            flips = mirrors(run)
            answer = with_views(engine_.probabilities, flips)
            right = share(scored.labels, probabilities(answer, pixels.images, index, batch_size, show))
            found["tta"] = right | {"views": count_views(flips)}
        found |= {
            "data": dataset.name,
            "provenance": dataset.provenance,
            "engine": engine_.name,
            "weights_sha256": description.weights_sha256,
            "evaluated_at": now(),
        }
        write_json(folder / "metrics.json", found)
        look_for_label_errors(run, folder, dataset, pixels, folds, batch_size, show)
        if robustness:
            measured = measure(engine_.probabilities, pixels.images, index, scored.labels, quick=quick, show=show)
            if dataset.images is None and any(name.lower().endswith((".jpg", ".jpeg")) for name in names):
                measured["notes"].append("The files are JPEG: jpeg_compression compresses them a second time.")
            write_json(folder / "robustness.json", measured | {"weights_sha256": description.weights_sha256})
        else:
            forget(folder / "robustness.json", description)
        draw(scored, found)
        truth = [run.classes[label] for label in scored.labels.tolist()]
        columns = slices.describe(dataset, index, truth, pixels.images) | columns
        write_json(folder / "slices.json", slices.measure(scores.argmax(axis=1) == scored.labels, columns))
        write_thumbnails(folder, pixels.images, index, scored.labels, scores, names)
        show.note("explaining       the mistakes it was surest of")
        worst = scored.mistakes(explain.WORST)
        explain.explain_mistakes(
            folder,
            pixels.images[index[worst]],
            scored.labels[worst],
            scores[worst],
            [names[i] for i in worst.tolist()],
            engine_.probabilities,
            None if engine == "litert" else explain.keras_model(run),
        )
        report(run)
    return Evaluation(folder, found)


def look_for_label_errors(
    run: Run, folder: Path, dataset: Dataset, pixels: Pixels, folds: int, batch_size: int, show: Reporter
) -> None:
    """Write label_errors.json: suspects among what was scored, and among training images that folds have scored."""
    if folds:
        from onsight.evaluation.cross_validation import predict_out_of_fold  # here: it trains

        predict_out_of_fold(run, dataset, pixels, folds, batch_size, show)
    scored = predictions_csv.read_predictions(folder / "predictions.csv")
    tables = [(scored, ["test"] * len(scored.names))]
    kept = run.evaluation_folder("folds") / "predictions.csv"  # perhaps of an earlier evaluation
    if folder.name == "test" and kept.exists():
        scored = predictions_csv.read_predictions(kept)
        validation = set(run.dataset["split"]["validation"])
        tables.append((scored, ["validation" if name in validation else "train" for name in scored.names]))
    count = label_errors.write(folder, tables, dataset.names, pixels.images)
    if count:
        show.note(f"label errors     {count:,} labels to look at, the likeliest first: {folder / 'label_errors.json'}")


def findings(evaluation: Evaluation) -> list[str]:
    """Return in plain sentences what an evaluation found about the threshold and about corrupted images."""
    found, sentences, percent = evaluation.metrics, [], text.percent
    if tta := found.get("tta"):
        low, high = (text.percent_number(end) for end in tta["accuracy_interval"])
        sentences.append(
            f"With test-time augmentation it gets {percent(tta['accuracy'])} right (95 %: {low} to {high}), "
            f"for {tta['views']} times the work."
        )
    if limit := found["threshold"]:
        low, high = (text.percent_number(end) for end in limit["accuracy_interval"] or (0, 1))
        sentences.append(
            f"Below a probability of {limit['value']:.3f} it says unsure. It answers "
            f"{percent(limit['coverage'])} of the images, {percent(limit['accuracy'])} of those right "
            f"(95 %: {low} to {high})."
        )
        if far := found.get("far_off"):
            sentences.append(
                f"Images of something else are only partly caught: of {far['n']:,} {far['data']} images, none of "
                f"which it can know, {percent(far['unsure'])} are called unsure."
            )
    with contextlib.suppress(FileNotFoundError):
        robust = json.loads((evaluation.folder / "robustness.json").read_text("utf-8"))
        name, severity, accuracy = robust["worst"]
        sentences.append(
            f"Under corruptions ({robust['title']}, {robust['n']:,} images) {percent(robust['mean'])} right on "
            f"average, against {percent(robust['clean'])} of the same images as they are; worst is "
            f"{name.replace('_', ' ')} at severity {severity} with {percent(accuracy)}."
        )
    return sentences


def parts_to_score(
    run: Run, data: str | Path | None, dataset: Dataset, pixels: Pixels, show: Reporter
) -> tuple[str, np.ndarray, bool]:
    """Return the evaluation's name, (n,) the parts, of which "test" is scored, and whether the data is the run's own.

    The run's test images, where they are in the data, perhaps moved. Else it is other data, or the run's own with
    test images that have changed since or were added: told by its place, or by all training images being there.
    Of that, none is scored whose name the run learned from or was judged by.
    """
    split = run.dataset["split"]
    if data is None or split["test"]:
        try:
            return "test", recorded_parts(run.dataset, dataset, pixels.hashes, ["test"]), True
        except DataError as error:
            if data is None:
                raise DataError(f"{error} To score the images that are there now: --data FOLDER.") from None
    own = run.spec["data"] in (str(data), os.path.realpath(expanded(str(data))))
    with contextlib.suppress(DataError):
        own = own or bool(recorded_parts(run.dataset, dataset, pixels.hashes, ["train"]).any())
    parts = dataset.parts if "test" in dataset.parts else np.full(len(dataset), "test")
    if own:
        known = {*split["train"], *split["validation"]}
        learned = np.array([name in known for name in dataset.names]) & (parts == "test")
        parts = np.where(learned, "", parts)
        show.note(f"left out         {int(learned.sum()):,} images that {run.name} was trained or judged on")
    return f"{dataset.name}-{dataset.fingerprint[:8]}", parts, own


def map_classes(dataset: Dataset, run: Run) -> np.ndarray:
    """Return the labels of other data as indices into the run's classes, by class name."""
    unknown = sorted(set(dataset.classes) - set(run.classes))
    if unknown:
        raise DataError(
            f"{dataset.name} has classes that {run.name} was not trained on: {', '.join(unknown[:10])}. "
            f"It knows: {', '.join(run.classes[:20])}."
        )
    return np.array([run.classes.index(name) for name in dataset.classes])[dataset.labels]


def share(labels: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Return accuracy, correct, n and accuracy_interval."""
    correct, n = int((scores.argmax(axis=1) == labels).sum()), len(labels)
    return {
        "accuracy": correct / n,
        "correct": correct,
        "n": n,
        "accuracy_interval": list(intervals.wilson(correct, n)),
    }


def trust(labels: np.ndarray, scores: np.ndarray, description: ModelDescription) -> dict[str, Any]:
    """Return what metrics.json says of the model's temperature and threshold, on these predictions.

    - temperature; before_temperature: ece, confidence and calibration as they would be without it
    - coverage: `metrics.coverage_curve`
    - threshold: `metrics.at_threshold`, None where the model has none
    """
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    before = scores_module.with_temperature(scores, 1 / description.temperature).max(axis=1)
    bins = scores_module.calibration(before, right)
    return {
        "temperature": description.temperature,
        "before_temperature": {
            "ece": scores_module.calibration_error(bins),
            "confidence": float(before.mean()),
            "calibration": bins,
        },
        "coverage": scores_module.coverage_curve(confidence, right),
        "threshold": None
        if description.threshold is None
        else scores_module.at_threshold(confidence, right, description.threshold),
    }


def far_off(answer: Answer, run: Run, image_size: int, threshold: float, show: Reporter) -> dict[str, Any] | None:
    """Return which share of images of something else the model calls unsure: data, n, unsure.

    It should be all of them. It is not: a network can be sure of an image that is unlike all that it has seen.
    """
    for name in FAR_OFF:
        other = load_dataset(name)
        if set(other.classes).isdisjoint(run.classes):
            confidence = answer(load_pixels(other, image_size, show.work).images).max(axis=1)
            return {"data": name, "n": len(other), "unsure": int((confidence < threshold).sum()) / len(other)}
    return None


def forget(path: Path, description: ModelDescription) -> None:
    """Remove a robustness.json that was measured with other weights than the model has by now."""
    with contextlib.suppress(OSError, ValueError):
        if json.loads(path.read_text("utf-8")).get("weights_sha256") == description.weights_sha256:
            return
    path.unlink(missing_ok=True)


def draw(scored: Scored, found: dict[str, Any]) -> None:
    """Write the images of an evaluation: samples, confusion matrix, predictions, and the surest mistakes."""
    folder, _, images, index, labels, scores, classes = scored
    chosen = np.random.default_rng(0).permutation(len(index))[:SHOWN]
    shown = images[index[chosen]]
    plot_style.save(plots.sample_images(shown, [classes[i] for i in labels[chosen]]), folder / "samples.png")
    plot_style.save(plots.confusion_matrix(np.array(found["confusion"]), classes), folder / "confusion.png")
    for name, picked in (("predictions", chosen[:EXAMPLES]), ("mistakes", scored.mistakes(EXAMPLES))):
        if len(picked):
            truth = [classes[i] for i in labels[picked]]
            title = f"The {len(picked)} mistakes it was surest of" if name == "mistakes" else None
            figure = plots.predictions(images[index[picked]], truth, scores[picked], classes, title=title)
            plot_style.save(figure, folder / f"{name}.png")
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier evaluation
