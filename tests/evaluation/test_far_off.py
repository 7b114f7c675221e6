import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import onsight
from onsight.core.errors import DataError
from onsight.core.progress import Reporter
from onsight.evaluation import far_off as far_off_module
from onsight.evaluation.far_off import far_off
from onsight.inference.engines import Answers, open_engine
from onsight.inference.parity import edge_images
from onsight.models.model_file import read_description, write_description

QUIET = Reporter()


def engine(threshold, distance_threshold=None, distance=0.0):
    def answer(images):
        known = None if distance_threshold is None else np.full(len(images), distance)
        return Answers(np.tile([0.4, 0.6], (len(images), 1)), known)

    return SimpleNamespace(
        name="litert", answer=answer, size=32, fit="pad", threshold=threshold, distance_threshold=distance_threshold
    )


def run(*classes):
    return SimpleNamespace(classes=classes, name="a-run")


def test_images_of_something_else_have_no_class_of_the_run():
    assert far_off(run(*"0123456789"), engine(0.5), None, QUIET) == {"data": "toy", "n": 240, "unsure": 0}
    found = far_off(run("red", "blue"), engine(0.7), None, QUIET)
    assert found == {"data": "digits", "n": 300, "unsure": 1}
    with pytest.raises(DataError, match="knows classes of this data set"):
        far_off(run(*"0123456789"), engine(0.5), "digits", QUIET)


def test_an_unlike_image_counts_once_whatever_its_probabilities():
    for limit, expected in ((0.3, 1), (0.5, 0)):
        found = far_off(run("x"), engine(0.7, limit, distance=0.4), "digits", QUIET)
        assert found == {"data": "digits", "n": 300, "unsure": 1, "unlike": expected}


def test_a_model_that_is_never_unsure_has_no_far_off_images():
    notes = []
    show = SimpleNamespace(note=lambda *note: notes.append(note))
    assert far_off(run("x"), engine(None), None, show) is None
    assert notes == []
    assert far_off(run("x"), engine(None), "digits", show) is None
    assert "no answer is unsure" in notes[0][1]


def test_images_become_square_as_those_of_the_run(monkeypatch):
    asked = []

    def resize(image, size, fit):
        asked.append((size, fit))
        return image

    monkeypatch.setattr(far_off_module, "resize", resize)
    far_off(run("x"), engine(0.5), None, QUIET)
    assert asked == [(32, "pad")] * 300


@pytest.fixture(scope="module")
def wary_run(knowing_run, tmp_path_factory):
    """Return a copy of a run whose model knows the distance from its training images, and has no other threshold."""
    run = onsight.open_run(shutil.copytree(knowing_run.folder, tmp_path_factory.mktemp("wary") / "run"))
    write_description(run.model_folder, replace(read_description(run.model_folder), threshold=None))
    return run


def test_both_engines_know_the_same_distance(wary_run):
    images = np.concatenate([edge_images(32)] * 2)
    by_litert, by_keras = (open_engine(wary_run, name).answer(images) for name in ("litert", "keras"))
    np.testing.assert_allclose(by_litert.distances, by_keras.distances, atol=1e-5)
    np.testing.assert_allclose(by_litert.probabilities, by_keras.probabilities, atol=1e-5)
    assert by_litert.distances.shape == (24,)


def test_predictions_say_why_they_are_unsure(wary_run, tmp_path):
    limit = wary_run_limit(wary_run)
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    own = onsight.load_dataset("toy").images[0]
    found = onsight.predict(wary_run, [noise, own])
    assert [each.distance > limit for each in found] == [each.reason == "far" for each in found]
    assert found[0].reason == "far"
    assert found[0].unsure
    assert found[0].doubt == "unsure: unlike anything it was trained on"
    assert (found[1].reason, found[1].unsure, found[1].doubt) == (None, False, "")
    assert onsight.predict(wary_run, own, tta=True)[0].distance == pytest.approx(found[1].distance, abs=1e-5)


def wary_run_limit(run):
    return json.loads((run.model_folder / "model.json").read_text())["distance_threshold"]


def test_evaluate_counts_unlike_images(wary_run, tmp_path):
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    result = onsight.evaluate(wary_run, far=tmp_path, reporter=QUIET)
    assert result.metrics["far_off"] == {"data": tmp_path.name, "n": 3, "unsure": 1, "unlike": 1}
    unlike = result.metrics["unlike"]
    assert unlike["n"] == result.metrics["n"]
    assert 0 <= unlike["unlike"] < 0.3
    assert "are called unlike the training images." in result.findings[0]
    assert "100.0 % are called unsure (100.0 % as unlike the training images)" in result.findings[1]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "broken.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of its images could be read"):
        onsight.evaluate(wary_run, far=tmp_path / "other", reporter=QUIET)
