"""Onsight: from pictures to a classifier you can trust.

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
    from . import testing as testing
    from .checks import Check as Check
    from .checks import check as check
    from .comparing import Comparison as Comparison
    from .comparing import compare as compare
    from .datasets import Dataset as Dataset
    from .datasets import load_dataset as load_dataset
    from .errors import OnsightError as OnsightError
    from .evaluation import Evaluation as Evaluation
    from .evaluation import evaluate as evaluate
    from .exporting import check_export as check_export
    from .exporting import export as export
    from .learning_curves import Curve as Curve
    from .learning_curves import learning_curve as learning_curve
    from .models.own import model as model
    from .prediction import Prediction as Prediction
    from .prediction import Predictor as Predictor
    from .prediction import predict as predict
    from .reporting import report as report
    from .runs import Run as Run
    from .runs import list_runs as list_runs
    from .runs import open_run as open_run
    from .shrinking import distill as distill
    from .shrinking import prune as prune
    from .spec import TrainSpec as TrainSpec
    from .training import resume as resume
    from .training import train as train
    from .training import train_seeds as train_seeds

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "comparing",
    "compare": "comparing",
    "Check": "checks",
    "check": "checks",
    "Dataset": "datasets",
    "load_dataset": "datasets",
    "OnsightError": "errors",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "check_export": "exporting",
    "export": "exporting",
    "Curve": "learning_curves",
    "learning_curve": "learning_curves",
    "model": "models.own",
    "Prediction": "prediction",
    "Predictor": "prediction",
    "predict": "prediction",
    "report": "reporting",
    "Run": "runs",
    "list_runs": "runs",
    "open_run": "runs",
    "distill": "shrinking",
    "prune": "shrinking",
    "TrainSpec": "spec",
    "resume": "training",
    "train": "training",
    "train_seeds": "training",
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
