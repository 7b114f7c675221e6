"""`log` against a tracker of our own, and against those that are installed, on this machine only."""

import json
import shutil

import pytest

from onsight.core.errors import OnsightError, SpecError
from onsight.reporting import trackers
from onsight.reporting.trackers import log
from onsight.runs.run import Run


class Notes:
    """A tracker that remembers what it is told."""

    def __init__(self, run, project):
        self.made = (run.name, project)
        self.epochs = {}
        Notes.last = self

    def log(self, epoch, values):
        self.epochs[epoch] = values

    def finish(self, scores, report, state):
        self.scores, self.report, self.state = scores, report, state


@pytest.fixture
def notes(monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", Notes)
    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    return Notes


@pytest.fixture
def growing(toy_run, tmp_path):
    """A copy of the toy run that has no model and no epoch yet."""
    shutil.copytree(toy_run.folder, tmp_path / "runs" / "growing")
    run = Run(tmp_path / "runs" / "growing")
    run.model_folder.rename(tmp_path / "model")
    run.rewrite_history([])
    return run


def test_a_finished_run_is_logged_with_scores_and_report(notes, toy_run, onsight):
    code, out, _ = onsight("log", toy_run.folder, "--to", "mlflow", "--project", "p")
    assert (code, out) == (0, "mlflow has 8 epochs and 5 test scores in the project p.\n")
    assert notes.last.made == (toy_run.name, "p")
    assert sorted(notes.last.epochs) == [*range(1, 9)]
    assert notes.last.epochs[8]["val_accuracy"] == toy_run.history()[-1]["val_accuracy"]
    assert all(isinstance(value, float) for value in notes.last.epochs[8].values())
    metrics = json.loads((toy_run.evaluation_folder() / "metrics.json").read_text())
    assert notes.last.scores["test_accuracy"] == metrics["accuracy"]
    assert (notes.last.report, notes.last.state) == (toy_run.report, "trained")


def test_a_training_is_followed_until_it_ends(notes, toy_run, growing, tmp_path):
    lines = iter(toy_run.history())

    def wait(seconds):
        line = next(lines, None)
        if line:
            growing.append_history(line | {"val_loss": float("nan")})
        else:
            (tmp_path / "model").rename(growing.model_folder)

    assert log(growing.folder, "mlflow", follow=True, wait=wait)[0] == 8
    assert sorted(notes.last.epochs) == [*range(1, 9)]
    assert "val_loss" not in notes.last.epochs[1]  # a tracker cannot draw what is not finite
    assert notes.last.state == "trained"


def test_without_follow_a_training_is_logged_as_far_as_it_is(notes, growing, toy_run):
    growing.append_history(toy_run.history()[0])
    assert log(growing, "mlflow", wait=pytest.fail) == (1, 0)
    assert notes.last.state == "training"


def test_unknown_and_missing_trackers_are_named(toy_run, monkeypatch):
    with pytest.raises(SpecError, match=r"no tracker 'csv'\. Known: mlflow, wandb, trackio"):
        log(toy_run, "csv")
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"needs the package wandb\. Install: pip install wandb"):
        log(toy_run, "wandb")


def test_what_a_tracker_says_is_passed_on(toy_run, notes, monkeypatch):
    def fail(run, project):
        raise ConnectionError("nobody answers")

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", fail)
    with pytest.raises(OnsightError, match=r"mlflow could not log .*: ConnectionError: nobody answers"):
        log(toy_run, "mlflow")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of strangers' packages
def test_mlflow_keeps_each_epoch_once(toy_run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for _ in range(2):
        assert log(toy_run, "mlflow") == (8, 5)
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("onsight").experiment_id])
    assert (found.info.run_name, found.info.status) == (toy_run.name, "FINISHED")
    assert found.data.params["model"] == "cnn"
    history = client.get_metric_history(found.info.run_id, "val_accuracy")
    assert [(each.step, each.value) for each in history] == [
        (row["epoch"], row["val_accuracy"]) for row in toy_run.history()
    ]
    assert "test_accuracy" in found.data.metrics
    assert [each.path for each in client.list_artifacts(found.info.run_id)] == ["report.html"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_trackio_keeps_each_epoch_once(toy_run, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio", reason="trackio is not installed")
    for _ in range(2):
        assert log(toy_run, "trackio") == (8, 5)
    (found,) = trackio.Api().runs("onsight")
    assert (found.name, found.config["model"]) == (toy_run.name, "cnn")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_wandb_writes_offline(toy_run, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert log(toy_run, "wandb") == (8, 5)
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(folder.glob("*.wandb"))
