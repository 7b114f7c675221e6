"""What a study has found: its trials, the winner, how good the winner really is, and the words for it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onsight.core.errors import RunError
from onsight.core.files import argument, now, numbered_folder, write_json
from onsight.core.records import SearchedSetting, StudyRecord
from onsight.core.text import chance, count, duration, interval, percent, points, short
from onsight.metrics.intervals import Difference
from onsight.metrics.selection import Chosen, choose
from onsight.reporting.commands import train_command
from onsight.runs.run import Run, list_runs, runs_folder
from onsight.tuning.halving import Training, worth
from onsight.tuning.space import at_the_edge
from onsight.tuning.study import Entry, Journal, trained_run
from onsight.tuning.trials import epochs_on, right_of, values_in

LEVEL = 0.05  # significance level


class Trial(NamedTuple):
    """One trial: its settings, and how far it came."""

    number: int  # 0 is the preset
    values: dict[str, Any]  # what it changes; {} for the preset
    trainings: list[Training]  # on one rung each, the lowest first
    epochs: int  # of the longest training that has finished, or of the first
    error: str | None = None

    @property
    def last(self) -> Training:
        """The training on the highest rung."""
        return self.trainings[-1]

    @property
    def done(self) -> Training | None:
        """The training on the highest rung that has finished."""
        return next((each for each in reversed(self.trainings) if each.state == "done"), None)


@dataclass(frozen=True)
class Study:
    """A study: the trials so far, and what they show.

    Attributes:
        folder: holds study.json, the trials' runs and tune.html.
        trials: the best first.
        winner: the best trial that was trained to the end; None before there is one.
        run: its run.
        chosen: what its accuracy is worth on other images.
        sentences: the verdict, and what to know about it.
        command: trains the winner again.
    """

    folder: Path
    record: StudyRecord = field(repr=False)
    trials: list[Trial] = field(repr=False)
    winner: Trial | None
    run: Run | None
    chosen: Chosen | None
    sentences: list[str] = field(repr=False)
    command: str

    @property
    def page(self) -> Path:
        """The path of tune.html."""
        return self.folder / "tune.html"

    def take(self) -> Run:
        """Copy the winner's run to runs/, once, and return it. Its spec.json names the study.

        Raises:
            RunError: the study has no winner yet.
        """
        if not self.run or not self.winner:
            raise RunError(f"{self.sentences[0]} Go on with: onsight tune --resume {argument(self.folder)}")
        created = self.record["created"]
        origin = {"name": self.folder.resolve().name, "created": created, "trial": self.winner.number}
        for run in list_runs():
            if run.record.get("study") == origin:
                return run
        folder = numbered_folder(runs_folder(), f"{self.record['data']}-{self.run.spec['model']}")
        ignored = shutil.ignore_patterns("spec.json", ".lock")
        shutil.copytree(self.run.folder, folder, dirs_exist_ok=True, ignore=ignored)
        write_json(
            folder / "spec.json", {**self.run.record, "study": origin, "created": now()}
        )  # last: it makes the run
        return Run(folder)

    def __str__(self) -> str:
        return self.sentences[0]

    def _repr_html_(self) -> str:
        from onsight.display import notebook

        return notebook.study(self.sentences, table(self), self.command)


def read_study(journal: Journal) -> Study:
    """Return what a study has found so far."""
    record = journal.record
    trials = read_trials(journal)
    finalists, right = [], []
    for trial in sorted(trials, key=lambda each: each.number):  # the preset first: it wins a tie
        if trial.done and trial.done.rung == len(record["divisors"]) - 1 and (run := trained_run(journal, trial.done)):
            answers = right_of(run)
            if len(answers) != record["validation"]:
                raise RunError(f"{run.folder} does not belong to {journal.folder}: its validation images are others.")
            finalists.append(trial)
            right.append(answers)
    if not finalists or finalists[0].number != 0:  # the preset has not finished yet: nothing to compare with
        sentence = f"No trial of {argument(journal.folder)} was trained to the end yet, or the preset was not."
        return Study(journal.folder, record, trials, None, None, None, [sentence], "")
    tried = max(1, sum(trial.number > 0 for trial in trials))
    chosen = choose(np.array(right), tried)
    winner = finalists[chosen.best]
    assert winner.done is not None
    run = trained_run(journal, winner.done)
    assert run is not None
    sentences = sentences_on(record, trials, winner, chosen, len(finalists))
    return Study(journal.folder, record, trials, winner, run, chosen, sentences, train_command(run))


def read_trials(journal: Journal) -> list[Trial]:
    """Return the trials of a study, the best first."""
    entries: dict[int, list[Entry]] = {}
    for entry in journal.read():
        entries.setdefault(entry.training.trial, []).append(entry)
    found = []
    for number, own in entries.items():
        own.sort(key=lambda entry: entry.training.rung)
        values = values_in(journal.record, own[0].params)
        reached = [entry.training.rung for entry in own if entry.training.state == "done"] or [own[0].training.rung]
        epochs = epochs_on(journal.record, values, reached[-1])
        found.append(Trial(number, values, [entry.training for entry in own], epochs, own[-1].error))
    return sorted(found, key=rank)


def rank(trial: Trial) -> tuple[float, ...]:
    """Return what trials are sorted by: the highest rung that they finished, then the accuracy there."""
    return (-trial.done.rung, *worth(trial.done)) if trial.done else (1, trial.number, 0)


# Words ---------------------------------------------------------------------------------------------------------------


def sentences_on(record: StudyRecord, trials: list[Trial], winner: Trial, chosen: Chosen, finalists: int) -> list[str]:
    """Return the verdict, and what to know about the figures."""
    tried, n = sum(trial.number > 0 for trial in trials), record["validation"]
    images = count(n, "validation image")
    figure = f"{percent(chosen.accuracy)} ({interval([chosen.low, chosen.high])})"
    corrected = (
        f"On {images} it was {percent(chosen.measured)}. The best of several looks better than it is, so "
        f"{figure} is what to expect on other images."
    )
    if not tried:
        return ["No other setting than the preset's was tried. Give more time or --trials."]
    if chosen.difference is None:
        lines = [
            f"None of {count(tried, 'trial')} was better than the preset, which has {percent(chosen.measured)} of "
            f"{images} right. Keep it."
        ]
    else:
        lead = chosen.difference
        facts = (
            f"{points(lead.value)} points (95 %: {points(lead.low)} to {points(lead.high)}; {chance(lead.p)}, "
            f"corrected for {count(tried, 'trial')})"
        )
        verb = "is better than" if is_shown(lead) else "is not shown to be better than"
        lines = [f"Trial {winner.number} {verb} the preset: {facts}.", corrected]
    if edges := at_the_edge(winner.values, record["space"]):
        lines.append(
            f"The best {' and '.join(edges)} lies at the end of its range. Search further: --search "
            + " ".join(f"{name}={wider(record['space'][name], winner.values[name])}" for name in edges)
        )
    failed = [trial for trial in trials if trial.error]
    if failed:
        lines.append(f"{count(len(failed), 'trial')} failed; the first: {short(failed[0].error, 200)}")
    ended = f"{count(tried, 'trial')} began; {finalists}, with the preset, were trained to the end"
    return [*lines, f"{ended}. The test set was not used."]


def is_shown(lead: Difference | None) -> bool:
    """Return whether a winner is better than the preset beyond chance."""
    return lead is not None and lead.value > 0 and lead.p < LEVEL


def wider(setting: SearchedSetting, value: float) -> str:
    """Return a range as wide as the one searched, around `value`."""
    assert "choices" not in setting
    half = (setting["high"] / setting["low"]) ** 0.5
    return f"{value / half:.2g}..{value * half:.2g}"


def table(study: Study, most: int | None = None) -> list[tuple[str, ...]]:
    """Return the trials as text, at most `most`, the best first; the first row is the heading."""
    return rows_of(study.record, study.trials, most)


def rows_of(record: StudyRecord, trials: list[Trial], most: int | None = None) -> list[tuple[str, ...]]:
    """Do what `table` does, for trials of a study that has not been read as a whole."""
    names = list(record["space"])
    rows: list[tuple[str, ...]] = [("trial", "right", "epochs", *names, "time", "")]
    for trial in trials[:most]:
        values = [
            shown(trial.values.get(name, record["preset"].get(name) if not trial.number else None)) for name in names
        ]
        seconds = sum(each.seconds or 0.0 for each in trial.trainings)
        accuracy = percent(trial.done.accuracy) if trial.done else ""
        name = "preset" if trial.number == 0 else str(trial.number)
        rows.append((name, accuracy, str(trial.epochs), *values, duration(seconds) if seconds else "", state(trial)))
    return rows


def state(trial: Trial) -> str:
    """Return what a trial does now: training, failed, or nothing more."""
    return {"running": "training", "failed": "failed"}.get(trial.last.state, "")


def shown(value: Any) -> str:
    """Return the value of a setting as text."""
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else short(value, 24)
