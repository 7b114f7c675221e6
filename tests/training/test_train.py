import json
import re
from pathlib import Path

import numpy as np
import pytest

import onsight
from onsight.core.errors import DataError, SpecError
from onsight.core.progress import Reporter
from onsight.core.text import note_line
from published import publish

pytestmark = pytest.mark.usefixtures("only_training")

QUIET = Reporter()


@pytest.mark.backend
def test_a_run_records_the_spec_as_asked_and_as_resolved(toy_run, toy_spec):
    record = json.loads((toy_run.folder / "spec.json").read_text())
    assert record["schema"] == 1
    assert record["asked"] == toy_spec.model_dump(mode="json", exclude_unset=True)
    optional = {
        "data_dir",
        "keep_list",
        "min_precision",
        "freeze",
        "head_epochs",
        "shots",
        "layout",
        "path_column",
        "label_column",
        "labels",
        "teacher",
        "time_budget",
        "early_size",
        "ghost_batch_size",
    }
    unset = [field for field, value in record["spec"].items() if value is None and field not in optional]
    assert not unset
    assert set(record["reasons"]).isdisjoint(record["asked"])
    assert {"backend", "keras", "machine", "precision"} <= set(record["environment"])
    assert toy_run.classes == ("blue", "green", "red")
    counts = {part: sum(classes.values()) for part, classes in toy_run.dataset["counts"].items()}
    assert counts["test"] == 60
    assert counts["train"] + counts["validation"] == 180


@pytest.mark.backend
def test_an_easy_data_set_is_learned(toy_run):
    assert toy_run.history()[-1]["val_accuracy"] > 0.9
    model = toy_run.load_model()
    assert type(model).__module__.startswith("keras.")
    red = np.zeros((1, 32, 32, 3), np.uint8) + np.array([220, 30, 30], np.uint8)
    probabilities = model.predict_on_batch(red)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.backend
def test_the_same_seed_gives_the_same_run(toy_run, toy_spec):
    from onsight.core.files import sha256

    again = onsight.train(toy_spec, reporter=QUIET)
    assert sha256(again.model_folder / "weights.safetensors") == sha256(toy_run.model_folder / "weights.safetensors")
    other = onsight.train(toy_spec.model_copy(update={"seed": 2}), reporter=QUIET)
    assert sha256(other.model_folder / "weights.safetensors") != sha256(again.model_folder / "weights.safetensors")


