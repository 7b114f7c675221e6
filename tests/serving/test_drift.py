import json
import math

import numpy as np
import pytest

from onsight.serving import drift
from onsight.serving.drift import ALARM, FILE, Watch, log_mean, log_odds, read_reference


def alarms(shares, now, streams, length, reference, every=10, seed=0):
    """Return the share of streams of images that ever reach the alarm, looked at after every 10 images."""
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(streams):
        p = rng.dirichlet(np.ones(len(now))) if shares is None else shares
        known = rng.multinomial(reference, p).tolist()
        seen = np.zeros(len(now), int)
        for _ in range(0, length, every):
            seen += rng.multinomial(every, p if shares is None else now)
            if log_odds(seen.tolist(), known) >= math.log(ALARM):
                found += 1
                break
    return found / streams


@pytest.mark.parametrize("shares", [None, [0.2] * 5, [0.9, 0.04, 0.03, 0.02, 0.01]])
def test_images_like_the_validation_images_raise_an_alarm_in_at_most_5_percent_of_streams(shares):
    """Each stream is looked at 200 times; a test for one look would be wrong in far more streams."""
    assert alarms(shares, shares or [0] * 5, streams=200, length=2000, reference=200) <= 0.05


def test_other_shares_are_noticed():
    assert alarms([0.2] * 5, [0.35, 0.2, 0.15, 0.15, 0.15], streams=50, length=2000, reference=500) >= 0.9


def test_the_mean_of_odds():
    assert log_mean([0.0, 0.0]) == pytest.approx(0)
    assert log_mean([math.log(2), math.log(4)]) == pytest.approx(math.log(3))
    assert log_mean([5000.0, 0.0]) == pytest.approx(5000 - math.log(2))


def reference(**more):
    return {"schema": 1, "weights_sha256": "w", "n": 100, "edges": {"confidence": [0.5, 0.9]},
            "counts": {"classes": [50, 50], "confidence": [10, 20, 70]}} | more  # fmt: skip


def answer(index=0, confidence=0.95, reason=None, distance=None):
    return {"top": [[index, confidence]], "reason": reason, "distance": distance}


def test_what_is_counted():
    watch = Watch(["a", "b"], reference())
    for each in (answer(), answer(1, 0.5, "close"), answer(1, 0.3, "far"), {"error": "x"}):
        watch.record(each)
    assert watch.images == 3
    assert (watch.classes, watch.unsure) == ([1, 2], {"close": 1, "far": 1})
    assert watch.counts == {"classes": [1, 2], "confidence": [1, 1, 1]}
    found = watch.summary()["drift"]
    assert not found["alarm"]
    assert found["validation"] == [0.5, 0.5]
    for _ in range(200):
        watch.record(answer(0))
    found = watch.summary()["drift"]
    assert found["alarm"]
    assert found["most_changed"][0] == {"class": "a", "share": 0.9901, "validation": 0.5}
    json.dumps(found, allow_nan=False)


def test_without_a_reference_there_is_no_drift_but_everything_is_counted():
    watch = Watch(["a", "b"])
    watch.record(answer(1, distance=0.2))
    assert watch.summary() == {"images": 1, "answered": [0, 1], "unsure": {"close": 0, "far": 0}, "drift": None}
    assert watch.distances == 0.2


def test_a_reference_of_other_weights_or_a_damaged_one_is_not_used(tmp_path):
    assert read_reference(tmp_path, "w") is None
    for content, used in ((reference(), True), (reference(weights_sha256="x"), False), (reference(n=3), False),
                          ({"weights_sha256": "w"}, False), ([], False)):  # fmt: skip
        (tmp_path / FILE).write_text(json.dumps(content))
        assert (read_reference(tmp_path, "w") is not None) == used
    (tmp_path / FILE).write_text("{")
    assert read_reference(tmp_path, "w") is None
    assert drift.rounded(5000.0) == 1e12
