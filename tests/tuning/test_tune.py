import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fake_study
import onsight
from onsight import Reporter, TrainSpec
from onsight.core.errors import DataError, Interrupted, RunError, SpecError, TrainingError
from onsight.core.files import sha256
from onsight.training.checkpoints import checkpoint_folders
from onsight.tuning import trials as trials_module
from onsight.tuning import tune as tune_module
from onsight.tuning.study import Journal, read_record
from onsight.tuning.trials import spec_of

pytestmark = pytest.mark.usefixtures("only_training")

TOY = TrainSpec("toy", model="mlp", epochs=3, batch_size=16, optimizer="adamw", learning_rate=2e-3, seed=1)
SEARCH = {"learning_rate": (1e-4, 1e-2), "label_smoothing": [0.0, 0.1]}


class Spy(Reporter):
    def __init__(self):
        self.tables, self.works = [], []

    def table(self, rows):
        self.tables.append(rows)

    def work(self, what, done, total):
        self.works.append((what, done, total))


@pytest.fixture(scope="module")
def toy_study(tmp_path_factory):
    """A finished study of three trials. Tests only read it."""
    show = Spy()
    folder = tmp_path_factory.mktemp("tunes") / "toy"
    return onsight.tune(TOY, trials=3, search=SEARCH, study=folder, reporter=show), show


@pytest.fixture
def make(tmp_path):
    return fake_study.make_study(tmp_path / "study")


def test_every_trial_is_a_run_and_the_preset_is_among_them(toy_study):
    study, _ = toy_study
    assert {trial.number for trial in study.trials} == {0, 1, 2, 3}
    preset = next(trial for trial in study.trials if trial.number == 0)
    assert [each.rung for each in preset.trainings] == [len(study.record["divisors"]) - 1]
    runs = onsight.list_runs(study.folder / "runs")
    assert len(runs) == sum(len(trial.trainings) for trial in study.trials)
    for run in runs:
        assert run.is_trained
        assert run.report.exists()
        assert not (run.folder / "evaluations").exists()
        assert not (run.folder / "test_uses.jsonl").exists()  # the test set was never opened
    assert onsight.list_runs() == []  # trials never become runs/latest


def test_a_rung_is_a_whole_training_with_its_own_schedule(toy_study):
    study, _ = toy_study
    lengths = {run.spec["epochs"] for run in onsight.list_runs(study.folder / "runs")}
    assert lengths == {1, 3}
    for run in onsight.list_runs(study.folder / "runs"):
        rates = [row["learning_rate"] for row in run.history()]
        assert len(rates) == run.spec["epochs"]
        assert rates[-1] < run.spec["learning_rate"] / 5  # the schedule comes to its end


def test_the_winner_is_the_best_on_validation_and_its_command_repeats_it(toy_study):
    study, _ = toy_study
    finalists = [trial for trial in study.trials if trial.done.rung == len(study.record["divisors"]) - 1]
    assert study.winner.done.accuracy == max(trial.done.accuracy for trial in finalists)
    assert study.chosen.measured == study.winner.done.accuracy
    words = study.command.split()
    assert words[:3] == ["onsight", "train", "toy"]
    asked = {words[i].removeprefix("--").replace("-", "_"): words[i + 1] for i in range(3, len(words), 2)}
    again = onsight.train(TrainSpec("toy", **asked), reporter=Reporter())
    digest = sha256(again.model_folder / "weights.safetensors")
    assert digest == sha256(study.run.model_folder / "weights.safetensors")


def test_the_table_shows_every_trial_while_the_study_goes_on(toy_study):
    study, show = toy_study
    assert show.tables[0][1][0] == "preset"
    assert show.tables[0][1][-1] == "training"
    assert len(show.tables[-1]) == 5
    assert show.tables[-1][0] == ("trial", "right", "epochs", "learning_rate", "label_smoothing", "time", "")
    assert "Trial" in str(study) or "preset" in str(study)
    assert "<table>" in study._repr_html_()


def test_a_training_shows_as_the_progress_of_its_study():
    show = Spy()
    trial = trials_module.TrialReporter(show, "trial 1")
    trial.work("Reading images", 3, 10)
    trial.tick({"epoch": 2, "epochs": 3, "step": 4, "steps": 5})
    assert show.works == [("trial 1: Reading images", 3, 10), ("trial 1, epoch 2/3", 9, 15)]


