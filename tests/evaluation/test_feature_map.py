import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import onsight
from onsight.core.errors import SpecError
from onsight.core.progress import Reporter
from onsight.evaluation.feature_map import project, write_map
from onsight.metrics.predictions_csv import read_predictions
from onsight.reporting.report import report

QUIET = Reporter()


@pytest.fixture(scope="module")
def mapped(toy_run, tmp_path_factory):
    """Return an evaluated copy of the toy run."""
    folder = tmp_path_factory.mktemp("mapped") / "run"
    shutil.copytree(toy_run.folder, folder)
    run = onsight.open_run(folder)
    onsight.evaluate(run, reporter=QUIET)
    return run


def test_the_map_has_a_place_for_each_scored_image(mapped):
    found = json.loads((mapped.evaluation_folder() / "map.json").read_text())
    predictions = read_predictions(mapped.evaluation_folder() / "predictions.csv")
    assert found["n"] == len(predictions.names)
    assert found["path"] == list(predictions.names)
    for axis in ("x", "y"):
        assert (min(found[axis]), max(found[axis])) == (0, 1)
    assert found["method"].startswith("t-SNE, perplexity ")
    before = (mapped.evaluation_folder() / "map.json").read_bytes()
    onsight.evaluate(mapped, reporter=QUIET)
    assert (mapped.evaluation_folder() / "map.json").read_bytes() == before


def test_litert_gives_the_map_without_keras(mapped):
    """In a process of its own, because other tests have imported Keras."""
    if not (mapped.model_folder / "model.tflite").exists():
        pytest.skip("this backend has no converter here")
    path = mapped.evaluation_folder() / "map.json"
    before = json.loads(path.read_text())
    path.unlink()
    code = f"""
import sys, onsight
onsight.evaluate({str(mapped.folder)!r}, engine="litert", reporter=onsight.Reporter())
print([name for name in ("keras", "tensorflow", "jax") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "[]"
    assert json.loads(path.read_text())["path"] == before["path"]


def test_where_nothing_gives_the_features_there_is_no_map(mapped, tmp_path, monkeypatch):
    shutil.copytree(mapped.folder, tmp_path / "run")
    run = onsight.open_run(tmp_path / "run")

    def refuse(*_, **__):
        raise SpecError("no Keras here")

    monkeypatch.setattr("onsight.evaluation.evaluate.network_of", refuse)
    notes = []
    show = Reporter()
    show.note = lambda label, text: notes.append((label, text))
    onsight.evaluate(run, reporter=show)
    assert ("no map", "no Keras here") in notes
    assert not (run.evaluation_folder() / "map.json").exists()
    assert 'id="map"' not in report(run).read_text()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_three_images_make_a_map_and_two_a_note(n, tmp_path):
    class Network:
        @staticmethod
        def extract(images, chosen, progress):
            return np.random.default_rng(0).random((len(chosen), 8)).astype(np.float32)

    notes = []
    show = Reporter()
    show.note = lambda label, text: notes.append(f"{label}: {text}")
    names = [f"{i}.jpg" for i in range(n)]
    write_map(tmp_path, Network, None, np.arange(n), np.zeros(n, int), np.eye(n)[:, :2], names, show)
    assert (tmp_path / "map.json").exists() == (n > 2)
    assert ("no map: 2 images, fewer than 3" in notes) == (n == 2)


def test_alike_features_are_near_and_equal_ones_break_nothing():
    rng = np.random.default_rng(0)
    groups = np.concatenate([rng.normal(6 * group, 1, (20, 30)) for group in range(3)]).astype(np.float32)
    places, _ = project(groups)
    centres = places.reshape(3, 20, 2).mean(axis=1)
    nearest = ((places[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, np.repeat(range(3), 20))
    assert project(np.ones((6, 4), np.float32)) == (pytest.approx(np.full((6, 2), 0.5)), "all features are equal")
    places, _ = project(np.arange(6, dtype=np.float32)[:, None])
    assert np.isfinite(places).all()


def test_a_click_on_the_map_shows_the_image(mapped, browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(report(mapped).as_uri())
    canvas = page.locator("#map-canvas")
    canvas.scroll_into_view_if_needed()
    found = json.loads((mapped.evaluation_folder() / "map.json").read_text())
    box = canvas.bounding_box()
    places = np.array([found["x"], found["y"]]).T
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 9 * np.eye(len(places))
    alone = int(apart.min(axis=1).argmax())  # no other image is near this one
    x = 12 + found["x"][alone] * (box["width"] - 24)
    y = 12 + (1 - found["y"][alone]) * (box["height"] - 24)
    canvas.click(position={"x": x, "y": y})
    assert page.locator("#map-shown bdi").last.get_attribute("title") == found["path"][alone]
    assert page.locator("#map-shown svg.tile").count() == 1
    legend = page.locator("#map-legend button")
    wrong = sum(label != said for label, said in zip(found["label"], found["predicted"], strict=True))
    assert legend.count() == len(set(found["label"])) + (wrong > 0)
    legend.first.click()
    assert legend.first.get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert errors == []


def drawing(page):
    """Return the pixels of the canvas as text."""
    return page.evaluate("document.getElementById('map-canvas').toDataURL()")


@pytest.fixture
def crowded(mapped, tmp_path):
    """Return the report of a run whose map has 12 images of class 0 and one mistake of class 1, from left to right."""
    shutil.copytree(mapped.folder, tmp_path / "run")
    run = onsight.open_run(tmp_path / "run")
    path = run.evaluation_folder() / "map.json"
    n = 13
    found = {"method": "t-SNE", "n": n, "path": [f"<b>{i}.jpg" for i in range(n)], "label": [0] * 12 + [1],
             "predicted": [0] * n, "x": [i / (n - 1) for i in range(n)], "y": [0.5] * n}  # fmt: skip
    path.write_text(json.dumps(found))
    return report(run).as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_legend_singles_out_a_class_while_the_pointer_is_on_it(crowded, browser, scheme):
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page.goto(crowded)
    page.locator("#map").scroll_into_view_if_needed()
    legend = page.locator("#map-legend button")
    assert legend.all_inner_texts()[-1] == "mistakes (1)"
    plain = drawing(page)
    legend.first.hover()
    first = drawing(page)
    legend.last.hover()
    assert len({plain, first, drawing(page)}) == 3
    page.locator("#map h2").hover()
    assert drawing(page) == plain


def test_arrow_keys_move_from_image_to_image_and_only_among_those_that_are_chosen(crowded, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(crowded)
    title = lambda: page.locator("#map-shown bdi").last.get_attribute("title")  # noqa: E731
    canvas = page.locator("#map-canvas")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert title() == "<b>7.jpg"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert title() == "<b>5.jpg"
    page.locator("#map-legend button").last.click()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert title() == "<b>12.jpg"
    assert "taken for" in page.locator("#map-shown b").inner_text()
    assert errors == []
