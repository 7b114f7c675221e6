import json

import numpy as np
import pytest
from PIL import Image

import onsight
from edits import edit_model
from onsight.core.errors import DataError
from onsight.core.progress import Reporter
from onsight.data.load import load_dataset
from onsight.imaging import decode
from onsight.metrics import predictions_csv
from onsight.metrics import scores as scores_module
from onsight.runs.images import open_images

QUIET = Reporter()


@pytest.mark.backend
def test_every_figure_can_be_recomputed_from_predictions_csv(toy_run):
    folder = toy_run.evaluation_folder()
    written = json.loads((folder / "metrics.json").read_text())
    names, labels, probabilities, classes = predictions_csv.read_predictions(folder / "predictions.csv")
    assert names == toy_run.dataset["split"]["test"]
    assert tuple(classes) == toy_run.classes
    again = scores_module.score(labels, probabilities, classes)
    assert again == {key: written[key] for key in again}
    assert written["n"] == 60
    assert written["correct"] == int((probabilities.argmax(axis=1) == labels).sum())
    assert written["accuracy"] > 0.9
    low, high = written["accuracy_interval"]
    assert low < written["accuracy"] <= high
    assert written["provenance"] == "toy images drawn by Onsight"


def test_the_plots_and_the_report_are_written(toy_run):
    from PIL import Image

    for name in ("samples.png", "confusion.png", "predictions.png"):
        with Image.open(toy_run.evaluation_folder() / name) as image:
            assert min(image.size) > 300
    page = toy_run.report.read_text()
    assert "data:image/jpeg;base64," in page
    assert "http://" not in page
    assert "https://" not in page


def test_slices_thumbnails_and_heat_maps_are_written(toy_run, tmp_path):
    import shutil

    copy = onsight.Run(shutil.copytree(toy_run.folder, tmp_path / "copy"))
    names = copy.dataset["split"]["test"]
    lines = [f"{name},{'left' if i % 2 else 'right'}" for i, name in enumerate(names)]
    (tmp_path / "mine.csv").write_text("path,shelf\n" + "\n".join(lines) + "\n")
    result = onsight.evaluate(copy, slices_file=tmp_path / "mine.csv", reporter=QUIET)
    rows = json.loads((result.folder / "slices.json").read_text())["slices"]
    assert {row["by"] for row in rows} == {"class", "brightness", "shelf"}  # arrays have no file type or size
    for by in ("class", "shelf"):
        assert sum(row["n"] for row in rows if row["by"] == by) == 60
        assert sum(row["correct"] for row in rows if row["by"] == by) == result.metrics["correct"]
    index = json.loads((result.folder / "thumbnails.json").read_text())
    assert set(index["path"]) <= set(names)
    mistakes = json.loads((result.folder / "heatmaps" / "index.json").read_text())["mistakes"]
    assert len(mistakes) == min(24, 60 - result.metrics["correct"])
    assert "left" in copy.report.read_text()
    (tmp_path / "mine.csv").write_text("path,shelf\nother.png,left\n")
    uses = (copy.folder / "test_uses.jsonl").read_text()
    with pytest.raises(DataError, match=r"names none of the images \(60\)"):
        onsight.evaluate(copy, slices_file=tmp_path / "mine.csv", reporter=QUIET)
    assert (copy.folder / "test_uses.jsonl").read_text() == uses  # the error came before anything was scored


def test_each_use_of_the_test_set_is_logged(toy_run, tmp_path):
    import shutil

    copy = onsight.Run(shutil.copytree(toy_run.folder, tmp_path / "copy"))
    before = len((copy.folder / "test_uses.jsonl").read_text().splitlines())
    onsight.evaluate(copy, reporter=QUIET)
    uses = [json.loads(line) for line in (copy.folder / "test_uses.jsonl").read_text().splitlines()]
    assert len(uses) == before + 1
    assert uses[-1]["time"]
    assert "evaluate" in uses[-1]["reason"]
    assert uses[-1]["scored"]


def test_other_data_gets_a_folder_of_its_own(toy_run, tmp_path):
    import shutil

    from PIL import Image

    copy = onsight.Run(shutil.copytree(toy_run.folder, tmp_path / "copy"))
    for label, colour in (("blue", (20, 20, 240)), ("red", (240, 20, 20))):
        (tmp_path / "more" / label).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 40), colour).save(tmp_path / "more" / label / f"{i}.png")
    uses = (copy.folder / "test_uses.jsonl").read_text()
    result = onsight.evaluate(copy, data=tmp_path / "more", reporter=QUIET)
    assert (copy.folder / "test_uses.jsonl").read_text() == uses  # the run's own test set was not used
    assert result.folder.name.startswith("more-")
    assert result.folder.parent == copy.evaluation_folder().parent
    assert result.metrics["n"] == 6
    assert [row["support"] for row in result.metrics["per_class"]] == [3, 0, 3]
    assert "n = 6" in str(result)

    (tmp_path / "more" / "zebra").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "more" / "zebra" / "0.png")
    with pytest.raises(DataError, match="was not trained on: zebra"):
        onsight.evaluate(copy, data=tmp_path / "more", reporter=QUIET)


