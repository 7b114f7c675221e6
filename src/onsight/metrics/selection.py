"""The accuracy of the best of several candidates, corrected for having been chosen on the images it is measured on.

The best of twenty equal candidates looks better than it is, because luck helped to choose it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onsight.metrics.intervals import Difference, paired, share_interval

DRAWS = 1000  # bootstrap samples
AT_ONCE = 100  # of them in memory at a time


class Chosen(NamedTuple):
    """The best of k candidates, and what it is worth."""

    best: int  # its row; of equal candidates the first
    measured: float  # its accuracy on the images that chose it
    accuracy: float  # the accuracy to expect on other images
    low: float  # the 95 % interval of `accuracy`
    high: float
    difference: Difference | None  # from the first row, on other images; None if the first row is the best


def choose(right: np.ndarray, tried: int | None = None, seed: int = 0) -> Chosen:
    """Return the candidate with the most right answers and a corrected estimate of its accuracy.

    The estimate is that of Tsamardinos, Greasidou and Borboudakis 2018 ("Bootstrapping the out-of-sample predictions
    for efficient and accurate cross-validation", Machine Learning 107, 1895-1922). The choice is repeated on bootstrap
    samples of the images. Each chosen candidate is scored on the images that its sample lacks, and the mean of these
    scores is the estimate. Its interval is Wilson's for as many images.

    The difference from the first row is corrected in the same way. Its p is the exact McNemar p times `tried`
    (Bonferroni), because any candidate could have been chosen.

    Args:
        right: (k, n) bool, whether each candidate classifies each image correctly. The first row is the reference.
        tried: the number of candidates besides the reference, including those that were dropped earlier; by default
            k - 1.
        seed: of the bootstrap.
    """
    hits = right.sum(axis=1)
    best, n = int(hits.argmax()), right.shape[1]
    own, over_reference = bootstrap(right, seed)
    low, high = share_interval(round(own * n), n)
    difference = None
    if best:
        raw = paired(int((right[0] & ~right[best]).sum()), int((right[best] & ~right[0]).sum()), n)
        shift = over_reference - raw.value
        p = min(1.0, raw.p * (len(right) - 1 if tried is None else tried))
        difference = Difference(over_reference, max(-1.0, raw.low + shift), min(1.0, raw.high + shift), p)
    return Chosen(best, hits[best] / n, own, low, high, difference)


def bootstrap(right: np.ndarray, seed: int) -> tuple[float, float]:
    """Return two means over bootstrap samples: the accuracy of the chosen row, and its lead over the first row.

    Both are measured on the images that a sample lacks.
    """
    rng = np.random.default_rng(seed)
    n = right.shape[1]
    answers = right.astype(np.float32)  # (k, n)
    scores = np.zeros(2)
    used = 0
    for _ in range(DRAWS // AT_ONCE):
        # How often each sample has each image, (draws, n): faster than `rng.multinomial`.
        places = rng.integers(0, n, (AT_ONCE, n)) + n * np.arange(AT_ONCE)[:, None]
        drawn = np.bincount(places.ravel(), minlength=AT_ONCE * n).reshape(AT_ONCE, n).astype(np.float32)
        chosen = (answers @ drawn.T).argmax(axis=0)  # (draws,)
        left_out = (drawn == 0).astype(np.float32)
        size = left_out.sum(axis=1)
        shares = (answers @ left_out.T) / np.maximum(size, 1)  # (k, draws)
        own = shares[chosen, np.arange(AT_ONCE)]
        some = size > 0  # one or two images may all be drawn
        scores += own[some].sum(), (own - shares[0])[some].sum()
        used += int(some.sum())
    if not used:  # a single image: nothing is known beyond it
        return float(right[right.sum(axis=1).argmax()].mean()), 0.0
    return float(scores[0] / used), float(scores[1] / used)
