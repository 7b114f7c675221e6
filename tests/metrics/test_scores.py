"""Metrics compared with hand-worked cases, naive loops and published values; predictions.csv with hostile names."""

import csv
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from onsight.core.errors import DataError
from onsight.core.text import percent
from onsight.metrics import scores
from onsight.metrics.intervals import share_interval, share_intervals, wilson_bounds
from onsight.metrics.predictions_csv import read_predictions, write_predictions
from onsight.metrics.scores import (
    at_threshold,
    calibration,
    calibration_error,
    calibration_noise,
    choose_threshold,
    coverage_curve,
    fit_temperature,
    fit_to_smoothing,
    score,
    with_temperature,
)

CLASSES = ["cat", "dog", "bird"]


def random_case(n=400, count=7, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, count, n)
    logits = rng.normal(size=(n, count)) * 2
    logits[np.arange(n), labels] += 2
    odds = np.exp(logits)
    return labels, (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), [f"c{i}" for i in range(count)]


def test_importing_is_cheap():
    code = (
        "import sys, onsight.metrics.scores, onsight.reporting.plots, onsight.reporting.report\n"
        "print([m for m in ('scipy', 'sklearn', 'matplotlib', 'seaborn', 'jinja2', 'keras', 'tensorflow', 'jax') "
        "if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)  # the last: Newcombe 1998, table I
def test_wilson_published(successes, n, low, high):
    assert np.ravel(wilson_bounds(np.array([successes]), np.array([n]))) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("k", "n"), [(0, 1), (3, 3), (18, 20), (91, 99), (95, 100), (60, 100), (991, 1000), (990, 1000)]
)
def test_an_interval_is_scipys(k, n):
    method = "exact" if n < 100 or min(k, n - k) < 10 else "wilson"
    ends = stats.binomtest(k, n).proportion_ci(0.95, method=method)
    assert share_interval(k, n) == pytest.approx((ends.low, ends.high), abs=1e-12)


@pytest.mark.parametrize("n", [1, 5, 10, 20, 40, 80, 99, 100, 153, 300, 1000])
def test_an_interval_covers_near_one_too(n):
    """Computed exactly. Wilson's intervals cover 84 % at worst, just below 100 %."""
    right = np.arange(n + 1)
    low, high = share_intervals(right, np.full(n + 1, n))
    for share in np.concatenate([np.linspace(0.5, 0.999, 60), 1 - np.geomspace(1e-4, 0.5, 60)]):
        inside = (low <= share) & (share <= high)
        assert stats.binom.pmf(right, n, share)[inside].sum() > (0.95 if n < 100 else 0.925)


def test_impossible_counts_and_no_images():
    assert share_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 of 2 is no share"):
        share_interval(3, 2)


def test_the_noise_of_the_calibration_error_is_that_of_perfect_models():
    """For 10,000 images of a network that is right on 92 %, it is about 0.7 points."""
    rng = np.random.default_rng(1)
    sure = rng.beta(4, 0.35, 10_000)
    mean, most = calibration_noise(sure)
    assert 0.004 < mean < 0.008 < most < 0.013
    perfect = [calibration_error(calibration(sure, rng.random(10_000) < sure)) for _ in range(100)]
    assert np.mean(perfect) == pytest.approx(mean, rel=0.05)
    assert np.mean(np.array(perfect) > most) < 0.08
    assert calibration_error(calibration(sure, rng.random(10_000) < sure**1.3)) > most


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.78412, "78.4 %"), (1.0, "100.0 %"), (0.0, "0.0 %"), (0.99961, "99.96 %"), (0.0002, "0.02 %"),
        (0.99999, "99.999 %"), (None, "–"),
    ],
)  # fmt: skip
def test_percent_never_claims_all_or_none(share, text):
    assert percent(share) == text


