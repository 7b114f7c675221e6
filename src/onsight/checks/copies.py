"""Exact copies and near-duplicates among the images of a data set, as groups, and as pairs to show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from onsight.checks.measures import Facts
from onsight.checks.near_duplicates import VARIANTS
from onsight.data.dataset import Dataset

IDENTICAL = "identical"
VERY_LIKELY, POSSIBLY = "very likely copies", "possibly copies"


@dataclass(frozen=True)
class Copies:
    """The images that have copies.

    Attributes:
        groups: content -> the images with this content. Holds the contents that have several images or a
            near-duplicate.
        around: content -> the contents that are near-duplicates of it.
    """

    groups: dict[int, list[int]]
    around: dict[int, set[int]]

    def near(self, content: int) -> Iterator[int]:
        """Yield the images with this content or a near-duplicate of it."""
        for each in (content, *self.around[content]):
            yield from self.groups[each]

    def sets(self) -> Iterator[set[int]]:
        """Yield the connected sets of contents: each is a near-duplicate of another one in its set."""
        seen: set[int] = set()
        for start in self.around:
            found: set[int] = set()
            waiting = {start} - seen
            while waiting:
                found |= waiting
                waiting = set().union(*(self.around[each] for each in waiting)) - found
            seen |= found
            if found:
                yield found

    def spare(self) -> int:
        """Return how many contents are left over when one of each connected set of near-duplicates is kept."""
        return len(self.around) - sum(1 for _ in self.sets())


def find_copies(facts: Facts, used: NDArray[np.bool_], only_sure: bool = False) -> Copies:
    """Return the copies among the `used` images; `used` is (n,) and marks readable images only.

    With `only_sure`, near-duplicates are those that are very likely copies, rather than all that are possibly copies.
    """
    index = np.flatnonzero(used)
    order = index[np.argsort(facts.content[index], kind="stable")]
    nodes, starts = np.unique(facts.content[order], return_index=True)
    paired = np.isin(facts.pairs.first, nodes) & np.isin(facts.pairs.second, nodes)
    if only_sure:
        paired &= facts.pairs.sure
    first, second = facts.pairs.first[paired], facts.pairs.second[paired]
    sizes = np.diff(np.append(starts, len(order)))
    shown = (sizes > 1) | np.isin(nodes, first) | np.isin(nodes, second)
    groups = {
        node: order[start : start + size].tolist()
        for node, start, size in zip(nodes[shown].tolist(), starts[shown].tolist(), sizes[shown].tolist(), strict=True)
    }
    around: dict[int, set[int]] = {node: set() for node in groups}
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        around[one].add(other)
        around[other].add(one)
    return Copies(groups, around)


def links(dataset: Dataset, facts: Facts, copies: Copies) -> list[tuple[int, int, str]]:
    """Return pairs (image, image, how they are alike), the most certain first.

    Not all pairs of a group are returned, but enough to show each of its parts and labels.
    """
    found: list[tuple[int, int, str]] = []
    shown = {}
    for content, members in copies.groups.items():
        kinds: dict[tuple[str, int], int] = {}
        for index in members:
            kinds.setdefault((str(dataset.parts[index]), int(dataset.labels[index])), index)
        shown[content] = [*kinds.values()]
        pairs = {(members[0], index) for index in members[1:]} | {*combinations(shown[content], 2)}
        found += [(one, other, IDENTICAL) for one, other in sorted(pairs)]
    columns = facts.pairs.first, facts.pairs.second, facts.pairs.variant, facts.pairs.score, facts.pairs.sure
    for one, other, variant, score, sure in zip(*(column.tolist() for column in columns), strict=True):
        if one in copies.groups and other in copies.groups:
            turned = f"{VARIANTS[variant]}, " * bool(variant)
            how = f"{VERY_LIKELY if sure else POSSIBLY}, {turned}{min(score, 0.999):.1%} alike"
            found += [(min(pair), max(pair), how) for pair in product(shown[one], shown[other])]
    return found
