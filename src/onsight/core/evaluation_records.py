"""The JSON files of an evaluation as types: metrics.json, and what lies beside it. See `core.records`.

Shares are in 0..1, and intervals are [low, high] at 95 %.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from onsight.core.schema import Interval, Matrix, Pair, Share

# metrics.json --------------------------------------------------------------------------------------------------------


class Bin(TypedDict):
    """One bin of a reliability diagram: the predictions whose confidence lies in (low, high]."""

    low: float
    high: float
    count: int
    confidence: Share | None  # mean; None in an empty bin
    accuracy: Share | None


ClassScore = TypedDict(  # a call, because `class` is a keyword
    "ClassScore",
    {
        "class": str,
        "precision": Share | None,  # None where the score is undefined
        "recall": Share | None,
        "f1": Share | None,
        "support": int,  # images with this label
        "recall_interval": Interval | None,
    },
)


class TopK(TypedDict):
    """How often the label is among the k likeliest classes."""

    k: int
    accuracy: Share


class Confusion(TypedDict):
    """Which classes were taken for which."""

    confusion: Matrix  # rows true, columns predicted; empty for more than 1,000 classes
    confused: NotRequired[list[tuple[int, int, int]]]  # for those: true, predicted, count, without right answers


class Scores(Confusion):
    """The scores of one set of predictions, as `metrics.scores.score` returns them and explains them."""

    n: int
    accuracy: Share
    correct: int
    accuracy_interval: Interval
    confidence: Share
    loss: float
    top_k: TopK | None
    macro_f1: Share
    per_class: list[ClassScore]
    ece: Share
    ece_noise: NotRequired[Pair]  # of a perfectly calibrated model: mean, 97.5 % quantile; older runs lack it
    calibration: list[Bin]
    brier: float
    roc_auc: NotRequired[Share | None]  # of two classes only
    average_precision: NotRequired[Share | None]


class Accuracy(TypedDict):
    """One accuracy with its interval."""

    accuracy: Share
    correct: int
    n: int
    accuracy_interval: Interval


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
    coverage: Share
    accuracy: Share


class ThresholdEffect(TypedDict):
    """What the threshold of a model does; accuracy is None where no prediction reaches it."""

    value: float
    n: int
    answered: int
    coverage: Share
    correct: int
    accuracy: Share | None
    accuracy_interval: Interval | None


class Calibration(TypedDict):
    """The calibration of predictions."""

    ece: Share
    confidence: Share
    calibration: list[Bin]


class FarOff(TypedDict):
    """Which share of images of something else the model calls unsure."""

    data: str
    n: int
    unsure: Share
    unlike: NotRequired[Share]  # the share that is unlike the training images, if the model knows a distance


class Unlike(TypedDict):
    """Which share of the scored images the model calls unlike its training images."""

    threshold: float  # of the distance
    n: int
    unlike: Share


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
    clean: Share
    mean: Share
    worst: tuple[str, int, Share]  # corruption, severity, accuracy
    corruptions: dict[str, list[Share]]  # accuracy at severities 1 to 5
    notes: list[str]
    weights_sha256: NotRequired[str]


class Slice(TypedDict):
    """The accuracy in one part of the images."""

    by: str
    value: str
    n: int
    correct: int
    accuracy: Share
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
    probability_of_label: Share
    probability_of_suggested: Share
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
    probability: list[Share]
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
    probability: Share
    probability_of_label: Share


class Mistakes(TypedDict):
    """heatmaps/index.json."""

    method: str
    mistakes: list[Mistake]
