import numpy as np
import pytest

from onsight.core.errors import ParityError
from onsight.exporting.judge import Questions, judge
from onsight.inference.parity import compare, edge_images, spread, why_no_probabilities


def test_compare_finds_the_largest_difference_and_the_agreement():
    expected = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32)
    found = np.array([[0.8, 0.2], [0.6, 0.4], [0.4999999, 0.5000001]], np.float32)
    largest, agreement = compare(found, expected)
    assert abs(largest - 0.4) < 1e-6
    assert agreement == 2 / 3  # the last one is a tie, whichever way it falls


def test_answers_that_are_none_never_pass():
    expected = np.full((2, 2), 0.5)
    for found in (np.full((2, 2), np.nan), np.full((1, 2), 0.5), np.array([[0.5, np.inf], [0.5, 0.5]])):
        largest, agreement = compare(found, expected)
        assert not largest <= 1
        assert agreement == 0


def test_what_may_be_probabilities():
    assert why_no_probabilities(np.float32([[0.2, 0.8], [1, 0]])) is None
    assert why_no_probabilities(np.zeros((0, 2), np.float32)) is None
    assert why_no_probabilities(np.float32([[0.2, 0.8005]])) is None
    for rows, why in (
        ([[0.5, np.nan]], "not all of them are numbers"),
        ([[-0.1, 1.1]], "they reach from -0.1 to 1.1"),
        ([[0.2, 0.802]], "they sum to 1.002"),
        ([[3.0, -2.0]], "they reach from -2 to 3"),
    ):
        assert why_no_probabilities(np.float32(rows)) == why


def test_edge_images_hold_both_ends_of_every_channel():
    for size in (1, 8, 33):
        images = edge_images(size)
        assert images.shape == (12, size, size, 3)
        assert images.dtype == np.uint8
        assert images.min(axis=(0, 1, 2)).tolist() == [0, 0, 0]
        assert images.max(axis=(0, 1, 2)).tolist() == [255, 255, 255]
    assert len(np.unique(edge_images(8).reshape(12, -1), axis=0)) == 12


def test_spread_takes_each_once_and_never_more_than_there_are():
    assert spread(10, 3).tolist() == [0, 4, 9]
    assert spread(3, 10).tolist() == [0, 1, 2]
    assert spread(0, 10).tolist() == []


CLASSES = ("a", "b", "c")


def questions(count=2000, validation=1500, labelled=True):
    rng = np.random.default_rng(0)
    expected = rng.dirichlet([0.3, 0.3, 0.3], count).astype(np.float32)
    within = slice(100, 100 + validation)
    labels = expected[within].argmax(axis=1) if labelled else np.zeros(0, np.int64)
    nothing = np.zeros((count, 1, 1, 3), np.uint8)
    return Questions(nothing, expected, within if labelled else slice(100, 100), labels, nothing[:1])


def answers(asked, change=None, rows=slice(None)):
    found = asked.expected.copy()
    if change is not None:
        found[rows] = change(found[rows])
    return {1: found[:32], 7: found[:224], 32: found}


def swapped(rows):
    return rows[:, [1, 0, 2]]


def test_answers_like_kerass_pass_at_every_precision():
    asked = questions()
    for precision in ("float32", "float16", "int8"):
        row = judge("model", precision, answers(asked), asked, 0.5, CLASSES)
        assert (row["max_difference"], row["agreement"], row["validation_accuracy"]) == (0, 1, 1)
    assert row["drop"] == 0
    assert row["hurt_most"] == []


def nudge(rows):
    return rows * np.float32(1 - 3e-4) + np.float32(1e-4)  # towards the mean: they stay probabilities


def test_float32_is_held_to_every_image_and_every_batch():
    asked = questions()
    for rows, why in (
        (slice(0, 1), "differ from Keras' by"),  # an image of the gate
        (slice(1500, 1501), "differ from Keras' by"),  # of the validation set
    ):
        with pytest.raises(ParityError, match=why):
            judge("model", "float32", answers(asked, nudge, rows), asked, 0.5, CLASSES)
    test = np.flatnonzero(asked.expected[1700:].argmax(axis=1) == 0)[:1] + 1700
    with pytest.raises(ParityError, match="for 1 of 2,000 images it names another class"):
        judge("model", "float32", answers(asked, swapped, test), asked, 0.5, CLASSES)
    one_size = answers(asked)
    one_size[7] = nudge(one_size[7])
    for precision in ("float32", "float16", "int8"):
        with pytest.raises(ParityError, match="batches"):
            judge("model", precision, one_size, asked, 0.5, CLASSES)


def test_what_is_no_probability_is_refused_at_every_precision():
    asked = questions()
    for change, why in (
        (lambda rows: rows * np.nan, "not all of them numbers"),
        (lambda rows: rows * 2, "no probabilities, they reach from 0"),
        (lambda rows: rows - 1, "no probabilities, they reach from -1"),
        (lambda rows: rows * 0.99, r"no probabilities, they sum to 0\.99"),
    ):
        for precision in ("float32", "float16", "int8"):
            with pytest.raises(ParityError, match=why):
                judge("model", precision, answers(asked, change), asked, 100, CLASSES)
    whole = {size: (rows * 255).astype(np.int8) for size, rows in answers(asked).items()}
    with pytest.raises(ParityError, match="gives int8 of shape"):
        judge("model", "int8", whole, asked, 100, CLASSES)


def test_float16_may_differ_for_one_image_of_a_thousand():
    asked = questions()
    decided = np.flatnonzero(np.abs(asked.expected[:, 0] - asked.expected[:, 1]) > 1e-3)
    decided = decided[asked.expected[decided, 2] < 0.3]
    judge("model", "float16", answers(asked, swapped, decided[:2]), asked, 0.5, CLASSES)
    with pytest.raises(ParityError, match=r"99\.85% of 2,000 images"):
        judge("model", "float16", answers(asked, swapped, decided[:3]), asked, 0.5, CLASSES)


def test_int8_is_judged_by_validation_accuracy():
    asked = questions()
    hurt = np.flatnonzero(asked.labels == 1)[:15] + asked.validation.start  # of 1,500: one point
    with pytest.raises(ParityError, match=r"1\.00 points less accurate.*Hurt most, in points: b") as error:
        judge("model", "int8", answers(asked, swapped, hurt), asked, 0.5, CLASSES)
    assert error.value.exit_code == 3
    row = judge("model", "int8", answers(asked, swapped, hurt), asked, 1.0, CLASSES)
    assert row["drop"] == 0.01
    low, high = row["drop_interval"]
    assert low < 0.01 < high
    assert [each["class"] for each in row["hurt_most"]] == ["b"]
    none = questions(labelled=False)
    with pytest.raises(ParityError, match="the run has none"):
        judge("model", "int8", answers(none), none, 0.5, CLASSES)
