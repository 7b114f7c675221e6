import contextlib
import errno
import json
import os
import signal

import keras
import numpy as np
import pytest

import onsight
from onsight.core.errors import Interrupted, RunError, SpecError, TrainingError
from onsight.core.files import read_lines, sha256
from onsight.core.progress import Reporter
from onsight.core.text import note_line
from onsight.metrics import scores
from onsight.models.model_file import read_description
from onsight.runs.run import Run, open_run
from onsight.training import calibrate, loop
from onsight.training import steps as steps_module
from onsight.training.checkpoints import checkpoint_folders, load_checkpoint

pytestmark = pytest.mark.usefixtures("only_training")


class Spy(Reporter):
    """Record what is reported, and call `on_tick` at each tick."""

    def __init__(self, on_tick=lambda count: None):
        self.notes, self.ticks, self.rows, self.on_tick = [], [], [], on_tick

    def note(self, label, text):
        self.notes.append(note_line(label, text))

    def tick(self, facts):
        self.ticks.append(facts)
        self.on_tick(len(self.ticks))

    def epoch(self, row):
        self.rows.append(row)


@pytest.fixture(autouse=True)
def _tick_at_every_step(monkeypatch):
    monkeypatch.setattr(loop, "SHOWN_EVERY", -1)
    monkeypatch.setattr(loop, "LOGGED_EVERY", -1)


def outcome(run):
    """Return what must be equal bit for bit: weights, temperature, and the history without times."""
    clock = ("seconds", "images_per_second")
    history = [{key: value for key, value in row.items() if key not in clock} for row in run.history()]
    return (run.model_folder / "model.json").read_text(), history  # it holds the weights' checksum


@pytest.mark.backend
@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_stopped_training_resumes_bit_for_bit(toy_spec, signum, code):
    spec = toy_spec.model_copy(update={"model": "cnn_dropout", "patience": 2, "schedule": "plateau"})
    unbroken = onsight.train(spec, reporter=Spy())

    def stop(count):
        if count == 14:  # in the middle of the second epoch
            os.kill(os.getpid(), signum)

    with pytest.raises(Interrupted, match=r"Everything is saved\. Continue with: onsight train --resume") as error:
        onsight.train(spec, reporter=Spy(stop))
    assert error.value.exit_code == code
    assert signal.getsignal(signum) in (signal.default_int_handler, signal.SIG_DFL)

    stopped = open_run("latest", finished=False)
    assert not stopped.is_trained
    state = load_checkpoint(stopped.checkpoints).state
    assert (state["epoch"], 0 < state["step"] < 9) == (1, True)
    stopped.append_history({"event": "epoch", "epoch": 99})  # as if it had continued and then been killed

    spy = Spy()
    onsight.resume("latest", reporter=spy)
    assert any("at epoch 2, step" in note for note in spy.notes)
    assert outcome(stopped) == outcome(unbroken)


def test_the_first_epochs_use_the_early_size(toy_spec, monkeypatch):
    sizes = []
    training_batches = steps_module.training_batches

    def watched(*arguments):
        for images, labels in training_batches(*arguments):
            sizes.append(images.shape[1])
            yield images, labels

    monkeypatch.setattr(steps_module, "training_batches", watched)
    spec = toy_spec.model_copy(update={"model": "cnn_compact", "epochs": 3, "early_size": 16})
    run = onsight.train(spec, reporter=Spy())
    assert sizes == [16] * 9 + [run.spec["image_size"]] * 18
    assert run.load_model().input_shape[1] == run.spec["image_size"]
    assert run.history()[-1]["val_accuracy"] > 0.5


def test_a_closed_terminal_stops_a_training_that_can_be_resumed(toy_spec):
    if not hasattr(signal, "SIGHUP"):
        pytest.skip("there is no SIGHUP on this system")
    with pytest.raises(Interrupted, match=r"Stopped by SIGHUP at .* Everything is saved") as error:
        onsight.train(toy_spec, reporter=Spy(lambda count: count == 3 and os.kill(os.getpid(), signal.SIGHUP)))
    assert error.value.exit_code == 129
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    assert onsight.resume("runs/latest", reporter=Spy()).is_trained


