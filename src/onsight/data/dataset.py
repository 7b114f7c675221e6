"""`Dataset`: a set of images, their labels, and the part that each of them belongs to.

A data set of files (a folder, a zip, a CSV) is listed, not read: `Dataset.read` returns the bytes of one file when they
are needed. A named data set consists of arrays, which are in memory when `load_dataset` returns.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onsight.core.errors import DataError, ImageError
from onsight.core.limits import MAX_CLASS_NAME, MAX_CLASSES

BROKEN_SHARE, BROKEN_COUNT = 0.01, 3  # unusable images up to the larger limit are skipped


@dataclass(frozen=True)
class Relabelled:
    """What a labels.csv has changed in a data set. The images are named as in it.

    Attributes:
        size: the bytes of the file that were read: it may grow later.
        sha256: of these bytes.
        corrected: the images that have another label than before.
        added: the images that were not in the data set.
        left_out: the images that are none of the classes.
        conflicts: a text for each image about which people disagree.
    """

    size: int
    sha256: str
    corrected: tuple[str, ...]
    added: tuple[str, ...]
    left_out: tuple[str, ...]
    conflicts: tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A labelled set of n images.

    A `Dataset` of files can be pickled and sent to other processes. Many processes and threads can call `read` at the
    same time, because each call opens the file itself.
    """

    name: str
    classes: tuple[str, ...]
    names: tuple[str, ...]  # one per image, unique: "train/cat/0001.jpg", or "digits#3" in a set of arrays
    labels: NDArray[np.int64]  # (n,) index into classes
    parts: NDArray[np.str_]  # (n,) "train", "validation", "test", or "" if the data set gives no part
    provenance: str  # one line that is shown with every figure
    fingerprint: str  # 64 hexadecimal digits, equal if images, order, labels, classes and parts are equal
    images: NDArray[np.uint8] | None = None  # (n, H, W, 3) RGB in a set of arrays, None in a set of files
    reader: Callable[[str], bytes] | None = None  # name -> bytes, in a set of files
    left_out: frozenset[str] = frozenset()  # the names of the images of classes that the user left out
    excluded: tuple[str, ...] = ()  # the classes that the user left out by name
    notes: tuple[str, ...] = ()  # what was ignored or put together, one sentence each
    waits: bool = False  # `read` waits for a network, so that many calls at a time are faster
    relabelled: Relabelled | None = None  # what a labels.csv has changed
    unusable: Mapping[str, str] = field(default_factory=dict)  # line of a CSV that stands for no image -> reason

    def read(self, index: int) -> bytes:
        """Return the bytes of the file that holds image `index`.

        Raises:
            ImageError: The file cannot be read or is damaged; the message is the reason without the path.
            ValueError: The data set holds arrays, not files.
        """
        if self.reader is None:
            raise ValueError(f"The data set '{self.name}' holds arrays, not files: use its `images`")
        return self.reader(self.names[index])

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        parts, counts = np.unique(self.parts, return_counts=True)
        split = ", ".join(f"{part or 'unsplit'} {count:,}" for part, count in zip(parts, counts, strict=True))
        return f"Dataset('{self.name}', {len(self):,} images, {len(self.classes):,} classes, {split})"

    def _repr_html_(self) -> str:
        from onsight.display import notebook

        def image(index: int) -> np.ndarray | bytes | None:
            if self.images is not None:
                return np.asarray(self.images[index])
            with contextlib.suppress(ImageError):
                return self.read(index)
            return None

        return notebook.dataset(self.name, self.classes, self.labels, self.parts, self.provenance, image)


def check_broken(name: str, broken: Mapping[str, str], total: int, fix: str) -> None:
    """Check that no more images are unusable than can be skipped; `broken` maps their names to the reasons.

    Raises:
        DataError: There are more; the message lists the first and ends with `fix`.
    """
    if len(broken) <= max(BROKEN_COUNT, BROKEN_SHARE * total):
        return
    shown = "\n".join(f"  {each}: {reason}" for each, reason in list(broken.items())[:5])
    raise DataError(
        f"{len(broken):,} of {total:,} images of {name} cannot be read, which is more than can be skipped "
        f"({BROKEN_SHARE:.0%}, at least {BROKEN_COUNT}). The first:\n{shown}\n{fix}"
    )


def fingerprint(
    classes: Sequence[str], labels: NDArray[np.int64], parts: NDArray[np.str_], contents: Sequence[str]
) -> str:
    """Return the SHA-256 of everything that identifies a data set, as 64 hexadecimal digits.

    `contents` stands for the pixels: one text per file (its name, size and time, or its CRC in a zip), or one checksum
    per array or per file of a named data set.
    """
    # JSON, because with a plain join, a file name that contains the separator could imitate another data set.
    table = json.dumps([list(classes), labels.tolist(), parts.tolist(), list(contents)])
    return hashlib.sha256(table.encode()).hexdigest()


def check_classes(classes: Sequence[str], where: str) -> None:
    """Check that a model file can hold the class names and a page can show them; `where` begins the error message.

    Raises:
        DataError: There are fewer than 2 or more than 10,000 classes, or a name is not 1 to 128 printable characters.
    """
    if len(classes) < 2:
        held = f"only one class, '{classes[0]}'" if classes else "no classes"
        raise DataError(f"{where} has {held}: a classifier needs at least two")
    if len(classes) > MAX_CLASSES:
        raise DataError(f"{where} has {len(classes):,} classes: at most {MAX_CLASSES:,} are supported")
    for name in classes:
        if not name.strip() or len(name) > MAX_CLASS_NAME or not name.isprintable():
            shown = ascii(name[:40])
            raise DataError(f"{where} has the class {shown}: rename it to 1 to {MAX_CLASS_NAME} printable characters")
