import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onsight
from onsight.core.progress import Reporter
from onsight.data.dataset import Dataset
from onsight.display import notebook
from onsight.evaluation.evaluation import Evaluation
from onsight.imaging import decode
from onsight.inference.predict import Prediction, PredictionList
from onsight.metrics.scores import score

HOSTILE = "<script>alert(1)</script>\u202e"
HISTORY = [
    {"epoch": epoch, "epochs": 9, "loss": 1 / epoch, "accuracy": 0.5 + epoch / 20, "val_loss": 1.5 / epoch,
     "val_accuracy": 0.4 + epoch / 20, "images_per_second": 1234.5, "seconds": 65}
    for epoch in range(1, 8)
]  # fmt: skip


def check_page(page, most=40_000):
    """Check what must hold for all HTML that a notebook shows."""
    assert len(page) <= most
    assert "<script" not in page  # escaped
    assert "\u202e" not in page
    assert "<svg" not in page  # a sanitised notebook would show the texts of an inline SVG without its shapes
    assert "<style" not in page
    for tag in ("table", "tr", "td", "div", "details", "p", "b"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag


def text(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def evaluate(classes, n=60):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % len(classes)
    probabilities = rng.dirichlet(np.ones(len(classes)), n)
    return Evaluation(Path("x"), score(labels, probabilities, classes) | {"provenance": HOSTILE})


def test_a_run(toy_run):
    page = toy_run._repr_html_()
    check_page(page)
    assert "cnn on toy, 3 classes" in page
    assert "trained, 8 epochs" in page
    assert "n = 60" in page
    assert page.count("data:image/svg+xml;base64,") == 2
    assert str(toy_run.folder) not in page  # an absolute path


def test_a_relative_folder_is_shown(toy_run, monkeypatch):
    monkeypatch.chdir(toy_run.folder.parent)
    assert f'<td style="text-align:left">{toy_run.folder.name}</td>' in onsight.Run(toy_run.folder.name)._repr_html_()


def test_a_run_without_an_epoch(toy_run, monkeypatch):
    monkeypatch.setattr(onsight.Run, "history", lambda self: [])
    monkeypatch.setattr(onsight.Run, "is_trained", False)
    monkeypatch.setattr("onsight.runs.run.read_evaluations", lambda run: {})
    page = onsight.Run(toy_run.folder)._repr_html_()
    check_page(page)
    assert "not finished: 0 epochs" in page


def test_an_evaluation_lists_the_weakest_class_first():
    evaluation = evaluate(("a", HOSTILE, "c"))
    page = evaluation._repr_html_()
    check_page(page)
    shares = [float(share) for share in re.findall(r'<meter[^>]*value="([\d.]+)"', page)]
    assert len(shares) == 3
    assert shares == sorted(shares)
    assert "of 60 images correct (95 %:" in text(page)
    assert "metrics" not in repr(evaluation)  # its repr would fill pages with numbers


def test_an_evaluation_says_what_its_accuracy_does_not_show():
    page = notebook.evaluation(evaluate(("a", "b", "c")).metrics, ["No better than always answering a (51.0 %)."])
    assert "<b>No better than always answering a (51.0 %).</b>" in page
    few = evaluate(("a", "b"), n=10)
    assert "Too few images to say" in few._repr_html_()


def test_an_evaluation_of_many_classes_is_truncated():
    page = evaluate([f"class {i}" for i in range(300)], 900)._repr_html_()
    check_page(page)
    assert "and 280 more classes" in page


def test_a_class_without_images():
    metrics = score(
        np.array([0, 1, 0]), np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1]]), ("a", "b", "c")
    )
    page = Evaluation(Path("x"), metrics | {"provenance": "p"})._repr_html_()
    check_page(page)
    assert page.count("<meter") == 2


def test_predictions_are_shown_with_their_images(tmp_path):
    Image.new("RGB", (50, 40), (240, 30, 30)).save("a.png")
    found = PredictionList(
        [
            Prediction("a.png", (("red", 0.9996), (HOSTILE, 0.0004)), reason="close"),
            Prediction("b.png", (), "not an image: " + HOSTILE),
            Prediction("image 3", (("blue", 0.7), ("red", 0.3))),
            Prediction("gone.png", (("blue", 0.7),)),
        ],
        ["a.png", "b.png", np.zeros((8, 8, 3), np.uint8), "gone.png"],
    )
    page = found._repr_html_()
    check_page(page)
    assert page.count("data:image/webp;base64,") == 2
    assert "red 99.96 % (unsure: red or " in text(page)
    assert "unreadable: not an image" in text(page)
    one = found[0]._repr_html_()
    assert one.count("<img") == 1
    assert found[2]._repr_html_().count("<img") == 0


