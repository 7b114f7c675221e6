import json
import os
import re
import signal

import numpy as np
import pytest

import onsight
from edits import edit_model
from onsight.core.errors import DataError, Interrupted, RunError, SpecError
from onsight.core.files import sha256, write_json
from onsight.core.progress import Reporter
from onsight.core.text import note_line
from onsight.data.batches import Examples, plan_epoch, training_batches
from onsight.inference.engines import open_engine
from onsight.models.model_file import load_model, read_description
from onsight.reporting.commands import train_command
from onsight.runs.run import open_run
from onsight.spec import TrainSpec
from onsight.training import loop
from onsight.training.compress import distill, prune
from onsight.training.resolve import resolve
from onsight.training.teacher import Teacher
from onsight.training.train import resume
from onsight.training.zero_weights import zero_share

pytestmark = pytest.mark.usefixtures("only_training")


class Spy(Reporter):
    def __init__(self, on_tick=lambda count: None):
        self.notes, self.count, self.on_tick = [], 0, on_tick

    def note(self, label, text):
        self.notes.append(note_line(label, text))

    def tick(self, facts):
        self.count += 1
        self.on_tick(self.count)


@pytest.fixture(autouse=True)
def _runs_here(tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(loop, "SHOWN_EVERY", -1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def kernels(run):
    from safetensors.numpy import load_file

    arrays = load_file(run.model_folder / "weights.safetensors")
    return [array for name, array in arrays.items() if name.endswith("kernel")]


def interrupt(count):
    if count == 14:
        os.kill(os.getpid(), signal.SIGINT)


def stopped_and_resumed(make):
    """Return the run of `make(reporter)`, stopped in its second epoch and then resumed."""
    with pytest.raises(Interrupted):
        make(Spy(interrupt))
    return resume(open_run("latest", finished=False), reporter=Spy())


@pytest.mark.backend
def test_pruned_weights_stay_zero_and_the_run_names_its_teacher(toy_run):
    spy = Spy()

    def make(reporter):
        return prune(toy_run, sparsity=0.8, epochs=3, reporter=reporter)

    run = make(spy)
    assert zero_share(kernels(run)) == pytest.approx(0.8, abs=1e-3)
    assert run.record["teacher"]["run"] == toy_run.name
    assert run.record["reasons"]["optimizer"] == "the teacher's"
    found = json.loads((run.folder / "teacher.json").read_text())
    before, after = found["runs"]
    assert after["parameters"] == before["parameters"]
    assert after["bytes_compressed"] < 0.5 * before["bytes_compressed"]
    assert after["bytes"] > 0.95 * before["bytes"]
    assert found["validation_n"] == sum(toy_run.dataset["counts"]["validation"].values())
    assert after["validation_accuracy"] > 0.9
    assert any("make compressed files smaller, but inference no faster" in note for note in spy.notes)
    assert any(note.startswith("validation") and "95 %" in note for note in spy.notes)
    assert run.dataset["split"] == toy_run.dataset["split"]

    again = stopped_and_resumed(make)
    assert sha256(again.model_folder / "weights.safetensors") == sha256(run.model_folder / "weights.safetensors")
    assert (again.folder / "teacher.json").exists()


@pytest.mark.slow
def test_half_of_the_channels_makes_the_file_about_a_quarter_as_large(toy_run):
    run = prune(toy_run, channels=0.5, epochs=3, reporter=Spy())
    description = read_description(run.model_folder)
    assert description.channels == 0.5
    model = load_model(run.model_folder)
    assert [model.get_layer(f"conv{i}").filters for i in (1, 2, 3)] == [27, 39, 55]
    before, after = json.loads((run.folder / "teacher.json").read_text())["runs"]
    assert after["bytes"] < 0.35 * before["bytes"]
    assert after["validation_accuracy"] > 0.9
    assert open_engine(run).name == "litert"
    twice = prune(run, channels=0.5, epochs=1, reporter=Spy())
    assert load_model(twice.model_folder).get_layer("conv1").filters == 14


def test_a_student_learns_from_its_teacher(toy_run):
    def make(reporter):
        return distill(toy_run, TrainSpec(model="cnn_compact", epochs=3, batch_size=16), reporter=reporter)

    run = make(Spy())
    assert (run.spec["model"], run.record["teacher"]["run"]) == ("cnn_compact", toy_run.name)
    assert run.dataset["split"] == toy_run.dataset["split"]
    assert run.spec["split_seed"] == toy_run.spec["split_seed"]
    found = json.loads((run.folder / "teacher.json").read_text())
    assert [side["model"] for side in found["runs"]] == ["cnn", "cnn_compact"]
    again = stopped_and_resumed(make)
    assert sha256(again.model_folder / "weights.safetensors") == sha256(run.model_folder / "weights.safetensors")


@pytest.mark.slow
def test_a_student_of_another_image_size_learns_and_resumes_bit_for_bit(toy_run):
    def make(reporter):
        spec = TrainSpec(model="cnn_compact", image_size=16, epochs=3, batch_size=16, augmentation="flip_shift")
        return distill(toy_run, spec, reporter=reporter)

    spy = Spy()
    run = make(spy)
    assert run.spec["image_size"] == 16
    assert run.dataset["split"] == toy_run.dataset["split"]
    before, after = json.loads((run.folder / "teacher.json").read_text())["runs"]
    assert (before["image_size"], after["image_size"]) == (32, 16)
    assert note_line("image size", "32 px before, 16 px after") in spy.notes
    assert "--image-size 16" in train_command(run)
    again = stopped_and_resumed(make)
    assert sha256(again.model_folder / "weights.safetensors") == sha256(run.model_folder / "weights.safetensors")


def test_a_teacher_of_another_image_size_sees_the_same_changes_of_the_same_images():
    small = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    training = Examples(small, np.array([4, 0, 2]), np.zeros(3, int))
    plan = plan_epoch(training, "flip_shift", 1, 0)
    assert len(set(plan.draws.mirrored.tolist())) == 2
    assert plan.draws.shifts.any()
    for images, step in ((small, 1), (large, 2)):
        teacher = Teacher(None, lambda batch, step=step: batch[:, ::step, ::step], images)
        for start, (seen, _) in enumerate(training_batches(training, plan, 1)):
            taught = teacher.taught(seen, training, plan, start)
            # At the border, reflected pixels lie half a pixel off.
            assert np.array_equal(taught[:, 4:-4, 4:-4], seen[:, 4:-4, 4:-4])


@pytest.mark.parametrize(("model", "size", "why"), [
    ("micro", 96, "the teacher's is 224 px, and micro is meant for up to 96 px"),
    ("mobilenetv2", 224, "the teacher's"),
])  # fmt: skip
def test_a_student_has_its_teachers_image_size_up_to_that_of_its_network(tmp_path, model, size, why):
    spec = TrainSpec(model=model, teacher=tmp_path)
    found = resolve(spec, images=100, given={"train", "test"}, side=224, flips=True)
    assert (found.spec.image_size, found.reasons["image_size"]) == (size, why)


def test_the_teachers_answers_weigh_more_than_the_labels(toy_run, monkeypatch):
    """The student of a teacher that always answers blue does the same, whatever the labels are."""
    from onsight.training import teacher as teacher_module

    def blue(images, threads=None):
        return np.tile(np.float32([0.98, 0.01, 0.01]), (len(images), 1))

    real = teacher_module.open_engine

    class Blue:
        size = 32
        probabilities = staticmethod(blue)

    monkeypatch.setattr(teacher_module, "open_engine", lambda run: Blue if run.name == toy_run.name else real(run))
    run = distill(toy_run, TrainSpec(model="mlp", epochs=4, batch_size=16), reporter=Spy())
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    assert (real(run).probabilities(images).argmax(axis=1) == 0).mean() > 0.9


def test_requests_that_cannot_work_are_refused(toy_run, toy_spec, tmp_path):
    for options, message in (
        ({}, "either --sparsity"),
        ({"sparsity": 0.5, "channels": 0.5}, "either --sparsity"),
        ({"sparsity": 1.0}, "from 0 to 0.95"),
        ({"channels": -1.0}, "from 0 to 0.95"),
    ):
        with pytest.raises(SpecError, match=message):
            prune(toy_run, reporter=Spy(), **options)
    with pytest.raises(SpecError, match="takes shots, validation from its teacher"):
        distill(toy_run, TrainSpec(validation=0.5, shots=3), reporter=Spy())
    with pytest.raises(SpecError, match="epochs=0"):
        prune(toy_run, sparsity=0.5, epochs=0, reporter=Spy())


def test_a_transfer_can_be_pruned(toy_run, tmp_path, monkeypatch):
    """The preset transfer is not passed on, because a pruned network starts from its teacher's weights."""
    import shutil

    from onsight.training import compress
    from onsight.training.prepare import choose_start
    from onsight.training.resolve import resolve

    teacher = open_run(shutil.copytree(toy_run.folder, tmp_path / "teacher-0001"))
    teacher.update_spec(preset="transfer", weights="imagenet", freeze=3, head_epochs=5, early_size=16)
    monkeypatch.setattr(compress, "train", lambda spec, reporter: spec)
    for freeze in (3, "all"):
        teacher.update_spec(freeze=freeze)
        for given in ({}, {"epochs": 3}, {"learning_rate": 0.1}):
            with pytest.raises(SpecError, match=r"with frozen layers.*--epochs 10 --learning-rate 3e-4"):
                prune(teacher, sparsity=0.5, reporter=Spy(), **given)
    spec = prune(teacher, sparsity=0.5, epochs=3, learning_rate=0.1, reporter=Spy())
    assert (spec.epochs, spec.learning_rate) == (3, 0.1)
    assert choose_start(spec, 224, Spy()).start is None
    assert spec.early_size is None  # a pruned network trains at one image size
    found = resolve(spec, images=100, given={"train", "test"}, side=32, flips=True).spec
    assert (found.optimizer, found.augmentation, found.seed) == ("adam", toy_run.spec["augmentation"], 1)


@pytest.mark.slow
def test_a_student_has_the_shots_of_its_teacher(toy_spec):
    teacher = onsight.train(toy_spec.model_copy(update={"shots": 5, "epochs": 1, "seed": 3}), reporter=Spy())
    student = distill(teacher, TrainSpec(model="mlp", epochs=1), reporter=Spy())
    assert student.spec["seed"] != teacher.spec["seed"]
    assert student.dataset["split"] == teacher.dataset["split"]
    assert len(student.dataset["split"]["train"]) == 15
    assert train_command(student) == f"onsight distill runs/{teacher.name} --model mlp --epochs 1"


def test_the_command_of_a_second_pruning_gives_the_share_of_the_remaining_channels(toy_run, tmp_path):
    """The run is that of `prune RUN --channels 0.5`, where half of RUN's channels had been removed before."""
    spec = toy_run.spec | {"channels": 0.75, "epochs": 40, "learning_rate": 0.06}
    teacher = {"run": "toy-cnn-0001", "weights_sha256": "0" * 64, "sparsity": 0.0, "channels": 0.5}
    write_json(tmp_path / "spec.json", {"schema": 1, "asked": spec, "spec": spec, "teacher": teacher})
    write_json(tmp_path / "dataset.json", toy_run.dataset)
    command = "onsight prune runs/toy-cnn-0001 --channels 0.5 --epochs 40 --learning-rate 0.06"
    assert train_command(open_run(tmp_path, finished=False)) == command
    both = {"schema": 1, "asked": spec, "spec": spec | {"sparsity": 0.8}, "teacher": teacher | {"channels": 0.75}}
    write_json(tmp_path / "spec.json", both)
    assert train_command(open_run(tmp_path, finished=False)) == command.replace("channels 0.5", "sparsity 0.8")


def test_a_changed_split_of_the_teacher_is_an_error(toy_run, tmp_path):
    import shutil

    shutil.copytree(toy_run.folder, tmp_path / "teacher-0001")
    path = tmp_path / "teacher-0001" / "dataset.json"
    value = json.loads(path.read_text())
    value["split"]["train"].append(value["split"]["validation"].pop())
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match="no longer what they were when the run was made"):
        distill(tmp_path / "teacher-0001", TrainSpec(model="mlp", epochs=1), reporter=Spy())


def test_changed_weights_of_the_teacher_are_an_error(toy_run, tmp_path):
    import shutil

    shutil.copytree(toy_run.folder, tmp_path / "teacher-0001")
    teacher = open_run(tmp_path / "teacher-0001")
    with pytest.raises(Interrupted):
        distill(teacher, TrainSpec(model="mlp", epochs=2, batch_size=16), reporter=Spy(interrupt))
    edit_model(teacher.model_folder, weights_sha256="0" * 64)
    with pytest.raises(RunError, match="other weights than when"):
        resume(open_run("latest", finished=False), reporter=Spy())


@pytest.mark.slow
def test_the_commands(toy_run, capsys):
    """The commands print only the folder of the new run; the comparison goes to standard error."""
    from onsight.cli.app import app

    app(["prune", str(toy_run.folder), "--channels", "0.5", "--epochs", "1", "--quiet"])
    pruned = open_run(capsys.readouterr().out.strip())
    app(["distill", str(pruned.folder), "--model", "mlp", "--epochs", "1", "--quiet"])
    student = open_run(capsys.readouterr().out.strip())
    assert (pruned.spec["channels"], student.spec["model"]) == (0.5, "mlp")
    assert student.record["teacher"]["run"] == pruned.name
    with pytest.raises(RunError, match="no image can be held out"):
        onsight.evaluate(student, folds=2, reporter=Spy())
    text = re.sub("<.*?>", "", student.report.read_text("utf-8"))
    assert f"The model was made from the run {pruned.name}. Compared with that run:" in text
    assert f"onsight distill runs/{pruned.name} --model mlp --epochs 1" in text


@pytest.mark.slow
def test_a_student_sees_the_whole_frames_that_its_teacher_saw(padded_run):
    with pytest.raises(SpecError, match="takes fit from its teacher"):
        distill(padded_run, TrainSpec(fit="cut"), reporter=Spy())
    for student in (
        distill(padded_run, TrainSpec(model="mlp", epochs=1), reporter=Spy()),
        prune(padded_run, sparsity=0.5, epochs=1, reporter=Spy()),
    ):
        assert student.spec["fit"] == "pad"
        assert read_description(student.model_folder).fit == "pad"
