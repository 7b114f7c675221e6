"""Each distribution function is compared with SciPy's, and each score with scikit-learn's."""

import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as sklearn_metrics

from onsight.metrics import distributions
from onsight.metrics.scores import areas, fit_temperature, score

SIZES = (0.5, 1.0, 2.0, 9.0, 90.0, 1_000.0, 60_000.0)


@pytest.mark.parametrize("a", SIZES)
@pytest.mark.parametrize("b", SIZES[1:])
def test_the_beta_distribution(a, b):
    for share in (1e-6, 0.025, 0.5, 0.975, 1 - 1e-6):
        x = special.betaincinv(a, b, share)
        assert distributions.beta_quantile(a, b, share) == pytest.approx(x, rel=1e-7, abs=1e-300)
        assert distributions.beta_cdf(a, b, x) == pytest.approx(share, rel=1e-7)
    assert [distributions.beta_cdf(a, b, x) for x in (-1, 0, 1, 2)] == [0, 0, 1, 1]


@pytest.mark.parametrize("freedom", [1.0, 2.5, 9.0, 200.0])
def test_students_t(freedom):
    assert distributions.t_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)
    for t in (0.0, 0.1, -2.0, 30.0):
        assert distributions.t_beyond(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-8)


@pytest.mark.parametrize(("heads", "tosses"), [(0, 0), (0, 1), (3, 6), (2, 9), (400, 1_000), (40_000, 90_000)])
def test_a_coin(heads, tosses):
    expected = stats.binomtest(heads, tosses).pvalue if tosses else 1.0
    assert distributions.coin(heads, tosses) == pytest.approx(expected, rel=1e-7)


def test_the_hypergeometric_distribution():
    rng = np.random.default_rng(0)
    for total in (1, 7, 300, 20_000):
        for _ in range(20):
            draws, marked = rng.integers(0, total + 1, 2).tolist()
            found = int(rng.integers(max(0, draws + marked - total), min(draws, marked) + 1))
            expected = stats.hypergeom.cdf(found, total, marked, draws)
            got = distributions.hypergeometric_cdf(found, draws, marked, total)
            assert got == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_softmax_and_the_normal_distribution():
    logits = np.array([[1000.0, 999.0, -np.inf], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(distributions.softmax(logits), special.softmax(logits, axis=1), rtol=1e-12)
    z = np.linspace(-8, 8, 33)
    np.testing.assert_allclose(distributions.normal_cdf(z), special.ndtr(z), rtol=1e-12, atol=1e-16)


def test_a_root_at_an_end_is_found():
    assert distributions.root(lambda x: (x - 5, 1.0), 0.0, 2.0, 1.0) == pytest.approx(2)
    assert distributions.root(lambda x: (x + 5, 1.0), 0.0, 2.0, 1.0) == pytest.approx(0, abs=1e-12)
    assert distributions.root(lambda x: (0.0, 0.0), 0.0, 2.0, 1.0) == 1.0


def test_the_temperature_has_the_lowest_loss():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 500)
    logits = 3 * rng.normal(size=(500, 4)) + 4 * np.eye(4)[labels]

    def loss(temperature):
        return sklearn_metrics.log_loss(labels, special.softmax(logits / temperature, axis=1))

    found = fit_temperature(logits, labels)
    assert loss(found) < min(loss(found * 1.001), loss(found / 1.001))


@pytest.mark.parametrize("count", [2, 5])
def test_scores_are_those_of_scikit_learn(count):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, count, 400)
    probabilities = distributions.softmax(np.round(rng.normal(size=(400, count)) + np.eye(count)[labels], 1))
    found = score(labels, probabilities, [str(i) for i in range(count)])
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)  # as `score` does: ties stay ties
    predicted = probabilities.argmax(axis=1)
    expected = sklearn_metrics.precision_recall_fscore_support(labels, predicted, zero_division=np.nan)
    for key, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose([row[key] for row in found["per_class"]], values, rtol=1e-12)
    assert found["confusion"] == sklearn_metrics.confusion_matrix(labels, predicted).tolist()
    assert found["loss"] == pytest.approx(sklearn_metrics.log_loss(labels, probabilities), rel=1e-12)
    if count == 2:
        roc_auc, average_precision = areas(labels, probabilities[:, 1])
        assert roc_auc == pytest.approx(sklearn_metrics.roc_auc_score(labels, probabilities[:, 1]), rel=1e-12)
        expected = sklearn_metrics.average_precision_score(labels, probabilities[:, 1])
        assert average_precision == pytest.approx(expected, rel=1e-12)
        assert (found["roc_auc"], found["average_precision"]) == (roc_auc, average_precision)