def test_predict_returns_a_list_that_shows_its_first_images(toy_run):
    images = onsight.load_dataset("toy").images[:30]
    found = onsight.predict(toy_run, iter(images))
    assert isinstance(found, list)
    assert len(found) == 30
    page = found._repr_html_()
    check_page(page, 150_000)
    assert page.count("<img") == 24
    assert "and 6 more" in page


def test_a_data_set_with_an_unreadable_image(tmp_path):
    for label in ("a", "<b>"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (40, 30), (60 * i, 0, 0)).save(tmp_path / "photos" / label / f"{i}.png")
    (tmp_path / "photos" / "a" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    page = onsight.load_dataset("photos")._repr_html_()
    check_page(page)
    assert page.count("<img") == 5
    assert "&lt;b&gt;" in page


def test_a_data_set_of_many_classes():
    labels = np.arange(200)
    names = tuple(map(str, labels))
    page = Dataset(
        "x", names, names, labels, np.full(200, ""), "p", "f", np.zeros((200, 8, 8, 3), np.uint8)
    )._repr_html_()
    check_page(page)
    assert "and 180 more classes" in page


def test_a_comparison(toy_run):
    shutil.copytree(toy_run.folder, "copy")
    page = onsight.compare([toy_run, "copy"])._repr_html_()
    check_page(page)
    assert "No difference can be shown" in page
    assert "How to read this" in page


def test_a_check(tmp_path):
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(6):
            noise = np.random.default_rng([i, ord(label)]).integers(0, 255, (40, 40, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "photos" / label / f"{i}.png")
    (tmp_path / "photos" / "b" / "x.png").write_bytes((tmp_path / "photos" / "a" / "1.png").read_bytes())
    found = onsight.check("photos", reporter=Reporter())
    page = found._repr_html_()
    check_page(page)
    assert "with another label" in page
    assert "error" in page
    assert "findings" not in repr(found)


def test_a_running_training():
    notes = [("epochs", "12  (preset balanced)"), ("warning", "uneven <b>"), ("data", "x")]
    page = notebook.work(("epoch 8 of 9", 75, 90), "loss 0.5, 80.0%", HISTORY, notes)
    check_page(page)
    assert '<progress value="75" max="90">' in page
    assert page.count("data:image/svg+xml;base64,") == 2
    assert "3 of 9" in page  # the latest five epochs
    assert "2 of 9" not in page
    assert "<p>warning uneven &lt;b&gt;</p>" in page
    assert "What was chosen, and why" in page


def test_work_without_a_total_and_before_the_first_epoch():
    page = notebook.work(("reading", 3, None), "3", [], [("data", "x")])
    check_page(page)
    assert "<progress></progress>" in page
    assert "<details open>" in page
    assert "<details>" in notebook.work(None, "", [], [("data", "x")], ended=True)
    assert "data             x" in notebook.work_text([], [("data", "x")])
    assert "epoch 7/9" in notebook.work_text(HISTORY, [])


def test_curves_of_one_epoch_without_validation():
    rows = [{"epoch": 1, "loss": 1.0, "accuracy": 0.5, "val_loss": None}]
    check_page(str(notebook.training_curves(rows)))


@pytest.mark.parametrize("ground", [0.0, 1.0])
def test_colours_are_readable_on_white_and_on_black(ground):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for colour in (notebook.ACCENT, notebook.GREY):
        high, low = sorted((luminance(colour), ground), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 3.9, colour


def test_a_prediction_is_shown_as_the_model_saw_the_image(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 96, 3), np.uint8)).save("wide.png")
    for fit in ("cut", "pad"):
        page = Prediction("wide.png", (("red", 1.0),), fit=fit)._repr_html_()
        content = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])
        shown = np.asarray(Image.open(io.BytesIO(content)))
        assert np.array_equal(shown, decode.load("wide.png", 64, fit))
