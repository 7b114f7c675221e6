"""Findings about classes: without images, imbalanced, or too small to be split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from onsight.checks.findings import finding
from onsight.checks.measures import Facts
from onsight.core.records import Finding
from onsight.core.text import count
from onsight.data.dataset import Dataset
from onsight.data.pixel_cache import Pixels
from onsight.data.reading import add_or_exclude
from onsight.data.split import fewest

UNEVEN = 3.0  # least ratio of the images of the largest to those of the smallest class that is reported


def missing(dataset: Dataset, facts: Facts, used: NDArray[np.bool_]) -> Iterator[Finding]:
    """Yield a finding about classes without a readable image in a part, among the `used` images (n,) bool."""
    lacking: dict[str, list[str]] = {}  # class -> the parts without an image of it
    for part in parts_of(dataset):
        there = set(dataset.labels[used & facts.readable & (dataset.parts == part)].tolist())
        what = f"no {part} images" if part else "no images"
        for label, name in enumerate(dataset.classes):
            if label not in there:
                lacking.setdefault(name, []).append(f"{what} of {name}")
    items = [each for name in dataset.classes for each in lacking.get(name, ())]
    if items:
        yield finding(
            "missing class", "error", len(lacking),
            f"{count(len(lacking), 'class has', 'classes have')} no images in a part.",
            f"{_advice(lacking, dataset)}. A class cannot be learned or evaluated without images.",
            [([], each) for each in items],
        )  # fmt: skip


def uneven(dataset: Dataset, facts: Facts, used: NDArray[np.bool_]) -> Iterator[Finding]:
    """Yield a finding about classes that are much smaller than others, among the `used` images (n,) bool."""
    part = "train" if "train" in dataset.parts else ""
    counts = np.bincount(dataset.labels[used & (dataset.parts == part)], minlength=len(dataset.classes))
    there = np.flatnonzero(counts)  # classes without images are another finding
    if not len(there):
        return
    least, most = int(there[counts[there].argmin()]), int(counts.argmax())
    if counts[most] >= UNEVEN * counts[least]:
        smallest = there[counts[there] * UNEVEN <= counts[most]]
        yield finding(
            "imbalance", "warning", len(smallest),
            f"The classes are imbalanced: {counts[most]:,} images of {dataset.classes[most]}, {counts[least]:,} of "
            f"{dataset.classes[least]}.",
            "Collect more images of the small classes, or train with --class-weight balanced. Judge the model by the "
            "recall of each class: accuracy hides the small ones.",
            [([], f"{dataset.classes[label]}: {count(int(counts[label]), 'image')}")
             for label in smallest[np.argsort(counts[smallest], kind="stable")].tolist()],
        )  # fmt: skip


def too_small(dataset: Dataset, pixels: Pixels) -> Iterator[Finding]:
    """Yield a finding about classes with too few distinct images to have one in each part."""
    small = _below(dataset, distinct(dataset, pixels, np.ones(len(dataset), bool)))
    if any(small.values()):  # classes without any image are a finding already
        yield finding(
            "small class", "error", len(small),
            f"{count(len(small), 'class is', 'classes are')} too small to split: at least {fewest(parts_of(dataset))} "
            "distinct images are needed.",
            f"{_advice(small, dataset)}. With --allow-tiny, such a class is used for training only, and never tested.",
            [([], f"{name}: {count(number, 'distinct image')}") for name, number in small.items()],
        )  # fmt: skip


def emptied(dataset: Dataset, pixels: Pixels, kept: NDArray[np.bool_]) -> Iterator[Finding]:
    """Yield a finding about classes that have enough images, but too few of them among the `kept` (n,) bool."""
    before = distinct(dataset, pixels, np.ones(len(dataset), bool))
    small = _below(dataset, distinct(dataset, pixels, kept))
    if any(before[dataset.classes.index(name)] > number for name, number in small.items()):
        yield finding(
            "keep-list", "error", len(small),
            f"The keep-list leaves {count(len(small), 'class', 'classes')} with too few images to split.",
            f"{_advice(small, dataset)} together with --keep-list.",
            [([], f"{name}: {count(number, 'image')} left") for name, number in small.items()],
        )  # fmt: skip


def distinct(dataset: Dataset, pixels: Pixels, used: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return (classes,) the number of distinct readable images that training can use, among the `used` (n,) bool."""
    free = used & np.isin(dataset.parts, ("", "train"))
    free[list(pixels.broken)] = False
    pairs = {*zip(dataset.labels[free].tolist(), pixels.hashes[free].tolist(), strict=True)}
    return np.bincount(np.array([label for label, _ in pairs], np.int64), minlength=len(dataset.classes))


def _below(dataset: Dataset, numbers: NDArray[np.int64]) -> dict[str, int]:
    """Return the classes that are too small to split, and their numbers of images."""
    needed = fewest(parts_of(dataset))
    return {name: number for name, number in zip(dataset.classes, numbers.tolist(), strict=True) if number < needed}


def _advice(names: Iterable[str], dataset: Dataset) -> str:
    advice = add_or_exclude(list(names), dataset.classes, dataset.excluded)
    return f"{advice[0].upper()}{advice[1:]}"


def parts_of(dataset: Dataset) -> list[str]:
    """Return the parts of a data set, training first; images outside of a part count as the part ""."""
    present = set(dataset.parts.tolist())
    return [part for part in ("train", "validation", "test", "") if part in present]
