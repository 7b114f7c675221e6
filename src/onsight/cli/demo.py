"""The demo: train, evaluate and predict once, on CIFAR-10 if it is available and on `digits` otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from onsight.core.errors import DataError
from onsight.core.files import argument, write_atomic
from onsight.core.text import duration
from onsight.data.load import load_dataset
from onsight.display.reporters import make_reporter
from onsight.evaluation.evaluate import evaluate
from onsight.inference.predict import predict
from onsight.reporting.verdict import verdict
from onsight.runs.run import Run
from onsight.spec import TrainSpec
from onsight.training.train import train


def demo(data_dir: Path | None = None, quiet: bool = False, say: Callable[[str], None] = print) -> Run:
    """Train, evaluate and predict, then print the results and where the files are. Return the run."""
    started = time.monotonic()
    name = available(data_dir, quiet, say)
    say(f"\n1. Training on {name}\n")
    run = train(TrainSpec(data=name, data_dir=data_dir, preset="quick"), reporter=make_reporter(quiet))
    say("\n2. Evaluating on images that it has never seen\n")
    evaluation = evaluate(run, reporter=make_reporter(quiet))
    say("\n3. Predicting one of them\n")
    image, truth = example(run, evaluation.folder)
    answer = predict(run, image)[0]
    say(f"{image} shows '{truth}'. " + ", ".join(f"{label} {share:.1%}" for label, share in answer.top) + ".")
    say(f"\nResults, after {duration(time.monotonic() - started)}:\n")
    *findings, advice = verdict(run)
    for sentence in findings:
        say(f"  {sentence}")
    say("\nFiles:\n")
    say(f"  {run.report}  the report: open it in a browser")
    say(f"  {evaluation.folder}/  the plots, and every prediction as CSV")
    say(f"\nTo classify an image of your own:\n\n  onsight predict {argument(run.folder)} IMAGE\n")
    say(f"{advice}\n")
    return run


def available(data_dir: Path | None, quiet: bool, say: Callable[[str], None]) -> str:
    """Return "cifar10" if it is available; otherwise print the reason and return "digits"."""
    try:
        with make_reporter(quiet) as show:
            load_dataset("cifar10", data_dir, show.work)
    except DataError as error:
        say(f"CIFAR-10 is not available: {error}\n\nUsing 'digits' instead, the scans that come with scikit-learn.")
        return "digits"
    return "cifar10"


def example(run: Run, folder: Path) -> tuple[Path, str]:
    """Write the first test image as a PNG file into the folder of the evaluation; return its path and its label."""
    import io

    from PIL import Image

    from onsight.metrics.predictions_csv import read_predictions
    from onsight.runs.images import load_images

    dataset, pixels = load_images(run)
    written = read_predictions(folder / "predictions.csv")
    index = dataset.names.index(written.names[0])
    content = io.BytesIO()
    Image.fromarray(np.asarray(pixels.images[index])).save(content, "PNG")
    write_atomic(folder / "example.png", content.getvalue())
    return folder / "example.png", written.classes[int(written.labels[0])]
