"""tune.html: one file without scripts that requests nothing from outside; each trial opens its report."""

from __future__ import annotations

import math
import os
from datetime import datetime
from typing import Any

from markupsafe import Markup

from onsight.core.files import write_atomic
from onsight.core.records import SearchedSetting
from onsight.core.text import count, percent, plain, points
from onsight.display import svg
from onsight.display.page import fill
from onsight.reporting.commands import train_command
from onsight.tuning.halving import KEPT
from onsight.tuning.results import Study, Trial, is_shown, shown, table
from onsight.tuning.space import distributions

LEAST = 10  # trials from which importances are computed
AXES = 8  # most settings in the parallel coordinates


def write_page(study: Study) -> None:
    """Write tune.html."""
    write_atomic(study.page, render(study))


def render(study: Study) -> str:
    """Return the page."""
    rows = table(study)
    weights = importances(study)
    record = study.record
    return fill(
        "tune.html.j2",
        {"percent": lambda share: percent(share).replace(" ", "\u00a0"), "name": lambda text: plain(str(text))},
        study=study,
        big=headline(study),
        command=train_command(study.run, shared=True) if study.run else "",
        titles=rows[0],
        rows=[
            (row, link(study, trial), trial == study.winner) for row, trial in zip(rows[1:], study.trials, strict=True)
        ],
        history=history(study),
        importances=weights,
        least=LEAST,
        parallel=parallel(study, list(weights) or list(record["space"])),
        epochs=[max(1, round(record["preset"]["epochs"] / divisor)) for divisor in record["divisors"]],
        kept=KEPT,
        tried=count(sum(trial.number > 0 for trial in study.trials), "trial"),
        made=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    )


def headline(study: Study) -> str:
    """Return the result in a few words."""
    if study.chosen is None:
        return "Not finished yet"
    lead = study.chosen.difference
    return f"+{points(lead.value)} points" if is_shown(lead) and lead else "The preset stays"


def link(study: Study, trial: Trial) -> str:
    """Return the address of a trial's report, relative to the page; empty while it has none."""
    if not trial.done:
        return ""
    path = f"runs/training-{trial.done.number:04d}/report.html"
    return path if os.path.exists(study.folder / path) else ""


def history(study: Study) -> Markup:
    """Return the accuracy of each training in the order of their beginning, and the best of the last rung so far."""
    last = len(study.record["divisors"]) - 1
    trainings = sorted(each for trial in study.trials for each in trial.trainings if each.accuracy is not None)
    dots: list[tuple[float, float, str]] = []
    best: list[tuple[float, float]] = []
    for each in trainings:
        assert each.accuracy is not None
        dots.append((float(each.number), each.accuracy, "first" if each.rung == last else "second"))
        if each.rung == last and (not best or each.accuracy > best[-1][1]):
            best.append((float(each.number), each.accuracy))
    return svg.trials(dots, best, "The accuracy of each training, and the best so far", "training")


def first_results(study: Study) -> dict[int, float]:
    """Return the accuracy of each trial on the first rung, where all but the preset began."""
    return {
        trial.number: trial.trainings[0].accuracy
        for trial in study.trials
        if trial.trainings[0].rung == 0 and trial.trainings[0].accuracy is not None
    }


def importances(study: Study) -> dict[str, float]:
    """Return which share of the differences between trials each setting explains, the largest first.

    They are Optuna's importances (PED-ANOVA, Watanabe et al. 2023) on the first rung. Fewer than 10 trials show
    nothing.
    """
    import optuna

    found, space = first_results(study), distributions(study.record["space"])
    memory = optuna.create_study(direction="maximize")
    for trial in study.trials:
        params = {name: trial.values[name] for name in space if name in trial.values}
        if trial.number in found and len(params) == len(space):
            params = {name: within(space[name], value) for name, value in params.items()}
            memory.add_trial(optuna.create_trial(params=params, distributions=space, value=found[trial.number]))
    results = [trial.value for trial in memory.get_trials(deepcopy=False)]
    if len(results) < LEAST or len({*results}) < 2:
        return {}
    shares = optuna.importance.get_param_importances(memory)
    return {} if any(not math.isfinite(share) for share in shares.values()) else shares


def within(distribution: Any, value: Any) -> Any:
    """Return a value that was rounded to three digits, back inside its range."""
    if hasattr(distribution, "choices"):
        return value
    return min(distribution.high, max(distribution.low, value))


def parallel(study: Study, names: list[str]) -> Markup:
    """Return parallel coordinates of the trials: settings, and the accuracy on the first rung."""
    names = names[:AXES]
    found = first_results(study)
    trials = [trial for trial in study.trials if trial.number in found and {*names} <= {*trial.values}]
    if len(trials) < 2 or not names:
        return Markup("")
    space = study.record["space"]
    low, high = min(found[trial.number] for trial in trials), max(found[trial.number] for trial in trials)
    order = sorted(trials, key=lambda trial: (trial == study.winner, found[trial.number]))
    lines = []
    for rank, trial in enumerate(order):
        won = trial == study.winner
        places = [place(space[name], trial.values[name]) for name in names]
        places.append((found[trial.number] - low) / ((high - low) or 1))
        lines.append((places, "winner" if won else "trial", 1.0 if won else 0.15 + 0.65 * (rank / len(order)) ** 2))
    axes = [(name.replace("_", " "), marks(space[name])) for name in names]
    axes.append(("accuracy", [percent(low), percent(high)]))
    return svg.parallel(axes, lines, "The settings of each trial and its accuracy")


def place(setting: SearchedSetting, value: Any) -> float:
    """Return where a value lies on its axis, in 0..1."""
    if "choices" in setting:
        choices = setting["choices"]
        return choices.index(value) / (len(choices) - 1)
    low, high = setting["low"], setting["high"]
    if setting["log"]:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float(min(1.0, max(0.0, (value - low) / (high - low))))


def marks(setting: SearchedSetting) -> list[str]:
    """Return the labels of an axis, from its bottom to its top."""
    ends: Any = setting["choices"] if "choices" in setting else (setting["low"], setting["high"])
    return [shown(value) for value in ends]