@pytest.mark.parametrize("count", [4, pytest.param(13, marks=pytest.mark.slow)])
def test_a_stop_during_small_or_large_images_can_be_resumed(toy_spec, count):
    spec = toy_spec.model_copy(update={"model": "cnn_compact", "epochs": 3, "early_size": 16})
    unbroken = onsight.train(spec, reporter=Spy())

    def stop(ticks):
        if ticks == count:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        onsight.train(spec, reporter=Spy(stop))
    run = onsight.resume("latest", reporter=Spy())
    assert outcome(run) == outcome(unbroken)


def test_early_stopping_waits_for_the_epochs_of_full_size(toy_spec, monkeypatch):
    monkeypatch.setattr(loop.Loop, "validate", lambda self: (1.0 + self.state["epoch"], 0.5))  # worse in every epoch
    spec = toy_spec.model_copy(update={"model": "cnn_compact", "epochs": 10, "early_size": 16, "patience": 2})
    assert len(onsight.train(spec, reporter=Spy()).history()) == 4  # two small ones, then two without an improvement


def test_a_network_for_one_image_size_cannot_start_with_another(toy_spec):
    with pytest.raises(SpecError, match="early_size=22 starts with smaller images, but cnn has layers that fit one"):
        onsight.train(toy_spec.model_copy(update={"early_size": 22}), reporter=Spy())
    assert not onsight.list_runs()


def test_class_weights_change_how_much_each_class_counts(toy_spec, monkeypatch):
    """If only the first class has weight, the network predicts it for all images."""
    counted = []
    real = loop.balanced_weights

    def weigh(labels, classes):
        counted.append(np.bincount(labels, minlength=classes))
        return real(labels, classes) * np.eye(classes, dtype=np.float32)[0]

    monkeypatch.setattr(loop, "balanced_weights", weigh)
    spec = toy_spec.model_copy(update={"class_weight": "balanced", "epochs": 2, "model": "mlp"})
    run = onsight.train(spec, reporter=Spy())
    assert len(counted) == 1
    assert counted[0].sum() == len(run.dataset["split"]["train"])
    recalls = [each["recall"] for each in onsight.evaluate(run, reporter=Spy()).metrics["per_class"]]
    assert recalls == [1, *[0] * (len(run.classes) - 1)]


@pytest.mark.backend
@pytest.mark.parametrize(
    "count",
    [
        pytest.param(0, marks=pytest.mark.slow),
        8,
        pytest.param(9, marks=pytest.mark.slow),
        pytest.param(18, marks=pytest.mark.slow),
        19,
    ],
)
def test_a_stop_at_any_step_can_be_resumed(toy_spec, monkeypatch, count):
    """Stop also at the last step of an epoch (8 and 18), so that only validation is left (9 and 19)."""
    spec = toy_spec.model_copy(update={"epochs": 2, "model": "mlp", "augmentation": "robust", "min_precision": 0.4})
    unbroken = onsight.train(spec, reporter=Spy())
    steps = []
    learning_rate = loop.Loop.learning_rate

    def stop(self, step):
        if len(steps) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        steps.append(step)
        return learning_rate(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "learning_rate", stop)
        with pytest.raises(Interrupted):
            onsight.train(spec, reporter=Spy())
    run = onsight.list_runs()[-1]
    if count < 19:  # at 19 it finished before it reported the stop
        assert not run.is_trained
        onsight.resume(run, reporter=Spy())
    assert outcome(run) == outcome(unbroken)


@pytest.mark.slow
def test_a_stop_after_early_stopping_trains_no_further(toy_spec, monkeypatch):
    spec = toy_spec.model_copy(update={"epochs": 6, "patience": 1, "schedule": "constant", "model": "mlp"})
    losses = [3.0, 1.0, 2.0, 0.5, 0.4, 0.3]
    monkeypatch.setattr(loop.Loop, "validate", lambda self: (losses[self.state["epoch"]], 0.5))
    unbroken = onsight.train(spec, reporter=Spy())
    assert len(unbroken.history()) == 3
    with monkeypatch.context() as patch, contextlib.suppress(ZeroDivisionError):
        patch.setattr(loop.Loop, "finish", lambda self: 1 / 0)  # as if it were killed before it wrote its model
        onsight.train(spec, reporter=Spy())
    run = open_run("latest", finished=False)
    onsight.resume(run, reporter=Spy())
    assert outcome(run) == outcome(unbroken)
    onsight.resume(run, epochs=5, reporter=Spy())  # more epochs were asked for, so it continues
    assert len(run.history()) == 5
    assert open_run(run.folder).record["reasons"]["epochs"] == "chosen when the run was resumed"


