"""SVG charts draw every number inside their frame, leave out missing values, and escape their texts."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from onsight.display import svg


def drawn(markup):
    """Return the chart as an XML element; raises if it is not well-formed."""
    return ElementTree.fromstring(f"<div>{markup}</div>")


def points(markup, look):
    path = re.search(rf'class="line {look}" d="M([^"]*)"', markup)[1]
    return [tuple(map(float, pair.split())) for pair in path.split("L")]


def series(*values, **more):
    return [{"name": "<training>", "values": list(values), "look": "first", **more}]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (0.31, 1.7, [0, 0.5, 1, 1.5, 2]), (40, 86, [40, 50, 60, 70, 80, 90]),
     (5, 5, [5, 6, 7, 8, 9, 10]), (0, 0, [0, 0.2]), (0.001, 0.0042, [0.001, 0.002, 0.003, 0.004, 0.005])],
)  # fmt: skip
def test_ticks_are_round_and_enclose_the_range(low, high, expected):
    found = svg.ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert len(found) <= 7
    if low != high:
        assert found == pytest.approx(expected)


def test_curves_are_drawn_at_the_positions_of_their_values():
    markup = svg.curves([1, 2, 3], series(0.2, None, 0.8, best=max), "<title>", percents=True)
    drawn(markup)
    (x1, y1), (x2, y2) = points(markup, "first")  # the middle epoch has no value
    assert x1 < x2
    assert y1 > y2  # larger values are higher up
    assert 0 < y2 < y1 < svg.HEIGHT
    assert "80 %" in markup  # the best value, with a ring
    assert "&lt;title&gt;" in markup
    assert "<training>" not in markup
    assert svg.curves([1, 2], series(None, None), "nothing") == ""
    assert svg.curves([1], series(0.5), "one epoch") == ""
    assert "dot" in svg.curves([1, 2], series(None, 0.5), "one value")
    drawn(svg.curves([1, 2], series(3.0, 3.0), "flat"))


def test_reliability_and_coverage():
    bins = [{"low": 0.4, "high": 0.6, "count": 3, "confidence": 0.5, "accuracy": 2 / 3},
            {"low": 0.6, "high": 0.8, "count": 0, "confidence": None, "accuracy": None}]  # fmt: skip
    markup = svg.reliability(bins, 3, "title")
    assert len(drawn(markup).findall(".//rect")) == 1
    assert "3 images: confidence 50.0 %, accuracy 66.7 %" in markup
    curve = [{"coverage": 0.5, "accuracy": 1.0, "threshold": 0.9}, {"coverage": 1.0, "accuracy": 0.8, "threshold": 0.5}]
    assert "100.0 % of 50 %" in svg.coverage(curve, "title", threshold=0.7)
    assert "ring" not in svg.coverage(curve, "title")
    assert "ring" not in svg.coverage(curve, "title", threshold=0.95)  # no image would be answered


@pytest.mark.parametrize("best", [max, min])
@pytest.mark.parametrize("values", [(0.1, 0.6, 0.9, 0.95, 0.96), (0.9, 0.5, 0.2, 0.3, 0.4), (0.5, 0.9, 0.1, 0.8, 0.2)])
def test_the_best_value_is_written_beside_the_lines(values, best):
    other = {"name": "other", "values": [value + 0.02 for value in values], "look": "second"}
    markup = svg.curves([1, 2, 3, 4, 5], [other, *series(*values, best=best)], "title", percents=True)
    (text,) = [each for each in drawn(markup).iter("text") if each.get("class").startswith("told")]
    x, foot, wide = float(text.get("x")), float(text.get("y")), svg.LETTER * len(text.text)
    left = x - {"start": 0, "middle": wide / 2, "end": wide}[text.get("class").split()[1]]
    for look in ("first", "second"):
        line = points(markup.rpartition("<svg")[2], look)  # without the legend
        covered = [(a, b) for a, b in svg._along(line) if left < a < left + wide and 0 < foot - b < 10]
        assert covered == []
    assert left >= 42
    assert left + wide <= svg.WIDTH


def test_ticks_have_labels_of_their_own():
    assert svg._labels([99.94, 99.96, 99.98, 100.0]) == ["99.94", "99.96", "99.98", "100"]
    assert svg._labels([0, 0.5, 1.0]) == ["0", "0.5", "1"]


def test_the_title_of_an_axis_keeps_clear_of_its_numbers():
    curve = [{"coverage": 0.5, "accuracy": 1.0, "threshold": 0.9}, {"coverage": 1, "accuracy": 0.992, "threshold": 0}]
    chart = drawn(svg.coverage(curve, "title"))
    ends = [
        float(text.get("x")) - svg.LETTER * len(text.text) for text in chart.iter("text") if text.get("class") == "end"
    ]
    (title,) = [text for text in chart.iter("text") if text.get("transform")]
    assert min(ends) > float(title.get("x")) + 4  # half of the height of its letters


def test_the_chart_of_severities_starts_at_the_clean_accuracy():
    markup = svg.severities([0.8, 0.6, 0.4, 0.2, 0.0], 0.9, "title")
    heights = [y for _, y in points(markup, "first")]
    assert len(heights) == 6
    assert heights == sorted(heights)
    assert len(drawn(markup).findall(".//circle")) == 6


def test_no_tick_lies_above_100_percent_if_every_answer_is_right():
    assert svg.ticks(100, 100) == [80, 100]
    whole = [{"coverage": share, "accuracy": 1.0} for share in (0.5, 1.0)]
    lines = [{"name": "validation", "values": [1.0, 1.0], "look": "first"}]
    for chart in (svg.coverage(whole, "title"), svg.curves([1, 2], lines, "title", percents=True)):
        assert ">100</text>" in chart
        assert ">120</text>" not in chart
        heights = [float(y) for y in re.findall(r'class="grid" d="M[\d.]+ (-?[\d.]+)H', chart)]
        assert heights
        assert all(0 <= y <= svg.HEIGHT for y in heights)


def test_trials_are_dots_and_the_best_so_far_is_a_line():
    points = [(0.0, 0.5, "first"), (1.0, 0.4, "second"), (2.0, 0.6, "first"), (3.0, 0.0, "second")]
    drawn = svg.trials(points, [(0.0, 0.5), (2.0, 0.6)], "trials", "training")
    assert drawn.count('class="dot first"') == 2
    assert drawn.count('class="dot second"') == 2
    assert drawn.count('class="line first"') == 1
    assert "60.0 %</text>" in drawn
    assert svg.trials([], [], "trials", "training") == ""
    heights = [float(y) for y in re.findall(r'class="dot \w+" cx="[\d.]+" cy="([\d.]+)"', drawn)]
    assert max(heights) <= svg.HEIGHT - 40  # a trial that failed lies on the axis, not below it


def test_parallel_coordinates_escape_names_and_place_lines():
    axes = [("<rate>", ["0.01", "1"]), ("model", ["a", "b", "c"]), ("accuracy", ["50 %", "90 %"])]
    drawn = svg.parallel(axes, [([0.0, 0.5, 1.0], "winner", 1.0), ([1.0, 0.0, 0.0], "trial", 0.2)], "settings")
    assert "&lt;rate&gt;" in drawn
    assert "<rate>" not in drawn
    assert drawn.count('class="line winner"') == drawn.count('class="line trial"') == 1
    bottom, middle, top = (
        float(y) for y in re.search(r'winner"[^>]* d="M[\d.]+ ([\d.]+)L[\d.]+ ([\d.]+)L[\d.]+ ([\d.]+)', drawn).groups()
    )
    assert bottom > middle > top
