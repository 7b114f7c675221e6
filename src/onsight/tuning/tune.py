"""tune(spec) -> Study: try settings in trials, each a run, and choose by the validation images.

The test set is never opened.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from onsight.core.errors import Interrupted, OnsightError, RunError, SpecError
from onsight.core.files import argument, located, make_folder, now, numbered_folder, write_json
from onsight.core.progress import Reporter
from onsight.core.records import SearchedSetting, StudyRecord
from onsight.core.text import seconds_of
from onsight.data.load import DATASETS, keeps_labels_when_mirrored
from onsight.display.reporters import make_reporter
from onsight.spec import FROM_SCRATCH, TrainSpec
from onsight.training.find_learning_rate import find_rate
from onsight.training.prepare import Prepared, prepare
from onsight.training.train import as_spec
from onsight.tuning.halving import Training, is_over, next_step, rung_divisors
from onsight.tuning.page import write_page
from onsight.tuning.results import Study, read_study, read_trials, rows_of
from onsight.tuning.space import AROUND_TEST, Given, around, default_space, read_space
from onsight.tuning.study import (
    SCHEMA,
    Claim,
    Journal,
    begun_in,
    import_optuna,
    is_study,
    read_record,
    training_of,
    tunes_folder,
)
from onsight.tuning.trials import head_epochs, is_its_own_fault, timed, train_claim

TRIALS = 30  # unless a number or a time is given
PAUSE = 1.0  # seconds between two looks at what other processes do
PAGE_SHARE = 0.01  # of the time that writing the page may take


def tune(
    spec: TrainSpec | str | Path | None = None,
    *,
    trials: int | None = None,
    time_budget: str | None = None,
    search: Mapping[str, Given] | Iterable[str] | None = None,
    study: str | Path | None = None,
    resume: str | Path | None = None,
    find_learning_rate: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> Study:
    """Search for better settings than the preset's, and say whether they are.

    Each trial is trained with its own schedule on a ninth, a third and all of the epochs. The best third of each rung
    moves on. The sampler is Optuna's TPE. Trials are compared on the validation images.

    Args:
        spec: what to train, on what data and how, as for `train`; or only the data.
        trials: the number of trials; by default 30, or as many as fit into `time_budget`.
        time_budget: how long this call may take: 90s, 5m or 1.5h.
        search: what to search: {"learning_rate": (0.03, 0.5), "optimizer": ["muon", "sgd"]}. A tuple is a range, a list
            holds choices. By default the learning rate, the augmentation, the label smoothing and, if the optimizer has
            one, the weight decay, as far as `spec` does not set them. Where `spec` sets what is searched, its value is
            that of the first trial.
        study: the folder of the study; by default a new one in tunes/. If it holds the same study already, go on.
        resume: go on with the study in this folder: after a kill, for more trials, or as one more process. Leave the
            spec and `search` out. Without `trials` and `time_budget`, those of the study hold.
        find_learning_rate: take the result of a range test for the centre of the learning rates.
        reporter: receives the progress.
        **options: not accepted, as for `train`.

    Raises:
        SpecError: Optuna is not installed, or a choice cannot work.
        DataError: the images cannot be used.
        RunError: the folder holds another study, or the images have changed since it began.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP was received; everything is saved.
    """
    began = time.perf_counter()
    import_optuna()
    if trials is not None and trials < 1:
        raise SpecError(f"trials={trials} tries nothing; expected 1 or more.")
    budget = None if time_budget is None else read_budget(time_budget)
    with reporter or make_reporter() as show:
        if resume is not None:
            refuse_with_resume(spec, search, study, find_learning_rate, options)
            journal = open_journal(Path(resume))
        else:
            journal = start(as_spec(spec, options, "tune"), search, study, find_learning_rate, (trials, budget), show)
        show.note("study", str(journal.folder))
        return Search(journal, *limits(journal, trials, budget), began, show).run()


def limits(journal: Journal, trials: int | None, budget: float | None) -> tuple[int | None, float | None]:
    """Return how many trials the study has, and how many seconds this call may take.

    What is given is recorded. Without either, a study goes on as it was meant: with its trials, or with what its
    trainings have left of its time.
    """
    record = journal.record
    if trials is None and budget is None and ("trials" in record or "time_budget" in record):
        meant, whole = record.get("trials"), record.get("time_budget")
        spent = sum(entry.training.seconds or 0.0 for entry in journal.read()) if whole else 0.0
        return meant, max(1.0, whole - spent) if whole else None
    before = {**record}
    set_limits(record, trials, budget)
    if record != before:
        with journal.lock:
            write_json(journal.folder / "study.json", record)
    return record.get("trials"), budget


def set_limits(record: StudyRecord, trials: int | None, budget: float | None) -> None:
    """Set how many trials a study has, by default 30, or how many seconds, in its record."""
    trials = trials or (None if budget else TRIALS)
    for name, value in (("trials", trials), ("time_budget", budget)):
        record.pop(name, None)  # type: ignore[misc]
        if value is not None:
            record[name] = value  # type: ignore[literal-required]


def read_budget(text: str) -> float:
    """Return a time budget in seconds."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise SpecError(str(error)) from None