@pytest.mark.slow
def test_training_longer_can_be_stopped_and_resumed(toy_spec):
    spec = toy_spec.model_copy(update={"epochs": 1})
    run = onsight.train(spec, reporter=Spy())

    def stop(count):
        if count == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        onsight.resume(run, epochs=3, reporter=Spy(stop))
    assert run.is_behind
    assert not run.is_trained
    image = onsight.load_dataset("toy").images[0]
    assert onsight.predict(run, image)[0].label  # its earlier model still answers
    onsight.resume(run.folder, reporter=Spy())
    assert len(run.history()) == 3
    with pytest.raises(onsight.OnsightError, match="has already trained 3 epochs, so --epochs 2 adds none"):
        onsight.resume(run, epochs=2, reporter=Spy())
    with pytest.raises(onsight.OnsightError, match="epochs=0 cannot be used"):
        onsight.resume(run, epochs=0, reporter=Spy())


def test_an_ignored_signal_stays_ignored(toy_spec):
    """This is how `nohup` and background jobs of a shell start a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spec = toy_spec.model_copy(update={"epochs": 1, "model": "mlp"})
    run = onsight.train(spec, reporter=Spy(lambda count: os.kill(os.getpid(), signal.SIGINT)))
    assert run.is_trained


@pytest.mark.backend
def test_a_killed_training_resumes_bit_for_bit(toy_spec, tmp_path):
    """Send SIGKILL to another process that saves a checkpoint at every step."""
    import subprocess
    import sys
    import time

    code = (
        "import onsight; from onsight.display.reporters import Reporter; "
        f"onsight.train(onsight.TrainSpec(**{toy_spec.model_dump(exclude_unset=True)!r}, "
        "checkpoint_seconds=1e-9), reporter=Reporter())"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (runs := onsight.list_runs()) or len(checkpoint_folders(runs[0].checkpoints)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.wait()
    run = Run(runs[0].folder)
    assert not run.is_trained
    onsight.resume(run, reporter=Spy())
    assert outcome(run) == outcome(onsight.train(toy_spec, reporter=Spy()))


def test_early_stopping_keeps_the_best_epoch(toy_spec):
    spec = toy_spec.model_copy(
        update={"epochs": 30, "patience": 2, "learning_rate": 0.01, "schedule": "constant", "optimizer": "sgd"}
    )
    run = onsight.train(spec, reporter=Spy())
    history = run.history()
    best = min(history, key=lambda row: row["val_loss"])
    if len(history) < 30:
        assert history[-1]["epoch"] == best["epoch"] + 2
    # The saved model is that of the best epoch, so it has the validation accuracy of this epoch.
    dataset = onsight.load_dataset("toy")
    index = [dataset.names.index(name) for name in run.dataset["split"]["validation"]]
    from onsight.data.pixel_cache import load_pixels
    from onsight.inference.predict import probabilities

    found = probabilities(
        run.load_model().predict_on_batch, load_pixels(dataset, 32).images, np.array(index), 16
    ).argmax(axis=1)
    assert (found == dataset.labels[index]).mean() == pytest.approx(best["val_accuracy"])


def test_a_finished_run_can_be_trained_longer(toy_spec):
    run = onsight.train(toy_spec, reporter=Spy())
    before = sha256(run.model_folder / "weights.safetensors")
    onsight.resume("latest", epochs=10, reporter=Spy())
    assert len(run.history()) == 10
    assert sha256(run.model_folder / "weights.safetensors") != before
    assert Run(run.folder).spec["epochs"] == 10
    with pytest.raises(onsight.OnsightError, match="has finished, after 10 epochs"):
        onsight.resume(run.folder, reporter=Spy())


def test_a_run_that_stopped_early_is_not_resumed_without_more_epochs(toy_spec):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    run = onsight.train(toy_spec, callbacks=[Stop()], reporter=Spy())
    assert len(run.history()) == 1
    with pytest.raises(RunError, match=r"already has --epochs 8\. It stopped after 1"):
        onsight.resume(run, epochs=8, reporter=Spy())
    assert len(onsight.resume(run, epochs=3, reporter=Spy()).history()) == 3


def test_resuming_with_epochs_replaces_a_time_budget(toy_spec):
    run = onsight.train(toy_spec, reporter=Spy())
    run.update_spec(time_budget="1s")  # as if 8 epochs had fit into it
    longer = onsight.resume(run, epochs=9, reporter=Spy())
    assert (len(longer.history()), longer.spec["time_budget"]) == (9, None)


@pytest.mark.backend
def test_the_last_good_state_is_kept_if_the_loss_is_not_finite(toy_spec):
    spec = toy_spec.model_copy(
        update={"optimizer": "sgd", "learning_rate": 100.0, "schedule": "constant", "model": "mlp"}
    )
    with pytest.raises(TrainingError, match=r"(loss became (nan|inf)|weight is no longer finite) at epoch \d, step \d"):
        onsight.train(spec, reporter=Spy())
    run = open_run("latest", finished=False)
    assert all(np.isfinite(array).all() for array in load_checkpoint(run.checkpoints).arrays.values())


def test_a_full_disk_keeps_the_older_checkpoint(toy_spec, monkeypatch):
    save = loop.save_checkpoint
    calls = []

    def full(*args):
        calls.append(args)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*args)

    monkeypatch.setattr(loop, "save_checkpoint", full)
    with pytest.raises(TrainingError, match=r"The disk is full[\s\S]*--resume"):
        onsight.train(toy_spec, reporter=Spy())
    run = open_run("latest", finished=False)
    assert load_checkpoint(run.checkpoints).state["epoch"] == 0


@pytest.mark.slow
def test_too_little_memory_suggests_a_smaller_batch(toy_spec, monkeypatch):
    def exhausted(self):
        import keras

        keras.ops.zeros((2**44,))  # 64 TB, allocated by the backend itself

    monkeypatch.setattr(loop.Loop, "epoch", exhausted)
    with pytest.raises(TrainingError, match="--batch-size 8"):
        onsight.train(toy_spec, reporter=Spy())


@pytest.mark.backend
def test_the_users_callbacks_are_called_and_can_stop_training(toy_spec):
    import keras

    seen = []

    class Mine(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, logs["val_accuracy"], float(self.model.optimizer.learning_rate)))
            self.model.stop_training = epoch == 1

        def on_train_begin(self, logs=None):
            seen.append("begin")

        def on_train_end(self, logs=None):
            seen.append("end")

    run = onsight.train(toy_spec, callbacks=[Mine()], reporter=Spy())
    assert [seen[0], seen[-1]] == ["begin", "end"]
    assert [epoch for epoch, *_ in seen[1:-1]] == [0, 1]
    assert len(run.history()) == 2


def test_ticks_report_the_progress_of_training(toy_spec):
    spy = Spy()
    run = onsight.train(toy_spec, reporter=spy)
    steps = {tick["steps"] for tick in spy.ticks}
    assert steps == {sum(run.dataset["counts"]["train"].values()) // 16}
    assert all(0 <= tick["accuracy"] <= 1 and tick["seconds_left"] >= 0 for tick in spy.ticks)
    assert [row["epoch"] for row in spy.rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {"epoch", "tick"} == {line["event"] for line in read_lines(run.folder / "history.jsonl")}


def validation_answers(run):
    from onsight.data.pixel_cache import load_pixels
    from onsight.inference.predict import probabilities

    dataset = onsight.load_dataset("toy")
    index = np.array([dataset.names.index(name) for name in run.dataset["split"]["validation"]])
    return probabilities(run.load_model().predict_on_batch, load_pixels(dataset, 32).images, index, 16), dataset.labels[
        index
    ]


@pytest.mark.backend
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_temperature_is_fitted_on_the_validation_images(toy_spec, precision):
    spec = toy_spec.model_copy(update={"epochs": 1, "validation": 0.65, "precision": precision})
    spy = Spy()
    run = onsight.train(spec, reporter=spy)
    assert len(run.dataset["split"]["validation"]) >= calibrate.LEAST
    temperature = read_description(run.model_folder).temperature
    assert any(f"temperature      {temperature:.4g}  (calibration error on" in note for note in spy.notes)
    answers, labels = validation_answers(run)
    assert 0 < (answers.argmax(axis=1) == labels).mean() < 1
    logits = np.log(scores.with_temperature(answers, 1 / temperature))
    assert scores.fit_temperature(logits, labels) == pytest.approx(temperature, rel=1e-3)
    assert temperature != 1


def test_without_validation_images_the_temperature_is_one(toy_spec):
    spy = Spy()
    run = onsight.train(toy_spec.model_copy(update={"validation": 0.0, "epochs": 1, "model": "mlp"}), reporter=spy)
    assert read_description(run.model_folder).temperature == 1
    assert "temperature      1  (not calibrated: no validation images)" in spy.notes


@pytest.mark.backend
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_validation_images_the_temperature_undoes_the_smoothing(toy_spec, precision):
    spy = Spy()
    asked = {"validation": 0.0, "epochs": 6, "label_smoothing": 0.3, "precision": precision}
    run = onsight.train(toy_spec.model_copy(update=asked), reporter=spy)
    temperature = read_description(run.model_folder).temperature
    assert 0.3 < temperature < 0.95
    note = "undoes the label smoothing of 0.3; not calibrated: no validation images"
    assert f"temperature      {temperature:.4g}  ({note})" in spy.notes
    assert not run.is_calibrated


def test_a_student_learns_unsmoothed_answers_so_nothing_is_undone(toy_spec):
    asked = {"validation": 0.0, "epochs": 1, "model": "mlp"}
    teacher = onsight.train(toy_spec.model_copy(update=asked), reporter=Spy())
    student = onsight.distill(teacher, onsight.TrainSpec(epochs=1, label_smoothing=0.3), reporter=Spy())
    assert read_description(student.model_folder).temperature == 1


def test_the_threshold_is_stored(toy_spec):
    asked = {"epochs": 3, "validation": 0.5, "min_precision": 0.75, "augmentation": "flip_shift"}
    spec = toy_spec.model_copy(update=asked)
    run = onsight.train(spec, reporter=Spy())
    answers, labels = validation_answers(run)
    confidence, right = answers.max(axis=1), answers.argmax(axis=1) == labels
    threshold = read_description(run.model_folder).threshold
    assert scores.at_threshold(confidence, right, threshold)["accuracy_interval"][0] >= 0.75


@pytest.fixture(scope="module")
def source(tmp_path_factory, toy_spec):
    """Return a run with batch norms and dropout, from which other trainings start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONSIGHT_RUNS", str(tmp_path_factory.mktemp("source")))
        return onsight.train(toy_spec.model_copy(update={"model": "cnn_dropout", "epochs": 2}), reporter=Spy())


