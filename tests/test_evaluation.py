import json

import numpy as np
import pytest

import onsight
from onsight import metrics
from onsight.errors import DataError
from onsight.progress import Reporter

pytestmark = pytest.mark.backend
QUIET = Reporter()


def test_every_figure_can_be_recomputed_from_predictions_csv(toy_run):
    folder = toy_run.evaluation_folder()
    written = json.loads((folder / "metrics.json").read_text())
    names, labels, probabilities, classes = metrics.read_predictions(folder / "predictions.csv")
    assert names == toy_run.dataset["split"]["test"]
    assert tuple(classes) == toy_run.classes
    again = metrics.score(labels, probabilities, classes)
    assert again == {key: written[key] for key in again}
    assert written["n"] == 60
    assert written["correct"] == int((probabilities.argmax(axis=1) == labels).sum())
    assert written["accuracy"] > 0.9
    low, high = written["accuracy_interval"]
    assert low < written["accuracy"] <= high
    assert written["provenance"] == "toy pictures drawn by Onsight"


def test_the_pictures_and_the_report_are_there(toy_run):
    from PIL import Image

    for name in ("samples.png", "confusion.png", "predictions.png"):
        with Image.open(toy_run.evaluation_folder() / name) as picture:
            assert min(picture.size) > 300
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
    with pytest.raises(DataError, match="names none of the 60 pictures"):
        onsight.evaluate(copy, slices_file=tmp_path / "mine.csv", reporter=QUIET)
    assert (copy.folder / "test_uses.jsonl").read_text() == uses  # refused before anything was scored


def test_each_opening_of_the_test_set_is_logged(toy_run, tmp_path):
    import shutil

    copy = onsight.Run(shutil.copytree(toy_run.folder, tmp_path / "copy"))
    before = len((copy.folder / "test_uses.jsonl").read_text().splitlines())
    onsight.evaluate(copy, reporter=QUIET)
    uses = [json.loads(line) for line in (copy.folder / "test_uses.jsonl").read_text().splitlines()]
    assert len(uses) == before + 1
    assert uses[-1]["time"]
    assert "evaluate" in uses[-1]["reason"]


def test_other_data_gets_a_folder_of_its_own(toy_run, tmp_path):
    import shutil

    from PIL import Image

    copy = onsight.Run(shutil.copytree(toy_run.folder, tmp_path / "copy"))
    for label, colour in (("blue", (20, 20, 240)), ("red", (240, 20, 20))):
        (tmp_path / "more" / label).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 40), colour).save(tmp_path / "more" / label / f"{i}.png")
    result = onsight.evaluate(copy, data=tmp_path / "more", reporter=QUIET)
    assert result.folder.name.startswith("more-")
    assert result.folder.parent == copy.evaluation_folder().parent
    assert result.metrics["n"] == 6
    assert [row["support"] for row in result.metrics["per_class"]] == [3, 0, 3]
    assert "n = 6" in str(result)

    (tmp_path / "more" / "zebra").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "more" / "zebra" / "0.png")
    with pytest.raises(DataError, match="was not trained on: zebra"):
        onsight.evaluate(copy, data=tmp_path / "more", reporter=QUIET)


def test_its_own_data_by_name_is_its_test_set(toy_run, tmp_path):
    import shutil

    copy = onsight.Run(shutil.copytree(toy_run.folder, tmp_path / "copy"))
    result = onsight.evaluate(copy, data="toy", reporter=QUIET)
    assert result.folder == copy.evaluation_folder()
    assert result.metrics["n"] == 60


def test_its_own_folder_elsewhere_is_not_other_data(tmp_path):
    """Training pictures must not be scored on because the folder was moved."""
    from PIL import Image

    for colour, label in enumerate(("a", "b")):
        (tmp_path / "here" / label).mkdir(parents=True)
        for i in range(20):
            picture = np.full((32, 32, 3), 10 * i, np.uint8)
            picture[..., colour] = 255
            Image.fromarray(picture).save(tmp_path / "here" / label / f"{i}.png")
    run = onsight.train(onsight.TrainSpec(data=tmp_path / "here", model="mlp", epochs=1), reporter=QUIET)
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(onsight.OnsightError, match="here"):
        onsight.evaluate(run, reporter=QUIET)
    result = onsight.evaluate(run, data=tmp_path / "there", reporter=QUIET)
    assert result.folder == run.evaluation_folder("test")
    assert result.metrics["n"] == sum(run.dataset["counts"]["test"].values()) < 40


def test_batch_size_changes_no_answer(toy_run):
    from onsight.datasets import load_dataset
    from onsight.engines import open_engine
    from onsight.pixels import load_pixels
    from onsight.prediction import probabilities

    images = load_pixels(load_dataset("toy"), 32).images
    engine = open_engine(toy_run)
    whole, pieces = (probabilities(engine, images, np.arange(50), size) for size in (50, 7))
    np.testing.assert_allclose(whole, pieces, atol=1e-6)
