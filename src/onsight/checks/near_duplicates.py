"""Near-duplicates among images: a hash proposes pairs, pixels score them, the set decides. Pure NumPy.

1. Hash: each image is reduced to 32 x 32 grey pixels, and these to the 63 lowest coefficients of their cosine transform
   (all but the mean). The hash consists of the signs of the coefficients: brightness, contrast, colour and JPEG hardly
   change them.
2. Variants: mirroring and rotation by 90 degrees only swap coefficients and change signs, so the hashes of all eight
   variants cost next to nothing. A crop moves the content of an image, so each image is also searched for with a border
   of 1.5 px cut off.
3. Candidates: a table sorts the hashes by a random choice of their bits. Each of the 16 variants of an image is
   compared with the eight hashes around its position in the table. Twelve tables are used. Most copies are upright, so
   in sets of up to 200,000 images the two upright variants are looked up in 84 further tables. (These are the sorted
   permutations of M. Charikar, "Similarity Estimation Techniques from Rounding Algorithms", STOC 2002.) The cost is
   n log n for any images: a position has a fixed number of neighbours, while a bucket could hold any number.
4. Pixels: least squares align one image to the other in position, size, brightness and contrast (the steps of B. Lucas,
   T. Kanade, "An Iterative Image Registration Technique", IJCAI 1981), and the other to the one, because either may
   fail. The score is the higher correlation of the details. Details are what remains after subtracting a blurred copy:
   two empty skies share a gradient, but no details.
5. Set: `likeness` judges the scores by those of the different images of the set. A pair is kept if its score is at
   least 0.88 (0.9 if it is to be very likely) and it is at least possible that the two are copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onsight.checks import likeness
from onsight.core.progress import Progress

SIDE = 32  # side of the compared images, in pixels
LOW = 8  # coefficients per side
ZOOM = 1.5  # width of the border that a zoomed query cuts off, in pixels
TABLES, WINDOW = 12, 4  # number of sorted tables; neighbours compared on either side of a position
UPRIGHT, UPRIGHT_IMAGES = 84, 200_000  # further tables, for upright copies only, in sets of up to so many images
DISTANCE = 20  # most bits, of 63, in which candidates differ; unrelated images differ in 31 on average
ALIKE = 0.72  # least correlation of the coefficients for the pixels to be compared
DETAILS, MAYBE = 0.9, 0.88  # least correlation of the aligned details, in any set, of likely and of possible copies
WHOLE = 0.9  # least correlation of the aligned images
TURNED = 0.975  # the same as DETAILS for a rotated pair: two silhouettes against the sky fit in one of the rotations
FLAT = 4.0  # standard deviation in grey levels; an image below it has no texture to compare
STEPS, REACH = 2, 4.0  # steps of an alignment, which runs twice; most pixels by which it moves a border
CHUNK, BATCH = 4096, 128  # images read at a time; pairs aligned at a time

VARIANTS = (  # turns the first image of a pair into the second; the index is 4 x transposed + 2 x flipped + mirrored
    "", "mirrored", "upside down", "turned by 180°",
    "mirrored and turned by 90°", "turned by 90°", "turned by 90°", "mirrored and turned by 90°",
)  # fmt: skip

Floats = NDArray[np.float32]
Codes = NDArray[np.uint64]


class Pairs(NamedTuple):
    """Pairs of images, each pair once."""

    first: NDArray[np.int64]  # (m,)
    second: NDArray[np.int64]  # (m,)
    variant: NDArray[np.int64]  # (m,) index into VARIANTS
    score: Floats  # (m,) correlation of the aligned details, at most 1
    doubt: Floats  # (m,) expected share of different images among the set's pairs of about this score
    limit: float  # least score at which a single pair of this set would be very likely a copy

    @property
    def sure(self) -> NDArray[np.bool_]:
        """(m,) bool: whether a pair is very likely a copy, rather than possibly."""
        return np.asarray(self.doubt <= likeness.SURE)


def no_pairs() -> Pairs:
    """Return no pairs, of a set whose images do not resemble each other."""
    none, nothing = np.empty(0, np.int64), np.empty(0, np.float32)
    return Pairs(none, none, none, nothing, nothing, DETAILS)


def find_pairs(images: np.ndarray, chosen: NDArray[np.int64] | None = None, progress: Progress | None = None) -> Pairs:
    """Return the near-duplicates among `images`, the most similar first.

    Images without texture, with a standard deviation below 4 grey levels, are never part of a pair.

    Args:
        images: (n, S, S, 3) uint8 RGB; S is a multiple of 32.
        chosen: (k,) indices of the images to compare; None compares all.
        progress: called with (task, items done, items in total).
    """
    chosen = np.arange(len(images)) if chosen is None else chosen
    plain, zoomed, deviation = _coefficients(images, chosen, progress)
    textured = chosen[deviation >= FLAT]
    bases = plain[deviation >= FLAT], zoomed[deviation >= FLAT]
    queries = [(base, variant) for base in bases for variant in range(len(VARIANTS))]
    codes = [_codes(_turn_coefficients(base, variant)) for base, variant in queries]
    proposed = [(np.empty(0, np.int64),) * 3 + (np.empty(0, np.float32),)]
    for number, asking, found in candidates(codes[0], codes, progress):
        base, variant = queries[number]
        alike = np.einsum("ij,ij->i", _turn_coefficients(base[asking], variant), bases[0][found])
        kept = alike > ALIKE
        proposed.append((asking[kept], found[kept], np.full(np.count_nonzero(kept), number), alike[kept]))
    first, second, ways, alike = (np.concatenate(each) for each in zip(*proposed, strict=True))

    # A pair may be found as several variants: keep the one that is most alike.
    pair = np.minimum(first, second) * len(textured) + np.maximum(first, second)
    order = np.lexsort((-alike, pair))
    best = order[np.unique(pair[order], return_index=True)[1]]
    zoom, turns = np.divmod(ways[best], len(VARIANTS))
    first, second = textured[first[best]], textured[second[best]]
    score = _compare(images, first, second, turns, ZOOM * zoom.astype(np.float32), progress)
    score[(turns > 1) & (score >= MAYBE) & (score < TURNED)] = 0
    doubt, limit = likeness.judge(first, second, score, len(textured), DETAILS, MAYBE)
    kept = np.flatnonzero(doubt <= likeness.POSSIBLE)
    best = kept[np.argsort(-score[kept], kind="stable")]
    return Pairs(first[best], second[best], turns[best], score[best], doubt[best], limit)


def candidates(
    codes: Codes, queries: Sequence[Codes], progress: Progress | None = None, seed: int = 0
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield pairs of hashes that differ in at most 20 bits: (number of the query, indices into it, into `codes`).

    Some pairs are missed: a pair is found only if its first bits agree in one of the tables. A pair may be yielded more
    than once. An index is never paired with itself.

    Args:
        codes: (n,) hashes of 63 bits, with the coarsest coefficient in the highest bit.
        queries: each (n,): further hashes of the same images, in the order of VARIANTS. Every eighth is upright.
        progress: called with (task, tables done, tables in total).
        seed: of the choice of bits.
    """
    rng = np.random.default_rng(seed)
    row, column = np.divmod(np.arange(1, LOW * LOW), LOW)
    # Coarse coefficients survive a crop and fine ones do not, so coarse ones come first more often. (Sorting random
    # exponential times is a weighted drawing without replacement.)
    pace = (1.0 + row + column) ** 1.5
    tables = TABLES + UPRIGHT * (len(codes) <= UPRIGHT_IMAGES)
    asked = [*enumerate(queries)]
    with ThreadPoolExecutor() as threads:
        for table in range(tables):
            if progress:
                progress("comparing hashes", table, tables)
            if table == TABLES:
                asked = asked[:: len(VARIANTS)]
            bits = np.argsort(rng.exponential(size=len(pace)) * pace)[:32]
            keys = _pick(codes, bits)
            order = np.argsort(keys, kind="stable")
            search = partial(_neighbours, codes[order], keys[order], order, bits)
            for (number, _), pairs in zip(asked, threads.map(search, (query for _, query in asked)), strict=True):
                yield number, *pairs
    if progress:
        progress("comparing hashes", tables, tables)


