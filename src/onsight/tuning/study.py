"""The folder of a study, and who trains what: the record, the trainings in Optuna's journal, and the locks.

    tunes/photos-0001/
      study.json     what is searched, on what data, by which rungs; written once
      journal.log    every training: its settings, its rung, what it reached (Optuna's JournalStorage)
      runs/          one run folder per training, named by its number
      tune.html      the page, written again while the study goes on

Several processes may work on one study. Whoever chooses or reports a training holds `.lock`. Whoever trains holds the
lock of that training, which the operating system releases even after a crash: a training that is marked as running and
whose lock is free was killed, and the next process goes on with it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from onsight.core.errors import RunError, SpecError
from onsight.core.records import StudyRecord
from onsight.runs.run import Run, read_checked
from onsight.tuning.halving import Training
from onsight.tuning.space import distributions

if TYPE_CHECKING:
    import optuna
    from filelock import BaseFileLock

SCHEMA = 1
NAME = "onsight"  # of the only study in a journal
CREATE_TRIAL = 4  # the number of this operation in Optuna's journals


def tunes_folder() -> Path:
    """Return the folder of all studies."""
    return Path("tunes")


def import_optuna() -> None:
    """Import Optuna without its log lines. Raise SpecError if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise SpecError("onsight tune needs Optuna, which is not installed: pip install 'onsight[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def is_study(folder: Path) -> bool:
    """Return whether a folder holds a study."""
    return (folder / "study.json").is_file()


def read_record(folder: Path) -> StudyRecord:
    """Return the content of study.json.

    Raises:
        RunError: there is no study, it is damaged, or a newer Onsight wrote it.
    """
    missing = f"{folder} is not a study: it has no study.json. Studies are in {tunes_folder()}."
    found: StudyRecord = read_checked(folder / "study.json", StudyRecord, SCHEMA, missing)
    return found


class Entry(NamedTuple):
    """A training as the journal has it."""

    training: Training
    params: dict[str, Any]  # of the trial, as Optuna drew them; {} for the preset
    error: str | None  # why it failed


class Claim(NamedTuple):
    """A training that this process has taken: what it trains, and the lock that it holds meanwhile."""

    training: Training
    params: dict[str, Any]  # of the trial, as Optuna drew them; {} for the preset
    lock: BaseFileLock


class Journal:
    """The trainings of a study, shared by all processes that work on it."""

    def __init__(self, folder: Path, record: StudyRecord) -> None:
        from filelock import FileLock

        import_optuna()
        self.folder, self.record = folder, record
        self.path = folder / "journal.log"
        self.lock = FileLock(folder / ".lock")
        self.distributions = distributions(record["space"])

    @contextlib.contextmanager
    def opened(self) -> Iterator[optuna.Study]:
        """Lock the journal and open it as a study of Optuna.

        The sampler is seeded by the number of trainings: seeded alike in each process, it would propose the same values
        twice.
        """
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        with self.lock:
            self.mend()
            storage = JournalStorage(JournalFileBackend(str(self.path), lock_obj=cast(Any, Held())))
            study = optuna.create_study(
                study_name=NAME,
                storage=storage,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.NopPruner(),
            )
            seed = seed_of(self.record["preset"]["seed"], len(study.get_trials(deepcopy=False)))
            study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            yield study

    def mend(self) -> None:
        """Remove what a killed process left at the end of the journal: the beginning of a line, or of a trial.

        A trial without the mark `trial` has not begun. It is drawn again with the seed that it had, so that the study
        ends as one that nothing has interrupted.
        """
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        kept = lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines
        places = range(len(kept) - 1, -1, -1)  # only the last trial is read
        begun = next((i for i in places if json.loads(kept[i])["op_code"] == CREATE_TRIAL), len(kept))
        operations = map(json.loads, kept[begun:])
        marks = (each.get("user_attrs") or each.get("user_attr") or {} for each in operations)
        if not any("trial" in each for each in marks):
            kept = kept[:begun]
        if len(kept) < len(lines):
            with open(self.path, "rb+") as file:
                file.truncate(sum(map(len, kept)))

    def read(self) -> list[Entry]:
        """Return all trainings with their parameters, in the order of their beginning."""
        with self.opened() as study:
            return [entry_of(trial) for trial in begun_in(study)]

    # Training ---------------------------------------------------------------------------------------------------------

    def run_folder(self, training: Training) -> Path:
        """Return the run folder of a training."""
        return self.folder / "runs" / f"training-{training.number:04d}"

    def try_lock(self, number: int) -> BaseFileLock | None:
        """Lock a training for this process, or return None: another process trains it."""
        from filelock import FileLock, Timeout

        (self.folder / "runs").mkdir(exist_ok=True)
        lock = FileLock(self.folder / "runs" / f".{number:04d}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def take_over(self, study: optuna.Study) -> Claim | None:
        """Take a training whose process was killed."""
        for trial in begun_in(study):
            training = training_of(trial)
            if training.state == "running" and (lock := self.try_lock(trial.number)):
                return Claim(training, trial.params if training.trial else {}, lock)
        return None

    def begin(self, study: optuna.Study, trial: int | None, rung: int) -> Claim:
        """Begin a training: of a trial on a higher rung, of the preset (0), or of a new trial (None)."""
        import optuna

        trials = begun_in(study)
        if trial is None:
            asked = study.ask(self.distributions)
            params = asked.params
            number = max((each.user_attrs["trial"] for each in trials), default=0) + 1
            asked.set_user_attr("rung", rung)
            asked.set_user_attr("trial", number)  # last: without it, `mend` takes the trial back
        else:
            before = [each.params for each in trials if each.user_attrs["trial"] == trial]
            params = before[0] if before else self.preset_params()
            number = trial
            study.add_trial(
                optuna.create_trial(
                    state=optuna.trial.TrialState.RUNNING, params=params, distributions=self.distributions,
                    user_attrs={"rung": rung, "trial": trial},
                )
            )  # fmt: skip
        training = training_of(begun_in(study)[-1])
        lock = self.try_lock(training.number)
        assert lock is not None  # nobody else can know of it yet
        return Claim(training, params if number else {}, lock)

    def preset_params(self) -> dict[str, Any]:
        """Return the parameters nearest to the preset. Optuna needs some, though it does not learn from the preset."""
        preset = self.record["preset"]
        return {name: nearest(each, preset[name]) for name, each in self.distributions.items()}

    def report(self, claim: Claim, accuracy: float | None, seconds: float, error: str | None = None) -> None:
        """Record what a training reached, or why it failed. The sampler takes a failure for the worst result.

        It does not learn from the preset, which has no result on the first rung and would outweigh those that have.
        """
        import optuna
        from optuna.trial import TrialState

        last = claim.training.rung == len(self.record["divisors"]) - 1
        with self.opened() as study:
            kept = study.get_trials(deepcopy=False)[claim.training.number]
            trial = optuna.trial.Trial(study, kept._trial_id)
            trial.set_user_attr("seconds", seconds)
            if error is None:
                trial.set_user_attr("accuracy", accuracy)
            else:
                trial.set_user_attr("error", error)
            if claim.training.trial == 0:
                study.tell(trial, state=TrialState.FAIL)
            elif last and error is None:
                study.tell(trial, accuracy)
            else:
                if not kept.intermediate_values:  # else a process was killed between these two lines
                    trial.report(accuracy or 0.0, step=claim.training.rung)
                study.tell(trial, state=TrialState.PRUNED)


class Held:
    """The lock that Optuna asks for around each line of the journal. `Journal.opened` holds one already.

    Optuna's own lock stays behind when a process is killed, and stops the others for half a minute.
    """

    def acquire(self) -> bool:
        """Do nothing."""
        return True

    def release(self) -> None:
        """Do nothing."""


def begun_in(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return Optuna's trials: one for each training. Studies of older versions may have one that has not begun."""
    return [trial for trial in study.get_trials(deepcopy=False) if "trial" in trial.user_attrs]


def training_of(trial: optuna.trial.FrozenTrial) -> Training:
    """Return a training from Optuna's trial."""
    marks = trial.user_attrs
    state = "running" if not trial.state.is_finished() else "failed" if "error" in marks else "done"
    return Training(
        trial.number, marks["trial"], marks["rung"], state, marks.get("accuracy"), marks.get("seconds")  # type: ignore[arg-type]
    )  # fmt: skip


def entry_of(trial: optuna.trial.FrozenTrial) -> Entry:
    """Return what the journal has of a training."""
    marks = trial.user_attrs
    return Entry(training_of(trial), trial.params if marks["trial"] else {}, marks.get("error"))


def nearest(distribution: Any, value: Any) -> Any:
    """Return a value that a distribution has: `value`, or the nearest end of the range, or the first choice."""
    if hasattr(distribution, "choices"):
        return value if value in distribution.choices else distribution.choices[0]
    return type(distribution.low)(min(distribution.high, max(distribution.low, value or 0)))


def seed_of(seed: int, number: int) -> int:
    """Return a seed for the sampler, different for each number of trainings."""
    import numpy as np

    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def trained_run(journal: Journal, training: Training) -> Run | None:
    """Return the run of a training, if it has one that can be read."""
    with contextlib.suppress(RunError):
        return Run(journal.run_folder(training))
    return None