def test_a_folder_of_photos(photos):
    (photos / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    notes = []

    class Spy(Reporter):
        def note(self, label, text):
            notes.append(note_line(label, text))

    run = onsight.train(
        onsight.TrainSpec(data=str(photos), epochs=2, batch_size=16, model="cnn_compact"), reporter=Spy()
    )
    assert run.name == "photos-cnn_compact-0001"
    assert run.spec["image_size"] == 32
    assert "70/15/15" in "".join(notes)
    assert "1 unreadable image" in "".join(notes)
    assert list(run.dataset["broken"]) == ["red/broken.jpg"]
    members = [set(run.dataset["split"][part]) for part in ("train", "validation", "test")]
    assert sum(map(len, members)) == len(set.union(*members)) == 72
    assert "red/broken.jpg" not in set.union(*members)
    result = onsight.evaluate(run, reporter=QUIET)
    assert result.metrics["n"] == len(members[2])

    (photos / "blue" / "new.jpg").write_bytes((photos / "blue" / "1.jpg").read_bytes())
    assert onsight.evaluate(run, reporter=QUIET).metrics["n"] == len(members[2])  # new images change no test set
    (photos / sorted(members[2])[0]).unlink()
    with pytest.raises(DataError, match="photos lacks 1 test image of the run"):
        onsight.evaluate(run, reporter=QUIET)


@pytest.mark.parametrize("validation", [0, 0.3])
def test_the_validation_share_is_held_out(toy_spec, validation):
    run = onsight.train(toy_spec.model_copy(update={"validation": validation, "epochs": 1}), reporter=QUIET)
    held_out = sum(run.dataset["counts"]["validation"].values())
    assert held_out == 0 if validation == 0 else 30 < held_out < 80
    assert ("val_loss" in run.history()[0]) == (validation > 0)


@pytest.mark.slow
@pytest.mark.backend
def test_bfloat16_trains_and_the_saved_model_is_float32(toy_spec):
    run = onsight.train(toy_spec.model_copy(update={"precision": "bfloat16"}), reporter=QUIET)
    assert run.history()[-1]["accuracy"] > 0.6
    model = run.load_model()
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.get_layer("conv1").compute_dtype == "float32"


def test_unusable_data_is_an_error_and_leaves_no_run(tmp_path):
    with pytest.raises(SpecError, match="No data set 'cifar'"):
        onsight.train(onsight.TrainSpec(data="cifar"), reporter=QUIET)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        onsight.train(onsight.TrainSpec(data=str(tmp_path / "empty")), reporter=QUIET)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_seeds_share_a_split_and_each_gives_the_run_it_gives_alone(photos):
    from onsight.core.files import sha256

    notes = []

    class Spy(Reporter):
        def note(self, label, text):
            notes.append(note_line(label, text))

    spec = onsight.TrainSpec(data=photos, model="mlp", epochs=1, batch_size=8, seed=3)
    runs = onsight.train_seeds(spec, 2, reporter=Spy())
    assert [run.spec["seed"] for run in runs] == [3, 4]
    assert runs[0].dataset["split"] == runs[1].dataset["split"]
    weights = [sha256(run.model_folder / "weights.safetensors") for run in runs]
    assert weights[0] != weights[1]
    again = onsight.train(spec.model_copy(update={"seed": 4, "split_seed": 3}), reporter=QUIET)
    assert sha256(again.model_folder / "weights.safetensors") == weights[1]
    shares = [run.history()[-1]["val_accuracy"] for run in runs]
    table = "\n".join(notes)
    assert f"seed 4           {runs[1].folder}   validation {100 * shares[1]:.1f} %" in table
    assert f"2 seeds          validation {100 * np.mean(shares):.1f} % ± {100 * np.std(shares, ddof=1):.1f}" in table
    assert f"n = {len(runs[0].dataset['split']['validation'])})" in table
    other = onsight.train(spec.model_copy(update={"seed": 4}), reporter=QUIET)  # the split has another seed, too
    assert other.dataset["split"]["test"] != runs[1].dataset["split"]["test"]


@pytest.mark.slow
def test_all_seeds_start_from_the_run_that_was_latest_before_them(photos):
    spec = onsight.TrainSpec(data=photos, model="mlp", epochs=1, batch_size=8, validation=0)
    base = onsight.train(spec, reporter=QUIET)
    runs = onsight.train_seeds(spec.model_copy(update={"weights": "latest"}), 2, reporter=QUIET)
    assert [run.spec["weights"] for run in runs] == [str(base.folder.resolve())] * 2


def test_a_run_that_fails_before_its_first_checkpoint_is_removed(photos):
    spec = onsight.TrainSpec(data=photos, model="mlp", epochs=1, batch_size=8, image_size=24)
    base = onsight.train(spec, reporter=QUIET)
    wrongs = ({"image_size": 32}, "weights of other shapes at 32 px"), ({"freeze": 99}, "leaves nothing to learn")
    for wrong, why in wrongs:
        with pytest.raises(SpecError, match=why):
            onsight.train(spec.model_copy(update={"weights": str(base.folder), **wrong}), reporter=QUIET)
    assert [run.folder for run in onsight.list_runs()] == [base.folder]


def test_a_full_disk_at_the_first_checkpoint_leaves_no_run(photos, monkeypatch):
    import errno

    from onsight.core.errors import TrainingError
    from onsight.training import loop

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop, "save_checkpoint", full)
    with pytest.raises(TrainingError, match="Free some space, then: train again"):
        onsight.train(onsight.TrainSpec(data=photos, model="mlp", epochs=1, batch_size=8), reporter=QUIET)
    assert onsight.list_runs() == []


