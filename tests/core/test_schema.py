from typing import Any, NotRequired, TypedDict

import pytest

from onsight.core.evaluation_records import Metrics, Thumbnails
from onsight.core.records import DatasetRecord
from onsight.core.schema import Interval, Matrix, Share, misfit


class Inner(TypedDict):
    size: float
    name: NotRequired[str | None]


class Outer(TypedDict):
    count: int
    inner: list[Inner]
    table: NotRequired[dict[str, list[int]]]
    pair: NotRequired[tuple[str, int]]
    anything: NotRequired[Any]
    share: NotRequired[Share | None]
    interval: NotRequired[Interval]
    matrix: NotRequired[Matrix]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"count": 1, "inner": []}, ""),
        ({"count": 1, "inner": [{"size": 2, "name": None}], "table": {"a": [1]}, "pair": ["x", 1], "new": []}, ""),
        ({"count": 1, "inner": [{"size": 0.5, "name": "x"}], "anything": {"a": [None]}}, ""),
        ([], "it is a list; expected an object"),
        ({"inner": []}, "'count' is missing"),
        ({"count": True, "inner": []}, "'count' is true or false; expected a whole number"),
        ({"count": 1.0, "inner": []}, "'count' is a number; expected a whole number"),
        ({"count": 1, "inner": {}}, "'inner' is an object; expected a list"),
        ({"count": 1, "inner": [{"size": "1"}]}, "'inner[0].size' is text; expected a number"),
        ({"count": 1, "inner": [{"size": float("nan")}]}, "'inner[0].size' is not finite; expected a number"),
        ({"count": 1, "inner": [{"size": 1, "name": 3}]}, "'inner[0].name' is a whole number; expected text"),
        ({"count": 1, "inner": [], "table": {"a": [1, None]}}, "'table.a[1]' is null; expected a whole number"),
        ({"count": 1, "inner": [], "pair": ["x"]}, "'pair' has 1 values; expected 2"),
        ({"count": 10**400, "inner": []}, "'count' is too large; expected a whole number"),
        ({"count": 1, "inner": [], "share": None, "interval": [0.5, 0.7]}, ""),
        ({"count": 1, "inner": [], "share": 1 + 1e-7}, ""),
        ({"count": 1, "inner": [], "share": 4e17}, "'share' is 4e+17; expected 0 to 1"),
        ({"count": 1, "inner": [], "interval": [0.5]}, "'interval' has 1 values; expected 2"),
        ({"count": 1, "inner": [], "matrix": []}, ""),
        ({"count": 1, "inner": [], "matrix": [[1, 2], [3, 4]]}, ""),
        ({"count": 1, "inner": [], "matrix": [[1, 2], [3]]}, "'matrix[1]' has 1 values; expected 2"),
        ({"count": 1, "inner": [], "interval": 0.5}, "'interval' is a number; expected a list"),
        ({"count": 1, "inner": [], "pair": [1, 1]}, "'pair[0]' is a whole number; expected text"),
    ],
)
def test_a_value_is_compared_with_a_type(value, reason):
    assert misfit(value, Outer) == reason


def test_the_records_of_a_run_are_understood():
    """Every type that a record uses is one that `misfit` knows."""
    for kind in (Metrics, Thumbnails, DatasetRecord):
        assert "is missing" in misfit({}, kind)
    assert misfit({"name": "a", "classes": ["b"], "split": {"train": [["c"]]}}, DatasetRecord) == (
        "'split.train[0]' is a list; expected text"
    )
