"""How many images of something else the model takes for its own: images that belong to none of its classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onsight.core.errors import DataError
from onsight.core.evaluation_records import FarOff
from onsight.core.progress import Reporter
from onsight.core.spread import spread
from onsight.data.load import DATASETS, load_dataset
from onsight.imaging.decode import resize
from onsight.inference.engines import Engine, doubts
from onsight.inference.predict import Predictor
from onsight.runs.run import Run

BUILT_IN = ("digits", "toy")  # images of other things; the first whose classes the run does not know are used
MOST = 300  # images of a named data set that are looked at


def far_off(run: Run, engine: Engine, far: str | Path | None, show: Reporter) -> FarOff | None:
    """Return which share of images of something else the model calls unsure, and why.

    It should call all of them unsure. A network alone can be confident about an image that is unlike all images that it
    has seen; the distance from the training images catches most of these.

    Args:
        run: the run.
        engine: what answers.
        far: a named data set, or a folder, file or pattern of images; None: a built-in set whose classes the run does
            not know.
        show: receives the progress.

    Returns:
        None if nothing can be unsure, or if there is no built-in set of other things.

    Raises:
        DataError: the images cannot be read, or their classes are those of the run.
    """
    if engine.threshold is None and engine.distance_threshold is None:
        if far is not None:
            show.note("far", f"{run.name} has no threshold, so no answer is unsure. Train with --min-precision")
        return None
    if far is not None and str(far) not in DATASETS:
        return of_files(run, engine, str(far))
    for name in (str(far),) if far is not None else BUILT_IN:
        other = load_dataset(name)
        if set(other.classes).isdisjoint(run.classes):
            chosen = spread(len(other), MOST)
            assert other.images is not None  # named data sets are arrays
            images = np.stack([resize(other.images[at], engine.size, engine.fit) for at in chosen.tolist()])
            return described(name, engine, *doubts(engine.answer(images), engine))
    if far is None:
        return None
    raise DataError(f"--far {far}: {run.name} knows classes of this data set, so its images are not something else.")


def of_files(run: Run, engine: Engine, far: str) -> FarOff:
    """Return the answers for images in files."""
    found = [each for each in Predictor(run, engine=engine).stream([far], top=1) if each.error is None]
    if not found:
        raise DataError(f"--far {far}: none of its images could be read.")
    close, unlike = (np.array([each.reason == reason for each in found]) for reason in ("close", "far"))
    return described(Path(far).name or far, engine, close, unlike)


def described(data: str, engine: Engine, close: np.ndarray, unlike: np.ndarray) -> FarOff:
    """Return the record of n images that are unsure for one of two reasons, (n,) bool each."""
    found = FarOff(data=data, n=len(unlike), unsure=float((close | unlike).mean()))
    if engine.distance_threshold is not None:
        found["unlike"] = float(unlike.mean())
    return found