@pytest.mark.slow
def test_a_transfer_that_ended_with_the_head_continues_with_the_last_layers(photos):
    from onsight.training.checkpoints import load_checkpoint, save_checkpoint

    spec = onsight.TrainSpec(data=photos, model="mlp", epochs=1, batch_size=8)
    base = onsight.train(spec, reporter=QUIET)
    spec = onsight.TrainSpec(
        data=photos, weights=str(base.folder), epochs=2, head_epochs=2, freeze=1, schedule="plateau"
    )
    run = onsight.train(spec, reporter=QUIET)
    assert len(run.record["phases"]) == 1
    arrays, state, _ = load_checkpoint(run.checkpoints)
    state["judge"]["factor"] = 0.01  # as after two plateaus
    save_checkpoint(run.checkpoints, arrays, state)
    run = onsight.resume(run, epochs=3, reporter=QUIET)
    assert [row["epoch"] for row in run.history()] == [2, 3]  # fitting the head is the last epoch of its phase
    assert len(run.record["phases"]) == 2
    assert run.history()[-1]["learning_rate"] == pytest.approx(run.spec["learning_rate"])


@pytest.mark.slow
def test_a_transfer_that_is_trained_longer_still_does_not_stop_early(photos):
    base = onsight.train(onsight.TrainSpec(data=photos, model="mlp", epochs=1, batch_size=8), reporter=QUIET)
    spec = onsight.TrainSpec(data=photos, weights=str(base.folder), epochs=1, freeze=1, learning_rate=1e-9)
    run = onsight.train(spec, reporter=QUIET)
    assert run.spec["patience"] == 1
    run = onsight.resume(run, epochs=4, reporter=QUIET)  # the rate is so low that no epoch is better than the head
    assert [row["epoch"] for row in run.history()] == [1, 2, 3, 4]
    assert (run.spec["patience"], run.spec["epochs"]) == (4, 4)


def test_ctrl_c_keeps_finished_seeds_and_shows_how_to_continue(photos):
    import os
    import signal

    from onsight.core.errors import Interrupted

    class Stopper(Reporter):
        def epoch(self, row):
            if len(list(Path("runs").iterdir())) == 2:
                os.kill(os.getpid(), signal.SIGINT)

    spec = onsight.TrainSpec(data=photos, model="mlp", epochs=3, batch_size=8, seed=7)
    with pytest.raises(Interrupted) as stop:
        onsight.train_seeds(spec, 4, reporter=Stopper())
    first, second = onsight.list_runs()
    assert first.is_trained
    assert not second.is_trained
    assert f"onsight train --resume {second.folder}" in str(stop.value)
    commands = str(stop.value).splitlines()[-1]
    assert commands.endswith("--seeds 2")
    assert "--seed 9 --split-seed 7" in commands
    assert onsight.resume(second, reporter=QUIET).is_trained


def test_zero_seeds_are_refused():
    with pytest.raises(SpecError, match="seeds=0 trains nothing"):
        onsight.train_seeds(onsight.TrainSpec(data="toy"), 0, reporter=QUIET)


def test_shots_limit_the_training_images_but_not_the_other_parts(photos):
    spec = onsight.TrainSpec(data=photos, model="mlp", epochs=1, batch_size=4, seed=3)
    few, more, whole = (
        onsight.train(spec.model_copy(update={"shots": shots}), reporter=QUIET) for shots in (2, 5, None)
    )
    assert list(few.dataset["counts"]["train"].values()) == [2, 2, 2]
    assert list(more.dataset["counts"]["train"].values()) == [5, 5, 5]
    assert set(few.dataset["split"]["train"]) < set(more.dataset["split"]["train"])
    for part in ("validation", "test"):
        assert few.dataset["split"][part] == whole.dataset["split"][part]
    assert onsight.evaluate(few, reporter=QUIET).metrics["n"] == len(whole.dataset["split"]["test"])


