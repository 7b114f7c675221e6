import numpy as np

from onsight.inference.parity import compare, edge_images, why_not_probabilities


def test_compare_returns_the_largest_difference_and_the_agreement():
    expected = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32)
    found = np.array([[0.8, 0.2], [0.6, 0.4], [0.4999999, 0.5000001]], np.float32)
    largest, agreement = compare(found, expected)
    assert abs(largest - 0.4) < 1e-6
    assert agreement == 2 / 3  # the last one is a tie, so both classes agree


def test_answers_that_are_not_finite_or_have_another_shape_never_pass():
    expected = np.full((2, 2), 0.5)
    for found in (np.full((2, 2), np.nan), np.full((1, 2), 0.5), np.array([[0.5, np.inf], [0.5, 0.5]])):
        largest, agreement = compare(found, expected)
        assert not largest <= 1
        assert agreement == 0


def test_why_not_probabilities():
    assert why_not_probabilities(np.float32([[0.2, 0.8], [1, 0]])) is None
    assert why_not_probabilities(np.zeros((0, 2), np.float32)) is None
    assert why_not_probabilities(np.float32([[0.2, 0.8005]])) is None
    for rows, why in (
        ([[0.5, np.nan]], "not all of them are finite numbers"),
        ([[-0.1, 1.1]], "they range from -0.1 to 1.1"),
        ([[0.2, 0.802]], "they sum to 1.002"),
        ([[3.0, -2.0]], "they range from -2 to 3"),
    ):
        assert why_not_probabilities(np.float32(rows)) == why


def test_edge_images_hold_the_extremes_of_every_channel():
    for size in (1, 8, 33):
        images = edge_images(size)
        assert images.shape == (12, size, size, 3)
        assert images.dtype == np.uint8
        assert images.min(axis=(0, 1, 2)).tolist() == [0, 0, 0]
        assert images.max(axis=(0, 1, 2)).tolist() == [255, 255, 255]
    assert len(np.unique(edge_images(8).reshape(12, -1), axis=0)) == 12
