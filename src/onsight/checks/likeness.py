"""How alike the images of a set are among themselves, and so how sure it is that an alike pair is a copy. Pure NumPy.

All chest X-rays look alike: two different ones can score as high as two copies of one photo. So a score is judged by
the scores of the different images of the same set, and never by itself:

1. Scores are compared as z = artanh(score), Fisher's transform, which spreads correlations near 1.
2. The different images. Their scores are those below `top`, which is 0.9, or more if the pairs above 0.9 join a tenth
   of the set into one group. (Copies form many small groups. Pairs that alike images form by chance join nearly all
   images into one group once there are more than half as many pairs as images: P. Erdős, A. Rényi, "On the Evolution of
   Random Graphs", 1960.)
3. Their tail. Above a high level u, the excess of a sample is nearly exponential (J. Pickands, "Statistical Inference
   Using Extreme Order Statistics", 1975; the exponential is the limit for the tails of a normal distribution, and
   Fisher's z is nearly normal). So the number of pairs of different images that score at least z is expected to be
   E(z) = c exp(-(z - u) / b). The level u is the score of the 2n-th pair below `top` (of n images), but of a quarter
   of these pairs at most. The scale b solves the median of an exponential that is cut off at `top`, because the median
   hardly moves if a few copies are among these pairs. Then c follows from the number of pairs between u and `top`.
4. The doubt about a pair. E falls from z to z + b by the factor 1/e. So (1 - 1/e) E(z) false pairs are expected there,
   and the doubt is this number divided by the number of pairs that were found there: an estimate of the local false
   discovery rate (B. Efron, "Large-Scale Simultaneous Hypothesis Testing", 2004). A higher score never has more doubt.

If a set has fewer such scores than images, its images do not resemble each other. Then E cannot be estimated, and need
not be: 0.9 was chosen by looking at pairs of such sets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SURE, POSSIBLE = 0.1, 0.5  # most doubt about a pair that is called very likely a copy, and possibly one
BETWEEN = 0.33  # doubt about a pair just below the floor: of those that were looked at, about a third were different
TOO_ALIKE = 0.999  # a set in which single pairs are sure only above this score is too alike: few copies score more
SCORES = 100  # least number of scores of different images for an estimate
GROUP, GROUP_SHARE = 50, 0.1  # copies form groups of at most so many images, or of this share of the set
HIGHEST = 0.999999  # a score of 1 has no artanh


def judge(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    score: NDArray[np.float32],
    images: int,
    floor: float,
    lowest: float,
) -> tuple[NDArray[np.float32], float]:
    """Return (m,) doubts, and the least score at which a single pair would be very likely a copy.

    A doubt is the expected share of different images among the pairs of about this score, 0 to 1.

    Args:
        first: (m,) index of one image of each compared pair.
        second: (m,) index of the other.
        score: (m,) correlations; 0 if the whole images do not correlate.
        images: number of images that were compared.
        floor: the least score of a copy that is very likely, in any set.
        lowest: the least score of a copy that is possible. A pair between the two is never more than possible.
    """
    doubt = np.select([score >= floor, score >= lowest], [0, BETWEEN], 1).astype(np.float32)
    top = _top(first, second, score, images, floor)
    z = _fisher(score)
    different = np.sort(z[(score > 0) & (z < top)])
    if len(different) < max(SCORES, images):
        return doubt, floor
    number = max(SCORES // 2, min(2 * images, len(different) // 4))
    level = different[-number]
    scale = _scale(different[-number:] - level, top - level)
    whole = number / -np.expm1(-(top - level) / scale)  # the number above the level if none were cut off at the top
    near = np.flatnonzero(z >= _fisher(lowest))
    near = near[np.argsort(z[near], kind="stable")]
    found = np.searchsorted(z[near], z[near] + scale) - np.searchsorted(z[near], z[near])
    expected = -np.expm1(-1) * whole * np.exp(-(z[near] - level) / scale)
    estimated = np.minimum.accumulate(np.minimum(expected / np.maximum(found, 1), 1))
    doubt[near] = np.maximum(doubt[near], estimated)
    limit = max(floor, float(np.tanh(level + scale * np.log(-np.expm1(-1) * whole / SURE))))
    if limit > TOO_ALIKE:
        doubt[:] = 1
    return doubt, limit


def _fisher(score: NDArray[np.float32] | float) -> NDArray[np.float64]:
    return np.arctanh(np.clip(np.asarray(score, np.float64), 0, HIGHEST))


def _top(
    first: NDArray[np.int64], second: NDArray[np.int64], score: NDArray[np.float32], images: int, floor: float
) -> float:
    """Return the z below which scores are those of different images."""
    leader: dict[int, int] = {}
    size: dict[int, int] = {}

    def find(image: int) -> int:
        while leader.setdefault(image, image) != image:
            leader[image] = image = leader[leader[image]]
        return image

    most = max(GROUP, GROUP_SHARE * images)
    high = np.flatnonzero(score >= floor)
    for pair in high[np.argsort(-score[high], kind="stable")].tolist():
        one, other = find(int(first[pair])), find(int(second[pair]))
        if one != other:
            leader[one] = other
            size[other] = size.get(other, 1) + size.get(one, 1)
            if size[other] > most:
                return float(_fisher(float(score[pair])))
    return float(_fisher(floor))


def _scale(excess: NDArray[np.float64], width: float) -> float:
    """Return the scale of the exponential whose median is that of `excess`, which is cut off at `width`."""
    middle = float(np.median(excess))
    low, high = 1e-6, 100 * width  # at the higher end the excess is uniform: its median is half the width
    for _ in range(60):
        scale = (low * high) ** 0.5
        # The median of a truncated exponential grows with its scale.
        if -scale * np.log1p(0.5 * np.expm1(-width / scale)) < middle:
            low = scale
        else:
            high = scale
    return high