def refuse_with_resume(spec: Any, search: Any, study: Any, find_learning_rate: bool, options: dict[str, Any]) -> None:
    """Raise SpecError if a study is resumed with options that would change it."""
    given = {"a spec": spec, "search": search, "study": study, "find_learning_rate": find_learning_rate or None}
    extra = [name for name, value in (given | options).items() if value is not None]
    if extra:
        raise SpecError(
            f"A resumed study keeps its own settings; with --resume only --trials and --time-budget can be given, not "
            f"{', '.join(extra)}."
        )


def open_journal(folder: Path) -> Journal:
    """Return the trainings of the study in a folder, or below tunes/."""
    if not is_study(folder) and len(folder.parts) == 1 and is_study(tunes_folder() / folder):
        folder = tunes_folder() / folder
    return Journal(folder, read_record(folder))


def open_study(folder: str | Path) -> Study:
    """Return what the study in a folder has found so far.

    Raises:
        SpecError: Optuna is not installed.
        RunError: there is no study.
    """
    return read_study(open_journal(Path(folder)))


# A new study ---------------------------------------------------------------------------------------------------------


def start(
    spec: TrainSpec,
    search: Mapping[str, Given] | Iterable[str] | None,
    folder: str | Path | None,
    find_learning_rate: bool,
    limit: tuple[int | None, float | None],
    show: Reporter,
) -> Journal:
    """Return a new study of `spec` with a limit of trials or seconds, or the one in `folder` if it is the same.

    The limit is in the record from the start, so that a study that is killed at once goes on with it.
    """
    if spec.time_budget:
        raise SpecError(
            f"time_budget={spec.time_budget} in the spec limits a single training. Give tune a time_budget of its own."
        )
    space = None if search is None else read_space(search)
    asked = spec.model_dump(mode="json", exclude_unset=True)
    if folder is not None:
        make_folder(Path(folder))
        if is_study(Path(folder)):
            return same_study(Path(folder), spec, space)
    prepared = prepare(spec, show)
    validation = int((prepared.images.parts == "validation").sum())
    if not validation:
        raise SpecError("There are no validation images to choose by. Use a --validation above 0.")
    preset = prepared.spec
    mirrors = keeps_labels_when_mirrored(prepared.images.dataset)
    found = space or default_space(preset, mirrors, fixed=spec.model_fields_set)
    record: StudyRecord = {
        "schema": SCHEMA,
        "created": now(),
        "data": prepared.images.dataset.name,
        "asked": asked,
        "preset": preset.model_dump(mode="json"),
        "pinned": pinned(spec, preset),
        "space": found,
        "search": space,
        "divisors": rung_divisors(preset.epochs, head_epochs(preset.model_dump())),
        "digests": {part: prepared.members["digests"][part] for part in ("train", "validation")},
        "validation": validation,
    }
    set_limits(record, *limit)
    if find_learning_rate:
        centre_on_test(record, prepared, show)
    if folder is None:
        where = numbered_folder(tunes_folder(), record["data"])
    elif is_study(Path(folder)):  # another process has begun the same meanwhile
        return same_study(Path(folder), spec, space)
    else:
        where = Path(folder)
    write_json(where / "study.json", record)
    return Journal(where, record)


def pinned(spec: TrainSpec, preset: TrainSpec) -> dict[str, Any]:
    """Return what all trials share because the preset was resolved to it: what training starts from, and is frozen.

    A trial names settings that would otherwise turn pretrained weights off. Other machines would choose another backend
    and precision.
    """
    shared = {"backend", "precision"}
    if preset.weights != FROM_SCRATCH:
        shared |= {"weights", "freeze", "head_epochs"}
    elif spec.data not in DATASETS:
        shared |= {"weights"}
    return preset.model_dump(mode="json", include=shared)


def centre_on_test(record: StudyRecord, prepared: Prepared, show: Reporter) -> None:
    """Search the learning rate around the result of a range test."""
    if record["search"] and "learning_rate" in record["search"]:
        raise SpecError("--find-learning-rate chooses the range of the learning rate, but --search names one.")
    rate = find_rate(prepared, show).rate
    record["rate_test"] = rate
    record["space"]["learning_rate"] = around(rate, AROUND_TEST, most=100.0)


