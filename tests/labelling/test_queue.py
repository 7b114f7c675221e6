"""The order of asking: which images come first, and that copies are asked about once."""

import numpy as np
import pytest

from onsight.checks.measures import Facts
from onsight.checks.near_duplicates import no_pairs
from onsight.inference.engines import Answers
from onsight.labelling.queue import questions


def facts(content):
    count = len(content)
    zeros = np.zeros(count, np.float32)
    sides = np.zeros((count, 2), np.int32)
    return Facts(np.array(content), no_pairs(), zeros, zeros, zeros, sides, np.ones(count, np.uint8), {})


def asked(labels, features, probabilities, distances=None, limit=None, content=None, readable=None):
    labels = np.array(labels)
    readable = np.arange(len(labels)) if readable is None else np.array(readable)
    answers = Answers(np.array(probabilities, np.float32), None if distances is None else np.array(distances))
    return questions(labels, readable, facts(content or range(len(labels))), features, answers, limit)


@pytest.fixture
def clouds():
    """Features of 40 images in two clouds, and their true classes."""
    rng = np.random.default_rng(0)
    truth = np.arange(40) % 2
    return (rng.normal(0, 0.3, (40, 8)) + 2 * truth[:, None] - 1).astype(np.float32), truth


def test_wrong_labels_come_first_and_fitting_ones_last(clouds):
    features, truth = clouds
    labels = truth.copy()
    labels[[3, 20]] = 1 - labels[[3, 20]]
    found = asked(labels, features, np.full((40, 2), 0.5))
    assert {each.images[0] for each in found[:2]} == {3, 20}
    assert [each.reason for each in found] == ["suspect"] * 2 + ["fits"] * 38
    assert sorted(each.images[0] for each in found) == [*range(40)]


def test_unlabelled_images_come_by_margin_and_far_ones_in_turn():
    shares = [[0.9, 0.1], [0.55, 0.45], [0.7, 0.3], [0.99, 0.01], [0.98, 0.02]]
    found = asked([-1] * 5, np.zeros((5, 3), np.float32), shares, [0.1, 0.1, 0.1, 0.7, 0.9], 0.5)
    order = [(each.reason, each.images[0]) for each in found]
    assert order == [("unsure", 1), ("far", 4), ("unsure", 2), ("far", 3), ("unsure", 0)]
    assert found[0].top == ((0, pytest.approx(0.55)), (1, pytest.approx(0.45)))


def test_suspects_and_unlabelled_images_come_in_turn(clouds):
    features, truth = clouds
    labels = truth.copy()
    labels[:2] = 1 - labels[:2]
    labels[-10:] = -1
    found = asked(labels, features, np.full((40, 2), 0.5))
    assert [each.reason for each in found[:5]] == ["suspect", "unsure", "suspect", "unsure", "unsure"]
    assert [each.reason for each in found[12:]] == ["fits"] * 28


def test_copies_are_asked_about_once():
    shares = [[0.9, 0.1], [0.55, 0.45], [0.5, 0.5], [0.6, 0.4]]
    found = asked([-1] * 4, np.zeros((4, 3), np.float32), shares, content=[0, 1, 0, 3])
    assert [each.images for each in found] == [(2, 0), (1,), (3,)]


def test_unreadable_images_are_not_asked_about():
    found = asked([-1] * 3, np.zeros((2, 3), np.float32), [[0.9, 0.1], [0.5, 0.5]], content=[0, 0, 2], readable=[0, 2])
    assert [each.images for each in found] == [(2,), (0,)]


def test_a_class_too_small_to_judge_goes_by_the_models_answers(clouds):
    features, _ = clouds
    shares = np.full((6, 2), 0.5)
    shares[4] = [0.9, 0.1]
    found = asked([0, 0, 0, 1, 1, 1], features[:6], shares)
    assert (found[0].reason, found[0].images) == ("suspect", (4,))