def test_photos_start_from_imagenet_unless_the_user_chooses_otherwise(photos, monkeypatch):
    from onsight.features.initial_weights import Origin, Start
    from onsight.training import prepare

    def default_start(size, progress, asked):
        return Origin(Start("imagenet", asked or "efficientnetv2_b0", None, 149, "text"), "they are here")

    monkeypatch.setattr(prepare, "default_start", default_start)

    def chosen(side=200, **fields):
        return prepare.choose_start(onsight.TrainSpec(**{"data": str(photos), **fields}), side, QUIET)

    assert chosen() == default_start(200, None, None)
    assert chosen(epochs=3, seed=1) == chosen()
    assert chosen(model="efficientnet_lite1").start.model == "efficientnet_lite1"
    for fields, why in (
        ({"weights": "none"}, "asked for"),
        ({"data": "cifar10"}, "named data sets start from scratch"),
        ({"model": "cnn"}, "because model was chosen"),
        ({"preset": "quick"}, "because preset was chosen"),
        ({"time_budget": "5m", "early_size": 64}, "because early_size and time_budget were chosen"),
        ({"side": 40}, "the median side of these images is 40 px"),
        ({"side": 64, "image_size": 64}, "image_size is 64"),
    ):
        found, reason, _ = chosen(**fields)
        assert found is None
        assert why in reason


def test_the_report_names_the_run_whose_weights_training_started_from(photos, toy_run):
    spec = onsight.TrainSpec(data=photos, weights=str(toy_run.folder), epochs=3, batch_size=8)
    run = onsight.train(spec, reporter=QUIET)
    assert (run.spec["model"], run.spec["image_size"], run.spec["preset"]) == ("cnn", 32, "transfer")
    assert run.classes == ("blue", "green", "red")
    assert run.record["weights"]["file"] == "weights.safetensors"
    page = (run.folder / "report.html").read_text()
    assert "the head alone, by logistic regression on features computed once" in page
    assert "with frozen batch norms, epochs 2 to 3, learning rate up to " in page
    assert f"cnn as trained in {toy_run.name}" in re.sub("<.*?>", "", page)


@pytest.mark.slow
def test_a_pretrained_network_is_trained_from_the_cache_and_predicts_without_it(photos, tmp_path, monkeypatch):
    """Train from published weights in Keras' folder; then the run needs neither this file nor a connection."""
    import hashlib

    import keras

    from onsight.features.initial_weights import PUBLISHED

    home = tmp_path / "keras"
    monkeypatch.setenv("KERAS_HOME", str(home))
    keras.utils.set_random_seed(0)
    original = keras.applications.MobileNetV3Small(weights=None, include_top=False, input_shape=(32, 32, 3))
    name = "mobilenetv3_small"
    file = publish(home / "models" / PUBLISHED[name].file(32).rpartition("/")[2], original)
    entry = PUBLISHED[name]._replace(hash=hashlib.md5(file.read_bytes()).hexdigest())
    monkeypatch.setitem(PUBLISHED, name, entry)
    spec = onsight.TrainSpec(data=photos, model=name, weights="imagenet", epochs=3, head_epochs=2, batch_size=16)
    run = onsight.train(spec, reporter=QUIET)
    assert (run.spec["freeze"], run.record["weights"]["file"]) == (entry.frozen, file.name)
    assert (run.model_folder / "model.tflite").exists()
    file.unlink()
    image = photos / "red" / "1.jpg"
    (light,) = onsight.predict(run, [image], engine="litert")
    (heavy,) = onsight.predict(run, [image], engine="keras")
    assert light.top[0][0] == heavy.top[0][0]
