"""A study whose trainings are drawn, not trained: for tests of everything around them. Also run as a process."""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np

from onsight import Reporter, TrainSpec
from onsight.core.files import write_json
from onsight.runs.run import Run
from onsight.tuning import tune
from onsight.tuning.study import Journal
from onsight.tuning.trials import spec_of, values_in

PRESET = TrainSpec(
    "toy", model="mlp", epochs=9, learning_rate=0.1, label_smoothing=0.0, augmentation="flip", optimizer="sgd",
    weight_decay=0.0, batch_size=32,
)  # fmt: skip


def make_study(folder, n=1000, **changes):
    """Return a new study of `n` validation images."""
    asked = {"data": "toy"}
    record = {
        "schema": 1, "created": "2026-11-28", "data": "toy", "asked": asked,
        "preset": PRESET.model_dump(mode="json"), "pinned": {},
        "space": {
            "learning_rate": {"low": 0.01, "high": 1.0, "log": True, "whole": False},
            "augmentation": {"choices": ["none", "flip"]},
        },
        "search": None, "divisors": [9, 3, 1], "digests": {}, "validation": n, **changes,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "study.json", record)
    return Journal(folder, record)


def draw(journal, claim, show, seconds=0.0):
    """Do what `train_claim` does: rates near 0.3 and longer trainings have more right answers."""
    training, record = claim.training, journal.record
    values = values_in(record, claim.params)
    rate = values.get("learning_rate", record["preset"]["learning_rate"])
    share = 0.9 - 0.3 * abs(math.log10(rate / 0.3)) - 0.05 * (2 - training.rung)
    draws = np.random.default_rng([training.trial, training.rung]).random(record["validation"])
    if seconds:
        time.sleep(seconds)
    folder = journal.run_folder(training)
    run = Run.create("fake", {"spec": record["preset"], "asked": spec_of(record, values, training.rung).model_dump(
        mode="json", exclude_unset=True)}, {"name": "toy", "classes": ["a", "b"]}, folder)  # fmt: skip
    np.save(run.validation_right, draws < share)
    run.report.write_text("a report")
    return float((draws < share).mean())


def search(journal, trials, seconds=0.0, budget=None, show=None):
    """Run the study in this process."""
    real, tune.train_claim = tune.train_claim, lambda *args: draw(*args, seconds)
    try:
        return tune.Search(journal, trials, budget, time.perf_counter(), show or Reporter()).run()
    finally:
        tune.train_claim = real


if __name__ == "__main__":  # FOLDER TRIALS SECONDS
    where = Path(sys.argv[1])
    search(Journal(where, json.loads((where / "study.json").read_text())), int(sys.argv[2]), float(sys.argv[3]))
