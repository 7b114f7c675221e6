"""Writes validation_answers.json: what a model answers on validation images. `python -m onsight.serving.reference RUN`.

A process of its own does it, because the data set and SciPy take memory that the server does not need afterwards.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from onsight.core.errors import OnsightError
from onsight.core.files import write_json
from onsight.core.spread import spread
from onsight.inference.engines import open_engine
from onsight.inference.predict import answered
from onsight.models.model_file import read_description
from onsight.runs.images import open_images
from onsight.runs.run import open_run
from onsight.serving.drift import FILE

MOST = 2000  # validation images
BINS = 10  # of confidence and distance, each with about as many validation images


def main() -> None:
    """Write the file of a run. The exit code is 2 if its validation images cannot be read."""
    try:
        write_reference(Path(sys.argv[1]))
    except (OnsightError, OSError) as error:
        print(f"onsight: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def write_reference(folder: Path) -> dict[str, Any]:
    """Write the file of the run in `folder`, and return its content.

    Raises:
        OnsightError: the data is no longer there, or the run has no validation images.
    """
    from onsight.core.errors import DataError

    run = open_run(folder)
    images = open_images(run, ("validation",))
    index = images.readable("validation")
    if not len(index):
        raise DataError(f"{run.name} has no validation images.")
    engine = open_engine(run)
    answers = answered(engine, images.pixels.images, index[spread(len(index), MOST)], 256)
    best = answers.probabilities.argmax(axis=1)
    values = {"confidence": answers.probabilities.max(axis=1)}
    if answers.distances is not None:
        values["distance"] = answers.distances
    edges, counts = {}, {"classes": np.bincount(best, minlength=len(engine.classes)).tolist()}
    for key, each in values.items():
        each = np.round(each.astype(float), 6)  # as the server sees them
        found = np.unique(np.quantile(each, np.linspace(0, 1, BINS + 1)[1:-1]))
        edges[key] = found.tolist()
        counts[key] = np.bincount(np.searchsorted(found, each, side="right"), minlength=len(found) + 1).tolist()
    weights = read_description(run.model_folder).weights_sha256
    content = {"schema": 1, "weights_sha256": weights, "n": len(best), "edges": edges, "counts": counts}
    write_json(folder / FILE, content)
    return content


if __name__ == "__main__":
    main()
