"""One training of a study: its spec, its run, and what it reached on the validation images."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onsight.core.errors import Interrupted, OnsightError, RunError, SpecError, TrainingError
from onsight.core.progress import Reporter
from onsight.core.records import StudyRecord
from onsight.reporting.report import report
from onsight.runs.run import Run
from onsight.spec import TrainSpec
from onsight.training.checkpoints import checkpoint_folders
from onsight.training.prepare import Prepared, prepare
from onsight.training.train import created_run, fit_and_report, resume
from onsight.tuning.halving import rung_epochs
from onsight.tuning.space import values_of
from onsight.tuning.study import Claim, Journal

PLACES = ("data", "data_dir", "keep_list", "labels")  # settings that are paths
JUDGED = ("train", "validation")  # parts that must be the same in every training


class TrialReporter(Reporter):
    """Shows the steps of one training as the progress of its study, and nothing else of it."""

    def __init__(self, show: Reporter, name: str) -> None:
        self.show, self.name = show, name

    def work(self, what: str, done: int, total: int | None) -> None:
        """Show a long task, such as decoding."""
        self.show.work(f"{self.name}: {what}", done, total)

    def tick(self, facts: Mapping[str, Any]) -> None:
        """Show the step that training has reached, over all epochs."""
        steps = facts["steps"]
        done = (facts["epoch"] - 1) * steps + facts["step"]
        self.show.work(f"{self.name}, epoch {facts['epoch']}/{facts['epochs']}", done, facts["epochs"] * steps)


def values_in(record: StudyRecord, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a trial from Optuna's parameters."""
    return values_of(params, record["preset"]["optimizer"])


def head_epochs(preset: Mapping[str, Any]) -> int:
    """Return how many first epochs of the preset only fit a head, at once: no rung divides them."""
    if preset["freeze"] in (None, "all"):
        return 0
    return int(min(preset["head_epochs"] or 0, preset["epochs"] - 1))


def epochs_on(record: StudyRecord, values: Mapping[str, Any], rung: int) -> int:
    """Return the epochs of a trial on a rung."""
    preset = record["preset"]
    return rung_epochs(values.get("epochs", preset["epochs"]), record["divisors"][rung], head_epochs(preset))


def spec_of(record: StudyRecord, values: Mapping[str, Any], rung: int) -> TrainSpec:
    """Return the spec of a trial on a rung: what was asked, what all trials share, and what the trial changes.

    Its paths are absolute, because a study may go on in another folder.
    """
    fields = {**record["asked"], **places(record), **record["pinned"], **values}
    return TrainSpec(**fields | {"epochs": epochs_on(record, values, rung)})


def places(record: StudyRecord) -> dict[str, Any]:
    """Return the absolute paths of a study's data."""
    return {name: record["preset"].get(name) for name in PLACES if name in record["asked"]}


def train_claim(journal: Journal, claim: Claim, show: Reporter) -> float:
    """Train what this process has taken, from where a killed process left it, and return its accuracy.

    Raises:
        RunError: the images have changed since the study began.
        OnsightError: as `train` raises them.
    """
    training = claim.training
    folder = journal.run_folder(training)
    quiet = TrialReporter(show, f"trial {training.trial}")
    if folder.exists() and not checkpoint_folders(folder / "checkpoints"):
        shutil.rmtree(folder)  # killed before its first checkpoint
    if not folder.exists():
        spec = spec_of(journal.record, values_in(journal.record, claim.params), training.rung)
        prepared = prepare(spec, quiet)
        check_images(journal.record, prepared, journal.folder)
        # As the user gave them, for the report: it shows no folder of the user's machine.
        prepared.record["asked"] |= {name: journal.record["asked"][name] for name in places(journal.record)}
        with created_run(prepared, folder) as run:
            fit_and_report(run, prepared.spec, prepared.images, quiet, ())
    elif not Run(folder).is_trained:
        resume(folder, reporter=quiet)
    elif not Run(folder).report.exists():  # killed at the very end
        report(Run(folder))
    return float(right_of(Run(folder)).mean())


def right_of(run: Run) -> np.ndarray:
    """Return (n,) bool, whether the run classifies each validation image correctly."""
    try:
        right: np.ndarray = np.load(run.validation_right)
    except (OSError, ValueError) as error:
        raise RunError(f"{run.validation_right} is missing or damaged: {error}.") from None
    return right


def check_images(record: StudyRecord, prepared: Prepared, folder: Path) -> None:
    """Raise RunError unless a training has the images of its study."""
    found = prepared.members["digests"]
    if changed := [part for part in JUDGED if found[part] != record["digests"][part]]:
        raise RunError(
            f"The images of the part {' and '.join(changed)} have changed since {folder} began, so its trials could "
            "not be compared. Start a new study: leave --resume and --study out."
        )


def is_its_own_fault(error: OnsightError, training_trial: int) -> bool:
    """Return whether the settings of a trial made its training fail, so that the study goes on with others.

    A full disk would stop the others, too. If the preset fails, so would most trials.
    """
    if training_trial == 0 or isinstance(error, Interrupted) or isinstance(error.__cause__, OSError):
        return False
    return isinstance(error, SpecError | TrainingError)


def timed(started: float, run_folder: Path) -> float:
    """Return the seconds that a training took, with those of a process that was killed before."""
    recorded = 0.0
    if (run_folder / "spec.json").exists():
        recorded = sum(row.get("seconds") or 0.0 for row in Run(run_folder).history())
    return max(time.perf_counter() - started, recorded)
