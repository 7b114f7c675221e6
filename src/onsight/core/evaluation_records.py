"""The JSON files of an evaluation as types: metrics.json, and what lies beside it. See `core.records`.

Shares are in 0..1, and intervals are [low, high] at 95 %.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

# metrics.json --------------------------------------------------------------------------------------------------------


class Bin(TypedDict):
    """One bin of a reliability diagram: the predictions whose confidence lies in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float | None  # mean; None in an empty bin
    accuracy: float | None


ClassScore = TypedDict(  # a call, because `class` is a keyword
    "ClassScore",
    {
        "class": str,
        "precision": float | None,  # None where the score is undefined
        "recall": float | None,
        "f1": float | None,
        "support": int,  # images with this label
        "recall_interval": list[float] | None,
    },
)


class TopK(TypedDict):
    """How often the label is among the k likeliest classes."""

    k: int
    accuracy: float


class Confusion(TypedDict):
    """Which classes were taken for which."""

    confusion: list[list[int]]  # rows true, columns predicted; empty for more than 1,000 classes
    confused: NotRequired[list[list[int]]]  # for those: true, predicted, count, without right answers


class Scores(Confusion):
    """The scores of one set of predictions, as `metrics.scores.score` returns them and explains them."""

    n: int
    accuracy: float
    correct: int
    accuracy_interval: list[float]
    confidence: float
    loss: float
    top_k: TopK | None
    macro_f1: float
    per_class: list[ClassScore]
    ece: float
    ece_noise: NotRequired[list[float]]  # of a perfectly calibrated model: mean, 97.5 % quantile; older runs lack it
    calibration: list[Bin]
    brier: float
    roc_auc: NotRequired[float | None]  # of two classes only
    average_precision: NotRequired[float | None]


class Accuracy(TypedDict):
    """One accuracy with its interval."""

    accuracy: float
    correct: int
    n: int
    accuracy_interval: list[float]


class AugmentedAccuracy(Accuracy):
    """The accuracy with test-time augmentation."""

    views: int


class AccuracyWithoutCopies(Accuracy):
    """The accuracy without the images that have copies among those that the model was trained or judged on."""

    copies: int  # images left out
    near: bool  # whether near-duplicates are left out, too: `check` has searched for them


class CoveragePoint(TypedDict):
    """The accuracy of the predictions whose confidence reaches a threshold."""

    threshold: float
    coverage: float
    accuracy: float


class ThresholdEffect(TypedDict):
    """What the threshold of a model does; accuracy is None where no prediction reaches it."""

    value: float
    n: int
    answered: int
    coverage: float
    correct: int
    accuracy: float | None
    accuracy_interval: list[float] | None


class Calibration(TypedDict):
    """The calibration of predictions."""

    ece: float
    confidence: float
    calibration: list[Bin]


class FarOff(TypedDict):
    """Which share of images of something else the model calls unsure."""

    data: str
    n: int
    unsure: float
    unlike: NotRequired[float]  # the share that is unlike the training images, if the model knows a distance


class Unlike(TypedDict):
    """Which share of the scored images the model calls unlike its training images."""

    threshold: float  # of the distance
    n: int
    unlike: float


class Metrics(Scores):
    """metrics.json of an evaluation."""

    temperature: float
    before_temperature: Calibration
    coverage: list[CoveragePoint]
    threshold: ThresholdEffect | None
    unlike: NotRequired[Unlike]  # of models that know a distance
    far_off: NotRequired[FarOff | None]
    tta: NotRequired[AugmentedAccuracy]
    without_copies: NotRequired[AccuracyWithoutCopies]  # if there are such images
    notes: NotRequired[list[str]]  # sentences on images that were left out, and on what is unknown
    data: str
    provenance: str
    engine: str
    weights_sha256: NotRequired[str]  # older runs lack it
    evaluated_at: str


# Beside metrics.json -------------------------------------------------------------------------------------------------


class Robustness(TypedDict):
    """robustness.json: accuracy under corruptions."""

    title: str
    n: int
    quick: bool
    seed: int
    clean: float
    mean: float
    worst: tuple[str, int, float]  # corruption, severity, accuracy
    corruptions: dict[str, list[float]]  # accuracy at severities 1 to 5
    notes: list[str]
    weights_sha256: NotRequired[str]


class Slice(TypedDict):
    """The accuracy in one part of the images."""

    by: str
    value: str
    n: int
    correct: int
    accuracy: float
    low: float
    high: float
    worse: bool  # than the rest, beyond chance


class Slices(TypedDict):
    """slices.json."""

    slices: list[Slice]


class Suspect(TypedDict):
    """A label that is probably wrong."""

    path: str
    part: str
    label: str
    suggested: str
    probability_of_label: float
    probability_of_suggested: float
    thumbnail: NotRequired[str]


class LabelErrors(TypedDict):
    """label_errors.json."""

    method: str
    checked: int
    runs: NotRequired[int]  # whose answers to the test images were averaged; older runs lack it, as the next
    expected: NotRequired[str]  # which share of the suspects is probably wrong, in words
    suspects: list[Suspect]
    not_listed: NotRequired[list[str]]  # why images were not searched


class Thumbnails(TypedDict):
    """thumbnails.json: which image is where on the sprite sheet. The lists have one entry per image."""

    side: int  # pixels
    columns: int
    cells: int  # images that stand for cells of the confusion matrix; they come first
    path: list[str]
    label: list[int]
    predicted: list[int]
    probability: list[float]
    samples: list[int]  # places of a random sample


class FeatureMap(TypedDict):
    """map.json: the images by their features. The lists have one entry per image."""

    method: str
    n: int  # scored images, of which the map may show some
    path: list[str]
    label: list[int]
    predicted: list[int]
    x: list[float]  # 0 to 1
    y: list[float]


class Mistake(TypedDict):
    """A wrong answer with heat maps."""

    file: str
    path: str
    label: int
    predicted: int
    probability: float
    probability_of_label: float


class Mistakes(TypedDict):
    """heatmaps/index.json."""

    method: str
    mistakes: list[Mistake]