def test_naming_the_runs_own_data_scores_its_test_set(toy_run, tmp_path):
    import shutil

    copy = onsight.Run(shutil.copytree(toy_run.folder, tmp_path / "copy"))
    result = onsight.evaluate(copy, data="toy", reporter=QUIET)
    assert result.folder == copy.evaluation_folder()
    assert result.metrics["n"] == 60


def train_on(folder):
    """Return a run trained on 40 images of two classes, which are made in `folder`."""
    from PIL import Image

    for colour, label in enumerate(("a", "b")):
        (folder / label).mkdir(parents=True)
        for i in range(20):
            image = np.full((32, 32, 3), 10 * i, np.uint8)
            image[..., colour] = 255
            Image.fromarray(image).save(folder / label / f"{i}.png")
    return onsight.train(onsight.TrainSpec(data=folder, model="mlp", epochs=1), reporter=QUIET)


def test_the_runs_own_folder_is_recognised_after_it_was_moved(tmp_path):
    """Otherwise training images would be scored because the folder was moved."""
    run = train_on(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(onsight.OnsightError, match="here"):
        onsight.evaluate(run, reporter=QUIET)
    result = onsight.evaluate(run, data=tmp_path / "there", reporter=QUIET)
    assert result.folder == run.evaluation_folder("test")
    assert result.metrics["n"] == sum(run.dataset["counts"]["test"].values()) < 40


def test_the_runs_own_folder_with_a_changed_test_image_is_scored_without_its_training_images(tmp_path):
    """The error advises --data with the folder itself. The training images must not be scored."""
    from PIL import Image

    run = train_on(tmp_path / "photos")
    held_out = run.dataset["split"]["test"]
    Image.new("RGB", (32, 32), (1, 2, 3)).save(tmp_path / "photos" / held_out[0])
    with pytest.raises(DataError, match="--data FOLDER"):
        onsight.evaluate(run, reporter=QUIET)
    Image.new("RGB", (32, 32), (3, 2, 1)).save(tmp_path / "photos" / "a" / "new.png")
    (tmp_path / "photos").rename(tmp_path / "moved")
    for place in ("moved", "photos"):
        result = onsight.evaluate(run, data=tmp_path / place, reporter=QUIET)
        scored = predictions_csv.read_predictions(result.folder / "predictions.csv").names
        assert sorted(scored) == sorted([*held_out, "a/new.png"])
        assert result.folder != run.evaluation_folder()
        if place == "moved":  # at its old path, it is recognised even if a training image is missing
            (tmp_path / "moved").rename(tmp_path / "photos")
            (tmp_path / "photos" / run.dataset["split"]["train"][0]).unlink()


def test_a_run_without_test_images_can_score_other_data(toy_run, tmp_path):
    copy = copy_of(toy_run, tmp_path)
    record = json.loads((copy.folder / "dataset.json").read_text())
    record["split"]["test"] = []
    (copy.folder / "dataset.json").write_text(json.dumps(record))
    result = onsight.evaluate(onsight.Run(copy.folder), data="toy", reporter=QUIET)
    assert result.metrics["n"] == 60


@pytest.mark.backend
def test_the_batch_size_does_not_change_the_answers(toy_run):
    from onsight.data.load import load_dataset
    from onsight.data.pixel_cache import load_pixels
    from onsight.inference.engines import open_engine
    from onsight.inference.predict import probabilities

    images = load_pixels(load_dataset("toy"), 32).images
    engine = open_engine(toy_run)
    whole, pieces = (probabilities(engine.probabilities, images, np.arange(50), size) for size in (50, 7))
    np.testing.assert_allclose(whole, pieces, atol=1e-6)


def copy_of(run, folder):
    import shutil

    return onsight.Run(shutil.copytree(run.folder, folder / "copy"))


def describe(run, **changes):
    """Change fields of a run's model.json."""
    edit_model(run.model_folder, **changes)


def test_metrics_hold_the_calibration_with_and_without_temperature(toy_run, tmp_path):
    copy = copy_of(toy_run, tmp_path)
    plain = onsight.evaluate(copy, reporter=QUIET).metrics
    assert plain["temperature"] == 1
    assert plain["before_temperature"]["ece"] == pytest.approx(plain["ece"])
    assert plain["threshold"] is None
    assert "far_off" not in plain
    describe(copy, temperature=3.0)
    flat = onsight.evaluate(copy, engine="keras", reporter=QUIET).metrics  # model.tflite has the old temperature
    assert flat["temperature"] == 3
    assert flat["confidence"] < plain["confidence"]
    assert flat["before_temperature"]["ece"] == pytest.approx(plain["ece"], abs=1e-5)
    assert flat["before_temperature"]["confidence"] == pytest.approx(plain["confidence"], abs=1e-5)
    assert flat["correct"] == plain["correct"]
    assert [row["coverage"] for row in flat["coverage"]] == sorted(row["coverage"] for row in flat["coverage"])
    assert flat["coverage"][-1]["accuracy"] == flat["accuracy"]


def test_a_threshold_is_measured_on_test_images_and_on_images_of_something_else(toy_run, tmp_path):
    copy = copy_of(toy_run, tmp_path)
    describe(copy, threshold=0.9, temperature=2.0)
    result = onsight.evaluate(copy, reporter=QUIET)
    confidence = predictions_csv.read_predictions(result.folder / "predictions.csv").probabilities.max(axis=1)
    limit, far = result.metrics["threshold"], result.metrics["far_off"]
    assert limit["value"] == 0.9
    assert limit["answered"] == int((confidence >= 0.9).sum())
    assert (far["data"], far["n"]) == ("digits", 300)
    assert "unlike" not in far  # a network trained from scratch knows no distance
    assert 0 <= far["unsure"] <= 1
    assert "unlike" not in result.metrics
    sentences = result.findings
    assert sentences[0].startswith("Answers with a confidence below 0.900 are unsure. The model answers ")
    assert sentences[1].startswith("Of 300 images of something else (digits), ")
    with pytest.raises(onsight.OnsightError, match="it needs --robustness"):
        onsight.evaluate(copy, quick=True, reporter=QUIET)


@pytest.mark.parametrize(("augmentation", "views"), [("flip_shift", 6), ("none", 3)])
def test_tta_accuracy_is_a_separate_figure_and_equals_that_of_predict(toy_run, tmp_path, augmentation, views):
    copy = copy_of(toy_run, tmp_path)
    copy.update_spec(augmentation=augmentation)
    describe(copy, temperature=10.0)  # otherwise all probabilities are 1
    result = onsight.evaluate(copy, tta=True, engine="keras", reporter=QUIET)
    found = result.metrics["tta"]
    names, labels, scores, _ = predictions_csv.read_predictions(result.folder / "predictions.csv")
    toy = load_dataset("toy")
    images = [toy.images[toy.names.index(name)] for name in names]
    answers = onsight.predict(copy, images, top=1, tta=True, engine="keras")
    right = [each.top[0][0] == copy.classes[label] for each, label in zip(answers, labels, strict=True)]
    assert (found["correct"], found["n"], found["views"]) == (sum(right), 60, views)
    # The answers differ from those without test-time augmentation.
    assert max(abs(each.top[0][1] - row.max()) for each, row in zip(answers, scores, strict=True)) > 1e-4
    assert result.metrics["correct"] == int((scores.argmax(axis=1) == labels).sum())
    assert any(f"with up to {views} views of an image" in sentence for sentence in result.findings)
    last = json.loads((copy.folder / "test_uses.jsonl").read_text().splitlines()[-1])
    assert last["reason"].startswith(f"evaluate with {views} views of each image on ")


def test_a_run_of_whole_frames_is_scored_on_whole_frames(padded_run, wide_photos):
    """The colour that is the class shows only outside the centre square."""
    folder = padded_run.evaluation_folder()
    assert json.loads((folder / "metrics.json").read_text())["accuracy"] == 1
    images = open_images(padded_run, ["test"])
    (first, *_) = np.flatnonzero(images.parts == "test").tolist()
    name = images.dataset.names[first]
    expected = decode.load(wide_photos / name, 32, "pad")
    assert np.array_equal(images.pixels.images[first], expected)
    index = json.loads((folder / "thumbnails.json").read_text())
    assert index["side"] == 32
    at = index["path"].index(name)
    row, column = divmod(at, index["columns"])
    sheet = np.asarray(Image.open(folder / "thumbnails.jpg")).astype(int)
    shown = sheet[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
    assert np.abs(shown[:8] - 128).max() <= 16  # padding, after JPEG
    assert np.abs(shown - expected).mean() < 10


def test_robustness_is_kept_until_the_weights_change(toy_run, tmp_path):
    copy = copy_of(toy_run, tmp_path)
    result = onsight.evaluate(copy, robustness=True, quick=True, reporter=QUIET)
    path = result.folder / "robustness.json"
    found = json.loads(path.read_text())
    assert (found["n"], found["quick"], found["clean"]) == (60, True, result.metrics["accuracy"])
    assert len(found["corruptions"]) == 15
    assert 0.3 < found["mean"] <= found["clean"]
    assert any("Under corruptions (CIFAR-10-C style, 60 images)" in sentence for sentence in result.findings)
    onsight.evaluate(copy, reporter=QUIET)
    assert path.exists()  # still valid
    path.write_text(json.dumps(found | {"weights_sha256": "0" * 64}))
    onsight.evaluate(copy, reporter=QUIET)
    assert not path.exists()
