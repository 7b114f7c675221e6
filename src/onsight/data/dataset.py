"""A name or a path -> `Dataset`: which images there are, what they show and which part they belong to.

A data set that comes as files (a folder, a zip, a CSV) is listed, not read: `Dataset.read` gives one file's bytes
when they are needed. The known sets come as arrays and are in memory when `load_dataset` returns.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onsight.core.errors import DataError, ImageError

MAX_CLASSES = 10_000
MAX_CLASS_NAME = 128  # characters


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A labelled set of n images.

    `Dataset`s of files can be pickled and sent to other processes; `read` is safe to call from many of them and
    from many threads at once, because it opens the file anew.
    """

    name: str
    classes: tuple[str, ...]
    names: tuple[str, ...]  # one an image, unique: "train/cat/0001.jpg", or "digits#3" in a set of arrays
    labels: NDArray[np.int64]  # (n,) index into classes
    parts: NDArray[np.str_]  # (n,) "train", "validation", "test", or "" where the split is ours to make
    provenance: str  # one line that travels with every figure
    fingerprint: str  # 64 hexadecimal digits: equal when images, order, labels, classes and parts are
    images: NDArray[np.uint8] | None = None  # (n, H, W, 3) RGB in a set of arrays, None in a set of files
    reader: Callable[[str], bytes] | None = None  # name -> bytes, in a set of files

    def read(self, index: int) -> bytes:
        """Return the bytes of the file that holds image `index`.

        Raises:
            ImageError: The file cannot be read or is damaged; the message is the reason without the path.
            ValueError: The set comes as arrays.
        """
        if self.reader is None:
            raise ValueError(f"The data set '{self.name}' comes as arrays: use its `images`")
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


def fingerprint(
    classes: Sequence[str], labels: NDArray[np.int64], parts: NDArray[np.str_], contents: Sequence[str]
) -> str:
    """Return the SHA-256 of everything that makes a data set what it is, as 64 hexadecimal digits.

    `contents` stands for the pixels: one text a file (its name, size and time), or one checksum for each array.
    """
    # JSON, because a plain join would let a file name with a separator in it imitate another data set.
    table = json.dumps([list(classes), labels.tolist(), parts.tolist(), list(contents)])
    return hashlib.sha256(table.encode()).hexdigest()


def check_classes(classes: Sequence[str], where: str) -> None:
    """Refuse class names that a model file could not hold or a page could not show; `where` begins the message.

    Raises:
        DataError: Fewer than two or more than 10,000 classes, or a name that is not 1 to 128 printable characters.
    """
    if len(classes) < 2:
        held = f"one class only, '{classes[0]}'" if classes else "no classes"
        raise DataError(f"{where} has {held}: a classifier needs at least two")
    if len(classes) > MAX_CLASSES:
        raise DataError(f"{where} has {len(classes):,} classes: at most {MAX_CLASSES:,} are possible")
    for name in classes:
        if not name.strip() or len(name) > MAX_CLASS_NAME or not name.isprintable():
            shown = ascii(name[:40])
            raise DataError(f"{where} has the class {shown}: rename it to 1 to {MAX_CLASS_NAME} printable characters")
