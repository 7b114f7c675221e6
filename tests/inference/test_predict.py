import io
import itertools
import sys

import numpy as np
import pytest
from PIL import Image

import onsight
from onsight.core.errors import DataError
from onsight.data.pixel_cache import load_pixels
from onsight.inference.predict import Predictor
from onsight.metrics import predictions_csv

pytestmark = pytest.mark.backend


@pytest.fixture(scope="session")
def predictor(toy_run):
    return Predictor(toy_run, batch_size=16)


@pytest.fixture
def folder(tmp_path):
    """A folder with a red image, a blue one, a broken one, and a text file."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (50, 40), (240, 30, 30)).save(folder / "a.jpg")
    Image.new("RGB", (40, 50), (30, 30, 240)).save(folder / "sub" / "b.png")
    (folder / "c.jpg").write_bytes((folder / "a.jpg").read_bytes()[:300])
    (folder / "notes.txt").write_text("no image")
    return folder


def as_bytes(path):
    return path.read_bytes()


def as_pil(path):
    return Image.open(path)


def as_array(path):
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("form", [str, as_bytes, as_pil, as_array, lambda path: path], ids=lambda form: form.__name__)
def test_every_form_of_an_image_gives_the_same_answer(predictor, folder, form):
    expected = next(predictor.stream(folder / "a.jpg"))
    assert expected.label == "red"
    (found,) = predictor.stream([form(folder / "a.jpg")])
    assert found.top == expected.top
    (found,) = predictor.stream(form(folder / "a.jpg"))
    assert found.top == expected.top


def test_folders_patterns_and_broken_images(toy_run, folder):
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "a.jpg").write_bytes(b"what a Mac adds to a zip")
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / "sub" / "folder.jpg").mkdir()
    found = onsight.predict(toy_run, [folder, str(folder / "*.jpg"), folder / "a.jpg"], top=2)
    assert [prediction.source for prediction in found] == [
        str(folder / name) for name in ("a.jpg", "c.jpg", "sub/b.png", "a.jpg", "c.jpg", "a.jpg")
    ]
    assert [prediction.label for prediction in found] == ["red", None, "blue", "red", None, "red"]
    assert found[1].error
    assert found[1].top == ()
    assert len(found[0].top) == 2
    assert found[0].probability == found[0].top[0][1] >= found[0].top[1][1]


def test_standard_input(predictor, folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((folder / "a.jpg").read_bytes())))
    (found,) = predictor.stream(["-"])
    assert (found.source, found.label) == ("standard input", "red")


def test_a_path_that_names_no_image_raises_an_error(predictor, tmp_path):
    (tmp_path / "nothing").mkdir()
    for path, message in (
        ("missing.jpg", "There is no image at"),
        ("nothing", "holds no images"),
        ("x*.jpg", "no image"),
    ):
        with pytest.raises(DataError, match=message):
            list(predictor.stream([path]))
    assert list(predictor.stream([])) == []


def test_predict_and_evaluate_give_the_same_probabilities(toy_run, tmp_path, predictor):
    """`predict` on the test images must give the probabilities in predictions.csv."""
    from onsight.data.load import load_dataset

    dataset = load_dataset("toy")
    names, _, probabilities, classes = predictions_csv.read_predictions(toy_run.evaluation_folder() / "predictions.csv")
    paths = []
    for name in names:
        paths.append(tmp_path / f"{dataset.names.index(name)}.png")
        Image.fromarray(dataset.images[dataset.names.index(name)]).save(paths[-1])
    for prediction, row in zip(predictor.stream(paths, top=3), probabilities, strict=True):
        answer = dict(prediction.top)
        np.testing.assert_allclose([answer[name] for name in classes], row, atol=1e-5)
    assert load_pixels(dataset, 32).images.shape[0] == 240


def test_a_stream_answers_before_its_source_ends(predictor):
    def camera():
        for count in itertools.count():
            assert count < 3 * predictor.batch_size
            yield np.full((24, 24, 3), count % 256, np.uint8)

    answers = predictor.stream(camera())
    assert [next(answers).source for _ in range(3)] == ["image 1", "image 2", "image 3"]


@pytest.mark.parametrize("engine", ["litert", "keras"])
def test_a_model_trained_on_whole_frames_answers_for_whole_frames(padded_run, wide_photos, engine):
    files = sorted(wide_photos.glob("*/*.png"))
    found = onsight.predict(
        padded_run, [*files, files[0].read_bytes(), np.asarray(Image.open(files[0]))], engine=engine
    )
    assert np.mean([each.label == file.parent.name for each, file in zip(found, files, strict=False)]) > 0.95
    assert found[0].top == found[-1].top == found[-2].top
    assert {each.fit for each in found} == {"pad"}
