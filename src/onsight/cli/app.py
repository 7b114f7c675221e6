"""The command line: each command parses its arguments, calls one function and prints the answer.

Heavy modules are imported inside the commands, because `onsight --help` must answer at once.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from onsight import __version__
from onsight.cli.flags import Call, Flag, end_of_flags, flag_of, read, summary
from onsight.cli.help import command_help, overview
from onsight.cli.output import say, warn
from onsight.core.errors import SpecError, unknown_name
from onsight.core.text import columns, plain

ABOUT = "From images to a classifier you can trust: check, train, evaluate honestly, predict, export."
# The help lists groups, and the commands in them, in the order of use.
GROUPS = DATA, TRAINING, UNDERSTANDING, SHIPPING, HOUSEKEEPING = (
    "Data", "Training", "Understanding", "Shipping", "Housekeeping",
)  # fmt: skip
OF_ALL = [("--help, -h", "Show this, or the options of a command, and exit."), ("--version", "Show the version.")]


class Command(NamedTuple):
    """A command: where its function is, the heading of the help below which it is, and one line about it."""

    place: str
    group: str
    about: str

    def load(self) -> Callable[..., None]:
        """Import the function."""
        function: Callable[..., None] = pkgutil.resolve_name(self.place)
        return function


COMMANDS: dict[str, Command] = {}


def app(words: Sequence[str]) -> None:
    """Run the command that these words name, or print the help or the version.

    Raises:
        SpecError: there is no such command, or it cannot use these words.
    """
    name, *rest = words or ["--help"]
    if name in ("--help", "-h"):
        found = {group: [(each, entry.about) for each, entry in COMMANDS.items() if entry.group == group]
                 for group in GROUPS}  # fmt: skip
        say(overview(ABOUT, found | {"Options": OF_ALL}))
    elif name == "--version":
        say(__version__)
    elif {"--help", "-h"} & {*rest[: end_of_flags(rest)]}:
        say(command_help(name, find(name).load()))
    else:
        asked = parsed(words)
        asked.function(*asked.arguments, **asked.options)


def parsed(words: Sequence[str]) -> Call:
    """Return the command that these words name, with what they give it. Raises SpecError if they cannot be used."""
    return read(words[0], find(words[0]).load(), words[1:])


def find(name: str) -> Command:
    """Return a command by its name. Raises SpecError if there is none."""
    if name not in COMMANDS:
        raise SpecError(unknown_name("command", name, COMMANDS))
    return COMMANDS[name]


def command(group: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes a function of this module a command."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        name = function.__name__
        COMMANDS[name.replace("_", "-")] = Command(f"{__name__}:{name}", group, summary(function).partition("\n\n")[0])
        return function

    return register


Quiet = Annotated[bool, Flag("show no progress")]
EngineChoice = Annotated[
    Literal["auto", "litert", "keras"], Flag("what runs the model; auto: LiteRT, which needs no framework")
]
On = Annotated[
    str | None,
    Flag("who decodes images and answers: ray for the Ray cluster here, or ray://HOST:PORT; all share the cache"),
]
DataDir = Annotated[Path | None, Flag("folder with a copy of a named data set (or set ONSIGHT_DATA)")]


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
        COMMANDS[name] = Command(f"onsight.cli.{module}:{name.replace('-', '_')}", group, text)


# Training ------------------------------------------------------------------------------------------------------------


@command(TRAINING)
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


@command(TRAINING)
def presets() -> None:
    """List the presets with what each one sets."""
    from onsight.spec import PRESETS

    for name, (description, fields) in PRESETS.items():
        say(f"{name}: {description}")
        say("    " + " ".join(f"{flag_of(key)} {value}" for key, value in fields.items()))


@command(TRAINING)
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


@command(UNDERSTANDING)
def evaluate(
    run: str = "latest",
    /,
    *,
    data: str | None = None,
    data_dir: DataDir = None,
    folds: int = 0,
    engine: EngineChoice = "auto",
    slices: Annotated[Path | None, Flag("CSV with a path and your own columns, to report accuracy by")] = None,
    robustness: bool = False,
    quick: bool = False,
    tta: Annotated[bool, Flag("also score with test-time augmentation")] = False,
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


COMMANDS["predict"] = Command(
    "onsight.cli.predicting:predict",
    UNDERSTANDING,
    "Classify images: files, folders, patterns, shards, addresses, or - for an image from standard input.",
)


@command(UNDERSTANDING)
def report(run: str = "latest", /) -> None:
    """Write the report.html and MODEL_CARD.md of a run again, from the files that it has now.

    Parameters
    ----------
    run
        the folder of a run, or runs/latest
    """
    from onsight.reporting.report import report as write_report
    from onsight.runs.run import open_run

    say(str(write_report(open_run(run))))


@command(UNDERSTANDING)
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


COMMANDS["label"] = Command(
    "onsight.cli.serving:label",
    UNDERSTANDING,
    "Ask people about images on a page, those first whose answers help most; train --labels uses the file.",
)

COMMANDS["studio"] = Command(
    "onsight.cli.serving:studio",
    UNDERSTANDING,
    "Show runs on a page while they train: a table, live curves, reports and comparisons. It changes nothing.",
)

# These two are in a module of their own, as those above are.
for name, text in (
    ("embed", "Write the features of images to a file: NPZ, CSV or Parquet."),
    ("similar", "List the images of a folder that resemble an image most, and draw them on a page."),
):
    COMMANDS[name] = Command(f"onsight.cli.features:{name}", UNDERSTANDING, text)


@command(UNDERSTANDING)
def log(
    run: str = "latest",
    /,
    *,
    to: Literal["mlflow", "wandb", "trackio"],
    project: str = "onsight",
    follow: Annotated[bool, Flag("go on until the training ends")] = False,
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


@command(SHIPPING)
def export(
    run: str,
    /,
    *formats: str,
    precision: Literal["float32", "float16", "int8"] = "float32",
    max_drop: float = 0.5,
    check: Annotated[bool, Flag("open the exported files again and compare; only if you trust these files")] = False,
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


COMMANDS["serve"] = Command(
    "onsight.cli.serving:serve",
    SHIPPING,
    "Answer over HTTP with a run: a page, JSON, and the protocols of Triton and TensorFlow Serving.",
)


# Housekeeping --------------------------------------------------------------------------------------------------------


@command(HOUSEKEEPING)
def demo(*, data_dir: DataDir = None, quiet: Quiet = False) -> None:
    """Do the main job once, from start to end: data, training, evaluation, plots, a prediction.

    Uses CIFAR-10 if it is available, otherwise the digits that come with scikit-learn.
    """
    from onsight.cli.demo import demo as run_demo

    run_demo(data_dir, quiet)


@command(HOUSEKEEPING)
def runs(folder: Path | None = None, /) -> None:
    """List the runs in a folder (default: runs, or ONSIGHT_RUNS).

    Parameters
    ----------
    folder
        the folder of the runs
    """
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


@command(HOUSEKEEPING)
def clear_cache() -> None:
    """Delete decoded images, features and compiled programs, which only save time. Downloads and checks stay."""
    from onsight.data.pixel_cache import clear_cache as clear

    say(f"Freed {clear() / 1e6:,.1f} MB.")
