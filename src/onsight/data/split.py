"""Split a data set into training, validation and test images: stable, seeded, and by content.

Each image's content hash is mixed with the seed into a number u in [0, 1). If both parts are split off, an image with u
below `test` is for the test, below `test` + `validation` for validation, and otherwise for training. Therefore

- the same seed gives the same split on every machine, in whatever order the images are listed;
- added images do not move the existing ones;
- identical images get the same u, so no image is both trained on and tested on;
- each class is divided in about these shares, because u is independent of the class.

The mixing is the finaliser of SplitMix64: G. L. Steele, D. Lea, C. H. Flood, "Fast Splittable Pseudorandom Number
Generators", OOPSLA 2014, with the constants of S. Vigna's public-domain splitmix64.c.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from onsight.core.errors import DataError, SpecError
from onsight.core.records import DatasetRecord, Membership
from onsight.core.text import count, quoted
from onsight.data.dataset import Dataset
from onsight.data.reading import add_or_exclude

NAMES = np.array(["train", "validation", "test"])  # the meaning of the codes 0, 1 and 2 below
TRAIN, VALIDATION, TEST = range(3)
TEST_SHARE = 0.15  # the share of the images that become the test part if the data set has none
FEW_SHOT_SEED = 3 * 2**62  # added to the seed, so that few-shot subsets are drawn independently of the split


def split(
    dataset: Dataset,
    hashes: NDArray[np.uint64],
    *,
    validation: float,
    test: float = TEST_SHARE,
    seed: int = 0,
    allow_tiny: bool = False,
) -> NDArray[np.str_]:
    """Return (n,) of "train", "validation" or "test", one per image.

    Parts that the data set gives are kept. A part that it does not give is split off from its training images, or from
    all images if it gives no parts at all.

    If the thresholds leave a part without an image of a class, one image of the class moves there. It is the image with
    the lowest u among those that are not the only one of the class in their part. Adding images may change which one.

    Args:
        dataset: Its labels and parts are used, not its images.
        hashes: (n,) content hashes, equal for identical images.
        validation: Share of the images to split that go to validation, if the data set gives no validation part. With
            0, no validation part is split off.
        test: Share of the images to split that go to the test, if the data set gives no test part.
        seed: Another seed gives another split.
        allow_tiny: Use a class that is too small to be split for training only, instead of raising an error.

    Raises:
        DataError: A class has too few distinct images to have one in each part, or none to train on.
        SpecError: `validation` or `test` is not a share, or together they leave nothing to train on.
    """
    if hashes.shape != (len(dataset),) or hashes.dtype != np.uint64:
        raise ValueError(f"hashes are {hashes.dtype} {hashes.shape}, expected uint64 ({len(dataset)},)")
    given = set(dataset.parts.tolist())
    wanted = {TEST: test, VALIDATION: validation}
    shares = {part: share for part, share in wanted.items() if share != 0 and NAMES[part] not in given}
    if any(not 0 <= share < 1 for share in wanted.values()) or sum(shares.values()) >= 1:
        raise SpecError(f"validation={validation} and test={test} must be shares of 0 or more and total less than 1")
    free = np.flatnonzero((dataset.parts == "") | (dataset.parts == "train"))
    if len(free) == 0:
        raise DataError(f"'{dataset.name}' has no training images: its only parts are {', '.join(sorted(given))}")

    _check_trained(dataset, free, hashes, 1 if allow_tiny else 1 + len(shares))

    # From here on, all copies of an image count as one content.
    contents, content = np.unique(hashes[free], return_inverse=True)
    u = uniform(contents, seed)
    code = np.full(len(contents), TRAIN)
    threshold = 0.0
    for part, share in shares.items():
        code[(u >= threshold) & (u < threshold + share)] = part
        threshold += share
    if shares:
        _fill_empty_parts(dataset, dataset.labels[free], content, u, code, [TRAIN, *shares], allow_tiny)

    result = dataset.parts.astype("<U10")
    result[free] = NAMES[code[content]]
    return result


def fewest(given: Iterable[str]) -> int:
    """Return how many distinct images of a class are needed to have one in each part, if these parts are given."""
    return 3 - len({"test", "validation"} & {*given})


def membership(dataset: Dataset, hashes: NDArray[np.uint64], parts: NDArray[np.str_]) -> Membership:
    """Return what a run records of its split: `counts` {part: {class: n}}, `split` {part: names}, and `digests`.

    The digest of a part is the SHA-256 of its images' hashes, in the order of the names. It changes when an image does.
    """
    record = Membership(counts={}, split={}, digests={})
    for part in NAMES.tolist():
        inside = np.flatnonzero(parts == part)
        counts = np.bincount(dataset.labels[inside], minlength=len(dataset.classes)).tolist()
        record["counts"][part] = dict(zip(dataset.classes, counts, strict=True))
        record["split"][part] = [dataset.names[index] for index in inside.tolist()]
        record["digests"][part] = hashlib.sha256(hashes[inside].tobytes()).hexdigest()
    return record


def recorded_parts(
    record: DatasetRecord, dataset: Dataset, hashes: NDArray[np.uint64], needed: Iterable[str]
) -> NDArray[np.str_]:
    """Return (n,) of the part of each image, as `membership` recorded it, for the data set as it is now.

    The part is "" for images outside the `needed` parts, and for images that were added since.

    Raises:
        DataError: An image of a needed part is gone or has changed, or the classes are different.
    """
    if list(dataset.classes) != record["classes"]:
        raise DataError(f"The run has the classes {record['classes']}, but {dataset.name} has {list(dataset.classes)}.")
    index = {name: number for number, name in enumerate(dataset.names)}
    parts = np.full(len(dataset), "", dtype="<U10")
    for part in needed:
        names = record["split"][part]
        missing = [name for name in names if name not in index]
        if missing:
            raise DataError(
                f"{dataset.name} lacks {count(len(missing), f'{part} image')} of the run (the first is "
                f"'{missing[0]}'). Put back what is missing, or train again."
            )
        inside = np.array([index[name] for name in names], np.int64)
        if hashlib.sha256(hashes[inside].tobytes()).hexdigest() != record["digests"][part]:
            raise DataError(
                f"The {part} images in {dataset.name} are no longer what they were when the run was made: some have "
                "changed or can no longer be read. Restore them, or train again."
            )
        parts[inside] = part
    return parts


def few_shots(
    labels: NDArray[np.int64], hashes: NDArray[np.uint64], parts: NDArray[np.str_], shots: int, seed: int
) -> NDArray[np.intp]:
    """Return the indices of the training images to leave out, so that `shots` images of each class remain.

    The images with the lowest u under another seed remain. Smaller shot counts are therefore subsets of larger ones,
    independent of the split. Another `seed` selects other images. A class with fewer images keeps all of them.
    """
    training = np.flatnonzero(parts == "train")
    order = training[np.lexsort((uniform(hashes[training], seed + FEW_SHOT_SEED), labels[training]))]
    rank = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    return order[rank >= shots]


def uniform(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) per hash: the upper 53 bits of mix(hash xor mix(seed)), where mix is SplitMix64."""
    start = splitmix64(np.array([seed % 2**64], dtype=np.uint64))  # an array: NumPy warns of overflow in scalars only
    mixed = splitmix64(hashes ^ start)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2**53


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's output for each state in `x`."""
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _check_trained(dataset: Dataset, free: NDArray[np.intp], hashes: NDArray[np.uint64], least: int) -> None:
    """Check that every class has an image among those that are not in a given part, `free`.

    The advice also names the classes with fewer distinct images than `least`, which are refused next.

    Raises:
        DataError: A class has none. It would be a class of the model, and no answer could be right.
    """
    pairs = {*zip(dataset.labels[free].tolist(), hashes[free].tolist(), strict=True)}
    distinct = np.bincount(np.array([label for label, _ in pairs], np.int64), minlength=len(dataset.classes)).tolist()
    lacking = [name for name, number in zip(dataset.classes, distinct, strict=True) if not number]
    if lacking:
        few = [name for name, number in zip(dataset.classes, distinct, strict=True) if number < least]
        has = "The class {} has" if len(lacking) == 1 else "The classes {} have"
        raise DataError(
            f"{has.format(quoted(lacking))} no readable image to train on. To go on, "
            f"{add_or_exclude(few, dataset.classes, dataset.excluded)}"
        )


