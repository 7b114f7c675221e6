"""Which image is for training, for validation and for the test: stable, seeded, and by content.

Each image's content hash is mixed with the seed into a number u in [0, 1). Where both parts are carved, u below
`test` is for the test, below `test` + `validation` for validation, and the rest trains. So

- the same seed gives the same split on every machine, in whatever order the images are listed;
- images that are added change nothing for those that are there;
- identical images get the same u, so none is both trained on and tested on;
- each class is divided in about these shares, for u is independent of the class.

The mixing is the finaliser of SplitMix64: G. L. Steele, D. Lea, C. H. Flood, "Fast Splittable Pseudorandom Number
Generators", OOPSLA 2014, with the constants of S. Vigna's public-domain splitmix64.c.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onsight.core.errors import DataError, SpecError
from onsight.data.dataset import Dataset

NAMES = np.array(["train", "validation", "test"])  # what the codes 0, 1 and 2 below stand for
TRAIN, VALIDATION, TEST = range(3)
AS_SHOTS = 3 * 2**62  # added to the seed: few shots are drawn apart from the split


def split(
    dataset: Dataset,
    hashes: NDArray[np.uint64],
    *,
    validation: float,
    test: float = 0.15,
    seed: int = 0,
    allow_tiny: bool = False,
) -> NDArray[np.str_]:
    """Return (n,) of "train", "validation" or "test", one for each image.

    Parts that the data set gives are kept. One that it does not give is carved from the images that it gives for
    training, or from all of them where it gives no parts at all.

    Where the thresholds leave a class without an image in a part, one moves there: that with the lowest u of those
    which are not the only one of the class in their part. Such a pick may change when images are added.

    Args:
        dataset: Its labels and parts are used, not its images.
        hashes: (n,) content hashes, equal for identical images.
        validation: Share of the images to carve from. With 0 none is carved, and all training images train.
        test: Share of the images to carve from, where the data set gives no test part.
        seed: Another one gives another split.
        allow_tiny: Send a class that is too small to be divided to training, instead of raising.

    Raises:
        DataError: A class has fewer different images than there are parts to fill, or no image is for training.
        SpecError: `validation` or `test` is not a share, or both leave nothing to train on.
    """
    if hashes.shape != (len(dataset),) or hashes.dtype != np.uint64:
        raise ValueError(f"hashes are {hashes.dtype} {hashes.shape}, expected uint64 ({len(dataset)},)")
    given = set(dataset.parts.tolist())
    wanted = {TEST: test, VALIDATION: validation}
    shares = {part: share for part, share in wanted.items() if share != 0 and NAMES[part] not in given}
    if any(not 0 <= share < 1 for share in wanted.values()) or sum(shares.values()) >= 1:
        raise SpecError(f"validation={validation} and test={test} must be shares from 0 up, and less than 1 together")
    free = np.flatnonzero((dataset.parts == "") | (dataset.parts == "train"))
    if len(free) == 0:
        raise DataError(f"'{dataset.name}' has no training images: its only parts are {', '.join(sorted(given))}")

    # From here on a content is one image, however many copies of it there are.
    contents, content = np.unique(hashes[free], return_inverse=True)
    u = uniform(contents, seed)
    code = np.full(len(contents), TRAIN)
    threshold = 0.0
    for part, share in shares.items():
        code[(u >= threshold) & (u < threshold + share)] = part
        threshold += share
    if shares:
        _serve_small_classes(dataset, dataset.labels[free], content, u, code, [TRAIN, *shares], allow_tiny)

    result = dataset.parts.astype("<U10")
    result[free] = NAMES[code[content]]
    return result


def membership(dataset: Dataset, hashes: NDArray[np.uint64], parts: NDArray[np.str_]) -> dict[str, Any]:
    """Return what a run records of its split: `counts` {part: {class: n}}, `split` {part: names}, and `digests`.

    A part's digest is the SHA-256 of its images' hashes, in the order of the names: it tells when an image changes.
    """
    record: dict[str, Any] = {"counts": {}, "split": {}, "digests": {}}
    for part in NAMES.tolist():
        inside = np.flatnonzero(parts == part)
        counts = np.bincount(dataset.labels[inside], minlength=len(dataset.classes)).tolist()
        record["counts"][part] = dict(zip(dataset.classes, counts, strict=True))
        record["split"][part] = [dataset.names[index] for index in inside.tolist()]
        record["digests"][part] = hashlib.sha256(hashes[inside].tobytes()).hexdigest()
    return record


def recorded_parts(
    record: dict[str, Any], dataset: Dataset, hashes: NDArray[np.uint64], needed: Iterable[str]
) -> NDArray[np.str_]:
    """Return (n,) of the `needed` parts that `membership` recorded, "" elsewhere, for the data set as it is now.

    Images that were added since are passed over. Raises DataError where one that is needed is gone or has changed,
    or the classes are others.
    """
    if list(dataset.classes) != record["classes"]:
        raise DataError(f"The run knows the classes {record['classes']}, and {dataset.name} has {dataset.classes}.")
    index = {name: number for number, name in enumerate(dataset.names)}
    parts = np.full(len(dataset), "", dtype="<U10")
    for part in needed:
        names = record["split"][part]
        missing = [name for name in names if name not in index]
        if missing:
            raise DataError(
                f"{len(missing):,} of the run's {part} images are gone from {dataset.name}, '{missing[0]}' first. "
                "Put them back, or train anew."
            )
        inside = np.array([index[name] for name in names], np.int64)
        if hashlib.sha256(hashes[inside].tobytes()).hexdigest() != record["digests"][part]:
            raise DataError(
                f"The {part} images in {dataset.name} are no longer what they were when the run was made: some have "
                "changed or can no longer be read. Put them back, or train anew."
            )
        parts[inside] = part
    return parts


def few_shots(
    labels: NDArray[np.int64], hashes: NDArray[np.uint64], parts: NDArray[np.str_], shots: int, seed: int
) -> NDArray[np.intp]:
    """Return the indices of the training images to leave out, so that `shots` of each class are left.

    Those with the lowest u of another seed stay, so that the images of fewer shots are among those of more, and
    which they are has nothing to do with the split; another seed takes others. A class that has fewer keeps all.
    """
    training = np.flatnonzero(parts == "train")
    order = training[np.lexsort((uniform(hashes[training], seed + AS_SHOTS), labels[training]))]
    rank = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    return order[rank >= shots]


def uniform(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each hash: mix(hash xor mix(seed)) with SplitMix64, of which the upper 53 bits."""
    start = _mix(np.array([seed % 2**64], dtype=np.uint64))  # an array: NumPy warns of overflow in scalars only
    mixed = _mix(hashes ^ start)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2**53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _serve_small_classes(
    dataset: Dataset,
    labels: NDArray[np.int64],
    content: NDArray[np.intp],
    u: NDArray[np.float64],
    code: NDArray[np.intp],
    parts: list[int],
    allow_tiny: bool,
) -> None:
    """Change `code`, the part of each content, until every class has an image in each of `parts`.

    `labels` and `content` are one an image; `u` and `code` are one a content.
    """
    pairs = np.unique(labels * len(u) + content)  # the contents of each class, the classes one after another
    pair_class, pair_content = np.divmod(pairs, len(u))
    bounds = np.searchsorted(pair_class, np.arange(len(dataset.classes) + 1))
    # The same image under two labels: moving it would move it for the other class too.
    shared = np.bincount(pair_content, minlength=len(u)) > 1
    different = np.diff(bounds)

    tiny = np.flatnonzero(different < len(parts))
    if len(tiny) and not allow_tiny:
        name, count = dataset.classes[tiny[0]], different[tiny[0]]
        more = f" (and {len(tiny) - 1} more classes)" if len(tiny) > 1 else ""
        raise DataError(
            f"The class '{name}' has {count} different images to divide{more}, expected at least {len(parts)}: "
            "add some, or pass --allow-tiny to use such a class for training only"
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
                    f"The class '{dataset.classes[index]}' cannot be divided: too many of its {different[index]} "
                    "different images are in other classes too; remove those from one of them"
                )
            code[movable[u[movable].argmin()]] = part
