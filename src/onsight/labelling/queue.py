"""The order in which people are asked about images: those first whose answers help the next training most.

There are three reasons to ask, each with an order of its own, and the queue takes one image of each in turn, so that no
reason starves the others:

- suspect: the image has a label, and the other labels say that it is wrong (`checks.wrong_labels`), or, in a class that
  is too small for that, the model gives it a small probability;
- unsure: it has no label, and the model's two likeliest classes are close (margin sampling: T. Scheffer, C. Decomain,
  S. Wrobel, "Active Hidden Markov Models for Information Extraction", 2001);
- far: it has no label, and is unlike all training images.

Images whose labels fit come last. Copies are asked about once. docs/decisions/labelling.md has what the order brings
against a random one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onsight.checks.copies import find_copies
from onsight.checks.measures import Facts
from onsight.checks.wrong_labels import FEWEST, LIKELY, judge_labels
from onsight.inference.engines import Answers

SHOWN = 5  # likeliest classes that are shown with an image


class Question(NamedTuple):
    """One image to ask about."""

    images: tuple[int, ...]  # indices in the data set: the one that is shown, then its copies
    reason: str  # suspect, unsure, far or fits
    top: tuple[tuple[int, float], ...]  # the likeliest classes, as indices, with their probabilities


def questions(
    labels: NDArray[np.int64],
    readable: NDArray[np.intp],
    facts: Facts,
    features: np.ndarray,
    answers: Answers,
    limit: float | None,
) -> list[Question]:
    """Return every readable image once, in the order of asking.

    Args:
        labels: (n,) indices of the model's classes; -1 for an image without a label.
        readable: (m,) the images that can be read, ascending.
        facts: which of the n images are copies.
        features: (m, features) of the readable images.
        answers: of the model, to the readable images.
        limit: the distance from which an image is unlike the training images; None if the model knows none.
    """
    row_of = {index: row for row, index in enumerate(readable.tolist())}
    copies = copies_of(facts)
    found, taken = [], np.zeros(len(readable), bool)
    for reason, row in order(labels[readable], features, answers, limit):
        if not taken[row]:
            index = int(readable[row])
            members = [index, *(each for each in copies.get(index, ()) if each != index and each in row_of)]
            taken[[row_of[each] for each in members]] = True
            found.append(Question(tuple(members), reason, likeliest(answers.probabilities[row])))
    return found


def order(
    labels: NDArray[np.int64], features: np.ndarray, answers: Answers, limit: float | None
) -> Iterable[tuple[str, int]]:
    """Yield the reason and the row of each of m images, in the order of asking. The arguments are those of m images."""
    known = labels >= 0
    wrong = np.zeros(len(labels))
    wrong[known] = suspicion(labels[known], features[known], answers.probabilities[known])
    suspect = wrong >= LIKELY
    pair = np.sort(answers.probabilities, axis=1)[:, -2:]
    margin = pair[:, 1] - pair[:, 0]
    distance = answers.distances if answers.distances is not None else np.zeros(len(labels))
    far = ~known & (distance > (math.inf if limit is None else limit))

    def sorted_rows(reason: str, which: NDArray[np.bool_], urgency: np.ndarray) -> list[tuple[str, int]]:
        rows = np.flatnonzero(which)
        return [(reason, row) for row in rows[np.argsort(-urgency[rows], kind="stable")].tolist()]

    yield from in_turn(
        [
            sorted_rows("suspect", suspect, wrong),
            sorted_rows("unsure", ~known & ~far, -margin),
            sorted_rows("far", far, distance),
        ]
    )
    yield from sorted_rows("fits", known & ~suspect, wrong)


def suspicion(labels: NDArray[np.int64], features: np.ndarray, probabilities: np.ndarray) -> NDArray[np.float64]:
    """Return (k,) the probability that each of k labels is wrong."""
    if not len(labels):
        return np.zeros(0)
    judged = judge_labels(features, labels).wrong
    small = np.bincount(labels, minlength=probabilities.shape[1])[labels] < FEWEST
    return np.where(small, 1 - probabilities[np.arange(len(labels)), labels], judged)


def copies_of(facts: Facts) -> dict[int, list[int]]:
    """Return image -> all images that are copies of it or of a copy, itself included, in the order of the data set."""
    copies = find_copies(facts, facts.readable, only_sure=True)
    found: dict[int, list[int]] = {}
    for contents in copies.sets():
        members = sorted(itertools.chain.from_iterable(copies.groups[content] for content in contents))
        found |= dict.fromkeys(members, members)
    return found


def in_turn(lists: Iterable[Sequence[tuple[str, int]]]) -> Iterable[tuple[str, int]]:
    """Yield the first of each list, then the second of each, and so on."""
    for row in itertools.zip_longest(*lists):
        yield from (each for each in row if each is not None)


def likeliest(probabilities: np.ndarray) -> tuple[tuple[int, float], ...]:
    """Return the likeliest classes of one image."""
    best = np.argsort(-probabilities, kind="stable")[:SHOWN].tolist()
    return tuple((index, float(probabilities[index])) for index in best)
