"""The images that a run was trained on. All code that needs them again loads them here."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from onsight.core.errors import DataError, SpecError
from onsight.core.files import located
from onsight.core.progress import Progress
from onsight.data.batches import Examples
from onsight.data.dataset import Dataset
from onsight.data.load import is_folder_or_zip, load_dataset
from onsight.data.pixel_cache import Pixels, load_pixels
from onsight.data.reading import LabelsFile, Reading
from onsight.data.split import recorded_parts
from onsight.runs.run import Run
from onsight.spec import TrainSpec


class RunImages(NamedTuple):
    """A data set, its decoded images, and the part of a run that each image is in."""

    dataset: Dataset
    pixels: Pixels
    parts: np.ndarray  # (n,) str: train, validation, test, or "" for an image that is in none of them

    def readable(self, part: str) -> np.ndarray:
        """Return the indices of the images of a part that could be decoded, ascending."""
        return np.setdiff1d(np.flatnonzero(self.parts == part), list(self.pixels.broken))

    def examples(self, part: str) -> Examples:
        """Return the images of a part with their labels."""
        return self.at(np.flatnonzero(self.parts == part))

    def at(self, index: np.ndarray) -> Examples:
        """Return the images with these indices, (m,) int, with their labels."""
        return Examples(self.pixels.images, index, self.dataset.labels[index])


def load_images(
    run: Run,
    progress: Progress | None = None,
    *,
    data: str | Path | None = None,
    data_dir: Path | None = None,
    on: str | None = None,
) -> tuple[Dataset, Pixels]:
    """Return the data set of a run, or other data, and its images at the run's image size and fit.

    Args:
        run: the run.
        progress: receives what is done.
        data: other data, as `load_dataset` takes it; None: the run's own.
        data_dir: where the files of a named data set are, if not where they were.
        on: the Ray cluster whose machines decode the images, if they are not in the cache (`data.pixel_cache`).

    Raises:
        SpecError: the data is no longer there.
        DataError: it cannot be used.
    """
    spec = TrainSpec.recorded(run.spec)
    dataset = load_other(run, data, data_dir, progress) if data else load_own(run, data_dir, progress)
    return dataset, load_pixels(dataset, spec.image_size, progress, fit=spec.fit, on=on)


def load_own(
    run: Run, data_dir: Path | None = None, progress: Progress | None = None, *, download: bool = True
) -> Dataset:
    """Return the run's own data, read as the run read it. The arguments are those of `load_dataset`.

    Raises:
        SpecError: the data is no longer there.
        DataError: it cannot be used.
    """
    spec = TrainSpec.recorded(run.spec)
    return load_dataset(
        spec.data, data_dir or spec.data_dir, progress, reading=recorded_reading(run), download=download
    )


def load_other(run: Run, data: str | Path, data_dir: Path | None, progress: Progress | None) -> Dataset:
    """Return other data, or the run's own that was moved, read in the first way in which all its classes are the run's.

    The ways are: like the run's data, but of any layout; like the run's data; and automatically, whatever the classes.
    The run's labels.csv is for its own data only.
    """
    reading = recorded_reading(run)
    if run.spec["data"] not in (str(data), located(str(data))):
        reading = reading._replace(labels=None)
    for each in (reading._replace(layout=None), reading):
        with contextlib.suppress(SpecError, DataError):
            dataset = load_dataset(data, data_dir, progress, reading=each)
            if {*dataset.classes} <= {*run.classes}:
                return dataset
    return load_dataset(data, data_dir, progress)


def recorded_reading(run: Run) -> Reading:
    """Return how the data of a run was read: its layout, its classes, its columns, and its labels as they were then.

    The names of the run's images show the layout too. A folder that has become ambiguous since is therefore read as it
    was, and so is one that an older version read without asking.
    """
    reading = TrainSpec.recorded(run.spec).reading
    if reading.classes or reading.exclude:
        reading = reading._replace(classes=tuple(run.classes), exclude=())
    added: list[str] = []
    if (labelled := run.dataset.get("labels")) and reading.labels:
        added = labelled["added"]
        labels = LabelsFile(reading.labels.path, labelled["bytes"], labelled["sha256"])
        reading = reading._replace(labels=labels)
    names = {name for part in run.dataset.get("split", {}).values() for name in part} - {*added}
    tops = {unicodedata.normalize("NFC", name.partition("/")[0]) for name in names}
    if reading.layout is None and tops == {*run.classes} and is_folder_or_zip(run.spec["data"]):
        reading = reading._replace(layout="classes")
    return reading


def open_images(run: Run, parts: Iterable[str], progress: Progress | None = None) -> RunImages:
    """Return the images of a run, those of `parts` marked with their part as the run recorded it.

    Raises:
        SpecError: the data is no longer there.
        DataError: it cannot be used, or the images of these parts have changed.
    """
    return find_parts(run, *load_images(run, progress), parts)


def find_parts(run: Run, dataset: Dataset, pixels: Pixels, parts: Iterable[str]) -> RunImages:
    """Return a data set with the images of `parts` marked with their part as the run recorded it.

    Raises:
        DataError: the images of these parts are missing or have changed.
    """
    return RunImages(dataset, pixels, recorded_parts(run.dataset, dataset, pixels.hashes, parts))