def _neighbours(
    codes: Codes, keys: NDArray[np.uint32], order: NDArray[np.int64], bits: NDArray[np.int64], query: Codes
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (indices into `query`, indices into the unsorted codes) of the near hashes around each query's position.

    `codes` and `keys`, their picked bits, are sorted by the keys; `order` holds their positions before sorting.
    """
    own = _pick(query, bits)
    turn = np.argsort(own)  # sorted queries read memory in order, which is three times as fast for a million hashes
    query, place = query[turn], np.searchsorted(keys, own[turn])
    asking, found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(query), 16 * CHUNK):
        part = slice(start, start + 16 * CHUNK)
        for step in range(-WINDOW, WINDOW):
            near = place[part] + step
            inside = (near >= 0) & (near < len(codes))
            near[~inside] = 0
            close = np.flatnonzero(inside & (np.bitwise_count(codes[near] ^ query[part]) <= DISTANCE))
            one, other = turn[start + close], order[near[close]]
            asking.append(one[one != other])
            found.append(other[one != other])
    return np.concatenate(asking), np.concatenate(found)


def _pick(codes: Codes, bits: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return (n,) the 32 `bits` of each code, the first bit highest. Bit 0 is the highest of 63."""
    keys = np.zeros(len(codes), np.uint32)
    octets = np.arange(256)
    for octet in range(8):  # eight lookup tables of 256 entries take a tenth of the time of 32 shifts
        table = np.zeros(256, np.uint32)
        for rank, bit in enumerate(bits.tolist()):
            if (62 - bit) // 8 == octet:
                table |= ((octets >> ((62 - bit) % 8) & 1) << (31 - rank)).astype(np.uint32)
        keys |= table[(codes >> np.uint64(8 * octet)).astype(np.uint8)]
    return keys


def _basis(cut: float) -> Floats:
    """Return the (8, 32) matrix that maps 32 values to their lowest cosine coefficients.

    `cut` values are first cut off at either end, and the rest is stretched to 32.
    """
    at = np.clip(cut + (np.arange(SIDE) + 0.5) * (1 - 2 * cut / SIDE) - 0.5, 0, SIDE - 1)
    stretch = np.maximum(0, 1 - abs(at[:, np.newaxis] - np.arange(SIDE)))  # linear, (32 new, 32 old)
    cosines = np.cos(np.pi * np.arange(LOW)[:, np.newaxis] * (np.arange(SIDE) + 0.5) / SIDE)
    return np.asarray(cosines @ stretch, np.float32)


def _coefficients(
    images: np.ndarray, chosen: NDArray[np.int64], progress: Progress | None
) -> tuple[Floats, Floats, Floats]:
    """Return the coefficients (k, 64) of the images, those of their zoomed centres, and (k,) standard deviations.

    The coefficients of an image are a vector of length 1. In photos a coefficient falls with its frequency; weights of
    the square root of the frequency make the coefficients tell images apart best.
    """
    frequency = np.hypot(*np.mgrid[:LOW, :LOW])
    weights = np.sqrt(frequency).astype(np.float32).ravel()
    plain, zoomed = (np.empty((len(chosen), LOW * LOW), np.float32) for _ in range(2))
    deviation = np.empty(len(chosen), np.float32)
    for start in range(0, len(chosen), CHUNK):
        part = slice(start, start + CHUNK)
        grey = _grey(images[chosen[part]])
        deviation[part] = grey.std(axis=(1, 2))
        for vectors, basis in ((plain, _basis(0)), (zoomed, _basis(ZOOM))):
            vectors[part] = (basis @ grey @ basis.T).reshape(-1, LOW * LOW) * weights
            vectors[part] /= np.maximum(np.linalg.norm(vectors[part], axis=1, keepdims=True), 1e-6)
        if progress:
            progress("hashing images", min(start + CHUNK, len(chosen)), len(chosen))
    return plain, zoomed, deviation


def _grey(images: np.ndarray) -> Floats:
    """Return (m, 32, 32) grey levels of (m, S, S, 3) uint8 RGB: BT.601 luma, averaged over squares."""
    count, size = images.shape[:2]
    if size % SIDE or images.shape[2] != size:
        raise ValueError(f"Images have {images.shape[1:3]} pixels; expected squares whose side is a multiple of {SIDE}")
    luma = images @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.asarray(luma.reshape(count, SIDE, size // SIDE, SIDE, size // SIDE).mean(axis=(2, 4)))


def _turn_coefficients(vectors: Floats, variant: int) -> Floats:
    """Return the coefficients (m, 64) of the same images in another variant.

    Transposing an image transposes its coefficients. Mirroring an image changes the sign of its odd coefficients.
    """
    square = vectors.reshape(-1, LOW, LOW)
    if variant & 4:
        square = square.transpose(0, 2, 1)
    odd = np.float32(1) - 2 * (np.arange(LOW, dtype=np.float32) % 2)
    if variant & 2:
        square = square * odd[:, np.newaxis]
    if variant & 1:
        square = square * odd
    return square.reshape(-1, LOW * LOW)


def _turn_images(grey: Floats, variant: NDArray[np.int64]) -> Floats:
    """Return (m, 32, 32) images, each in its `variant`."""
    turned = np.where((variant & 4 > 0)[:, np.newaxis, np.newaxis], grey.transpose(0, 2, 1), grey)
    turned = np.where((variant & 2 > 0)[:, np.newaxis, np.newaxis], turned[:, ::-1], turned)
    return np.where((variant & 1 > 0)[:, np.newaxis, np.newaxis], turned[:, :, ::-1], turned)


def _codes(vectors: Floats) -> Codes:
    """Return (n,) hashes of 63 bits: which coefficients are positive, with the coarsest in the highest bit."""
    return np.packbits(vectors > 0, axis=1).view(">u8")[:, 0].astype(np.uint64)  # the mean's weight and bit are 0


def _compare(
    images: np.ndarray,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    variant: NDArray[np.int64],
    zoom: Floats,
    progress: Progress | None,
) -> Floats:
    """Return (m,) scores: the higher correlation of the details of a pair, of the two ways to align it."""
    scores = np.zeros(len(first), np.float32)

    def compare(start: int) -> None:
        part = slice(start, start + BATCH)
        upper = _binomial(_turn_images(_grey(images[first[part]]), variant[part]))
        lower = _binomial(_grey(images[second[part]]))
        scores[part] = np.maximum(_details(upper, lower, zoom[part]), _details(lower, upper, -zoom[part]))

    with ThreadPoolExecutor() as threads:
        starts = range(0, len(first), BATCH)
        for start, _ in zip(starts, threads.map(compare, starts), strict=True):
            if progress:
                progress("comparing pixels", min(start + BATCH, len(first)), len(first))
    return scores


def _details(upper: Floats, lower: Floats, zoom: Floats) -> Floats:
    """Return (m,) correlations of the details once `upper` is aligned; 0 if the whole images do not correlate."""
    none = np.zeros_like(zoom)
    laid, seen, moves = _align(upper, lower, np.stack([none, -zoom, none, -zoom], axis=1))
    # One pair in ten is aligned further: those that end above the limits are already above this one here.
    near = np.flatnonzero(_correlation(laid, lower, seen) >= WHOLE)
    lower = lower[near]
    laid, seen, _ = _align(upper[near], lower, moves[near])
    details = _correlation(laid - _mean5(laid), lower - _mean5(lower), seen)
    scores = none
    scores[near] = np.where(_correlation(laid, lower, seen) >= WHOLE, details, 0)
    return scores


def _align(upper: Floats, lower: Floats, moves: Floats) -> tuple[Floats, Floats, Floats]:
    """Align `upper` to `lower` by least squares in brightness, contrast, position and size.

    Args:
        upper: (m, 32, 32) images to move.
        lower: (m, 32, 32) images that stay.
        moves: (m, 4) initial moves: shift and stretch of the rows, then of the columns, in pixels at the border.

    Returns:
        `upper` moved and stretched, a mask of the pixels that it covers, and the final moves.
    """
    pixels = np.arange(SIDE, dtype=np.float32)
    centred = (pixels - (SIDE - 1) / 2) / ((SIDE - 1) / 2)  # -1 to 1
    for step in range(STEPS + 1):
        rows = pixels + moves[:, :1] + moves[:, 1:2] * centred
        columns = pixels + moves[:, 2:3] + moves[:, 3:] * centred
        laid = _sample(_sample(upper, rows).transpose(0, 2, 1), columns).transpose(0, 2, 1)
        seen = (_inside(rows)[:, :, np.newaxis] & _inside(columns)[:, np.newaxis]).astype(np.float32)
        if step == STEPS:
            break
        down, right = np.gradient(laid, axis=(1, 2))
        terms = np.empty((len(laid), 6, SIDE, SIDE), np.float32)
        terms[:, 0], terms[:, 1] = laid, 1
        terms[:, 2], terms[:, 3] = down, down * centred[:, np.newaxis]
        terms[:, 4], terms[:, 5] = right, right * centred
        weighed = (terms * seen[:, np.newaxis]).reshape(len(laid), 6, SIDE * SIDE)
        normal = weighed @ terms.reshape(len(laid), 6, SIDE * SIDE).transpose(0, 2, 1)
        diagonal = np.einsum("nii->ni", normal)  # a view
        diagonal += 1e-3 * diagonal + 1e-3  # regularises: an edge does not determine the shift along itself
        solved = np.linalg.solve(normal, weighed @ lower.reshape(len(laid), SIDE * SIDE, 1))[:, :, 0]
        contrast = np.maximum(solved[:, :1], 0.2)  # a pair with negative contrast is no copy; it must just not move far
        moves = np.clip(moves + np.clip(solved[:, 2:] / contrast, -1.5, 1.5), -REACH, REACH)
    return laid, seen, moves


def _sample(images: Floats, rows: Floats) -> Floats:
    """Return (m, 32, 32): `images` sampled at `rows`, (m, 32) in pixels, with linear interpolation."""
    upper = np.clip(np.floor(rows), 0, SIDE - 2).astype(np.int64)
    share = np.clip(rows - upper, 0, 1).astype(np.float32)[:, :, np.newaxis]
    each = np.arange(len(images))[:, np.newaxis]
    return np.asarray(images[each, upper] * (1 - share) + images[each, upper + 1] * share)


def _inside(position: Floats) -> NDArray[np.bool_]:
    return (position >= -0.5) & (position <= SIDE - 0.5)


def _correlation(one: Floats, other: Floats, weights: Floats) -> Floats:
    """Return (m,) correlations of two (m, 32, 32) arrays over the pixels whose weight is 1."""
    share = weights / weights.sum(axis=(1, 2), keepdims=True)
    one = one - (share * one).sum(axis=(1, 2), keepdims=True)
    other = other - (share * other).sum(axis=(1, 2), keepdims=True)
    variances = (share * one * one).sum(axis=(1, 2)) * (share * other * other).sum(axis=(1, 2))
    return np.asarray((share * one * other).sum(axis=(1, 2)) / np.sqrt(variances + 1e-6))


def _binomial(grey: Floats) -> Floats:
    """Return (m, 32, 32) blurred by 1 2 1 in both directions, to suppress the noise of JPEG and of resizing."""
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return np.asarray((rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16)


def _mean5(grey: Floats) -> Floats:
    """Return (m, 32, 32) means over 5 x 5 pixels."""
    padded = np.pad(grey, ((0, 0), (2, 2), (2, 2)), mode="edge")
    rows = np.sum([padded[:, k : k + SIDE] for k in range(5)], axis=0)
    return np.asarray(np.sum([rows[:, :, k : k + SIDE] for k in range(5)], axis=0) / 25)