def test_the_same_study_is_opened_again_and_another_is_refused(toy_study):
    study, _ = toy_study
    before = sorted(study.folder.rglob("report.html"))
    same = onsight.tune(TOY, trials=3, search=SEARCH, study=study.folder, reporter=Reporter())
    assert sorted(study.folder.rglob("report.html")) == before  # nothing was trained again
    assert same.sentences == study.sentences == onsight.open_study(study.folder).sentences
    with pytest.raises(RunError, match="holds another study: its spec was"):
        onsight.tune(TOY.model_copy(update={"seed": 2}), search=SEARCH, study=study.folder, reporter=Reporter())
    with pytest.raises(RunError, match="holds another study: its search was"):
        onsight.tune(TOY, search={"epochs": (1, 3)}, study=study.folder, reporter=Reporter())


def test_the_winner_is_taken_once_and_names_its_study(toy_study):
    study, _ = toy_study
    run = study.take()
    assert run.folder.parent == Path("runs")
    assert run.record["study"] == {
        "name": "toy", "created": study.record["created"], "trial": study.winner.number,
    }  # fmt: skip
    assert onsight.open_study(study.folder).take().folder == run.folder
    assert len(onsight.list_runs()) == 1
    assert onsight.open_run("latest").folder == run.folder
    result = onsight.evaluate(run, reporter=Reporter())
    assert result.metrics["n"] > 0


def test_the_page_needs_nothing_from_outside_and_opens_each_report(toy_study):
    study, _ = toy_study
    text = study.page.read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text
    assert study.command.split()[-1] in text
    for run in onsight.list_runs(study.folder / "runs"):
        if any(trial.done and trial.done.number == int(run.name[-4:]) for trial in study.trials):
            assert f'href="runs/{run.name}/report.html"' in text


@pytest.mark.slow
def test_a_study_goes_on_in_another_folder_but_not_with_other_images(photos, monkeypatch):
    study = onsight.tune(
        TrainSpec("photos/", model="mlp", epochs=1, image_size=32), trials=1, search={"learning_rate": (1e-3, 1e-2)},
        reporter=Reporter(),
    )  # fmt: skip
    assert study.folder.parent == Path("tunes")
    words = study.command.split()
    assert words[2] == "photos"  # valid from here
    assert str(photos) not in study.page.read_text()
    assert str(photos) not in (study.run.folder / "report.html").read_text()
    folder = study.folder.resolve()
    monkeypatch.chdir(photos.parent.parent)  # the study goes on in another folder
    assert len(onsight.tune(resume=folder, trials=2, reporter=Reporter()).trials) == 3
    for image in list((photos / "red").iterdir())[:12]:
        image.unlink()
    with pytest.raises(RunError, match=r"have changed since .* began"):
        onsight.tune(resume=folder, trials=3, reporter=Reporter())


def test_without_validation_images_there_is_nothing_to_choose_by():
    with pytest.raises(SpecError, match="no validation images to choose by"):
        onsight.tune(TrainSpec("toy", model="mlp", validation=0), trials=1, reporter=Reporter())
    assert not Path("tunes").exists()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        ({"trials": 0}, "trials=0"),
        ({"time_budget": "soon"}, "is not a duration"),
        ({"search": {"seed": [1, 2]}}, "cannot be searched"),
        ({"study": "x", "resume": "y"}, "only --trials and --time-budget"),
        ({"resume": "nothing"}, "is not a study"),
        ({"epochs": 3}, "takes a TrainSpec"),
    ],
)
def test_a_call_that_cannot_work_is_refused(call, match):
    with pytest.raises((SpecError, RunError), match=match):
        onsight.tune(**({} if "resume" in call else {"spec": TOY}), **call, reporter=Reporter())
    assert not Path("tunes").exists()


def test_a_time_budget_in_the_spec_is_refused():
    with pytest.raises(SpecError, match="a time_budget of its own"):
        onsight.tune(TrainSpec("toy", time_budget="90s"), reporter=Reporter())


@pytest.mark.slow
def test_the_range_test_is_the_centre_if_asked_for(monkeypatch):
    study = onsight.tune(TOY, trials=1, find_learning_rate=True, reporter=Reporter())
    found = study.record["rate_test"]
    assert study.record["space"]["learning_rate"]["low"] < found < study.record["space"]["learning_rate"]["high"]
    assert study.record["preset"]["learning_rate"] == 2e-3
    with pytest.raises(SpecError, match="--search names one"):
        onsight.tune(TOY, search=SEARCH, find_learning_rate=True, reporter=Reporter())


def test_all_machines_train_with_the_backend_and_the_precision_of_the_first(toy_study):
    study, _ = toy_study
    preset = study.record["preset"]
    assert study.record["pinned"] == {name: preset[name] for name in ("backend", "precision")}
    spec = spec_of(study.record, {"learning_rate": 0.001}, 0)
    assert (spec.backend, spec.precision) == (preset["backend"], preset["precision"])