def test_score_by_hand():
    labels = np.array([0, 0, 1, 2])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.2, 0.3, 0.5]])
    result = score(labels, probabilities, CLASSES)
    assert (result["n"], result["correct"], result["accuracy"]) == (4, 3, 0.75)
    assert result["accuracy_interval"] == list(share_interval(3, 4))
    assert result["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    cat, dog, bird = result["per_class"]
    assert (cat["class"], cat["precision"], cat["recall"], cat["support"]) == ("cat", 1.0, 0.5, 2)
    assert (dog["precision"], dog["recall"], dog["f1"]) == (0.5, 1.0, pytest.approx(2 / 3))
    assert bird["recall_interval"] == list(share_interval(1, 1))
    assert result["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert result["loss"] == pytest.approx(-np.log([0.7, 0.1, 0.5, 0.5]).mean())
    assert result["brier"] == pytest.approx(np.mean([0.09 + 0.04 + 0.01, 0.81 + 0.36 + 0.09, 0.38, 0.38]))
    assert result["top_k"] == {"k": 2, "accuracy": 0.75}  # in the second row, the label cat is third
    assert result["confidence"] == pytest.approx((0.7 + 0.6 + 0.5 + 0.5) / 4)
    # 0.7 and 0.6 are alone in their bins; the two 0.5 share one.
    assert result["ece"] == pytest.approx((0.3 + 0.6 + 2 * 0.5) / 4)
    assert "roc_auc" not in result


def test_ece_equals_a_naive_loop():
    labels, probabilities, classes = random_case()
    top, guess = probabilities.astype(float).max(axis=1), probabilities.argmax(axis=1)
    expected = 0.0
    for k in range(15):
        low, high = k / 15, (k + 1) / 15
        inside = [i for i in range(len(labels)) if low < top[i] <= high]
        if inside:
            accuracy = sum(guess[i] == labels[i] for i in inside) / len(inside)
            confidence = sum(top[i] for i in inside) / len(inside)
            expected += len(inside) / len(labels) * abs(accuracy - confidence)
    result = score(labels, probabilities, classes)
    assert expected > 0.01
    assert result["ece"] == pytest.approx(expected, abs=1e-6)
    assert len(result["calibration"]) == 15
    assert sum(each["count"] for each in result["calibration"]) == len(labels)


def test_bins_include_their_upper_edge():
    edges = np.linspace(0, 1, 16)
    counts = [each["count"] for each in calibration(edges[[3, 3, 15]], np.array([True, False, True]))]
    assert counts == [0, 0, 2, *[0] * 11, 1]


def test_against_scikit_learn():
    from sklearn import metrics

    labels, probabilities, classes = random_case()
    result = score(labels, probabilities, classes)
    guess = probabilities.argmax(axis=1)
    assert result["accuracy"] == metrics.accuracy_score(labels, guess)
    assert result["macro_f1"] == pytest.approx(metrics.f1_score(labels, guess, average="macro"))
    top = metrics.top_k_accuracy_score(labels, probabilities, k=5)
    assert result["top_k"] == {"k": 5, "accuracy": pytest.approx(top)}
    assert result["brier"] == pytest.approx(np.square(probabilities - np.eye(7)[labels]).sum(axis=1).mean(), abs=1e-6)


def test_ties_rank_as_in_argmax():
    probabilities = np.full((3, 3), 1 / 3)
    assert score(np.array([0, 1, 2]), probabilities, CLASSES)["accuracy"] == pytest.approx(1 / 3)
    assert score(np.array([0, 1, 2]), probabilities, CLASSES)["top_k"]["accuracy"] == pytest.approx(2 / 3)


def test_absent_classes_are_none_and_json():
    labels, probabilities = np.array([1, 1]), np.array([[0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])
    result = score(labels, probabilities, CLASSES)
    cat, dog, bird = result["per_class"]
    assert (cat["recall"], cat["recall_interval"], cat["precision"], cat["f1"]) == (None, None, 0.0, 0.0)
    assert (bird["precision"], bird["recall"], bird["f1"], bird["support"]) == (None, None, None, 0)
    assert result["macro_f1"] == pytest.approx((0 + dog["f1"]) / 2)  # the bird occurs nowhere
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_two_classes():
    labels, positive = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    result = score(labels, np.stack([1 - positive, positive], axis=1), ["no", "yes"])
    assert result["top_k"] is None
    assert result["roc_auc"] == 0.75  # three of four pairs are in order
    assert result["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    alone = score(np.array([1, 1]), np.array([[0.2, 0.8], [0.7, 0.3]]), ["no", "yes"])
    assert (alone["roc_auc"], alone["average_precision"]) == (None, None)


def test_certain_and_wrong_stays_finite():
    result = score(np.array([1]), np.array([[1.0, 0.0, 0.0]]), CLASSES)
    assert 30 < result["loss"] < 40
    assert result["brier"] == 2.0
    assert result["ece"] == 1.0


@pytest.mark.parametrize("bad", [[np.nan, 0.5, 0.5], [0.5, 0.6, 0.4], [-0.1, 0.6, 0.5], [np.inf, 0, 0]])
def test_rows_that_are_not_probabilities_are_refused(bad):
    with pytest.raises(DataError, match="1 of 2 rows"):
        score(np.array([0, 1]), np.array([[1, 0, 0], bad]), CLASSES)


def test_shapes_are_checked():
    with pytest.raises(DataError, match="no images"):
        score(np.array([], int), np.zeros((0, 3)), CLASSES)
    with pytest.raises(ValueError, match="fit 2 classes"):
        score(np.array([0]), np.array([[1.0, 0, 0]]), ["a", "b"])
    for labels in ([3], [-1], [0.5]):
        with pytest.raises(ValueError, match="0 to 2"):
            score(np.array(labels), np.array([[1.0, 0, 0]]), CLASSES)


HOSTILE = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'quoted", "''", "", 'a "b", c', "two\nlines", "a\r\nb",
           "＝1", "犬", "\udcff.png", "a;=1", " =1", "\x00", "\u2028"]  # fmt: skip


def test_predictions_survive_hostile_names(tmp_path):
    path = tmp_path / "predictions.csv"
    n, count = len(HOSTILE), len(HOSTILE)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(count), n).astype(np.float32)
    probabilities[0, :4] = [0, 1, 1e-45, np.nextafter(np.float32(1), np.float32(0))]
    write_predictions(path, HOSTILE, np.arange(n), probabilities, HOSTILE)
    names, labels, back, classes = read_predictions(path)
    assert (names, classes, labels.tolist()) == (HOSTILE, HOSTILE, list(range(n)))
    assert back.dtype == np.float32
    assert back.tobytes() == probabilities.tobytes()


def test_no_cell_is_a_formula(tmp_path):
    path = tmp_path / "predictions.csv"
    write_predictions(path, HOSTILE, np.zeros(len(HOSTILE), int), np.full((len(HOSTILE), 2), 0.5), ["=cmd", "-x"])
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "label", "predicted", "'=cmd", "'-x"]
    assert rows[1] == ["'=1+1", "'=cmd", "'=cmd", "0.5", "0.5"]
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝"))]


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.text(st.characters()), max_size=4),
    classes=st.lists(st.text(st.characters()), min_size=1, max_size=3, unique=True),
)
def test_any_names_round_trip(tmp_path_factory, names, classes):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    probabilities = np.full((len(names), len(classes)), 1 / len(classes), np.float32)
    write_predictions(path, names, np.zeros(len(names), int), probabilities, classes)
    back = read_predictions(path)
    assert (back.names, back.classes) == (names, classes)
    assert np.array_equal(back.probabilities, probabilities)