@pytest.fixture
def transfer_spec(toy_spec, source):
    """Return a spec that fits the head in the first epoch and then trains the last layers for two."""
    left_out = ("model", "epochs", "learning_rate")
    fields = {name: value for name, value in toy_spec.model_dump(exclude_unset=True).items() if name not in left_out}
    return onsight.TrainSpec(**fields, weights=str(source.folder), epochs=3, learning_rate=0.01)


def weights_of(run):
    from safetensors.numpy import load_file

    return load_file(run.model_folder / "weights.safetensors")


@pytest.mark.backend
def test_a_transfer_trains_the_head_then_the_last_layers_but_no_batch_norm(transfer_spec, source):
    spy = Spy()
    run = onsight.train(transfer_spec, reporter=spy)
    assert [note for note in spy.notes if note.startswith("phase ")] == [
        "phase            the head alone, by logistic regression on features computed once",
        "phase            the layers from number 20 on, with frozen batch norms, epochs 2 to 3, learning rate up to "
        "0.01",
    ]
    assert len(run.record["phases"]) == 2
    assert run.record["weights"]["of"] == f"cnn_dropout as trained in {source.name}"
    before, after = weights_of(source), weights_of(run)
    assert after.pop("distance/prototypes").shape[1] > 1
    changed = {name for name in after if not np.array_equal(before[name], after[name])}
    names = [layer.name for layer in run.load_model().layers]
    last = {name for name in after if names.index(name.split("/")[0]) >= 20 and not name.startswith("norm")}
    assert changed == last
    assert {"logits/kernel", "conv3b/kernel", "dense/kernel"} <= last
    rates = [row["learning_rate"] for row in run.history()]
    assert len(rates) == 3
    assert rates[0] == 0  # the head is fitted at once
    assert 0.001 < max(rates[1:]) <= 0.01
    assert not [note for note in spy.notes if note.startswith("head ")]  # the source has seen all training images


