"""The JSON files of a run, a check and an export as types: each key is named here once, for writers and readers.

A file on disk may be damaged, or of an older version that lacks a key: readers check what they rely on. Shares are in
0..1, and intervals are [low, high] at 95 %.
"""

from __future__ import annotations

from typing import Any, NotRequired, Required, TypedDict, final

from onsight.core.schema import Interval, Share

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

    schema: NotRequired[int]
    complete: NotRequired[bool]  # whether near-duplicates and all other problems were searched for, too
    counts: dict[str, int]  # errors, warnings, notes
    findings: list[Finding]


# model.json ----------------------------------------------------------------------------------------------------------


class LayerRow(TypedDict):
    """A layer of a network, as `models.registry.layer_table` describes it."""

    name: str
    type: str
    output_shape: list[int | None]  # without the batch
    parameters: int
    multiply_adds: NotRequired[int]  # per image; older runs lack it


class ModelRecord(TypedDict):
    """model.json as a report reads it; `models.model_file` checks all of it before a model answers."""

    model: str
    image_size: int
    geometry: NotRequired[str]
    temperature: NotRequired[float]
    threshold: NotRequired[float | None]
    distance_threshold: NotRequired[float | None]
    parameters: int
    layers: list[LayerRow]
    weights_sha256: NotRequired[str]


# spec.json, dataset.json, teacher.json -------------------------------------------------------------------------------


class SpecFields(TypedDict, total=False):
    """The fields of `TrainSpec` that are read as they are in spec.json; `TrainSpec.recorded` checks all of them."""

    data: Required[str]
    data_dir: str | None
    preset: str
    model: str
    weights: str | None
    teacher: str | None
    freeze: str | int | None
    fit: str
    image_size: int | None
    early_size: int | None
    epochs: int | None
    time_budget: str | None
    batch_size: int | None
    ghost_batch_size: int | None
    optimizer: str | None
    learning_rate: float | None
    weight_decay: float | None
    augmentation: str | None
    validation: float | None
    patience: int | None
    seed: int
    split_seed: int | None
    sparsity: float
    channels: float
    labels: str | None
    keep_list: str | None


class HistoryRow(TypedDict, total=False):
    """An epoch in history.jsonl. Numbers that are not finite have become None."""

    event: str
    epoch: int
    loss: float | None
    accuracy: Share | None
    val_loss: float | None
    val_accuracy: Share | None
    learning_rate: float | None
    seconds: float | None
    images_per_second: float | None


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
    sparsity: Share
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
    zeros: Share
    file: str
    bytes: int
    bytes_compressed: int
    latency_ms: NotRequired[float]
    validation_accuracy: NotRequired[Share]


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
    accuracies: list[Share]  # on validation, one per seed
    accuracy: Share
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
    gain_interval: Interval


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
    agreement: Share | None  # share of all images with the same likeliest class, ties aside
    compared: int
    validation_n: int
    validation_accuracy: Share | None
    source_accuracy: Share | None  # of Keras, on the same validation images
    drop: NotRequired[float]  # of int8 only: validation accuracy lost
    drop_interval: NotRequired[Interval]
    hurt_most: NotRequired[list[ClassDrop]]
    max_distance_difference: NotRequired[float]  # of files with the output `distance` only; on the same images
    unlike_agreement: NotRequired[Share]  # share of all images that both or neither find unlike the training images


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
