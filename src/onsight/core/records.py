"""The JSON files of a run, a check and an export as types: each key is named here once, for writers and readers.

A file on disk may be damaged, or of an older version that lacks a key: readers check what they rely on. Shares are in
0..1, and intervals are [low, high] at 95 %.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict, final

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


class Scores(TypedDict):
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
    confusion: list[list[int]]
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
    weights_sha256: str
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


# check.json ----------------------------------------------------------------------------------------------------------


class Item(TypedDict):
    """What a finding is about: one image, a pair, or none but a note."""

    pictures: list[str]
    note: str


class Finding(TypedDict):
    """One finding of `check`."""

    kind: str
    severity: str  # error, warning or note
    count: int
    text: str
    advice: str
    items: NotRequired[list[Item]]  # not in a run's check.json


class CheckRecord(TypedDict):
    """check.json that `check` writes."""

    schema: int
    created: str
    name: str
    provenance: str
    fingerprint: str
    counts: dict[str, int]  # pictures, classes, errors, warnings, notes
    classes: dict[str, dict[str, int]]  # class -> part -> images
    findings: list[Finding]
    data: NotRequired[str]
    kept: NotRequired[int]
    features: NotRequired[str]  # the network whose features were compared, and at which image size; absent if none was


class CheckSummary(TypedDict):
    """check.json in a run."""

    schema: int
    complete: bool  # whether near-duplicates and all other problems were searched for, too
    counts: dict[str, int]  # errors, warnings, notes
    findings: list[Finding]


# spec.json, dataset.json, teacher.json -------------------------------------------------------------------------------


class SpecRecord(TypedDict):
    """spec.json: what was asked, what it became, and why."""

    schema: NotRequired[int]
    created: NotRequired[str]
    asked: NotRequired[dict[str, Any]]  # fields of TrainSpec, as are those of `spec`
    spec: dict[str, Any]
    reasons: NotRequired[dict[str, str]]
    phases: NotRequired[list[str]]
    warnings: NotRequired[list[str]]  # what the choices cost, and what to do about it
    environment: NotRequired[dict[str, str]]
    processes: NotRequired[int]  # that train together; left out if it is one
    model_import: NotRequired[str]  # "module:function" of a custom network
    weights: NotRequired[dict[str, str]]  # of, file, sha256: the initial weights; seen_sha256: what their run had seen
    unknown_ancestors: NotRequired[list[str]]  # names of runs and files of weights whose images nothing records
    teacher: NotRequired[TeacherReference]
    study: NotRequired[dict[str, Any]]  # name, created, trial: of the study whose winner this run is


class TeacherReference(TypedDict):
    """The run that a distilled or pruned run learned from."""

    run: str
    weights_sha256: str
    sparsity: float
    channels: float
    seen_sha256: NotRequired[str]  # of the record of what it had seen; runs of earlier versions have none


class Membership(TypedDict):
    """Which image of a data set is in which part of a run."""

    counts: dict[str, dict[str, int]]  # part -> class -> images
    split: dict[str, list[str]]  # part -> names
    digests: dict[str, str]  # part -> SHA-256 of its images' hashes


class DatasetRecord(TypedDict):
    """dataset.json: the data set of a run and its split."""

    name: str
    classes: list[str]
    provenance: NotRequired[str]
    fingerprint: NotRequired[str]
    broken: NotRequired[dict[str, str]]  # unreadable images and the reason
    counts: NotRequired[dict[str, dict[str, int]]]  # as in `Membership`; a run of one fold has no split
    split: NotRequired[dict[str, list[str]]]
    digests: NotRequired[dict[str, str]]
    keep_list: NotRequired[dict[str, Any]]  # sha256, kept, of
    labels: NotRequired[dict[str, Any]]  # bytes, sha256; names: corrected, added, left_out; texts: conflicts


class ModelFacts(TypedDict):
    """One side of teacher.json."""

    run: str
    model: str
    image_size: NotRequired[int]  # older runs lack it
    parameters: int
    zeros: float
    file: str
    bytes: int
    bytes_compressed: int
    latency_ms: NotRequired[float]
    validation_accuracy: NotRequired[float]


class TeacherRecord(TypedDict):
    """teacher.json: the teacher and the smaller run, side by side."""

    runs: list[ModelFacts]
    validation_n: NotRequired[int]
    difference: NotRequired[dict[str, float]]  # value, low, high, p


# curve.json ----------------------------------------------------------------------------------------------------------


class CurvePoint(TypedDict):
    """The trainings of one size in a learning curve."""

    shots: int  # images per class, on average
    pictures: int  # training images
    accuracies: list[float]  # on validation, one per seed
    accuracy: float
    low: float
    high: float
    n: int  # validation images
    runs: list[str]
    data: str


class PowerFit(TypedDict):
    """error = a * shots ** -b from the size `since` on, and the gain in accuracy from doubling the images."""

    a: float
    b: float
    since: int
    gain: float  # at most
    gain_interval: list[float]


class CurveVerdict(TypedDict):
    """Whether collecting more images would help."""

    pays: bool | None
    headline: str
    text: str


class CurveRecord(TypedDict):
    """curve.json."""

    created: str
    data: str
    asked: dict[str, Any]
    points: list[CurvePoint]
    fit: PowerFit | None
    verdict: CurveVerdict


# study.json ----------------------------------------------------------------------------------------------------------


@final
class SearchedRange(TypedDict):
    """A range of numbers that a study searches."""

    low: float
    high: float
    log: bool  # whether factors count, not differences
    whole: bool  # whether only whole numbers are tried


@final
class SearchedChoices(TypedDict):
    """Values from which a study chooses."""

    choices: list[Any]


SearchedSetting = SearchedRange | SearchedChoices


class StudyRecord(TypedDict):
    """study.json: what is searched, on what data, and by which rungs."""

    schema: int
    created: str
    data: str  # name of the data set
    asked: dict[str, Any]  # fields of TrainSpec, as are those of `preset` and `pinned`
    preset: dict[str, Any]  # the resolved spec of the first trial, which nothing was changed in
    pinned: dict[str, Any]  # what all trials share besides `asked`
    space: dict[str, SearchedSetting]
    search: dict[str, SearchedSetting] | None  # as the user gave it
    divisors: list[int]  # the epochs of each rung are the whole number divided by this; the last is 1
    digests: dict[str, str]  # of the training and validation images
    validation: int  # images that judge
    trials: NotRequired[int]  # how many it is to have; absent if only the time ends it
    time_budget: NotRequired[float]  # seconds
    rate_test: NotRequired[float]  # the learning rate that a range test found


# export/table.json ---------------------------------------------------------------------------------------------------

ClassDrop = TypedDict("ClassDrop", {"class": str, "drop": float})


class Judgement(TypedDict):
    """How the answers of an exported file compare with Keras'."""

    max_difference: float | None  # of a probability, on the edge, real and validation images; None: not proven
    agreement: float | None  # share of all images with the same likeliest class, ties aside
    compared: int
    validation_n: int
    validation_accuracy: float | None
    source_accuracy: float | None  # of Keras, on the same validation images
    drop: NotRequired[float]  # of int8 only: validation accuracy lost
    drop_interval: NotRequired[list[float]]
    hurt_most: NotRequired[list[ClassDrop]]
    max_distance_difference: NotRequired[float]  # of files with the output `distance` only; on the same images
    unlike_agreement: NotRequired[float]  # share of all images that both or neither find unlike the training images


class ExportRow(Judgement):
    """One exported file. What another system has to measure is None."""

    file: str
    format: str
    precision: str
    bytes: int
    latency_ms: float | None  # of one image on one thread
    latency_p95_ms: float | None
    images_per_second: float | None
    threads: int
    latency_ms_all: float | None  # on all threads
    latency_p95_ms_all: float | None
    images_per_second_all: float | None
    peak_mb: float | None
    first_answer_seconds: float | None
    made: str


class ExportTable(TypedDict):
    """table.json."""

    files: list[ExportRow]
