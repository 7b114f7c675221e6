"""Findings about copies: between parts, under two labels, and within a part.

Identical copies between parts or under two labels are errors. Near-duplicates are warnings, because the images may be
different: each item says how sure it is that they are copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from onsight.checks.copies import IDENTICAL, Copies, find_copies, links
from onsight.checks.findings import finding
from onsight.checks.likeness import TOO_ALIKE
from onsight.checks.measures import Facts
from onsight.core.records import Finding
from onsight.core.text import count
from onsight.data.dataset import Dataset

PARTS = ("test", "validation", "train")  # a copy in a later part leaks into an earlier one
ALIKE = 0.95  # the images of a set resemble each other if single pairs are sure only above this score

Pair = tuple[int, int, str]
Shown = tuple[list[str], str]


def copy_findings(dataset: Dataset, facts: Facts, used: NDArray[np.bool_]) -> Iterator[Finding]:
    """Yield the findings about copies among the `used` images; `used` is (n,) and marks readable images only."""
    copies, sure = find_copies(facts, used), find_copies(facts, used, only_sure=True)
    pairs = links(dataset, facts, copies)
    for held, other in combinations(PARTS, 2):
        total = int(np.count_nonzero(used & (dataset.parts == held)))
        yield from _leaks(dataset, (copies, sure), pairs, held, other, total)
    yield from _two_labels(dataset, copies, sure, pairs)
    yield from _within(dataset, copies, sure, pairs)
    yield from _alike(facts, int(used.sum()))


def _leaks(
    dataset: Dataset, found: tuple[Copies, Copies], pairs: list[Pair], held: str, other: str, total: int
) -> Iterator[Finding]:
    """Yield the copies between two parts; `found` are all copies and the sure ones, `total` the images of `held`."""
    parts = dataset.parts.tolist()

    def leaking(copies: Copies) -> tuple[int, int]:
        """Return how many images of `held` have an identical copy in `other`, and how many have only near ones."""
        exact = near = 0
        for content, members in copies.groups.items():
            inside = sum(parts[index] == held for index in members)
            if any(parts[index] == other for index in members):
                exact += inside
            elif any(parts[index] == other for index in copies.near(content)):
                near += inside
        return exact, near

    where = f"the {'training' if other == 'train' else other} images"
    across = [
        (one, two, how) if parts[one] == held else (two, one, how)
        for one, two, how in pairs
        if {parts[one], parts[two]} == {held, other}
    ]
    (exact, near), (_, certain) = leaking(found[0]), leaking(found[1])
    if exact:
        yield finding(
            "leak", "error", exact,
            f"{exact:,} {_share(exact, total, held)} an identical copy among {where}.",
            f"Remove the copies from {where}, by hand or with a keep-list: otherwise metrics reward memorising.",
            _items(dataset, [pair for pair in across if pair[2] == IDENTICAL]),
        )  # fmt: skip
    if near:
        yield finding(
            "near leak", "warning", near,
            f"{_at_least(certain, near)} {_share(near, total, held)} a near-duplicate among {where}.",
            f"Look at them: metrics reward memorising if they are copies. Then remove them from {where}. A keep-list "
            "leaves out the very likely ones only.",
            _items(dataset, [pair for pair in across if pair[2] != IDENTICAL]),
        )  # fmt: skip


def _two_labels(dataset: Dataset, copies: Copies, sure: Copies, pairs: list[Pair]) -> Iterator[Finding]:
    labels = dataset.labels.tolist()

    def conflicting(copies: Copies) -> tuple[int, int]:
        """Return how many images have an identical copy with another label, and how many have only near ones."""
        exact = near = 0
        for content, members in copies.groups.items():
            if len({labels[index] for index in members}) > 1:
                exact += len(members)
            elif len({labels[index] for index in copies.near(content)}) > 1:
                near += len(members)
        return exact, near

    across = [pair for pair in pairs if labels[pair[0]] != labels[pair[1]]]
    (exact, near), (_, certain) = conflicting(copies), conflicting(sure)
    if exact:
        yield finding(
            "two labels", "error", exact,
            f"{count(exact, 'image has', 'images have')} an identical copy with another label.",
            "Decide which label is right, and remove the other images. A keep-list removes all of them.",
            _items(dataset, [pair for pair in across if pair[2] == IDENTICAL]),
        )  # fmt: skip
    if near:
        yield finding(
            "near labels", "warning", near,
            f"{_at_least(certain, near)} {'image has' if near == 1 else 'images have'} a near-duplicate with another "
            "label.",
            "Look at them. If they are copies, decide which label is right, and remove the other images. A keep-list "
            "removes all of the very likely ones.",
            _items(dataset, [pair for pair in across if pair[2] != IDENTICAL]),
        )  # fmt: skip


def _within(dataset: Dataset, copies: Copies, sure: Copies, pairs: list[Pair]) -> Iterator[Finding]:
    exact = sum(len(members) - 1 for members in copies.groups.values())
    if exact:
        yield finding(
            "exact copy", "warning", exact,
            f"{count(exact, 'image is an exact copy', 'images are exact copies')} of another image.",
            "Keep one of each group: the others only count twice. A keep-list does this.",
            _items(dataset, [pair for pair in pairs if pair[2] == IDENTICAL]),
        )  # fmt: skip
    near = copies.spare()
    if near:
        split = (
            "" if "train" in dataset.parts else " A random split can put one into training and the other into the test."
        )
        yield finding(
            "near copy", "warning", near,
            f"{_at_least(sure.spare(), near)} {'image is' if near == 1 else 'images are'} nearly the same as another "
            f"image.{split}",
            "Look at them, and keep one of each group unless the differences matter. A keep-list does this with the "
            "very likely ones.",
            _items(dataset, [pair for pair in pairs if pair[2] != IDENTICAL]),
        )  # fmt: skip


def _alike(facts: Facts, images: int) -> Iterator[Finding]:
    """Yield how alike the images of the set are, if that limits which near-duplicates can be found."""
    limit = facts.pairs.limit
    if limit > TOO_ALIKE:
        yield finding(
            "alike", "note", images,
            "The images of this set resemble each other so much that near-duplicates cannot be told from different "
            "images: only identical ones are reported.",
            "Look for copies by other means, such as the numbers of patients, scenes or recordings.", [],
        )  # fmt: skip
    elif limit > ALIKE:
        yield finding(
            "alike", "note", images,
            f"The images of this set resemble each other: a single pair is very likely a near-duplicate only if it is "
            f"at least {limit:.1%} alike, instead of 90%.",
            "Expect to miss copies that were cropped or changed. Different images of one patient, scene or recording "
            "are not reported: keep them in one part of the split.", [],
        )  # fmt: skip


def _share(number: int, total: int, held: str) -> str:
    verb = "has" if number == 1 else "have"
    return f"of {total:,} {held} images ({number / total:.2%}) {verb}"


def _at_least(certain: int, number: int) -> str:
    """Return a number of near-duplicates, of which `certain` are very likely. More may exist: not all are found.

    >>> _at_least(4, 4), _at_least(3, 4), _at_least(0, 4)
    ('At least 4', 'At least 3, possibly 4', 'Possibly 4')
    """
    if certain >= number:
        return f"At least {number:,}"
    return f"At least {certain:,}, possibly {number:,}" if certain else f"Possibly {number:,}"


def _items(dataset: Dataset, pairs: list[Pair]) -> list[Shown]:
    parts, labels = dataset.parts.tolist(), dataset.labels.tolist()
    found = []
    for first, second, how in pairs:
        names = [dataset.classes[labels[first]], dataset.classes[labels[second]]]
        place = f"{parts[first]} and {parts[second]}, " if parts[first] != parts[second] else ""
        note = f"{place}{' and '.join(dict.fromkeys(names))}; {how}"
        found.append(([dataset.names[first], dataset.names[second]], note))
    return found
