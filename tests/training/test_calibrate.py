import numpy as np
import pytest

from onsight.core.text import note_line
from onsight.metrics.scores import at_threshold, fit_temperature, with_temperature
from onsight.training.calibrate import LEAST, calibrate


def answers(n=400, sure=3.0):
    """Return logits and labels of three classes: about four in five are right, and more at high confidence."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    return sure * (np.eye(3)[labels] + rng.standard_normal((n, 3)) * 0.6), labels


def appending(notes):
    """Return a function that appends a note to `notes` as a line."""
    return lambda label, text: notes.append(note_line(label, text))


def test_the_temperature_is_the_best_fit_and_is_reported():
    logits, labels = answers(sure=9)
    notes = []
    temperature, threshold = calibrate(logits, labels, None, appending(notes))
    assert temperature == fit_temperature(logits, labels) > 1  # the network was overconfident
    assert threshold is None
    assert len(notes) == 1
    said = f"temperature      {temperature:.4g}  (calibration error on {len(labels)} held-out images "
    assert notes[0].startswith(said)


def test_the_temperature_is_one_if_all_answers_are_right():
    logits, notes = 5 * np.eye(3)[[0, 1, 2, 2]], []
    assert calibrate(logits, np.array([0, 1, 2, 2]), None, appending(notes)) == (1, None)
    assert notes == ["temperature      1  (no mistake on 4 held-out images to fit it on)"]


def test_label_smoothing_is_undone_if_no_temperature_can_be_fitted():
    labels, notes = np.array([0, 1, 2, 2]), []
    logits = np.log(np.eye(3)[labels] * 0.85 + 0.05)  # 0.9 and twice 0.05, as a smoothing of 0.15 asks for
    temperature, _ = calibrate(logits, labels, None, appending(notes), 0.15)
    assert temperature < 0.5
    assert notes[0].endswith("(undoes the label smoothing of 0.15; no mistake on 4 held-out images to fit it on)")


def test_the_temperature_is_one_if_all_answers_are_wrong():
    logits, notes = 5 * np.eye(3)[[1, 2, 0, 0]], []
    assert calibrate(logits, np.array([0, 1, 2, 2]), None, appending(notes)) == (1, None)
    assert notes == ["temperature      1  (no right answer on 4 held-out images to fit it on)"]


def test_the_temperature_is_one_on_too_few_validation_images():
    """One of two right used to give a temperature of 20, the end of the search."""
    logits, notes = 5 * np.eye(3)[[0, 2]], []
    assert calibrate(logits, np.array([0, 1]), None, appending(notes)) == (1, None)
    assert notes == ["temperature      1  (2 held-out images are too few to fit it on: it takes 100)"]
    logits, labels = answers(LEAST, sure=9)
    assert calibrate(logits[1:], labels[1:], None, appending([]))[0] == 1
    assert calibrate(logits, labels, None, appending([]))[0] > 1


def test_the_threshold_reaches_the_minimum_precision():
    logits, labels = answers()
    notes = []
    temperature, threshold = calibrate(logits, labels, 0.9, appending(notes))
    probabilities = with_temperature(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), temperature)
    facts = at_threshold(probabilities.max(axis=1), logits.argmax(axis=1) == labels, threshold)
    assert facts["accuracy_interval"][0] >= 0.9
    assert 0 < facts["coverage"] < 1
    said = f"(on {len(labels)} held-out images, {100 * facts['coverage']:.1f} %"
    assert notes[1].startswith(f"threshold        {threshold:.4f}  {said}")


@pytest.mark.parametrize("count", [4, 30])
def test_a_precision_that_cannot_be_shown_gives_no_threshold(count):
    labels, notes = np.arange(count) % 3, []
    assert calibrate(5 * np.eye(3)[labels], labels, 0.95, appending(notes))[1] is None  # all are right, but too few
    assert "at no threshold are 95.0 % of the answers right" in notes[1]
    assert "Choose a lower --min-precision" in notes[1]
