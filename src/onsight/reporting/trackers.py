"""`log`: a run in an experiment tracker, from its folder alone: never inside the training, which it cannot disturb.

Where data goes is the tracker's own setting, as in MLFLOW_TRACKING_URI, WANDB_MODE or TRACKIO_SERVER_URL. A run that is
logged again is found by its key, and continued.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from onsight.core.errors import OnsightError, SpecError
from onsight.runs.following import Place, State, news, state
from onsight.runs.run import Run, open_run, read_evaluations

Name = Literal["mlflow", "wandb", "trackio"]
SCORES = ("accuracy", "macro_f1", "loss", "ece", "brier")  # of the test set
PAUSE = 1.0  # seconds between two looks at a history that grows


class Tracker(Protocol):
    """A run in a tracker."""

    def log(self, epoch: int, values: dict[str, float]) -> None:
        """Add the numbers of an epoch, unless they are there already."""

    def finish(self, scores: dict[str, float], report: Path | None, state: State) -> None:
        """Add the test scores and the report, if there are any, and end."""


def log(
    run: str | Path | Run,
    to: str,
    *,
    project: str = "onsight",
    follow: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> tuple[int, int]:
    """Write the settings, epochs, test scores and report of a run to a tracker.

    Args:
        run: a run, which may be in training.
        to: mlflow, wandb or trackio.
        project: the project or experiment there.
        follow: whether to go on until the training ends.
        wait: waits for some seconds.

    Returns:
        The numbers of epochs and test scores that the run has.

    Raises:
        SpecError: there is no such tracker, or its package is not installed.
        OnsightError: the tracker does not work; the message is its own.
    """
    if to not in TRACKERS:
        raise SpecError(f"There is no tracker '{to}'. Known: {', '.join(TRACKERS)}")
    if find_spec(to) is None:
        raise SpecError(f"onsight log --to {to} needs the package {to}. Install: pip install {to}")
    run = open_run(run, finished=None)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a tracker tells is not the answer
            return send(run, TRACKERS[to](run, project), follow, wait)
    except OnsightError:
        raise
    except Exception as error:  # each tracker has its own kinds of errors
        raise OnsightError(f"{to} could not log {run.folder}: {type(error).__name__}: {error}") from error


def send(run: Run, tracker: Tracker, follow: bool, wait: Callable[[float], None]) -> tuple[int, int]:
    """Write what a run has to its tracker; return the numbers of epochs and scores."""
    place, epochs = Place(), set()
    while True:
        now = state(run)  # before the history is read, so that the last line is not missed
        found = news(run.folder / "history.jsonl", place)
        place = found.place
        for line in found.lines:
            if line.get("event") == "epoch":
                tracker.log(line["epoch"], numbers(line))
                epochs.add(line["epoch"])
        if found.more:
            continue
        if not follow or now != "training":
            break
        wait(PAUSE)
    test: dict[str, Any] = {**read_evaluations(run).get("test", {})}
    scores = {f"test_{key}": float(test[key]) for key in SCORES if test.get(key) is not None}
    tracker.finish(scores, run.report if run.report.is_file() else None, now)
    return len(epochs), len(scores)


def numbers(line: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of history.jsonl."""
    return {key: float(value) for key, value in line.items() if isinstance(value, int | float)}


def key(run: Run) -> str:
    """Return what identifies a run in a tracker, wherever its folder is moved."""
    return hashlib.sha256(f"{run.record.get('created')} {run.name}".encode()).hexdigest()[:16]


def settings(run: Run) -> dict[str, str]:
    """Return the settings of a run as text, without the empty ones."""
    return {name: str(value) for name, value in run.spec.items() if value is not None}


class MLflow:
    """A run in an experiment of MLflow. MLFLOW_TRACKING_URI says where."""

    def __init__(self, run: Run, project: str) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = client = MlflowClient()
        experiment = client.get_experiment_by_name(project)
        place = experiment.experiment_id if experiment else client.create_experiment(project)
        found = client.search_runs([place], f"tags.onsight_run = '{key(run)}'")
        if found:
            self.id, self.logged = found[0].info.run_id, int(found[0].data.metrics.get("epoch", 0))
            client.update_run(self.id, status="RUNNING")
            return
        made = client.create_run(place, run_name=run.name, tags={"onsight_run": key(run)})
        self.id, self.logged = made.info.run_id, 0
        client.log_batch(self.id, params=[Param(name, value[:500]) for name, value in settings(run).items()])

    def log(self, epoch: int, values: dict[str, float]) -> None:
        """Add an epoch. MLflow would keep it twice."""
        from mlflow.entities import Metric

        if epoch > self.logged:
            now = int(time.time() * 1000)
            self.client.log_batch(self.id, [Metric(name, value, now, epoch) for name, value in values.items()])
            self.logged = epoch

    def finish(self, scores: dict[str, float], report: Path | None, state: State) -> None:
        """Add scores and report, and set the status."""
        for name, value in scores.items():
            self.client.log_metric(self.id, name, value, step=self.logged)
        if report:
            self.client.log_artifact(self.id, str(report))
        if state != "training":
            self.client.set_terminated(self.id, "FINISHED" if state == "trained" else "KILLED")


class WandB:
    """A run in a project of Weights & Biases. WANDB_MODE=offline keeps it in ./wandb until `wandb sync`."""

    def __init__(self, run: Run, project: str) -> None:
        import wandb

        config = settings(run) | {"onsight": key(run)}
        quiet = wandb.Settings(console="off", silent=True)
        self.run = wandb.init(
            project=project, id=key(run), name=run.name, config=config, resume="allow", settings=quiet
        )

    def log(self, epoch: int, values: dict[str, float]) -> None:
        """Add an epoch. W&B drops steps that it has."""
        self.run.log(values, step=epoch)

    def finish(self, scores: dict[str, float], report: Path | None, state: State) -> None:
        """Add scores and report, and end."""
        self.run.summary.update(scores)
        if report:
            self.run.save(str(report.resolve()), base_path=str(report.resolve().parent), policy="now")
        self.run.finish(exit_code=int(state == "stopped"))


class Trackio:
    """A run in a project of trackio, in its folder of this machine unless TRACKIO_SERVER_URL says otherwise."""

    def __init__(self, run: Run, project: str) -> None:
        import trackio

        with contextlib.suppress(ValueError):  # there is no such project yet
            for each in trackio.Api().runs(project):  # it would keep epochs twice
                if (each.config or {}).get("onsight") == key(run):
                    each.delete()
        config = settings(run) | {"onsight": key(run)}
        self.run = trackio.init(
            project=project, name=run.name, config=config, auto_log_gpu=False, auto_log_cpu=False, embed=False
        )

    def log(self, epoch: int, values: dict[str, float]) -> None:
        """Add an epoch."""
        self.run.log(values, step=epoch)

    def finish(self, scores: dict[str, float], report: Path | None, state: State) -> None:
        """Add scores, and end. trackio shows no HTML files."""
        import trackio

        if scores:
            self.run.log(scores)
        trackio.finish()


TRACKERS: dict[str, Callable[[Run, str], Tracker]] = dict(zip(get_args(Name), (MLflow, WandB, Trackio), strict=True))
