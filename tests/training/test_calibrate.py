import numpy as np
import pytest

from onsight.metrics.scores import at_threshold, fit_temperature, with_temperature
from onsight.training.calibrate import calibrate


def answers(n=400, sure=3.0):
    """Logits of three classes that are right about four times in five, and more often where they are surer."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    return sure * (np.eye(3)[labels] + rng.standard_normal((n, 3)) * 0.6), labels


def test_the_temperature_fits_best_and_is_told():
    logits, labels = answers(sure=9)
    notes = []
    temperature, threshold = calibrate(logits, labels, None, notes.append)
    assert temperature == fit_temperature(logits, labels) > 1  # it was too sure
    assert threshold is None
    assert len(notes) == 1
    assert notes[0].startswith(f"temperature      {temperature:.4g}  (calibration error on validation ")


def test_where_all_are_right_nothing_is_known_of_doubt():
    logits, notes = 5 * np.eye(3)[[0, 1, 2, 2]], []
    assert calibrate(logits, np.array([0, 1, 2, 2]), None, notes.append) == (1, None)
    assert notes == ["temperature      1  (all 4 validation images are right, so nothing is known of doubt)"]


def test_a_threshold_keeps_the_precision():
    logits, labels = answers()
    notes = []
    temperature, threshold = calibrate(logits, labels, 0.9, notes.append)
    probabilities = with_temperature(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), temperature)
    facts = at_threshold(probabilities.max(axis=1), logits.argmax(axis=1) == labels, threshold)
    assert facts["accuracy_interval"][0] >= 0.9
    assert 0 < facts["coverage"] < 1
    assert notes[1].startswith(f"threshold        {threshold:.4f}  (on validation {100 * facts['coverage']:.1f} %")


@pytest.mark.parametrize("count", [4, 30])
def test_a_precision_that_cannot_be_shown_gives_no_threshold(count):
    labels, notes = np.arange(count) % 3, []
    assert calibrate(5 * np.eye(3)[labels], labels, 0.95, notes.append)[1] is None  # all right, but too few to tell
    assert "are not surely 95.0 % right" in notes[1]
    assert "Take a lower --min-precision" in notes[1]
