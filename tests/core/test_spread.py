from onsight.core.spread import spread


def test_spread_returns_distinct_indices_and_at_most_as_many_as_exist():
    assert spread(10, 3).tolist() == [0, 4, 9]
    assert spread(3, 10).tolist() == [0, 1, 2]
    assert spread(0, 10).tolist() == []
