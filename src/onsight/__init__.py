"""Onsight: from images to a classifier you can trust.

>>> import onsight
>>> run = onsight.train(onsight.TrainSpec(data="photos/"))  # doctest: +SKIP
>>> onsight.evaluate(run)  # doctest: +SKIP
>>> onsight.predict(run, ["cat.jpg"])  # doctest: +SKIP

Names are imported when they are first used, so that `import onsight` is quick and loads no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onsight import testing as testing
    from onsight.checks.check import Check as Check
    from onsight.checks.check import check as check
    from onsight.comparison.compare import compare as compare
    from onsight.comparison.comparison import Comparison as Comparison
    from onsight.core.errors import OnsightError as OnsightError
    from onsight.data.dataset import Dataset as Dataset
    from onsight.data.load import load_dataset as load_dataset
    from onsight.evaluation.evaluate import Evaluation as Evaluation
    from onsight.evaluation.evaluate import evaluate as evaluate
    from onsight.exporting.export import check_export as check_export
    from onsight.exporting.export import export as export
    from onsight.inference.predict import Prediction as Prediction
    from onsight.inference.predict import Predictor as Predictor
    from onsight.inference.predict import predict as predict
    from onsight.models.custom import model as model
    from onsight.reporting.report import report as report
    from onsight.runs.run import Run as Run
    from onsight.runs.run import list_runs as list_runs
    from onsight.runs.run import open_run as open_run
    from onsight.spec import TrainSpec as TrainSpec
    from onsight.training.compress import distill as distill
    from onsight.training.compress import prune as prune
    from onsight.training.learning_curve import Curve as Curve
    from onsight.training.learning_curve import learning_curve as learning_curve
    from onsight.training.train import resume as resume
    from onsight.training.train import train as train
    from onsight.training.train import train_seeds as train_seeds

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "comparison.comparison",
    "compare": "comparison.compare",
    "Check": "checks.check",
    "check": "checks.check",
    "Dataset": "data.dataset",
    "load_dataset": "data.load",
    "OnsightError": "core.errors",
    "Evaluation": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "check_export": "exporting.export",
    "export": "exporting.export",
    "Curve": "training.learning_curve",
    "learning_curve": "training.learning_curve",
    "model": "models.custom",
    "Prediction": "inference.predict",
    "Predictor": "inference.predict",
    "predict": "inference.predict",
    "report": "reporting.report",
    "Run": "runs.run",
    "list_runs": "runs.run",
    "open_run": "runs.run",
    "distill": "training.compress",
    "prune": "training.compress",
    "TrainSpec": "spec",
    "resume": "training.train",
    "train": "training.train",
    "train_seeds": "training.train",
}
__all__ = ["__version__", "testing", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "testing":
        return import_module(".testing", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module 'onsight' has no attribute '{name}'. It has: {', '.join(__all__)}.")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
