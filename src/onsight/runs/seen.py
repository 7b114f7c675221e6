"""The images that a run has seen, and those that its initial weights or its teacher had seen before, as hashes.

A run is never tested on what it has seen, wherever these images lie and whatever they are called. It has seen the
images that it was trained on and those that judged it: the validation images, which chose its epoch, temperature and
threshold. What its ancestors have seen is copied into each run, so that nothing is forgotten when one is removed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onsight.core.errors import DataError, RunError
from onsight.core.files import write_atomic
from onsight.core.text import quoted
from onsight.data.dataset import Dataset
from onsight.data.pixel_cache import Pixels
from onsight.runs.images import RunImages, find_parts
from onsight.runs.run import Run
from onsight.spec import FROM_SCRATCH, IMAGENET

FILE = "seen.safetensors"
NOTHING = np.empty(0, np.uint64)


class Seen(NamedTuple):
    """Hashes of images, sorted uint64, as `Pixels.prints` returns them: 8 bytes per hash."""

    trained: np.ndarray = NOTHING  # that the run was trained on
    judged: np.ndarray = NOTHING  # that it was judged on
    trained_before: np.ndarray = NOTHING  # that an ancestor was trained on
    judged_before: np.ndarray = NOTHING  # that an ancestor was judged on
    unknown: tuple[str, ...] = ()  # the names of those, ancestors or the run itself, that left no record

    @property
    def before(self) -> np.ndarray:
        """What the ancestors have seen."""
        return np.union1d(self.trained_before, self.judged_before)

    @property
    def ever(self) -> np.ndarray:
        """What the run or an ancestor has seen."""
        return np.union1d(np.union1d(self.trained, self.judged), self.before)

    @property
    def again(self) -> bool:
        """Whether the run was trained on images that an ancestor had seen: then no fold of them was ever held out."""
        return bool(np.isin(self.trained, self.before).any())

    def passed_on(self) -> Seen:
        """Return what the ancestors of the next run have seen if it starts from this one."""
        trained, judged = np.union1d(self.trained, self.trained_before), np.union1d(self.judged, self.judged_before)
        return Seen(NOTHING, NOTHING, trained, judged, self.unknown)

    def with_own(self, images: RunImages) -> Seen:
        """Return the same ancestors with what a run of these images sees."""
        trained, judged = (images.pixels.prints(images.readable(part)) for part in ("train", "validation"))
        return self._replace(trained=trained, judged=judged)


def write_seen(run: Run, seen: Seen) -> None:
    """Write what a run has seen into its folder. spec.json holds the names of the ancestors that left no record."""
    from safetensors.numpy import save

    arrays = {name: value for name, value in seen._asdict().items() if isinstance(value, np.ndarray)}
    write_atomic(run.folder / FILE, save(arrays))


def read_seen(run: Run) -> Seen | None:
    """Return what a run has seen; None if an earlier version made it, which recorded nothing.

    Raises:
        RunError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = run.folder / FILE
    try:
        arrays = load(path.read_bytes())
        if any(array.dtype != np.uint64 or array.ndim != 1 for array in arrays.values()):
            raise ValueError("expected rows of 64-bit hashes")
        return Seen(**arrays, unknown=tuple(run.record.get("unknown_ancestors", ())))
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise RunError(
            f"{path} is damaged: {error}. It holds the hashes of the images that this run must not be tested on. "
            "Restore it from a copy, or train again."
        ) from None


def seen_by(run: Run, dataset: Dataset, pixels: Pixels) -> Seen:
    """Return what a run has seen. If an earlier version made it, look for its images in this data.

    Raises:
        RunError: the record is damaged.
    """
    if (found := read_seen(run)) is not None:
        return found
    before = seen_before(run.spec, dataset, pixels)
    try:
        return before.with_own(find_parts(run, dataset, pixels, ("train", "validation")))
    except DataError:  # its images are others
        return before._replace(unknown=(*before.unknown, run.name))


def seen_before(spec: Mapping[str, Any], dataset: Dataset, pixels: Pixels) -> Seen:
    """Return what the ancestors of a run with this resolved spec have seen: its initial weights and its teacher.

    Published weights are not counted. Of their images nothing is known here.
    """
    found = Seen()
    for place in (spec.get("weights"), spec.get("teacher")):
        if place in (None, FROM_SCRATCH, IMAGENET) or Path(place).suffix == ".pth":  # its SHA-256 is that of ImageNet's
            continue
        ancestor = run_of(Path(place))
        theirs = Seen(unknown=(Path(place).name,)) if ancestor is None else seen_by(ancestor, dataset, pixels)
        theirs = theirs.passed_on()
        found = Seen(
            trained_before=np.union1d(found.trained_before, theirs.trained_before),
            judged_before=np.union1d(found.judged_before, theirs.judged_before),
            unknown=(*found.unknown, *theirs.unknown),
        )
    return found


def run_of(place: Path) -> Run | None:
    """Return the run that this is, or that the file of weights in its model/ belongs to; None if there is none."""
    with contextlib.suppress(RunError):
        return Run(place.parent.parent if place.parent.name == "model" and place.is_file() else place)
    return None


def unknown_text(unknown: Sequence[str]) -> str:
    """Return a sentence about ancestors that left no record of their images."""
    were = "was" if len(unknown) == 1 else "were"
    return (
        f"Nothing records which images {quoted(unknown)} {were} trained on. If some of the test images are among them, "
        "the accuracy is too high."
    )
