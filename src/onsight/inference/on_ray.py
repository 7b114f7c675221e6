"""Parts of answers made by the machines of a Ray cluster.

Each task reads one part's images itself. What travels through Ray is the model, once per machine, and the answers:
never images. A task whose machine dies is done by another one.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onsight.core.errors import OnsightError
from onsight.core.ray_cluster import connected
from onsight.inference.part import Part, Settings, Work, answer
from onsight.inference.predict import Predictor
from onsight.runs.run import Run

RETRIES = 5  # of a task whose machine or process died
AHEAD = 2  # tasks per core that are handed over at once


def on_ray(
    address: str, run: Run, settings: Settings, work: list[Work], missing: list[int]
) -> Iterator[tuple[int, Part]]:
    """Yield the number and the content of each part that is missing, as soon as it is done.

    Raises:
        SpecError: Ray is not installed, or no cluster answers at this address.
    """
    files = model_files(run)
    mark = hashlib.sha256(b"".join(files.values())).hexdigest()
    waiting = iter(missing)
    running: dict[Any, int] = {}
    with connected(address, show_workers=False) as ray:
        model = ray.put(files)
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_answer)
        while True:
            most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))  # machines may come and go
            while len(running) < most and (number := next(waiting, None)) is not None:
                running[task.remote([model], mark, settings, work[number], version("onsight"))] = number
            if not running:
                return
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            number = running.pop(done)
            try:
                yield number, ray.get(done)
            except ray.exceptions.RayTaskError:
                raise  # a bug
            except ray.exceptions.RayError as error:
                reason = str(error).strip().partition("\n")[0]
                yield number, Part(b"", error=f"part {number}: its machine died {RETRIES + 1} times ({reason})")


def model_files(run: Run) -> dict[str, bytes]:
    """Return {path in the run: content} of the files that an answer needs."""
    paths = [run.folder / "spec.json", run.folder / "dataset.json", *run.model_folder.iterdir()]
    return {path.relative_to(run.folder).as_posix(): path.read_bytes() for path in sorted(paths) if path.is_file()}


def _answer(model: list[Any], mark: str, settings: Settings, work: Work, asked: str) -> Part:
    """Return a part; runs on a machine of the cluster."""
    if (mine := version("onsight")) != asked:
        return Part(b"", error=f"a machine of the cluster has onsight {mine}, expected {asked}: install it there")
    try:
        return answer(_predictor(model[0], mark, settings), work, settings)
    except OnsightError as error:
        return Part(b"", error=str(error))


@lru_cache(maxsize=1)  # a process of the cluster answers for many parts
def _predictor(model: Any, mark: str, settings: Settings) -> Predictor:
    import ray

    with tempfile.TemporaryDirectory() as folder:
        for name, content in ray.get(model).items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        return Predictor(folder, settings.batch_size, settings.engine, settings.tta, threads=1)
