"""The command line: each command parses its arguments, calls one function and prints the answer.

Heavy modules are imported inside the commands, because `onsight --help` must answer at once.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

from onsight import __version__
from onsight.cli.output import say, warn
from onsight.core.text import columns, plain

# The help lists groups, and the commands in them, in the order of use.
DATA, TRAINING, UNDERSTANDING, SHIPPING, HOUSEKEEPING = (
    Group(name, sort_key=number)
    for number, name in enumerate(("Data", "Training", "Understanding", "Shipping", "Housekeeping"))
)
app = App(
    name="onsight",
    version=__version__,
    help="From images to a classifier you can trust: check, train, evaluate honestly, predict, export.",
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # __main__ says what is kept
    group_commands=HOUSEKEEPING,
)
order = itertools.count()

Quiet = Annotated[bool, Parameter(negative="", help="show no progress")]
EngineChoice = Annotated[
    Literal["auto", "litert", "keras"], Parameter(help="what runs the model; auto: LiteRT, which needs no framework")
]
On = Annotated[
    str | None,
    Parameter(
        help="who decodes images and answers: ray for the Ray cluster here, or ray://HOST:PORT; all share the cache"
    ),
]
DataDir = Annotated[Path | None, Parameter(help="folder with a copy of a named data set (or set ONSIGHT_DATA)")]


# Commands with many flags are in modules that are imported when one is called: the flags of training alone take half of
# the time of --help.
for module, group, commands in (
    ("data", DATA, {
        "check": "Find what is wrong with images before training: unreadable, duplicated, leaking, or with two labels.",
        "datasets": "List the data sets that have a name, or fetch one. A folder, zip or CSV of your own needs none.",
    }),
    ("training", TRAINING, {
        "train": "Train a classifier on images and keep it as a run.",
        "learning-curve": "Train on more and more images, to see whether collecting more would help.",
        "distill": "Train another network, for example a smaller one, on the answers of a run.",
    }),
    ("tuning", TRAINING, {
        "tune": "Search for better settings than the preset's, and say whether they are; the test set is not used.",
    }),
):  # fmt: skip
    for name, text in commands.items():
        function = f"onsight.cli.{module}:{name.replace('-', '_')}"
        app.command(function, name=name, help=text, group=group, sort_key=next(order))


# Training ------------------------------------------------------------------------------------------------------------


@app.command(group=TRAINING, sort_key=next(order))
def prune(
    run: str,
    /,
    *,
    sparsity: float = 0.0,
    channels: float = 0.0,
    epochs: int | None = None,
    learning_rate: float | None = None,
    quiet: Quiet = False,
) -> None:
    """Make the network of a run smaller, train what is left as a new run, and compare both on validation images.

    Parameters
    ----------
    run
        the folder of a run, or runs/latest; it does not change
    sparsity
        share of the weights that become zero, for example 0.8: only compressed files become smaller
    channels
        share of the channels to remove, for example 0.5: the file and the latency become smaller
    epochs
        number of epochs (default: as many as the run had; a run with frozen layers has no default)
    learning_rate
        the highest learning rate (default: half of the run's; a run with frozen layers has no default)
    """
    from onsight.display.reporters import make_reporter
    from onsight.training.compress import prune as prune_run

    show = make_reporter(quiet)
    made = prune_run(
        run, sparsity=sparsity, channels=channels, epochs=epochs, learning_rate=learning_rate, reporter=show
    )
    say(str(made.folder))


@app.command(group=TRAINING, sort_key=next(order))
def presets() -> None:
    """List the presets with what each one sets."""
    from onsight.spec import PRESETS

    for name, (description, fields) in PRESETS.items():
        say(f"{name}: {description}")
        say("    " + " ".join(f"--{key.replace('_', '-')} {value}" for key, value in fields.items()))


@app.command(group=TRAINING, sort_key=next(order))
def models(name: str | None = None, /, *, image_size: int | None = None, classes: int = 10) -> None:
    """List the networks; or show one: its layers, shapes, parameters, multiply-adds, and what it is good for.

    Custom networks are listed if ONSIGHT_IMPORT names their module.

    Parameters
    ----------
    name
        a network
    image_size
        pixels per side of the images that the table is for (default: 32, or the nearest size that the network takes)
    classes
        number of classes
    """
    from onsight.models.registry import MODELS

    if name is None:
        for line in columns([(each, f"from {entry.smallest} px", entry.description) for each, entry in MODELS.items()]):
            say(line)
        return
    from onsight.models.summary import model_lines

    for line in model_lines(name, image_size, classes):
        say(line)


# Understanding -------------------------------------------------------------------------------------------------------


@app.command(group=UNDERSTANDING, sort_key=next(order))
def evaluate(
    run: str = "latest",
    /,
    *,
    data: str | None = None,
    data_dir: DataDir = None,
    folds: int = 0,
    engine: EngineChoice = "auto",
    slices: Annotated[
        Path | None, Parameter(help="CSV with a path and your own columns, to report accuracy by")
    ] = None,
    robustness: Annotated[bool, Parameter(negative="")] = False,
    quick: Annotated[bool, Parameter(negative="")] = False,
    tta: Annotated[bool, Parameter(negative="", help="also score with test-time augmentation")] = False,
    far: str | None = None,
    on: On = None,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the flag's name
    quiet: Quiet = False,
) -> None:
    """Score a finished run on its test images, draw the plots, write the report.

    Parameters
    ----------
    run
        the folder of a run, or runs/latest
    data
        score on this data instead: a name, folder, zip, CSV, shards or address with classes that the run knows
    folds
        also search the training images for wrong labels: train this many models (for example 5), each without its fold
    robustness
        also measure the accuracy under 15 corruptions at 5 severities (75 times the work)
    quick
        measure robustness on a tenth of the images
    far
        images of something else (a name, folder or pattern), to see how many the model takes for its own
    format
        text for people, or metrics.json
    """
    import json

    from onsight.display.reporters import make_reporter
    from onsight.evaluation.evaluate import evaluate as evaluate_run
    from onsight.reporting.verdict import verdict
    from onsight.runs.run import open_run

    result = evaluate_run(
        run,
        data=data,
        data_dir=data_dir,
        folds=folds,
        slices_file=slices,
        robustness=robustness,
        quick=quick,
        tta=tta,
        far=far,
        engine=engine,
        on=on,
        reporter=make_reporter(quiet),
    )
    if format == "json":
        say(json.dumps(result.metrics))
        return
    opened = open_run(run)
    for sentence in [*verdict(opened, result.folder.name), *result.findings]:
        say(sentence)
    say(f"Plots and predictions: {result.folder}")
    say(f"Report: {opened.report}")


app.command(
    "onsight.cli.predicting:predict",
    name="predict",
    help="Classify images: files, folders, patterns, shards, addresses, or - for an image from standard input.",
    group=UNDERSTANDING,
    sort_key=next(order),
)


@app.command(group=UNDERSTANDING, sort_key=next(order))
def report(run: str = "latest", /) -> None:
    """Write the report.html and MODEL_CARD.md of a run again, from the files that it has now."""
    from onsight.reporting.report import report as write_report
    from onsight.runs.run import open_run

    say(str(write_report(open_run(run))))


@app.command(group=UNDERSTANDING, sort_key=next(order))
def compare(
    *runs: str,
    common: bool = False,
    out: Path = Path("compare.html"),
    format: Literal["table", "json"] = "table",  # noqa: A002
) -> None:
    """Compare evaluated runs on the same images: which is better, by how much, and could that be due to chance?

    Parameters
    ----------
    runs
        the folders of two or more runs
    common
        if their test images differ, compare on those that all runs have
    out
        the HTML page to write
    format
        a table for people, or everything as JSON
    """
    import json
    from dataclasses import asdict

    from onsight.comparison.compare import compare as compare_runs
    from onsight.comparison.comparison import table

    found = compare_runs(runs, common=common, page=out)
    if format == "json":
        # An unknown p-value is NaN, which JSON does not have.
        say(json.dumps(json.loads(json.dumps(asdict(found)), parse_constant=lambda _: None)))
        return
    for rows in table(found):
        for line in columns(rows):
            say(line)
        say("")
    say(plain(found.verdict))
    say(f"Page: {out}")


app.command(
    "onsight.cli.serving:label",
    name="label",
    help="Ask people about images on a page, those first whose answers help most; train --labels uses the file.",
    group=UNDERSTANDING,
    sort_key=next(order),
)

app.command(
    "onsight.cli.serving:studio",
    name="studio",
    help="Show runs on a page while they train: a table, live curves, reports and comparisons. It changes nothing.",
    group=UNDERSTANDING,
    sort_key=next(order),
)

# These two are in a module of their own, as those above are.
for name, text in (
    ("embed", "Write the features of images to a file: NPZ, CSV or Parquet."),
    ("similar", "List the images of a folder that resemble an image most, and draw them on a page."),
):
    app.command(f"onsight.cli.features:{name}", name=name, help=text, group=UNDERSTANDING, sort_key=next(order))


@app.command(group=UNDERSTANDING, sort_key=next(order))
def log(
    run: str = "latest",
    /,
    *,
    to: Literal["mlflow", "wandb", "trackio"],
    project: str = "onsight",
    follow: Annotated[bool, Parameter(negative="", help="go on until the training ends")] = False,
) -> None:
    """Write the settings, epochs, test scores and report of a run to an experiment tracker. Its package must be there.

    Parameters
    ----------
    run
        the folder of a run, or runs/latest; it may be in training
    to
        the tracker; its own variables say where it is, for example MLFLOW_TRACKING_URI or WANDB_MODE
    project
        the project or experiment in the tracker
    """
    from onsight.core.text import count
    from onsight.reporting.trackers import log as log_run

    epochs, scores = log_run(run, to, project=project, follow=follow)
    say(f"{to} has {count(epochs, 'epoch')} and {count(scores, 'test score')} in the project {plain(project)}.")


# Shipping ------------------------------------------------------------------------------------------------------------


@app.command(group=SHIPPING, sort_key=next(order))
def export(
    run: str,
    /,
    *formats: str,
    precision: Literal["float32", "float16", "int8"] = "float32",
    max_drop: float = 0.5,
    check: Annotated[
        bool, Parameter(negative="", help="open the exported files again and compare; only if you trust these files")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Write a run for other runtimes. A file whose answers differ from those of Keras is not written (exit code 3).

    Parameters
    ----------
    run
        the folder of a run, or runs/latest
    formats
        litert, onnx, saved_model, keras, openvino, web, coreml, c
    precision
        of litert and web files; int8 needs training images to find the ranges of its values
    max_drop
        percentage points of validation accuracy that int8 may cost
    """
    from onsight.display.reporters import make_reporter
    from onsight.exporting import export as exports

    if check:
        for name, difference in exports.check_export(run, make_reporter(quiet)):
            say(f"{name}: the same answers as when it was written (largest difference {difference:.1e})")
        return
    table = exports.export(run, formats, precision=precision, max_drop=max_drop, reporter=make_reporter(quiet))
    for line in [*columns(table.cells()), *table.sentences()]:
        say(line)


app.command(
    "onsight.cli.serving:serve",
    name="serve",
    help="Answer over HTTP with a run: a page, JSON, and the protocols of Triton and TensorFlow Serving.",
    group=SHIPPING,
    sort_key=next(order),
)


# Housekeeping --------------------------------------------------------------------------------------------------------


@app.command(group=HOUSEKEEPING, sort_key=next(order))
def demo(*, data_dir: DataDir = None, quiet: Quiet = False) -> None:
    """Do the main job once, from start to end: data, training, evaluation, plots, a prediction.

    Uses CIFAR-10 if it is available, otherwise the digits that come with scikit-learn.
    """
    from onsight.cli.demo import demo as run_demo

    run_demo(data_dir, quiet)


@app.command(group=HOUSEKEEPING, sort_key=next(order))
def runs(folder: Path | None = None, /) -> None:
    """List the runs in a folder (default: runs, or ONSIGHT_RUNS)."""
    from onsight.cli.output import run_rows
    from onsight.runs.run import damaged_runs, list_runs, runs_folder

    damaged = damaged_runs(folder)
    found = [run for run in list_runs(folder) if run.folder not in damaged]
    for reason in damaged.values():
        warn(reason)
    if not found:
        say(f"No runs in {folder or runs_folder()}. Train one: onsight train")
        return
    for line in columns(run_rows(found)):
        say(line)


@app.command(group=HOUSEKEEPING, sort_key=next(order))
def clear_cache() -> None:
    """Delete decoded images, features and compiled programs, which only save time. Downloads and checks stay."""
    from onsight.data.pixel_cache import clear_cache as clear

    say(f"Freed {clear() / 1e6:,.1f} MB.")
