import numpy as np
import pytest

from onsight.core.errors import ParityError
from onsight.exporting.judge import Questions, fewer, judge, judge_distances

CLASSES = ("a", "b", "c")


def questions(count=2000, validation=1500, labelled=True):
    rng = np.random.default_rng(0)
    expected = rng.dirichlet([0.3, 0.3, 0.3], count).astype(np.float32)
    within = slice(100, 100 + validation)
    labels = expected[within].argmax(axis=1) if labelled else np.zeros(0, np.int64)
    nothing = np.zeros((count, 1, 1, 3), np.uint8)
    return Questions(nothing, expected, slice(90, 100), within if labelled else slice(100, 100), labels, nothing[:1])


def answers(asked, change=None, rows=slice(None)):
    found = asked.expected.copy()
    if change is not None:
        found[rows] = change(found[rows])
    return {1: found[:32], 7: found[:224], 32: found}


def swapped(rows):
    return rows[:, [1, 0, 2]]


def test_answers_equal_to_keras_pass_at_every_precision():
    asked = questions()
    for precision in ("float32", "float16", "int8"):
        row = judge("model", precision, answers(asked), asked, 0.5, CLASSES)
        assert (row["max_difference"], row["agreement"], row["validation_accuracy"]) == (0, 1, 1)
    assert row["drop"] == 0
    assert row["hurt_most"] == []


def nudge(rows):
    return rows * np.float32(1 - 3e-4) + np.float32(1e-4)  # towards the mean, so they remain probabilities


def test_float32_is_compared_on_every_image_and_batch_size():
    asked = questions()
    for rows, why in (
        (slice(0, 1), "differ from the model's by"),  # one of the first images, real or edge
        (slice(1500, 1501), "differ from the model's by"),  # a validation image
    ):
        with pytest.raises(ParityError, match=why):
            judge("model", "float32", answers(asked, nudge, rows), asked, 0.5, CLASSES)
    test = np.flatnonzero(asked.expected[1700:].argmax(axis=1) == 0)[:1] + 1700
    with pytest.raises(ParityError, match="for 1 of 2,000 images it names another class"):
        judge("model", "float32", answers(asked, swapped, test), asked, 0.5, CLASSES)
    one_size = answers(asked)
    one_size[7] = nudge(one_size[7])
    for precision in ("float32", "float16", "int8"):
        with pytest.raises(ParityError, match="batch"):
            judge("model", precision, one_size, asked, 0.5, CLASSES)


def test_answers_that_are_not_probabilities_are_refused_at_every_precision():
    asked = questions()
    for change, why in (
        (lambda rows: rows * np.nan, "numbers that are not finite"),
        (lambda rows: rows * 2, "not probabilities: they range from 0"),
        (lambda rows: rows - 1, "not probabilities: they range from -1"),
        (lambda rows: rows * 0.99, r"not probabilities: they sum to 0\.99"),
    ):
        for precision in ("float32", "float16", "int8"):
            with pytest.raises(ParityError, match=why):
                judge("model", precision, answers(asked, change), asked, 100, CLASSES)
    whole = {size: (rows * 255).astype(np.int8) for size, rows in answers(asked).items()}
    with pytest.raises(ParityError, match="answers int8 of shape"):
        judge("model", "int8", whole, asked, 100, CLASSES)


def test_float16_may_change_the_class_of_one_image_in_a_thousand():
    asked = questions()
    decided = np.flatnonzero(np.abs(asked.expected[:, 0] - asked.expected[:, 1]) > 1e-3)
    decided = decided[asked.expected[decided, 2] < 0.3]
    judge("model", "float16", answers(asked, swapped, decided[:2]), asked, 0.5, CLASSES)
    with pytest.raises(ParityError, match=r"99\.85% of 2,000 images"):
        judge("model", "float16", answers(asked, swapped, decided[:3]), asked, 0.5, CLASSES)


def test_int8_is_judged_by_validation_accuracy():
    asked = questions()
    hurt = np.flatnonzero(asked.labels == 1)[:30] + asked.validation.start  # 30 of 1,500: two points
    with pytest.raises(ParityError, match=r"2\.00 points less accurate.*lose most, in points: b") as error:
        judge("model", "int8", answers(asked, swapped, hurt), asked, 0.5, CLASSES)
    assert error.value.exit_code == 3
    row = judge("model", "int8", answers(asked, swapped, hurt), asked, 1.5, CLASSES)
    assert row["drop"] == 0.02
    low, high = row["drop_interval"]
    assert low < 0.015 < 0.02 < high  # the accuracy may have dropped by no more than is allowed
    assert [each["class"] for each in row["hurt_most"]] == ["b"]


def test_int8_is_not_refused_because_of_one_of_few_images():
    asked = questions(count=400, validation=20)
    row = judge(
        "model",
        "int8",
        answers(asked, swapped, asked.validation.start + np.flatnonzero(asked.labels == 1)[:1]),
        asked,
        0.5,
        CLASSES,
    )
    assert row["drop"] == 0.05


def test_int8_is_judged_by_agreement_on_images_without_labels():
    for asked in (questions(), questions(labelled=False)):
        decided = np.flatnonzero(asked.expected[:, 2] < 0.3)
        decided = np.setdiff1d(decided, np.arange(asked.edges.start, asked.validation.stop))
        assert "drop" in judge("model", "int8", answers(asked), asked, 0.5, CLASSES) or not len(asked.labels)
        with pytest.raises(ParityError, match=r"class that the model names for 9\d\.\d% .* int8 must reach 95%"):
            judge("model", "int8", answers(asked, swapped, decided[:150]), asked, 0.5, CLASSES)
        edges = np.arange(asked.edges.start, asked.edges.stop)
        judge("model", "int8", answers(asked, swapped, edges), asked, 0.5, CLASSES)


def test_fewer_questions_keep_the_test_vectors():
    asked = questions()
    far = np.linspace(0, 1, 2000, dtype=np.float32)
    short = fewer(asked._replace(distances=far), 50)
    assert len(short.images) == len(short.expected) == len(short.distances) == 20 + 10 + 50
    np.testing.assert_array_equal(short.expected[short.vectors], asked.expected[asked.vectors])
    assert (short.expected[short.validation].argmax(axis=1) == short.labels).all()


def test_distances_are_judged_by_value_or_by_decision():
    far = np.linspace(0, 1, 2000, dtype=np.float32)[np.random.default_rng(0).permutation(2000)]
    asked = questions()._replace(distances=far, distance_threshold=0.95)

    def judged(precision, found):
        row = {}
        judge_distances("model", precision, row, {1: found[:32], 7: found[:224], 32: found}, asked)
        return row

    assert judged("float32", far) == {"max_distance_difference": 0, "unlike_agreement": 1}
    with pytest.raises(ParityError, match=r"distances differ from the model's by 0\.001"):
        judged("float32", far + np.float32(1e-3))
    assert judged("int8", far + np.float32(1e-3))["unlike_agreement"] > 0.99
    with pytest.raises(ParityError, match=r"unlike the training images; int8 must reach 95%"):
        judged("int8", far + np.float32(0.1))
    with pytest.raises(ParityError, match=r"and it finds 0 of them; int8 must find 50%"):
        judged("int8", np.minimum(far, np.float32(0.95)))  # agrees on 95 %
    with pytest.raises(ParityError, match="float16 must reach 99%"):
        judged("float16", far + np.float32(0.02))
    with pytest.raises(ParityError, match="not finite"):
        judged("int8", far * np.float32(np.nan))
