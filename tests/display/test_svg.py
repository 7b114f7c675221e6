"""Charts draw every number inside their frame, leave out what is missing, and escape what they are told."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from onsight.display import svg


def drawn(markup):
    """Return the chart's element: it is well-formed XML."""
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
def test_ticks_are_round_and_enclose(low, high, expected):
    found = svg.ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert len(found) <= 7
    if low != high:
        assert found == pytest.approx(expected)


def test_curves_lie_where_their_numbers_are():
    markup = svg.curves([1, 2, 3], series(0.2, None, 0.8, best=max), "<title>", percents=True)
    drawn(markup)
    (x1, y1), (x2, y2) = points(markup, "first")  # the middle epoch has no figure
    assert x1 < x2
    assert y1 > y2  # up is more
    assert 0 < y2 < y1 < svg.HEIGHT
    assert "80 %" in markup  # the best, ringed
    assert "&lt;title&gt;" in markup
    assert "<training>" not in markup
    assert svg.curves([1, 2], series(None, None), "nothing") == ""
    assert "<circle" in svg.curves([1], series(0.5), "one epoch")
    drawn(svg.curves([1, 2], series(3.0, 3.0), "flat"))


def test_reliability_and_coverage():
    bins = [{"low": 0.4, "high": 0.6, "count": 3, "confidence": 0.5, "accuracy": 2 / 3},
            {"low": 0.6, "high": 0.8, "count": 0, "confidence": None, "accuracy": None}]  # fmt: skip
    markup = svg.reliability(bins, 3, "title")
    assert len(drawn(markup).findall(".//rect")) == 1
    assert "3 images: 50.0 % sure, 66.7 % right" in markup
    curve = [{"coverage": 0.5, "accuracy": 1.0, "threshold": 0.9}, {"coverage": 1.0, "accuracy": 0.8, "threshold": 0.5}]
    assert "100.0 % of 50 %" in svg.coverage(curve, "title", threshold=0.7)
    assert "ring" not in svg.coverage(curve, "title")
    assert "ring" not in svg.coverage(curve, "title", threshold=0.95)  # nothing would be answered


def test_severities_fall_from_the_clean_accuracy():
    markup = svg.severities([0.8, 0.6, 0.4, 0.2, 0.0], 0.9, "title")
    heights = [y for _, y in points(markup, "first")]
    assert len(heights) == 6
    assert heights == sorted(heights)
    assert len(drawn(markup).findall(".//circle")) == 6
