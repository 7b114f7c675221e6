"""Plots show the numbers that they were given, with names in any language, and are the same bytes each time."""

import re
import sys

import numpy as np
import pytest
from PIL import Image

from onsight.reporting import plot_style, plots

HOSTILE = [
    "$x$",
    r"$\undefined{$",
    "犬と猫",
    "\U0001f436 dog",
    "a\nb\x1b[31m",
    "\u202elive",
    "x" * 300,
    "قطة",
    "",
    "<b>",
]


def texts(figure):
    """Return all texts of a figure."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def images(n, size=32):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


def history(n, validation=True, rate=lambda epoch: 0.01):
    rows = []
    for epoch in range(1, n + 1):
        row = {
            "epoch": epoch,
            "loss": 1 / epoch,
            "accuracy": 1 - 0.5 / epoch,
            "learning_rate": rate(epoch),
            "seconds": 12.3,
        }
        if validation:
            row |= {"val_loss": 1 + abs(epoch - 3) / 10, "val_accuracy": 0.8 - abs(epoch - 4) / 100}
        rows.append(row)
    return rows


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def test_curves_show_the_history():
    figure = plots.curves(history(6))
    accuracy, loss, rate = figure.axes
    assert lines(accuracy)["training"].get_ydata() == pytest.approx([100 - 50 / epoch for epoch in range(1, 7)])
    assert lines(accuracy)["validation"].get_ydata()[3] == pytest.approx(80)
    assert lines(loss)["training"].get_linestyle() != lines(loss)["validation"].get_linestyle()
    ringed = [line.get_xydata()[0].tolist() for line in accuracy.lines if line.get_markersize() == 10]
    assert ringed == [[4, pytest.approx(80)]]
    assert [line.get_xydata()[0, 0] for line in loss.lines if line.get_markersize() == 10] == [3]
    assert rate.get_ylabel() == "Learning\nrate"
    written = texts(figure)
    assert "Best validation accuracy: 80.0 %, in epoch 4 of 6" in written
    assert "training accuracy in the same epoch: 87.5 %, 7.5 points above validation" in written
    assert "Epoch (about 12 s each)" in written


@pytest.mark.parametrize("best", [1, 4, 8, 12])
def test_the_best_value_lies_on_no_line(best):
    rows = history(12)
    for row in rows:
        distance = abs(row["epoch"] - best)
        row |= {"val_accuracy": 0.9 - distance / 30, "accuracy": 0.9 - distance / 40, "val_loss": 0.2 + distance / 10}
    from matplotlib.text import Text

    figure = plots.curves(rows)
    figure.draw_without_rendering()
    for axes, words in (
        (figure.axes[0], f"best 90.0 %, in epoch {best}"),
        (figure.axes[1], f"best 0.2, in epoch {best}"),
    ):
        assert axes.get_title(loc="right") == words
        (title,) = [text for text in axes.findobj(Text) if text.get_text() == words]
        assert title.get_window_extent().y0 >= axes.get_window_extent().y1
        assert not axes.texts


def test_one_epoch_is_drawn_as_bars():
    figure = plots.curves(history(1))
    written = texts(figure)
    assert {"50.0 %", "77.0 %", "training", "validation", "1.2"} <= set(written)
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([77, 50])
    assert not [line for axes in figure.axes for line in axes.lines]
    without = texts(plots.curves(history(1, validation=False)))
    assert "77.0 %" not in without
    assert "50.0 %" in without


def test_the_legend_of_the_learning_curve_covers_no_interval():
    points = [{"shots": n, "accuracies": [0.2, 0.9], "accuracy": 0.6, "low": 0.0, "high": 1.0} for n in (5, 10, 20)]
    figure = plots.learning_curve(points, {"a": 1.0, "b": 0.3, "since": 5}, "finding")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().y1 <= figure.axes[0].get_window_extent().y0
    assert not figure.axes[0].get_legend()


def test_curves_mark_drops_of_the_learning_rate():
    figure = plots.curves(history(9, rate=lambda epoch: 0.1 if epoch < 4 else 0.01 if epoch < 8 else 0.001))
    for axes in figure.axes:
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [3.5, 7.5]
    smooth = plots.curves(history(9, rate=lambda epoch: 0.1 * (10 - epoch) ** 2))
    assert not [line for axes in smooth.axes for line in axes.lines if line.get_linestyle() == ":"]


@pytest.mark.parametrize("n", [0, 1, 2, 40])
@pytest.mark.parametrize("validation", [True, False])
def test_curves_of_histories_of_any_length(tmp_path, n, validation):
    figure = plots.curves(history(n, validation))
    plot_style.save(figure, tmp_path / "curves.png")
    assert ("no validation images were held out" in texts(figure)) == (n > 0 and not validation)
    assert ("No epoch has finished yet" in texts(figure)) == (n == 0)


def test_curves_of_a_diverged_run(tmp_path):
    rows = history(4)
    rows[2] |= {"loss": float("nan"), "val_loss": float("inf"), "val_accuracy": None}
    rows[3] = {"epoch": 4, "loss": None, "accuracy": None}
    figure = plots.curves(rows)
    plot_style.save(figure, tmp_path / "curves.png")
    assert np.isnan(lines(figure.axes[1])["validation"].get_ydata()[2:]).all()
    assert "Best validation accuracy: 78.0 %, in epoch 2 of 4" in texts(figure)


def test_confusion_matrix_shows_counts_and_the_most_frequent_mistake():
    figure = plots.confusion_matrix([[70, 12], [5, 66]], ["ant", "bee"])
    written = texts(figure)
    assert "88.9 % of 153 images correct (95 %: 82.9 to 92.9)" in written
    assert "most often: ant taken for bee, 12 of 82 (14.6 %)" in written
    assert {"70\n85.4 %", "12\n14.6 %", "5\n7.0 %", "66\n93.0 %"} <= set(written)
    mesh = figure.axes[0].collections[0].get_array()
    assert np.asarray(mesh).reshape(2, 2)[0] == pytest.approx([70 / 82, 12 / 82])
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("predicted", "true")


@pytest.mark.parametrize("count", [2, 12, 20, 100])
def test_confusion_matrix_of_any_size(tmp_path, count):
    counts = np.random.default_rng(0).integers(1, 10, (count, count)) + 90 * np.eye(count, dtype=int)
    counts[1] = 0  # a class without images
    figure = plots.confusion_matrix(counts.tolist(), [f"class {i}" for i in range(count)])
    plot_style.save(figure, tmp_path / "confusion.png")
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(axes.texts) == (count * (count - 1) if count <= 20 else 0)
    assert labels[0] == "class 0"
    assert len(labels) == (count if count <= 20 else 34)
    assert labels == [label.get_text() for label in axes.get_xticklabels()]
    mesh = axes.collections[0].get_array()
    assert np.ma.getmaskarray(mesh).reshape(count, count)[1].all()


def test_confusion_matrix_without_mistakes_or_images():
    assert "no mistakes" in texts(plots.confusion_matrix([[3, 0], [0, 4]], ["a", "b"]))
    assert "No images" in texts(plots.confusion_matrix([[0, 0], [0, 0]], ["a", "b"]))


def outlined(figure):
    return [patch for patch in figure.axes[0].patches if not patch.get_fill() and patch.get_linewidth() == 1.2]


def test_predictions_mark_right_and_wrong_answers():
    probabilities = np.array([[0.97, 0.02, 0.006, 0.004], [0.5, 0.3, 0.15, 0.05], [0.4, 0.3, 0.2, 0.1]])
    figure = plots.predictions(images(3), ["cat", "dog", "eel"], probabilities, ["cat", "dog", "bat", "eel"])
    written = texts(figure)
    assert "1 of 3 images correct" in written
    assert written.count(f"{plot_style.TICK} cat") == 1
    assert written.count(f"{plots.CROSS} cat") == 2
    assert len(outlined(figure)) == 2
    assert "eel" in written  # the fourth likeliest class, shown because it is the true one
    assert written.count("bat") == 2
    assert "10 %" in written
    bar = next(patch for patch in figure.axes[0].patches if patch.get_alpha())
    assert bar.get_width() == pytest.approx(0.97 * (figure.get_figwidth() / 3 - 0.16))


def test_mistakes_are_counted_as_mistakes():
    probabilities = np.tile([0.9, 0.1], (8, 1))
    assert "8 mistakes" in texts(plots.predictions(images(8), ["dog"] * 8, probabilities, ["cat", "dog"]))
    assert "1 mistake" in texts(plots.predictions(images(1), ["dog"], probabilities[:1], ["cat", "dog"]))
    written = texts(plots.predictions(images(2), ["dog", "cat"], probabilities[:2], ["cat", "dog"]))
    assert "1 of 2 images correct" in written


def test_predictions_without_true_classes():
    figure = plots.predictions(images(1), None, np.array([[0.998, 0.002]]), ["cat", "dog"])
    written = texts(figure)
    assert {"cat", "dog", ">99 %", "<1 %"} <= set(written)
    assert not [text for text in written if plot_style.TICK in text or plots.CROSS in text]


def test_predictions_with_a_title():
    figure = plots.predictions(images(1), ["a"], np.array([[0.1, 0.9]]), ["a", "b"], title="Mistakes")
    assert "Mistakes" in texts(figure)


@pytest.mark.parametrize("n", [1, 8, 19])
def test_sample_images(n):
    figure = plots.sample_images(images(n), [f"class {i % 3}" for i in range(n)])
    assert len(figure.axes[0].images) == n
    assert texts(figure).count("class 0") == -(-n // 3)
    assert f"{n} image{'s' * (n > 1)} of {min(n, 3)} class{'es' * (n > 1)}, with their labels" in texts(figure)


def test_images_are_not_stretched():
    figure = plots.sample_images(np.zeros((1, 20, 40, 3), np.uint8), ["wide"])
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    assert right - left == pytest.approx(2 * (bottom - top))


def test_zero_images(tmp_path):
    samples = plots.sample_images(images(0), [])
    predictions = plots.predictions(images(0), [], np.zeros((0, 2)), ["a", "b"])
    for figure in (samples, predictions):
        plot_style.save(figure, tmp_path / "none.png")
        with Image.open(tmp_path / "none.png") as drawn:
            assert drawn.width > 100
        assert not figure.axes[0].images
    assert "0 images of 0 classes, with their labels" in texts(samples)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_hostile_names_are_drawn_literally(tmp_path, suffix):
    """The tests turn warnings into errors, and matplotlib warns about a glyph that no font has."""
    count = len(HOSTILE)
    probabilities = np.eye(count) * 0.5 + 0.5 / count
    drawn = [
        plots.sample_images(images(count), HOSTILE),
        plots.confusion_matrix(np.ones((count, count), int), HOSTILE),
        plots.predictions(images(count), HOSTILE, probabilities, HOSTILE),
    ]
    for i, figure in enumerate(drawn):
        plot_style.save(figure, tmp_path / f"{i}{suffix}")
        figure.draw_without_rendering()  # names are not parsed as mathematics here either, outside of drawing_style()
        written = texts(figure)
        assert any("$x$" in text for text in written)
        assert not any("\x1b" in text or "\u202e" in text or len(text) > 100 for text in written)
        assert any(text.endswith("…") for text in written)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_same_figure_same_bytes(tmp_path, suffix):
    import matplotlib

    plot_style.save(plots.curves(history(5)), tmp_path / f"a{suffix}")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 30}):  # settings of the user
        plot_style.save(plots.curves(history(5)), tmp_path / f"b{suffix}")
        assert matplotlib.rcParams["font.size"] == 30
    content = (tmp_path / f"a{suffix}").read_bytes()
    assert content == (tmp_path / f"b{suffix}").read_bytes()
    assert not re.search(rb"matplotlib v|dc:date|20\d\d-\d\d-\d\d", content)


def test_save_accepts_png_and_svg_only(tmp_path):
    from PIL import Image

    figure = plots.sample_images(images(8), ["cat"] * 8)
    plot_style.save(figure, tmp_path / "a.PNG")
    with Image.open(tmp_path / "a.PNG") as image:
        assert image.size[0] == 1280
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        plot_style.save(figure, tmp_path / "a.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["a.PNG"]


def test_no_window_is_opened():
    plots.confusion_matrix([[1, 0], [0, 1]], ["a", "b"])
    pyplot = sys.modules.get("matplotlib.pyplot")  # seaborn imports it
    assert pyplot is None or not pyplot.get_fignums()


def test_fit():
    assert plot_style.fit("short", 5, 10) == "short"
    assert plot_style.fit("", 5, 10) == plot_style.BOX
    assert plot_style.fit("a name that is much too long", 0.8, 10) == "a name t…"
    assert plot_style.fit("\U0001f436", 5, 10) == plot_style.BOX
    assert plot_style.fit("iiiiiiiiii", 0.5, 10) == "iiiiiiiiii"  # ten narrow letters fit, because widths are measured
    assert plot_style.fit("WWWWWWWWWW", 0.5, 10) == "WW…"