def test_trials_keep_the_pretrained_start_of_the_preset(make):
    record = {
        **make.record,
        "asked": {"data": "photos/"},
        "pinned": {"weights": "imagenet", "freeze": 9, "head_epochs": 1},
    }
    record["preset"] = record["preset"] | {"epochs": 41, "freeze": 9, "head_epochs": 1}
    spec = spec_of(record, {"optimizer": "sgd"}, 0)
    assert (spec.weights, spec.freeze, spec.epochs) == ("imagenet", 9, 5)


# A search of drawn trainings -----------------------------------------------------------------------------------------


def test_the_better_rates_are_found(make):
    study = fake_study.search(make, 20)
    assert 0.15 < study.winner.values["learning_rate"] < 0.6
    assert 2 <= len([trial for trial in study.trials if len(trial.trainings) == 3]) <= 5
    assert study.chosen.accuracy < study.chosen.measured
    text = study.page.read_text()
    assert "PED-ANOVA" in text
    assert "learning rate</text>" in text  # an axis of the parallel coordinates


def test_a_failed_trial_is_told_and_the_others_go_on(make, monkeypatch):
    drawn = fake_study.draw

    def diverge(journal, claim, show, seconds=0.0):
        if claim.training.trial == 2:
            raise TrainingError("The loss became nan: training diverged.")
        return drawn(journal, claim, show)

    monkeypatch.setattr(fake_study, "draw", diverge)
    study = fake_study.search(make, 4)
    failed = next(trial for trial in study.trials if trial.number == 2)
    assert failed.error == "The loss became nan: training diverged."
    assert "1 trial failed; the first: The loss became nan" in "\n".join(study.sentences)
    assert len(study.trials) == 5


@pytest.mark.parametrize("trial", [0, 2])
def test_a_full_disk_and_a_preset_that_fails_end_the_study(make, monkeypatch, trial):
    def fail(journal, claim, show, seconds=0.0):
        if claim.training.trial == trial:
            raise TrainingError("The disk is full") from (OSError(28, "No space left") if trial else None)
        return drawn(journal, claim, show)

    drawn = fake_study.draw
    monkeypatch.setattr(fake_study, "draw", fail)
    with pytest.raises(TrainingError, match="The disk is full"):
        fake_study.search(make, 4)
    monkeypatch.setattr(fake_study, "draw", drawn)
    assert len(fake_study.search(make, 4).trials) == 5  # once there is room, the study goes on


