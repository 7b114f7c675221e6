import numpy as np
import pytest

from onsight.checks import wrong_labels
from onsight.checks.wrong_labels import PENALTIES, decompose, judge_labels


def clouds(sizes, spread=1.0, seed=0, width=40):
    """Return features of images around the centres of classes, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = 2 + rng.normal(0, 1, (len(sizes), width))
    return (centres[labels] + rng.normal(0, spread, (len(labels), width))).astype(np.float32), labels


def planted(labels, classes, share, seed=1):
    """Return labels of which a share is replaced by another class, and which ones these are."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(labels), round(share * len(labels)), replace=False)
    changed = labels.copy()
    changed[chosen] = (labels[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return changed, changed != labels


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_planted_wrong_labels_are_found_with_the_right_class_and_the_right_share(share):
    features, labels = clouds([100, 100, 100])
    given, wrong = planted(labels, 3, share)
    judged = judge_labels(features, given)
    found = judged.wrong >= 0.5
    assert (wrong & found).sum() >= 0.8 * wrong.sum()
    assert (wrong & found).sum() >= 0.9 * found.sum()
    np.testing.assert_array_equal(judged.suggested[wrong & found], labels[wrong & found])
    assert (judged.suggested != given).all()
    assert judged.share == pytest.approx(share, rel=0.4)


@pytest.mark.parametrize("spread", [1.0, 3.0, 6.0])
def test_nothing_is_found_where_no_label_is_wrong_however_hard_the_classes_are(spread):
    features, labels = clouds([100, 100, 100], spread)
    assert (judge_labels(features, labels).wrong >= 0.5).sum() <= 1


def test_nothing_is_found_where_labels_have_nothing_to_do_with_the_images():
    features, labels = clouds([100, 100, 100])
    assert not (judge_labels(features, np.random.default_rng(0).permutation(labels)).wrong >= 0.5).any()


def test_a_class_of_few_images_is_not_judged():
    features, labels = clouds([100, 100, 9])
    given, _ = planted(labels, 2, 0.05)
    given[labels == 2] = 2
    judged = judge_labels(features, given)
    assert not judged.wrong[given == 2].any()
    assert (judged.wrong >= 0.5).any()
    assert not judge_labels(features[labels != 1], labels[labels != 1]).wrong.any()  # one class is left to judge


@pytest.mark.parametrize("images", [30, 90])
def test_the_answer_for_an_image_is_that_of_a_fit_without_it(images):
    """Both ways to decompose: with fewer images than features, and with more."""
    features, labels = clouds([images // 3] * 3)
    regression = decompose(features, labels)
    answers = regression.leave_one_out(PENALTIES[2])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    scaled = unit - unit.mean(axis=0)
    scaled = scaled / scaled.std(axis=0).mean()
    targets = np.eye(3)[labels]
    for left_out in (0, images // 2, images - 1):
        others = np.delete(np.arange(images), left_out)
        # Ridge regression with an intercept that is not penalised.
        middle, mean = scaled[others].mean(axis=0), targets[others].mean(axis=0)
        centred = scaled[others] - middle
        gram = centred.T @ centred + PENALTIES[2] * np.eye(scaled.shape[1])
        expected = mean + (scaled[left_out] - middle) @ np.linalg.solve(gram, centred.T @ (targets[others] - mean))
        np.testing.assert_allclose(answers[left_out], expected, atol=2e-3)


def test_a_large_set_is_weighted_by_some_of_its_images(monkeypatch):
    features, labels = clouds([200, 200])
    given, wrong = planted(labels, 2, 0.05)
    monkeypatch.setattr(wrong_labels, "NUMBERS", 400)
    found = judge_labels(features, given).wrong >= 0.5
    assert found.shape == wrong.shape
    assert (wrong & found).sum() >= 0.9 * max(wrong.sum(), found.sum())


def test_images_without_features_break_nothing():
    features, labels = clouds([30, 30])
    features[:3] = 0
    with np.errstate(all="raise"):
        assert np.isfinite(judge_labels(features, labels).wrong).all()
    assert np.isfinite(judge_labels(np.zeros((40, 8), np.float32), np.repeat([0, 1], 20)).wrong).all()
