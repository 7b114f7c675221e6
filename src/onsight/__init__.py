"""Onsight: from images to a classifier you can trust.

>>> import onsight
>>> run = onsight.train("photos/")  # doctest: +SKIP
>>> onsight.evaluate(run)  # doctest: +SKIP
>>> onsight.predict(run, ["cat.jpg"])  # doctest: +SKIP

Names are imported when they are first used, so that `import onsight` is quick and loads no framework.
docs/reference.md lists them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onsight import testing as testing
    from onsight.checks.check import Check as Check
    from onsight.checks.check import check as check
    from onsight.checks.keep_list import write_keep_list as write_keep_list
    from onsight.comparison.compare import compare as compare
    from onsight.comparison.comparison import Comparison as Comparison
    from onsight.core.errors import DataError as DataError
    from onsight.core.errors import DownloadError as DownloadError
    from onsight.core.errors import ExportError as ExportError
    from onsight.core.errors import ImageError as ImageError
    from onsight.core.errors import Interrupted as Interrupted
    from onsight.core.errors import ModelFileError as ModelFileError
    from onsight.core.errors import OnsightError as OnsightError
    from onsight.core.errors import ParityError as ParityError
    from onsight.core.errors import RunError as RunError
    from onsight.core.errors import SpecError as SpecError
    from onsight.core.errors import TrainingError as TrainingError
    from onsight.core.progress import Reporter as Reporter
    from onsight.data.dataset import Dataset as Dataset
    from onsight.data.load import load_dataset as load_dataset
    from onsight.data.pixel_cache import Pixels as Pixels
    from onsight.data.pixel_cache import load_pixels as load_pixels
    from onsight.data.reading import Reading as Reading
    from onsight.evaluation.evaluate import evaluate as evaluate
    from onsight.evaluation.evaluation import Evaluation as Evaluation
    from onsight.evaluation.explain import explain as explain
    from onsight.exporting.export import check_export as check_export
    from onsight.exporting.export import export as export
    from onsight.imaging.corrupt import corrupt as corrupt
    from onsight.inference.embed import Embeddings as Embeddings
    from onsight.inference.embed import Neighbour as Neighbour
    from onsight.inference.embed import embed as embed
    from onsight.inference.embed import similar as similar
    from onsight.inference.parts import Parts as Parts
    from onsight.inference.parts import predict_parts as predict_parts
    from onsight.inference.predict import Prediction as Prediction
    from onsight.inference.predict import Predictor as Predictor
    from onsight.inference.predict import predict as predict
    from onsight.models.custom import model as model
    from onsight.reporting import plots as plots
    from onsight.reporting.export_table import Exports as Exports
    from onsight.reporting.report import report as report
    from onsight.reporting.verdict import verdict as verdict
    from onsight.runs.run import Run as Run
    from onsight.runs.run import list_runs as list_runs
    from onsight.runs.run import open_run as open_run
    from onsight.spec import TrainSpec as TrainSpec
    from onsight.training.compress import distill as distill
    from onsight.training.compress import prune as prune
    from onsight.training.find_learning_rate import RateTest as RateTest
    from onsight.training.find_learning_rate import find_learning_rate as find_learning_rate
    from onsight.training.learning_curve import Curve as Curve
    from onsight.training.learning_curve import learning_curve as learning_curve
    from onsight.training.train import resume as resume
    from onsight.training.train import train as train
    from onsight.training.train import train_seeds as train_seeds
    from onsight.tuning.results import Study as Study
    from onsight.tuning.tune import open_study as open_study
    from onsight.tuning.tune import tune as tune

__version__ = "0.1.0"

_HOMES = {
    # Data
    "Dataset": "data.dataset",
    "load_dataset": "data.load",
    "Reading": "data.reading",
    "load_pixels": "data.pixel_cache",
    "Pixels": "data.pixel_cache",
    "Check": "checks.check",
    "check": "checks.check",
    "write_keep_list": "checks.keep_list",
    "corrupt": "imaging.corrupt",
    # Training
    "TrainSpec": "spec",
    "train": "training.train",
    "train_seeds": "training.train",
    "resume": "training.train",
    "Curve": "training.learning_curve",
    "learning_curve": "training.learning_curve",
    "RateTest": "training.find_learning_rate",
    "find_learning_rate": "training.find_learning_rate",
    "Study": "tuning.results",
    "tune": "tuning.tune",
    "open_study": "tuning.tune",
    "distill": "training.compress",
    "prune": "training.compress",
    "model": "models.custom",
    # Runs
    "Run": "runs.run",
    "open_run": "runs.run",
    "list_runs": "runs.run",
    # Understanding
    "Evaluation": "evaluation.evaluation",
    "evaluate": "evaluation.evaluate",
    "explain": "evaluation.explain",
    "Comparison": "comparison.comparison",
    "compare": "comparison.compare",
    "report": "reporting.report",
    "verdict": "reporting.verdict",
    "Embeddings": "inference.embed",
    "embed": "inference.embed",
    "Neighbour": "inference.embed",
    "similar": "inference.embed",
    # Predicting and shipping
    "Prediction": "inference.predict",
    "Predictor": "inference.predict",
    "predict": "inference.predict",
    "Parts": "inference.parts",
    "predict_parts": "inference.parts",
    "Exports": "reporting.export_table",
    "export": "exporting.export",
    "check_export": "exporting.export",
    # Progress and errors
    "Reporter": "core.progress",
    "OnsightError": "core.errors",
    "SpecError": "core.errors",
    "DataError": "core.errors",
    "ImageError": "core.errors",
    "DownloadError": "core.errors",
    "ModelFileError": "core.errors",
    "RunError": "core.errors",
    "ExportError": "core.errors",
    "ParityError": "core.errors",
    "TrainingError": "core.errors",
    "Interrupted": "core.errors",
}
_MODULES = {"plots": "reporting.plots", "testing": "testing"}
__all__ = ["__version__", *_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module 'onsight' has no attribute '{name}'. It has: {', '.join(__all__)}.")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