def same_study(folder: Path, spec: TrainSpec, space: Mapping[str, SearchedSetting] | None) -> Journal:
    """Return the study in `folder`. Raise RunError unless it has this spec and search."""
    journal = open_journal(folder)
    record = journal.record
    asked = spec.model_dump(mode="json", exclude_unset=True)
    data = spec.data if spec.data in DATASETS else located(spec.data)
    for name, before, now_given in (
        ("data", record["preset"]["data"], data),
        ("spec", record["asked"] | {"data": data}, asked | {"data": data}),
        ("search", record["search"], space),
    ):
        if before != now_given:
            raise RunError(
                f"{folder} holds another study: its {name} was {before}, and is {now_given} now. Choose another "
                f"--study, or go on with it: onsight tune --resume {argument(folder)}"
            )
    return journal


# The search ----------------------------------------------------------------------------------------------------------


class Search:
    """One process that works on a study."""

    def __init__(
        self, journal: Journal, trials: int | None, budget: float | None, began: float, show: Reporter
    ) -> None:
        self.journal, self.trials, self.budget, self.began, self.show = journal, trials, budget, began, show
        self.rungs = len(journal.record["divisors"])
        self.page_written = self.page_cost = 0.0

    def run(self) -> Study:
        """Train until the trials or the time are used up, and return what the study has found."""
        try:
            while True:
                claim, trainings = self.claim()
                if claim:
                    self.train(claim)
                elif is_over(trainings) or not self.fits(trainings, 0.0):
                    break
                else:  # another process trains: its trial may move up, or it may be killed
                    time.sleep(PAUSE)
        except (Interrupted, KeyboardInterrupt) as stop:
            where = argument(self.journal.folder)
            code = stop.exit_code if isinstance(stop, Interrupted) else 130
            raise Interrupted(
                f"Stopped. All trials are saved. Continue with: onsight tune --resume {where}", code
            ) from None
        self.show.table(rows_of(self.journal.record, read_trials(self.journal)))
        study = read_study(self.journal)
        write_page(study)
        return study

    def claim(self) -> tuple[Claim | None, list[Training]]:
        """Take the next training: one whose process was killed, or what successive halving says."""
        with self.journal.opened() as study:
            if lost := self.journal.take_over(study):
                return lost, []
            trainings = [training_of(trial) for trial in begun_in(study)]
            costs = [self.cost(trainings, rung) for rung in range(self.rungs)]
            begun = len({each.trial for each in trainings} - {0})
            more = (self.trials is None or begun < self.trials) and self.fits(trainings, sum(costs))
            step = next_step(trainings, self.rungs, more, [self.fits(trainings, cost) for cost in costs])
            return (self.journal.begin(study, *step) if step else None), trainings

    def fits(self, trainings: list[Training], seconds: float) -> bool:
        """Return whether `seconds` more fit into the time budget."""
        if self.budget is None:
            return True
        return time.perf_counter() - self.began + seconds <= self.budget or not trainings

    def cost(self, trainings: list[Training], rung: int) -> float:
        """Return the seconds that a training on a rung takes: the longest so far, or its share of the longest rung."""
        known = [each.seconds for each in trainings if each.rung == rung and each.seconds]
        if known:
            return max(known)
        whole = [each.seconds for each in trainings if each.rung == self.rungs - 1 and each.seconds]
        return max(whole, default=0.0) / self.journal.record["divisors"][rung]

    def train(self, claim: Claim) -> None:
        """Train what was taken, and report it."""
        try:
            self.show_trials()
            started = time.perf_counter()
            accuracy, failure = None, None
            try:
                accuracy = train_claim(self.journal, claim, self.show)
            except OnsightError as error:
                if not is_its_own_fault(error, claim.training.trial):
                    raise
                failure = str(error)
            seconds = timed(started, self.journal.run_folder(claim.training))
            self.journal.report(claim, accuracy, seconds, failure)
        finally:
            claim.lock.release()  # in a notebook, this process may go on with the study itself
        self.show_trials()

    def show_trials(self) -> None:
        """Show the table of trials; write the page too, unless that would take too much of the time."""
        self.show.table(rows_of(self.journal.record, read_trials(self.journal)))
        at = time.perf_counter()
        if at - self.page_written < self.page_cost / PAGE_SHARE:
            return
        write_page(read_study(self.journal))
        self.page_written = time.perf_counter()
        self.page_cost = self.page_written - at
