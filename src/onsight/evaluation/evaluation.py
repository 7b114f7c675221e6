"""The result of `evaluate`: the files of one evaluation, and what they say in sentences."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from onsight.core.evaluation_records import LabelErrors, Metrics, Robustness, Slices, ThresholdEffect
from onsight.core.text import count, interval, percent
from onsight.metrics.predictions_csv import Predictions, read_predictions
from onsight.reporting.verdict import doubts
from onsight.runs.run import read_object


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    Attributes:
        folder: holds predictions.csv, metrics.json and the plots.
        metrics: the content of metrics.json.
        robustness: the content of robustness.json, None if robustness has not been measured with these weights.
    """

    folder: Path
    metrics: Metrics = field(repr=False)
    robustness: Robustness | None = field(default=None, repr=False)

    @property
    def predictions(self) -> Predictions:
        """The content of predictions.csv: names, labels, probabilities, classes."""
        return read_predictions(self.folder / "predictions.csv")

    @property
    def label_errors(self) -> LabelErrors:
        """The content of label_errors.json: labels that are probably wrong."""
        return cast(LabelErrors, read_object(self.folder / "label_errors.json", LabelErrors))

    @property
    def slices(self) -> Slices:
        """The content of slices.json: the accuracy in parts of the images."""
        return cast(Slices, read_object(self.folder / "slices.json", Slices))

    @property
    def findings(self) -> list[str]:
        """Sentences about test-time augmentation, the threshold and robustness."""
        return [
            *augmented_sentences(self.metrics),
            *threshold_sentences(self.metrics),
            *robustness_sentences(self.robustness),
        ]

    def __str__(self) -> str:
        low, high = self.metrics["accuracy_interval"]
        return (
            f"accuracy {self.metrics['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}, "
            f"n = {self.metrics['n']:,}) on {self.metrics['provenance']}"
        )

    def _repr_html_(self) -> str:
        from onsight.display import notebook

        return notebook.evaluation(self.metrics, doubts(self.metrics))


def augmented_sentences(metrics: Metrics) -> list[str]:
    """Return a sentence about test-time augmentation, if it was measured."""
    tta = metrics.get("tta")
    if not tta:
        return []
    return [
        f"With test-time augmentation {percent(tta['accuracy'])} are right ({interval(tta['accuracy_interval'])}), "
        f"with up to {tta['views']} views of an image."
    ]


def threshold_sentences(metrics: Metrics) -> list[str]:
    """Return sentences about unsure answers, if the model can be unsure."""
    sentences = []
    limit: ThresholdEffect | None = metrics["threshold"]
    if limit:
        sentences.append(
            f"Answers with a confidence below {limit['value']:.3f} are unsure. The model answers "
            f"{percent(limit['coverage'])} of the images, {percent(limit['accuracy'])} of those right "
            f"({interval(limit['accuracy_interval'] or [0.0, 1.0])})."
        )
    if unlike := metrics.get("unlike"):
        sentences.append(
            f"{percent(unlike['unlike'])} of {count(unlike['n'], 'image')} are called unlike the training images."
        )
    if far := metrics.get("far_off"):
        why = f" ({percent(far['unlike'])} as unlike the training images)" if "unlike" in far else ""
        sentences.append(
            f"Of {count(far['n'], 'image')} of something else ({far['data']}), {percent(far['unsure'])} are called "
            f"unsure{why}; the others get an answer."
        )
    return sentences


def robustness_sentences(robust: Robustness | None) -> list[str]:
    """Return a sentence about corrupted images, if robustness was measured."""
    if robust is None:
        return []
    name, severity, worst = robust["worst"]
    return [
        f"Under corruptions ({robust['title']}, {count(robust['n'], 'image')}) {percent(robust['mean'])} are right on "
        f"average, compared with {percent(robust['clean'])} of the same images without corruption; the worst is "
        f"{name.replace('_', ' ')} at severity {severity} with {percent(worst)}."
    ]