def test_the_time_budget_ends_the_study_with_a_winner(make, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(tune_module.time, "perf_counter", lambda: clock[0])
    drawn = fake_study.draw

    def slow(journal, claim, show, seconds=0.0):
        clock[0] += {0: 10, 1: 30, 2: 90}[claim.training.rung]
        return drawn(journal, claim, show)

    monkeypatch.setattr(fake_study, "draw", slow)
    study = fake_study.search(make, None, budget=500.0)
    assert 350 < clock[0] <= 500
    assert len([trial for trial in study.trials if trial.number and trial.done.rung == 2]) >= 1
    clock[0] = 0.0
    nothing_fits = fake_study.make_study(make.folder.parent / "short")
    assert "No other setting than the preset's was tried" in str(fake_study.search(nothing_fits, None, budget=100.0))


def test_ctrl_c_says_how_to_go_on(make, monkeypatch):
    def interrupted(*_):
        raise Interrupted("Stopped by Ctrl-C at epoch 1, step 3.", 130)

    monkeypatch.setattr(fake_study, "draw", interrupted)
    with pytest.raises(Interrupted, match=r"onsight tune --resume .*study") as stop:
        fake_study.search(make, 4)
    assert stop.value.exit_code == 130
    assert [entry.training.state for entry in make.read()] == ["running"]
    monkeypatch.undo()
    assert len(fake_study.search(make, 4).trials) == 5  # this process itself can go on: it has let go of the lock


def test_a_study_that_is_killed_at_its_start_has_its_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(tune_module, "limits", lambda *_: 1 / 0)  # what came after the first record
    for number, limit in enumerate(({"trials": 2}, {"time_budget": "5m"}, {})):
        with pytest.raises(ZeroDivisionError):
            onsight.tune(TOY, **limit, search=SEARCH, study=tmp_path / str(number), reporter=Reporter())
    records = [read_record(tmp_path / str(number)) for number in range(3)]
    assert [(each.get("trials"), each.get("time_budget")) for each in records] == [(2, None), (None, 300), (30, None)]


def test_a_study_goes_on_as_it_was_meant(make):
    assert tune_module.limits(make, None, None) == (tune_module.TRIALS, None)
    assert tune_module.limits(make, 40, None) == (40, None)
    again = Journal(make.folder, read_record(make.folder))
    assert tune_module.limits(again, None, None) == (40, None)
    assert tune_module.limits(again, None, 500.0) == (None, 500.0)
    fake_study.search(make, 2)
    trials, left = tune_module.limits(Journal(make.folder, read_record(make.folder)), None, None)
    assert trials is None
    assert 400 < left < 500


def test_another_validation_set_is_noticed(make):
    fake_study.search(make, 1)
    run = onsight.list_runs(make.folder / "runs")[0]
    np.save(run.validation_right, np.ones(3, bool))
    with pytest.raises(RunError, match="does not belong to"):
        onsight.open_study(make.folder)
    run.validation_right.write_bytes(b"damaged")
    with pytest.raises(RunError, match="missing or damaged"):
        onsight.open_study(make.folder)


def test_a_trial_that_failed_for_its_data_ends_the_study():
    assert not trials_module.is_its_own_fault(DataError("no image"), 3)
    assert trials_module.is_its_own_fault(SpecError("adam takes no weight_decay"), 3)


# Killed trainings ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_trial_goes_on_bit_for_bit(tmp_path):
    """Send SIGKILL to a study in the middle of a training, go on in this process, and compare with an unbroken one."""
    spec = TrainSpec("toy", model="cnn", epochs=6, batch_size=16, optimizer="adam", learning_rate=2e-3, seed=1)
    fields = spec.model_dump(exclude_unset=True) | {"checkpoint_seconds": 1e-9}
    code = (
        "import onsight; "
        f"onsight.tune(onsight.TrainSpec(**{fields!r}), trials=1, search={SEARCH!r}, study='study', "
        "reporter=onsight.Reporter())"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    run = Path("study/runs/training-0000")
    while len(checkpoint_folders(run / "checkpoints")) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.wait()
    assert not (run / "model").exists()
    study = onsight.tune(resume="study", trials=1, reporter=Reporter())
    assert {trial.number for trial in study.trials} == {0, 1}
    unbroken = onsight.train(TrainSpec(**fields), reporter=Reporter())
    weights = [sha256(folder / "model" / "weights.safetensors") for folder in (run, unbroken.folder)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path):
    study = onsight.tune(TOY, trials=1, search=SEARCH, study="study", reporter=Reporter())
    journal = Journal(study.folder, study.record)
    with journal.opened() as opened:
        claim = journal.begin(opened, None, 0)
    claim.lock.release()
    (journal.run_folder(claim.training) / "checkpoints").mkdir(parents=True)  # and no spec.json
    more = onsight.tune(resume="study", trials=1, reporter=Reporter())
    assert {trial.number for trial in more.trials} == {0, 1, 2}
    assert all(trial.done for trial in more.trials)


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command_searches_and_evaluates_the_winner_once(onsight, monkeypatch):
    code, out, err = onsight(
        "tune", "toy", "--model", "mlp", "--epochs", "2", "--trials", "2", "--search", "learning_rate=0.001..0.01",
        "label_smoothing=0,0.1", "--then", "evaluate",
    )  # fmt: skip
    assert code == 0, err
    assert "The winner again: onsight train toy" in out
    assert "Page: tunes/toy-0001/tune.html" in out
    assert "trial" in err
    (run,) = Path("runs").iterdir()
    uses = (run / "test_uses.jsonl").read_text().splitlines()
    assert len(uses) == 1
    assert json.loads((run / "spec.json").read_text())["study"]["name"] == "toy-0001"
    code, out, _ = onsight("tune", "--take", "tunes/toy-0001")
    assert (code, out.strip()) == (0, str(run))
    code, out, _ = onsight("tune", "--resume", "tunes/toy-0001", "--trials", "3", "--quiet")
    assert code == 0
    assert "preset" in out


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["toy", "--search", "learning_rte=0.1..1"], "Did you mean 'learning_rate'"),
        (["--resume", "x", "--epochs", "3"], "only --trials and --time-budget"),
        (["toy", "--take", "x"], "--take copies the winner"),
        (["--resume", "tunes/none"], "is not a study"),
    ],
)
def test_wrong_commands_exit_with_2(onsight, words, match):
    code, _, err = onsight("tune", *words)
    assert code == 2
    assert match in err


def test_ctrl_c_saves_and_exits_with_130():
    """The signal arrives in the middle of a training, as it does in a terminal."""
    words = ["tune", "toy", "--model", "cnn", "--epochs", "200", "--trials", "2", "--study", "study"]
    process = subprocess.Popen(
        [sys.executable, "-m", "onsight", *words], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    history = Path("study/runs/training-0000/history.jsonl")
    while not history.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "onsight tune --resume study" in err