def test_predictions_are_fast(tmp_path):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(10), 10_000).astype(np.float32)
    labels = rng.integers(0, 10, 10_000)
    names = [f"test/{i}.png" for i in range(10_000)]
    start = time.perf_counter()
    write_predictions(tmp_path / "p.csv", names, labels, probabilities, [*"abcdefghij"])
    back = read_predictions(tmp_path / "p.csv")
    assert time.perf_counter() - start < 3  # 0.15 s on an idle core, but the core may be busy
    assert np.array_equal(back.probabilities, probabilities)
    assert np.array_equal(back.labels, labels)


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "path,label,predicted\n", "path,label,predicted,a,a\n", 'path,label,predicted,a\n"x,a,a,1\n',
     "path,label,predicted,a\nx,b,a,1\n", "path,label,predicted,a\nx,a,a,one\n", "path,label,predicted,a\nx,a,a\n",
     "path,label,predicted,a,b\nx,a,a,1,0\ny,a,a,1\n"],
)  # fmt: skip
def test_damaged_predictions_are_refused(tmp_path, text):
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(DataError, match="onsight evaluate"):
        read_predictions(path)


def test_missing_predictions_and_wrong_lengths(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_predictions(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="lengths do not match"):
        write_predictions(tmp_path / "p.csv", ["a"], np.array([0]), np.ones((2, 1)), ["x"])
    assert not list(tmp_path.iterdir())


def softmax(logits):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_the_temperature_of_drawn_labels_is_found():
    """Labels drawn from softmax(logits / 2.5) have the temperature 2.5, where the cross entropy is lowest."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 5)) * 4
    labels = (softmax(logits / 2.5).cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    found = fit_temperature(logits.astype(np.float32), labels)
    assert found == pytest.approx(2.5, rel=0.03)

    def loss(temperature):
        return -np.log(softmax(logits / temperature)[np.arange(20_000), labels]).mean()

    assert loss(found) < min(loss(found * 1.01), loss(found / 1.01))
    right = logits.argmax(axis=1) == labels
    errors = [calibration_error(calibration(softmax(logits / each).max(axis=1), right)) for each in (1, found)]
    assert errors[0] > 0.1
    assert errors[1] < 0.015


def test_label_smoothing_is_undone_without_labels():
    """A network that learned smoothed labels perfectly answers 0.7 q + 0.3 / C where q is the truth."""
    rng = np.random.default_rng(0)
    truth = softmax(rng.normal(size=(20_000, 5)) * 4)
    labels = (truth.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    logits = np.log(0.7 * truth + 0.3 / 5)
    temperature = fit_to_smoothing(logits, 0.3)
    right = logits.argmax(axis=1) == labels
    before, after = (calibration_error(calibration(softmax(logits / t).max(axis=1), right)) for t in (1, temperature))
    assert before > 0.15
    assert after < before / 3
    assert fit_to_smoothing(logits, 0.0) == pytest.approx(1, rel=1e-3)
    assert fit_to_smoothing(logits + 100, 0.3) == pytest.approx(temperature, rel=1e-4)


def test_a_temperature_stays_in_its_bounds():
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(0.05, rel=0.2)  # all right: never too confident
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(20, rel=0.2)  # all wrong: always too confident
    assert fit_temperature(1e4 * logits, np.array([0, 1])) > 0  # no overflow


def test_a_temperature_can_be_undone():
    logits = np.random.default_rng(0).normal(size=(50, 4)) * 3
    calibrated = softmax(logits / 1.7)
    np.testing.assert_allclose(with_temperature(calibrated, 1 / 1.7), softmax(logits), atol=1e-12)
    np.testing.assert_allclose(with_temperature(softmax(logits), 1.7), calibrated, atol=1e-12)
    stored = with_temperature(calibrated.astype(np.float32), 1 / 1.7)
    np.testing.assert_allclose(stored, softmax(logits), atol=1e-6)
    assert with_temperature(np.array([[1.0, 0.0]]), 3).tolist() == [[1, 0]]


def test_coverage_curve_by_hand():
    confidence = np.array([0.9, 0.6, 0.8, 0.6])
    right = np.array([True, False, True, True])
    assert coverage_curve(confidence, right) == [
        {"threshold": 0.9, "coverage": 0.25, "accuracy": 1.0},
        {"threshold": 0.8, "coverage": 0.5, "accuracy": 1.0},
        {"threshold": 0.6, "coverage": 1.0, "accuracy": 0.75},  # ties are kept together
    ]
    rng = np.random.default_rng(0)
    sure = rng.random(5000)
    curve = coverage_curve(sure, rng.random(5000) < sure)
    assert len(curve) == 100
    assert (curve[0]["coverage"], curve[-1]["coverage"]) == (0.01, 1)
    for row in curve[::9]:
        assert row["coverage"] == pytest.approx((sure >= row["threshold"]).mean())


def test_the_threshold_is_the_lowest_that_is_precise_enough():
    rng = np.random.default_rng(1)
    sure = rng.random(4000).round(3).astype(np.float32)
    right = rng.random(4000) < sure
    threshold = choose_threshold(sure, right, 0.9)
    facts = at_threshold(sure, right, threshold)
    assert facts["accuracy_interval"][0] >= 0.9
    assert facts["accuracy"] == facts["correct"] / facts["answered"]
    lower = [each for each in np.unique(sure) if each < threshold]  # none of them is precise enough
    assert len(lower) > 100
    for each in lower[-50:]:
        answered = sure >= each
        assert share_interval(int(right[answered].sum()), int(answered.sum()))[0] < 0.9


def test_a_threshold_is_chosen_by_the_interval_that_is_shown():
    """Below 100 images it is the exact one: for 24 of 26 it begins at 74.9 %, Wilson's at 75.9 %."""
    confidence, right = np.full(26, 0.9), np.arange(26) < 24
    assert wilson_bounds(np.array([24]), np.array([26]))[0] > 0.75
    assert choose_threshold(confidence, right, 0.75) is None
    found = choose_threshold(confidence, right, 0.74)
    assert at_threshold(confidence, right, found)["accuracy_interval"][0] == pytest.approx(0.7487, abs=1e-4)


def test_many_right_answers_have_an_interval_without_a_warning_of_numpy():
    assert share_interval(11_156, 11_156) == (pytest.approx(0.025 ** (1 / 11_156), abs=1e-12), 1)


def test_a_threshold_needs_enough_images():
    assert choose_threshold(np.full(71, 0.99), np.ones(71, bool), 0.95) is None
    assert choose_threshold(np.full(72, 0.99), np.ones(72, bool), 0.95) == pytest.approx(0.99, abs=1e-5)
    assert choose_threshold(np.array([]), np.array([], bool), 0.5) is None
    assert choose_threshold(np.linspace(0.5, 1, 500), np.zeros(500, bool), 0.1) is None
    half_way = choose_threshold(np.array([0.9] * 200 + [0.5] * 100), np.array([True] * 200 + [False] * 100), 0.95)
    assert half_way == pytest.approx(0.7)  # no prediction is near it


def test_at_a_threshold_that_nothing_reaches():
    facts = at_threshold(np.array([0.5, 0.6]), np.array([True, False]), 0.9)
    assert (facts["answered"], facts["coverage"], facts["accuracy"], facts["accuracy_interval"]) == (0, 0, None, None)


def test_many_classes_have_pairs_instead_of_a_matrix(monkeypatch):
    """In blocks and with pairs, the scores are those of the whole matrix."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 200)
    probabilities = rng.dirichlet(np.ones(7), 200).astype(np.float32)
    classes = list("abcdefg")
    whole = score(labels, probabilities, classes)
    monkeypatch.setattr(scores, "BLOCK", 30)
    monkeypatch.setattr(scores, "MATRIX", 6)
    found = score(labels, probabilities, classes)
    assert found.pop("confusion") == []
    pairs = found.pop("confused")
    matrix = np.array(whole["confusion"])
    assert sum(n for *_, n in pairs) == 200 - whole["correct"]
    assert all(matrix[i, j] == n and i != j for i, j, n in pairs)
    assert found == {key: value for key, value in whole.items() if key != "confusion"}
    for metrics in (whole, {"confusion": [], "confused": pairs}):
        assert np.stack(scores.mistaken(metrics), axis=1).tolist() == pairs
    assert [len(each) for each in scores.mistaken({"confusion": [], "confused": []})] == [0, 0, 0]


def test_confidence_at_a_temperature_is_computed_in_blocks(monkeypatch):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), 40)
    expected = with_temperature(probabilities, 1.7).max(axis=1)
    monkeypatch.setattr(scores, "BLOCK", 12)
    np.testing.assert_array_equal(scores.confidence_at(probabilities, 1.7), expected)