def test_a_head_that_was_fitted_did_not_learn_smoothed_labels(transfer_spec):
    asked = {"freeze": "all", "epochs": 1, "label_smoothing": 0.3, "validation": 0.0}
    run = onsight.train(transfer_spec.model_copy(update=asked), reporter=Spy())
    assert read_description(run.model_folder).temperature == 1


@pytest.mark.parametrize(("freeze", "touched"), [("all", {"logits"}), ("none", {"conv1a", "dense", "logits"})])
def test_freezing_all_or_no_layers(transfer_spec, source, freeze, touched):
    spec = transfer_spec.model_copy(update={"freeze": freeze, "epochs": 1 if freeze == "all" else 2})
    run = onsight.train(spec, reporter=Spy())
    before, after = weights_of(source), weights_of(run)
    assert after.pop("distance/prototypes").shape[1] > 1
    changed = {name.split("/")[0] for name in after if not np.array_equal(before[name], after[name])}
    assert touched <= changed
    assert not any(name.startswith("norm") for name in changed)
    assert (changed == touched) == (freeze == "all")


def test_training_on_features_and_inference_on_images_agree(transfer_spec):
    """The last line of the history comes from cached features, the accuracy here from images."""
    run = onsight.train(transfer_spec.model_copy(update={"freeze": "all", "epochs": 1}), reporter=Spy())
    answers, labels = validation_answers(run)
    assert (answers.argmax(axis=1) == labels).mean() == pytest.approx(run.history()[-1]["val_accuracy"])


