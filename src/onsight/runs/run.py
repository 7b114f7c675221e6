"""A run: the folder that holds everything about one training, and the readers of its files.

The state of a run is which files exist: `model/` means trained, `evaluations/` means evaluated. All paths in it are
relative, except those of the data, the keep-list, the initial weights and the teacher. A run can be moved and zipped.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from onsight.core.errors import ModelFileError, OnsightError, RunError, SpecError
from onsight.core.evaluation_records import Metrics
from onsight.core.files import (
    argument,
    file_lock,
    make_folder,
    now,
    numbered_folder,
    read_json,
    read_lines,
    restore_folder,
    sync_file,
    write_atomic,
    write_json,
)
from onsight.core.records import DatasetRecord, HistoryRow, SpecFields, SpecRecord
from onsight.core.schema import misfit
from onsight.core.text import plain
from onsight.models.manifest import read_manifest

if TYPE_CHECKING:
    import keras

Kind = TypeVar("Kind")
SCHEMA = 1
LOCK = ".lock"  # the file that the process which trains has locked
UNCALIBRATED = "not calibrated: no validation images"  # said of the probabilities of a run that held none out


def runs_folder() -> Path:
    """Return the folder of all runs: `ONSIGHT_RUNS`, or `runs` in the current folder."""
    return Path(os.environ.get("ONSIGHT_RUNS", "runs"))


class Run:
    """One run folder.

    Attributes:
        folder: its path.
        record: the content of spec.json.
        spec: every training choice, resolved: the fields of `TrainSpec`.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open the run in `folder`.

        Raises:
            RunError: there is no run, or a newer Onsight wrote it.
        """
        self.folder = Path(folder)
        self.record: SpecRecord = self._read("spec.json", SpecRecord)
        self.spec: dict[str, Any] = self.record["spec"]
        if found := misfit(self.spec, SpecFields, "spec"):
            raise RunError(f"{self.folder / 'spec.json'} is damaged: {found}.")

    @cached_property
    def dataset(self) -> DatasetRecord:
        """The content of dataset.json: classes, counts, provenance and split membership."""
        found: DatasetRecord = self._read("dataset.json", DatasetRecord)
        return found

    def _read(self, name: str, kind: type[Any]) -> Any:
        missing = f"{self.folder} is not a run: it has no {name}. `onsight runs` lists the runs."
        return read_checked(self.folder / name, kind, SCHEMA, missing)

    @classmethod
    def create(cls, name: str, record: SpecRecord, dataset: DatasetRecord, folder: Path | None = None) -> Run:
        """Create a run folder with this spec.json and dataset.json.

        It is `folder`, or one of `runs_folder` that is called `name` and the next free number.
        """
        folder = folder or numbered_folder(runs_folder(), name or "run")
        make_folder(folder)
        write_json(folder / "dataset.json", dataset)
        write_json(folder / "spec.json", {"schema": SCHEMA, "created": now(), **record})
        return cls(folder)

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def number(self) -> int | None:
        """The number at the end of the name; None if the folder was renamed."""
        found = re.search(r"-(\d{4,9})$", self.name)
        return int(found[1]) if found else None

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the model's outputs."""
        return tuple(self.dataset["classes"])

    @property
    def model_folder(self) -> Path:
        """The path of `model/`, which exists once training has finished."""
        return self.folder / "model"

    @property
    def export_folder(self) -> Path:
        """The path of `export/`, which holds files for other runtimes."""
        folder = self.folder / "export"
        restore_folder(folder)
        return folder

    @property
    def checkpoints(self) -> Path:
        """The path of `checkpoints/`, which holds the newest two states of training."""
        return self.folder / "checkpoints"

    @property
    def validation_right(self) -> Path:
        """The path of `validation_right.npy`: (n,) bool, whether each validation image is classified correctly."""
        return self.folder / "validation_right.npy"

    @property
    def report(self) -> Path:
        """The path of `report.html`."""
        return self.folder / "report.html"

    @property
    def newest_checkpoint(self) -> int:
        """The number of the newest checkpoint; 0 if there is none."""
        return max((int(path.name) for path in self.checkpoints.glob("[0-9]*") if path.name.isdigit()), default=0)

    @property
    def is_behind(self) -> bool:
        """Whether training went on after `model/` was written, and has not written it again."""
        with contextlib.suppress(ModelFileError):  # who opens the model is told
            return self.newest_checkpoint > int(read_manifest(self.model_folder).get("checkpoint", sys.maxsize))
        return False

    @property
    def is_trained(self) -> bool:
        """Whether training has finished."""
        return self.has_model and not self.is_behind

    @property
    def has_model(self) -> bool:
        """Whether there is a model that can answer, be it one of before, while the run is trained longer."""
        return self.model_folder.is_dir()

    @property
    def is_calibrated(self) -> bool:
        """Whether images were held out to calibrate on: validation images, or training images for folds of a head."""
        if self.spec.get("validation"):
            return True
        held_out = self.dataset.get("counts", {}).get("validation", {})
        return any(held_out.values()) or any(row.get("out_of_fold_n") for row in self.history())

    def evaluation_folder(self, name: str = "test") -> Path:
        """Return the path of the folder of one evaluation."""
        return self.folder / "evaluations" / name

    def require_trained(self) -> None:
        """Raise RunError unless training has finished."""
        if not self.is_trained:
            what = "is trained longer, and its model/ is of before" if self.is_behind else "has no model/ yet"
            raise RunError(
                f"{self.folder} {what}: its training has not finished. "
                f"Continue with: onsight train --resume {argument(self.folder)}"
            )

    def require_model(self) -> None:
        """Raise RunError unless there is a model that can answer."""
        if not self.has_model:
            self.require_trained()

    def require_network(self) -> None:
        """Raise RunError if the network of the run is a custom one that has not been registered in this process."""
        from onsight.models.custom import missing
        from onsight.models.registry import MODELS

        name = str(self.spec.get("model"))
        if name not in MODELS:
            raise RunError(f"{self.folder}: {missing(name, self.record.get('model_import'))}")

    def load_model(self, *, distance: bool = False) -> keras.Model:
        """Return the trained classifier: uint8 RGB (batch, H, W, 3) to float32 probabilities (batch, classes).

        With `distance`, a model that knows how unlike its training images an image is has a second output, (batch,)
        float32.
        """
        from onsight.core.backend import use_backend
        from onsight.models.model_file import load_model

        self.require_model()
        use_backend()
        return load_model(self.model_folder, distance=distance)

    def history(self) -> list[dict[str, Any]]:
        """Return one dict per epoch: epoch (from 1), loss, accuracy, val_loss, val_accuracy, learning_rate, seconds.

        If a crash made training repeat an epoch, its last line counts. Numbers that are not finite become None.

        Raises:
            RunError: a value in a line has another type.
        """
        rows = {}
        for line in read_lines(self.folder / "history.jsonl"):
            if line.get("event") == "epoch" and isinstance(line.get("epoch"), int):
                rows[line["epoch"]] = finite(line)
                if found := misfit(rows[line["epoch"]], HistoryRow):
                    raise RunError(f"{self.folder / 'history.jsonl'} is damaged: epoch {line['epoch']}: {found}.")
        return [rows[epoch] for epoch in sorted(rows)]

    def model_epoch(self, history: list[dict[str, Any]] | None = None) -> dict[str, Any] | None:
        """Return the epoch whose weights the model has: with patience the best on validation, else the last."""
        history = self.history() if history is None else history
        judged = [row for row in history if row.get("val_loss") is not None]
        if self.spec.get("patience") and judged:
            return min(judged, key=lambda row: float(row["val_loss"]))
        return history[-1] if history else None

    def append_history(self, line: dict[str, Any]) -> None:
        """Append one line to history.jsonl."""
        with open(self.folder / "history.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def rewrite_history(self, lines: list[dict[str, Any]]) -> None:
        """Replace history.jsonl: a resumed training continues from its checkpoint, not from where it was stopped."""
        write_atomic(self.folder / "history.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    def update_spec(self, **fields: Any) -> None:
        """Record that the run continues with other choices."""
        self.record["spec"] = self.spec = self.spec | fields
        write_json(self.folder / "spec.json", self.record)

    def log_test_use(self, reason: str, *, scored: bool) -> None:
        """Record that the test set was opened: when, why, and whether its labels were read."""
        with open(self.folder / "test_uses.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"time": now(), "reason": reason, "scored": scored}) + "\n")
        sync_file(self.folder / "test_uses.jsonl")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for training by one process. The operating system releases the lock even after a crash.

        Raises:
            RunError: another process trains in this folder, or the folder is renamed or removed meanwhile.
            SpecError: the file system has no locks.
        """
        from filelock import Timeout

        try:
            with file_lock(self.folder / LOCK, timeout=1):  # `is_locked` holds the lock for microseconds
                yield
        except Timeout:
            raise RunError(f"Another process is training in {self.folder}. Wait for it, or stop it first.") from None
        except FileNotFoundError as error:
            if self.folder.is_dir():
                raise
            raise RunError(
                f"{self.folder} was renamed, moved or removed while it was training. What was saved until then goes on "
                "from its new place: onsight train --resume FOLDER"
            ) from error

    def is_locked(self) -> bool:
        """Return whether a process trains in the folder."""
        from filelock import Timeout

        path = self.folder / LOCK
        if not path.is_file():  # looking makes no file
            return False
        try:
            with file_lock(path, timeout=0):
                return False
        except Timeout:
            return True
        except (OSError, SpecError):  # the file cannot be written to, or there are no locks: nothing is known
            return False

    def __repr__(self) -> str:
        state = "trained" if self.is_trained else "not finished"
        return f"Run({str(self.folder)!r}, {self.spec.get('model')} on {self.spec.get('data')}, {state})"

    def _repr_html_(self) -> str:
        from onsight.display import notebook

        evaluations: dict[str, Metrics] = {}
        with contextlib.suppress(OnsightError):  # a damaged evaluation must not hide the run
            evaluations = read_evaluations(self)
        return notebook.run(self, evaluations)


def open_run(path: str | Path | Run, *, finished: bool | None = True) -> Run:
    """Return the run at `path`.

    `latest`, alone or after a folder, is the newest run with a model; with `finished` False the newest unfinished one,
    with None the newest of all.

    Raises:
        RunError: there is no such run.
    """
    if isinstance(path, Run):
        return path
    path = Path(path)
    if path.name != "latest" or path.exists():
        if not path.exists() and len(path.parts) == 1 and (runs_folder() / path).exists():
            path = runs_folder() / path
        if not path.exists():
            raise RunError(f"There is no run at {path}. `onsight runs` lists the runs in {runs_folder()}.")
        return Run(path)
    root = path.parent if len(path.parts) > 1 else runs_folder()
    matching = list_runs(root)
    if finished is not None:
        matching = [run for run in matching if (run.has_model if finished else not run.is_trained)]
    if not matching:
        kind = {True: "finished run", False: "unfinished run", None: "run"}[finished]
        raise RunError(f"There is no {kind} in {root}. Train one: onsight train")
    return matching[-1]


def list_runs(root: str | Path | None = None) -> list[Run]:
    """Return the runs in a folder, oldest first. Folders that are not runs are skipped."""
    root = Path(root) if root else runs_folder()
    runs = []
    for path in root.iterdir() if root.is_dir() else []:
        if (path / "spec.json").is_file():
            with contextlib.suppress(RunError):
                runs.append(Run(path))
    runs.sort(key=lambda run: (str(run.record.get("created", "")), run.name))
    # The clock may have been set back between two runs: then their numbers say which is newer.
    places = [place for place, run in enumerate(runs) if run.number is not None]
    numbered = sorted((runs[place] for place in places), key=lambda run: run.number or 0)
    for place, run in zip(places, numbered, strict=True):
        runs[place] = run
    return runs


def damaged_runs(root: str | Path | None = None) -> dict[Path, str]:
    """Return run -> reason, for the runs in a folder whose figures cannot be listed."""
    root = Path(root) if root else runs_folder()
    damaged = {}
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if (path / "spec.json").exists():
            try:
                run = Run(path)
                run.history()
                str(run.dataset["name"])
            except (RunError, OSError) as error:
                damaged[path] = str(error)
    return damaged


def finite(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of history.jsonl with None for numbers that are not finite, which JSON does not have."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in line.items()
    }


# Readers -------------------------------------------------------------------------------------------------------------


def read_evaluations(run: Run) -> dict[str, Metrics]:
    """Return the metrics of every finished evaluation by name, `test` first.

    Evaluations of weights that the run no longer has are left out.

    Raises:
        RunError: a metrics.json is damaged.
    """
    folders = sorted(run.evaluation_folder().parent.glob("*/metrics.json"), key=lambda path: path.parent.name)
    try:
        found = {path.parent.name: read_object(path, Metrics) for path in folders}
        for path, metrics in zip(folders, found.values(), strict=True):
            if metrics and len(metrics["confusion"]) not in (0, len(metrics["per_class"])):
                raise RunError(f"{path} is damaged: 'confusion' and 'per_class' have different numbers of classes.")
    except RunError as error:
        raise RunError(f"{error} Write it again with: onsight evaluate {argument(run.folder)}") from None
    weights = (read_object(run.model_folder / "model.json", dict[str, Any]) or {}).get("weights_sha256")
    return {
        name: metrics
        for name, metrics in sorted(found.items(), key=lambda item: item[0] != "test")
        if metrics and metrics.get("weights_sha256", weights) == weights
    }


def read_checked(path: Path, kind: type[Any], newest: int, missing: str) -> Any:
    """Return the JSON object in a file.

    Args:
        path: the file.
        kind: the TypedDict that it must be.
        newest: the newest schema that this version reads.
        missing: what to say if the file cannot be read.

    Raises:
        RunError: the file is missing or damaged, or a newer Onsight wrote it.
    """
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise RunError(missing) from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}.") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: expected a JSON object.")
    schema = value.get("schema", newest)
    if not isinstance(schema, int) or schema > newest:
        raise RunError(f"{path} was written by a newer Onsight (schema {schema!r}; this version reads {newest}).")
    if found := misfit(value, kind):
        raise RunError(f"{path} is damaged: {found}.")
    return value


def read_object(path: Path, kind: type[Kind]) -> Kind | None:
    """Return the JSON object in a file, or None if there is no file.

    Args:
        path: the file.
        kind: the TypedDict, or dict[str, ...], that it must be.

    Raises:
        RunError: the file is damaged.
    """
    try:
        value = read_json(path)
    except OSError:
        return None
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}.") from None
    if found := misfit(value, kind):
        raise RunError(f"{path} is damaged: {found}.")
    return cast(Kind, value)


def place(run: Run) -> str:
    """Return the run as an argument of a command in a file that may be sent to others, such as report.html.

    It is a path below `runs/`, without the folders of the user's machine, and valid from the folder that holds `runs/`.
    Commands that are printed for the user name the run as `core.files.argument` does, valid where the user stands.
    """
    name = run.folder.resolve()
    return plain(shlex.quote(f"runs/{name.name}" if name.parent.name == "runs" else name.name))
