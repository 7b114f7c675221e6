"""Answers made by the machines of a Ray cluster.

Each task reads its images itself, from shards, files or the cache of decoded images that all machines share. What
travels through Ray is the model, once per machine, and the answers: never images.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from onsight.core.errors import DataError, OnsightError
from onsight.core.progress import Reporter
from onsight.core.ray_cluster import Lost, each_task
from onsight.data.decoding import open_shared
from onsight.data.pixel_cache import Pixels
from onsight.inference.engines import Answers
from onsight.inference.part import Part, Settings, Work, answer
from onsight.inference.predict import Predictor
from onsight.models.custom import import_own
from onsight.runs.run import Run

PIECE = 4096  # images of a task that reads them from the cache


@dataclass(frozen=True, eq=False)
class Model:
    """What the machines need to answer."""

    files: dict[str, bytes]  # path in the run -> content
    settings: Settings
    imports: str  # ONSIGHT_IMPORT
    images: str = ""  # the path of images.npy in the cache, if the tasks answer for its rows


def on_ray(
    address: str, run: Run, settings: Settings, work: list[Work], missing: list[int]
) -> Iterator[tuple[int, Part]]:
    """Yield the number and the content of each part that is missing, as soon as it is done.

    Raises:
        SpecError: Ray is not installed, no cluster answers at this address, or a machine has another Onsight.
    """
    for done, part in each_task(address, _part, _model(run, settings), [work[number] for number in missing]):
        number = missing[done]
        yield number, Part(b"", error=f"part {number}: {part.reason}") if isinstance(part, Lost) else part


def answered_on(
    address: str, run: Run, settings: Settings, pixels: Pixels, index: np.ndarray, show: Reporter
) -> Answers:
    """Return the answers for those of the images in `index`, as `inference.predict.answered` does.

    Raises:
        SpecError: as `on_ray`; or the machines do not share the cache of decoded images.
        DataError: the machines of a task have died too often.
    """
    model = _model(run, settings, str(pixels.shared_file()))
    tasks = [index[start : start + PIECE] for start in range(0, len(index), PIECE)]
    found: dict[int, Answers] = {}
    for number, answers in each_task(address, _rows, model, tasks):
        if isinstance(answers, Lost):
            raise DataError(f"Some images could not be answered for: {answers.reason}. Repeat the command.")
        found[number] = answers
        show.work("evaluating", sum(len(each.probabilities) for each in found.values()), len(index))
    return joined([found[number] for number in range(len(tasks))])


def joined(parts: list[Answers]) -> Answers:
    """Return the answers of several groups of images as those of all."""
    distances = [part.distances for part in parts if part.distances is not None]
    scores = np.concatenate([part.probabilities for part in parts])
    return Answers(scores, np.concatenate(distances) if distances else None)


def _model(run: Run, settings: Settings, images: str = "") -> Model:
    paths = [run.folder / "spec.json", run.folder / "dataset.json", *run.model_folder.iterdir()]
    files = {path.relative_to(run.folder).as_posix(): path.read_bytes() for path in sorted(paths) if path.is_file()}
    return Model(files, settings, os.environ.get("ONSIGHT_IMPORT", ""), images)


def _part(model: Model, work: Work) -> Part:
    """Return a part; runs on a machine of the cluster."""
    try:
        return answer(_predictor(model), work, model.settings)
    except OnsightError as error:
        return Part(b"", error=str(error))


def _rows(model: Model, index: np.ndarray) -> Answers:
    """Return the answers for the rows (n,) of images.npy; runs on a machine of the cluster."""
    predictor, images, step = _predictor(model), open_shared(Path(model.images)), model.settings.batch_size
    starts = range(0, len(index), step)
    return joined([predictor.answer(images[index[start : start + step]]) for start in starts])


@lru_cache(maxsize=1)  # a process of the cluster answers for many tasks
def _predictor(model: Model) -> Predictor:
    if model.imports:
        os.environ["ONSIGHT_IMPORT"] = model.imports
        import_own()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in model.files.items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        settings = model.settings
        return Predictor(folder, settings.batch_size, settings.engine, settings.tta, threads=1)