def _fill_empty_parts(
    dataset: Dataset,
    labels: NDArray[np.int64],
    content: NDArray[np.intp],
    u: NDArray[np.float64],
    code: NDArray[np.intp],
    parts: list[int],
    allow_tiny: bool,
) -> None:
    """Change `code`, the part of each content, until every class has an image in each of `parts`.

    `labels` and `content` have one entry per image, `u` and `code` one per content.
    """
    pairs = np.unique(labels * len(u) + content)  # the contents of each class, class by class
    pair_class, pair_content = np.divmod(pairs, len(u))
    bounds = np.searchsorted(pair_class, np.arange(len(dataset.classes) + 1))
    # The same image under two labels: moving it for one class would move it for the other too.
    shared = np.bincount(pair_content, minlength=len(u)) > 1
    distinct = np.diff(bounds)

    tiny = np.flatnonzero(distinct < len(parts))
    if len(tiny) and not allow_tiny:
        others = len(tiny) - 1
        advice = add_or_exclude([dataset.classes[index] for index in tiny.tolist()], dataset.classes, dataset.excluded)
        more = f" ({count(others, 'more class has', 'more classes have')} the same problem)" if others else ""
        raise DataError(
            f"The class '{dataset.classes[tiny[0]]}' has {count(distinct[tiny[0]], 'distinct image')}, too few to split"
            f"{more}: expected at least {len(parts)}. To go on, {advice}; or pass --allow-tiny to "
            "use such a class for training only"
        )
    for index in tiny:
        code[pair_content[bounds[index] : bounds[index + 1]]] = TRAIN

    for index in np.setdiff1d(np.arange(len(dataset.classes)), tiny):
        mine = pair_content[bounds[index] : bounds[index + 1]]
        for part in parts:
            if np.any(code[mine] == part):
                continue
            counts = np.bincount(code[mine], minlength=len(NAMES))
            movable = mine[(counts[code[mine]] > 1) & ~shared[mine]]
            if len(movable) == 0:
                raise DataError(
                    f"The class '{dataset.classes[index]}' cannot be split: too many of its {distinct[index]} "
                    "distinct images are also in other classes. Keep each image in one class only"
                )
            code[movable[u[movable].argmin()]] = part
