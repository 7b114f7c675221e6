"""Every image of a folder or zip, with a label where its place gives one -> `Dataset`.

Training needs class folders and leaves out the images beside them. The features of images need neither.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from onsight.core.errors import DataError
from onsight.core.files import expanded
from onsight.core.progress import Progress
from onsight.core.text import count
from onsight.data.dataset import Dataset, fingerprint
from onsight.data.folder import is_unicode, read_file, walk
from onsight.data.folder_layout import needless_levels
from onsight.data.load import is_folder_or_zip, load_dataset
from onsight.data.zip_file import find_images


def load_every_image(data: str | Path, progress: Progress | None = None) -> Dataset:
    """Return all images of a data set. The label of an image that is in no class folder is -1.

    Images of a folder or zip are named by their paths in it. If it has no class folders, or they can be read in two
    ways, no image has a label, and a note of the data set says why. Other data is what `load_dataset` returns.

    Raises:
        SpecError: there is no such data.
        DataError: it cannot be used, or holds no images.
    """
    if not is_folder_or_zip(data) or not expanded(data).exists():
        return load_dataset(data, None, progress, complete=False)
    path = expanded(data).resolve()
    stamps, folders, reader = (*walk(path), partial(read_file, path)) if path.is_dir() else find_images(path)
    known: Dataset | None = None
    notes: tuple[str, ...] = ()
    try:
        known = load_dataset(data, None, progress, complete=False)
    except DataError as error:
        wrong = next((name for name in stamps if not is_unicode(name)), None)
        if not stamps or wrong is not None:
            raise
        notes = (f"no image has a label: {error}",)
    names = tuple(sorted(stamps))
    labels, parts = np.full(len(names), -1, np.int64), np.full(len(names), "", dtype="<U10")
    classes = known.classes if known else ()
    if known:
        prefix = needless_levels(folders, None)
        place = {name: index for index, name in enumerate(names)}
        index = np.array([place[prefix + name] for name in known.names], np.int64)
        labels[index], parts[index] = known.labels, known.parts
    mark = fingerprint(classes, labels, parts, [f"{name} {stamps[name]}" for name in names])
    told = f"{'folder' if path.is_dir() else 'zip'} {path.stem} ({count(len(names), 'image')})"
    return Dataset(path.stem, classes, names, labels, parts, told, mark, reader=reader, notes=notes)
