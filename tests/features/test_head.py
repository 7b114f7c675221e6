import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from onsight.features import head as head_module
from onsight.features.head import ABSENT, GRID, USUAL, fit, fit_head, sample
from onsight.metrics.scores import cross_entropy


def clusters(counts, apart=4.0, width=24, seed=0):
    """Return features (n, width) float32, of which class i is centred on axis i, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    features = rng.standard_normal((len(labels), width)) + 3  # as after ReLU, the mean is not 0
    features[np.arange(len(labels)), labels] += apart
    order = rng.permutation(len(labels))
    return features[order].astype(np.float32), labels[order]


def logits_of(head, features):
    return features @ head.kernel + head.bias


@pytest.mark.parametrize("classes", [2, 3])
def test_separable_classes_are_learned_and_new_images_recognised(classes):
    features, labels = clusters([40] * classes, apart=8)
    head = fit_head(features, labels, classes)
    assert (head.kernel.shape, head.bias.shape) == ((24, classes), (classes,))
    assert head.kernel.dtype == head.bias.dtype == np.float32
    assert (logits_of(head, features).argmax(axis=1) == labels).all()
    others, expected = clusters([40] * classes, apart=8, seed=1)
    assert (logits_of(head, others).argmax(axis=1) == expected).mean() > 0.97


@pytest.mark.parametrize("counts", [(30, 30), (40, 25, 35)])
def test_the_head_takes_plain_features_and_answers_as_scikit_learn_on_scaled_ones(counts):
    features, labels = clusters(counts, apart=2)
    features = features * 0.01  # as small as those of some networks: C means the same for them
    head = fit_head(features, labels, len(counts))
    scaled = (features - features.mean(axis=0)) / features.std(axis=0).mean()
    expected = LogisticRegression(C=head.strength, max_iter=2000).fit(scaled, labels).predict_proba(scaled)
    np.testing.assert_allclose(softmax(logits_of(head, features), axis=1), expected, atol=0.01)


def test_c_does_not_depend_on_the_size_of_the_features():
    features, labels = clusters((40, 40, 40), apart=2)
    assert fit_head(features * 0.05, labels, 3).strength == fit_head(features, labels, 3).strength


def held_out_loss(features, labels, classes, strength, folds, seed):
    """Return the cross entropy of images that a head with this C has not seen."""
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0).mean() + 1e-6)
    logits = np.zeros((len(labels), classes))
    for inside, outside in StratifiedKFold(folds, shuffle=True, random_state=seed).split(scaled, labels):
        kernel, bias = fit(scaled[inside], labels[inside], classes, strength, None)
        logits[outside] = scaled[outside] @ kernel + bias
    return cross_entropy(logits, labels)


@pytest.mark.parametrize("apart", [0.5, 2.0, 9.0])
def test_the_c_with_the_lowest_loss_out_of_fold_is_chosen(apart):
    features, labels = clusters((30, 30, 30), apart)
    head = fit_head(features, labels, 3, seed=5)
    losses = [held_out_loss(features, labels, 3, strength, 5, 5) for strength in GRID]
    assert head.strength == GRID[int(np.argmin(losses))]
    assert cross_entropy(head.logits, labels) == pytest.approx(min(losses))
    # Classes that are hard to tell apart need a stronger penalty.
    assert (head.strength < USUAL) == (apart < 1)
    assert (head.strength > USUAL) == (apart > 3)


def test_out_of_fold_answers_are_no_better_than_those_of_new_images():
    """Labels drawn by lot are learned by heart, but nothing is known about other images."""
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((200, 400)).astype(np.float32), np.arange(200) % 2
    head = fit_head(features, labels, 2)
    assert (logits_of(head, features).argmax(axis=1) == labels).mean() > 0.95
    np.testing.assert_array_equal(head.held_out, np.arange(200))
    assert 0.35 < (head.logits.argmax(axis=1) == labels).mean() < 0.65
    features, labels = clusters((100, 100), apart=1.5)
    head = fit_head(features, labels, 2)
    others, expected = clusters((1000, 1000), apart=1.5, seed=1)
    found, new = (
        (logits.argmax(axis=1) == truth).mean()
        for logits, truth in ((head.logits, labels), (logits_of(head, others), expected))
    )
    assert abs(found - new) < 0.08
    assert cross_entropy(head.logits, labels) == pytest.approx(
        cross_entropy(logits_of(head, others), expected), abs=0.1
    )


@pytest.mark.parametrize("present", [(0, 2), (1, 2, 4), (3,)])
def test_a_class_without_training_images_is_never_the_answer(present):
    counts = [30 if label in present else 0 for label in range(5)]
    features, labels = clusters(counts)
    head = fit_head(features, labels, 5)
    assert head.kernel.shape == (24, 5)
    absent = [label for label in range(5) if label not in present]
    logits = logits_of(head, clusters([30] * 5, seed=1)[0])
    assert set(logits.argmax(axis=1)) <= set(present)
    assert (head.kernel[:, absent] == 0).all()
    assert (logits[:, absent].max(axis=1) <= logits.max(axis=1) - ABSENT / 2).all()
    assert np.isfinite(logits).all()
    if len(present) > 1:
        assert (logits_of(head, features).argmax(axis=1) == labels).mean() > 0.95
        assert not set(head.logits.argmax(axis=1)) & set(absent)
    else:
        assert len(head.held_out) == 0


@pytest.mark.parametrize("counts", [(1, 1), (1, 1, 1), (1,), (20, 1, 20)])
def test_with_a_single_image_of_a_class_nothing_is_held_out(counts):
    features, labels = clusters(counts, apart=9)
    head = fit_head(features, labels, len(counts))
    assert head.strength == USUAL
    assert (head.held_out.shape, head.logits.shape) == ((0,), (0, len(counts)))
    assert np.isfinite(head.kernel).all()
    assert (logits_of(head, features).argmax(axis=1) == labels).all()


def test_two_images_per_class_are_held_out_in_two_folds():
    features, labels = clusters((2, 2, 2), apart=9)
    head = fit_head(features, labels, 3)
    assert head.held_out.tolist() == list(range(6))


def test_class_weights_let_a_rare_class_count_as_much_as_the_others():
    features, labels = clusters((200, 200, 12), apart=1.2)
    weights = (len(labels) / (3 * np.bincount(labels))).astype(np.float32)
    plain, balanced = fit_head(features, labels, 3), fit_head(features, labels, 3, weights=weights)
    others, expected = clusters((300, 300, 300), apart=1.2, seed=1)
    recall = [(logits_of(head, others).argmax(axis=1)[expected == 2] == 2).mean() for head in (plain, balanced)]
    assert recall[0] < 0.2 < 0.35 < recall[1]
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0).mean() + 1e-6)
    model = LogisticRegression(C=balanced.strength, max_iter=2000).fit(scaled, labels, sample_weight=weights[labels])
    np.testing.assert_allclose(softmax(logits_of(balanced, features), axis=1), model.predict_proba(scaled), atol=0.02)


def test_the_same_images_and_seed_give_the_same_head():
    features, labels = clusters((30, 30, 30), apart=1.5)
    first, again, other = (fit_head(features, labels, 3, seed=seed) for seed in (2**40, 2**40, 1))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first.logits, other.logits)  # other folds


def test_features_without_any_spread_are_no_error():
    head = fit_head(np.zeros((20, 4), np.float32), np.arange(20) % 2, 2)
    assert np.isfinite(head.kernel).all()
    assert np.isfinite(head.bias).all()


def test_of_a_large_set_c_is_chosen_on_as_many_images_of_each_class(monkeypatch):
    monkeypatch.setattr(head_module, "NUMBERS", 270)
    labels = np.repeat([0, 1, 2], (500, 300, 10))
    used = sample(labels, 3, seed=0)
    assert np.bincount(labels[used]).tolist() == [40, 40, 10]
    assert (np.diff(used) > 0).all()
    assert not np.array_equal(used, sample(labels, 3, seed=1))
    assert len(sample(labels[:90], 3, seed=0)) == 90
    features, labels = clusters((100, 100, 100))
    head = fit_head(features, labels, 3)
    assert len(head.held_out) == len(head.logits) == 90
    assert (head.logits.argmax(axis=1) == labels[head.held_out]).mean() > 0.9
