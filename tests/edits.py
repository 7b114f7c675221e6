"""Change files of a run that tests have copied, and make files as `evaluate` writes them."""

import json

from onsight.metrics.scores import score


def edit_model(folder, **fields):
    """Change fields of the model.json in a model folder, which has no manifest afterwards, as in earlier versions."""
    (folder / "manifest.json").unlink(missing_ok=True)
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def metrics_of(labels, probabilities, classes, **facts):
    """Return the content of a metrics.json."""
    found = score(labels, probabilities, classes)
    before = {key: found[key] for key in ("ece", "confidence", "calibration")}
    return found | {
        "temperature": 1.0,
        "before_temperature": before,
        "coverage": [],
        "threshold": None,
        "data": "cifar10",
        "provenance": "photos of nobody",
        "engine": "keras",
        "evaluated_at": "2026-11-21T09:00:00+00:00",
        **facts,
    }