def test_a_transfer_that_another_version_began_otherwise_is_refused(transfer_spec):
    with pytest.raises(Interrupted):
        onsight.train(transfer_spec, reporter=Stopper("epoch", 1))
    run = onsight.list_runs()[-1]
    path = run.folder / "spec.json"
    record = json.loads(path.read_text())
    record["phases"][1] = record["phases"][1].replace("up to 0.01", "up to 0.001")
    path.write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"which trained in other phases \(.*0\.001\)\. Train again"):
        onsight.resume(run.folder, reporter=Spy())


class Stopper(Spy):
    """Send SIGTERM when event `what` (tick or epoch) number `number` is reported."""

    def __init__(self, what, number):
        self.stop = what, number
        super().__init__(lambda count: self.stop_at("tick", count))

    def stop_at(self, what, number):
        if (what, number) == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)

    def epoch(self, row):
        self.stop_at("epoch", row["epoch"])


@pytest.mark.backend
@pytest.mark.parametrize(
    ("what", "number", "at"),
    [
        ("epoch", 1, 1),
        pytest.param("tick", 4, 1, marks=pytest.mark.slow),
        pytest.param("tick", 14, 2, marks=pytest.mark.slow),
    ],
)
def test_a_transfer_stopped_in_any_phase_resumes_bit_for_bit(transfer_spec, what, number, at):
    """Stop between the phases, and within the first and the last epoch of the second (an epoch has nine ticks)."""
    unbroken = onsight.train(transfer_spec, reporter=Spy())
    with pytest.raises(Interrupted):
        onsight.train(transfer_spec, reporter=Stopper(what, number))
    run = onsight.list_runs()[-1]
    assert not run.is_trained
    assert load_checkpoint(run.checkpoints).state["epoch"] == at
    onsight.resume(run, reporter=Spy())
    assert outcome(run) == outcome(unbroken)


@pytest.mark.slow
def test_a_stop_while_features_are_computed_can_be_resumed(transfer_spec, source, monkeypatch, tmp_path):
    unbroken = onsight.train(transfer_spec, reporter=Spy())
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "other"))

    class Busy(Spy):
        def work(self, what, done, total):
            if what == "computing features":
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"Everything is saved"):
        onsight.train(transfer_spec, reporter=Busy())
    run = onsight.list_runs()[-1]
    monkeypatch.setattr(loop, "load", None)  # from here on, the initial weights are not needed
    onsight.resume(run, reporter=Spy())
    assert outcome(run) == outcome(unbroken)
