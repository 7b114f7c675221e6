"""The command line: one command a verb, and each does no more than parse, call one function and print.

Heavy modules are imported inside the commands: `onsight --help` must answer at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from onsight import __version__
from onsight.cli.output import columns, csv_lines, json_lines, say, table_lines
from onsight.core.text import plain

if TYPE_CHECKING:
    from onsight.inference.predict import Prediction


app = App(
    name="onsight",
    version=__version__,
    help="From images to a classifier you can trust: train, evaluate honestly, predict.",
    help_format="plaintext",
    result_action="return_value",
)

Quiet = Annotated[bool, Parameter(negative="", help="show no progress")]
EngineChoice = Annotated[
    Literal["auto", "litert", "keras"], Parameter(help="what computes; auto: LiteRT, which needs no framework")
]
DataDir = Annotated[Path | None, Parameter(help="folder with a copy of a named data set (or set ONSIGHT_DATA)")]


@app.command
def demo(*, data_dir: DataDir = None, quiet: Quiet = False) -> None:
    """Do the main job once, start to end: data, training, evaluation, plots, a prediction.

    Takes CIFAR-10 where it can be had, else the digits that come with scikit-learn.
    """
    from onsight.cli.demo import demo as run_demo

    run_demo(data_dir, quiet)


# In a module of its own, imported when it is called: its settings alone take half of the time that --help may take.
app.command("onsight.cli.training:train", name="train", help="Train a classifier on images and keep it as a run.")

app.command(
    "onsight.cli.training:learning_curve",
    name="learning-curve",
    help="Train on ever more images and say whether collecting more pays.",
)


@app.command
def check(
    data: str,
    /,
    *,
    out: Path | None = None,
    keep_list: Path | None = None,
    strict: Annotated[bool, Parameter(negative="")] = False,
    data_dir: DataDir = None,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the flag's name
    quiet: Quiet = False,
) -> None:
    """Look for what is wrong with images before training: broken, duplicated, leaking, under two labels.

    Parameters
    ----------
    data
        a data set's name (`onsight datasets`), or a folder, zip or CSV of images
    out
        folder for check.json and check.html (default: checks/ and the data set's name)
    keep_list
        file to write the names of the images to that are worth keeping, for train --keep-list
    strict
        exit with 1 where there are errors
    format
        text for people, or check.json as it is
    """
    import json
    import sys

    from onsight.checks import check as check_module
    from onsight.display.reporters import make_reporter

    found = check_module.check(data, data_dir=data_dir, out=out, keep_list=keep_list, reporter=make_reporter(quiet))
    if format == "json":
        say(json.dumps(found.record, ensure_ascii=False))
    else:
        for line in check_module.lines(found.record):
            say(plain(line))
        say("")
        say(f"Page: {found.folder / 'check.html'}")
        if keep_list is not None:
            say(f"{found.record['kept']:,} images to keep: {keep_list}")
    if strict and found.has_errors:
        sys.exit(1)


@app.command
def evaluate(
    run: str = "latest",
    /,
    *,
    data: str | None = None,
    data_dir: DataDir = None,
    folds: int = 0,
    engine: EngineChoice = "auto",
    slices: Annotated[Path | None, Parameter(help="CSV with path and columns of yours: accuracy by each")] = None,
    robustness: Annotated[bool, Parameter(negative="")] = False,
    quick: Annotated[bool, Parameter(negative="")] = False,
    tta: Annotated[bool, Parameter(negative="", help="score with test-time augmentation too")] = False,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the flag's name
    quiet: Quiet = False,
) -> None:
    """Score a finished run on its test images, draw the plots, write the report.

    Parameters
    ----------
    run
        a run's folder, or runs/latest
    data
        score on this data instead (a name, folder, zip or CSV with classes that the run knows)
    folds
        look for wrong labels among the training images too: trains so many models (5, say), each without its share
    robustness
        measure the accuracy under 15 corruptions at 5 severities too (75 times the work)
    quick
        of that, on a tenth of the images
    format
        text for people, or metrics.json as it is
    """
    import json

    from onsight.display.reporters import make_reporter
    from onsight.evaluation import evaluate as evaluate_module
    from onsight.reporting.verdict import verdict

    result = evaluate_module.evaluate(
        run,
        data=data,
        data_dir=data_dir,
        folds=folds,
        slices_file=slices,
        robustness=robustness,
        quick=quick,
        tta=tta,
        engine=engine,
        reporter=make_reporter(quiet),
    )
    if format == "json":
        say(json.dumps(result.metrics))
        return
    folder = result.folder.parent.parent
    for sentence in verdict(folder, result.folder.name):
        say(sentence)
    for sentence in evaluate_module.findings(result):
        say(sentence)
    say(f"Plots and predictions: {result.folder}")
    say(f"Report: {folder / 'report.html'}")


@app.command
def predict(
    run: str,
    /,
    *images: str,
    top: Annotated[int, Parameter(help="classes an answer")] = 3,
    format: Literal["table", "csv", "json"] = "table",  # noqa: A002
    batch_size: Annotated[int, Parameter(help="images a step; changes speed only")] = 256,
    engine: EngineChoice = "auto",
    tta: Annotated[
        bool, Parameter(negative="", help="test-time augmentation: up to six views, six times the work")
    ] = False,
    explain: Annotated[
        Path | None, Parameter(help="draw where it looked into this .png or .svg; at most 32 images")
    ] = None,
) -> None:
    """Answer for images: files, folders, patterns, or - for an image from standard input.

    Parameters
    ----------
    run
        a run's folder, or runs/latest
    images
        what to look at
    format
        a table, CSV, or JSON lines
    """
    import sys

    from onsight.core.errors import DataError, SpecError
    from onsight.inference.predict import Predictor

    if not images:
        raise SpecError("No image was given. For example: onsight predict runs/latest cat.jpg")
    if top < 1 or batch_size < 1:
        raise SpecError(f"--top {top} and --batch-size {batch_size} must be 1 or more.")
    if explain is not None and "-" in images:
        raise SpecError("--explain looks at the image twice, and standard input can be read once: give a file.")
    if explain is not None:
        from onsight.evaluation.explain import check_drawing

        check_drawing(images, explain)
        if tta:
            raise SpecError("--explain shows where it looked in one view, and --tta answers from six: leave one out.")
    answered = failed = 0
    write = {"table": table_lines, "csv": csv_lines, "json": json_lines}[format]

    def counted(predictions: Iterable[Prediction]) -> Iterable[Prediction]:
        nonlocal answered, failed
        for prediction in predictions:
            answered, failed = answered + (prediction.error is None), failed + (prediction.error is not None)
            yield prediction

    predictor = Predictor(run, batch_size, engine, tta)
    if engine == "auto" and predictor.engine.name != "litert":
        print(f"onsight: answering with {predictor.engine.name}: {predictor.engine.reason}.", file=sys.stderr)  # noqa: T201
    for line in write(counted(predictor.stream(images, top=top)), top):
        say(line)
    if failed:
        if not answered:
            raise DataError(f"None of the {failed} images could be read.")
        print(f"onsight: {failed} of {answered + failed} images could not be read.", file=sys.stderr)  # noqa: T201
    if explain is not None:
        from onsight.evaluation.explain import explain as draw_explanation

        method = draw_explanation(run, images, explain, top, engine)
        print(f"onsight: {explain} shows where it looked ({method}).", file=sys.stderr)  # noqa: T201


@app.command
def export(
    run: str,
    /,
    *formats: str,
    precision: Literal["float32", "float16", "int8"] = "float32",
    max_drop: float = 0.5,
    check: Annotated[
        bool, Parameter(negative="", help="open what was exported again and compare; only where you trust its files")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Write a run for other runtimes, each file proven to answer as Keras does, or not written (exit code 3).

    Parameters
    ----------
    run
        a run's folder, or runs/latest
    formats
        litert, onnx, saved_model, keras, openvino, web
    precision
        of litert and web; int8 learns the ranges of its values from training images
    max_drop
        points of validation accuracy that int8 may cost
    """
    from onsight.display.reporters import make_reporter
    from onsight.exporting import export as export_module
    from onsight.reporting.export_table import HEADING, table_rows

    if check:
        for name, difference in export_module.check_export(run, make_reporter(quiet)):
            say(f"{name}: as when it was written (largest difference {difference:.1e})")
        return
    table = export_module.export(run, formats, precision=precision, max_drop=max_drop, reporter=make_reporter(quiet))
    for line in columns([HEADING, *table_rows(table)]):
        say(line)
    for row in table:
        if "drop" in row:
            low, high = row["drop_interval"]
            hurt = ", ".join(f"{plain(each['class'])} {each['drop'] * 100:.1f}" for each in row["hurt_most"])
            say(
                f"{row['file']}: {row['drop'] * 100:.2f} points less accurate on validation (95 %: {low * 100:.2f} to "
                f"{high * 100:.2f}; n = {row['validation_n']:,}). Hurt most, in points: {hurt or 'none'}."
            )


# As `train`, with every setting a flag.
app.command("onsight.cli.training:distill", name="distill", help="Train a network on a run's answers, a small one say.")


@app.command
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
    """Make a run's network smaller and train what is left, as a new run; compare both on the validation images.

    Parameters
    ----------
    run
        a run's folder, or runs/latest; it stays as it is
    sparsity
        share of the weights that become zero (0.8, say): shrinks compressed files alone
    channels
        share of the channels to remove (0.5, say): shrinks the file and the time of an answer
    epochs
        of training (default: as many as the run had)
    learning_rate
        its highest value (default: half of the run's)
    """
    from onsight.display.reporters import make_reporter
    from onsight.training.compress import prune as prune_run

    show = make_reporter(quiet)
    made = prune_run(
        run, sparsity=sparsity, channels=channels, epochs=epochs, learning_rate=learning_rate, reporter=show
    )
    say(str(made.folder))


@app.command
def report(run: str = "latest", /) -> None:
    """Write a run's report.html anew, from what the run holds by now."""
    from onsight.reporting.report import report as write_report
    from onsight.runs.run import open_run

    say(str(write_report(open_run(run))))


@app.command
def compare(
    *runs: str,
    common: bool = False,
    out: Path = Path("compare.html"),
    format: Literal["table", "json"] = "table",  # noqa: A002
) -> None:
    """Tell which of several evaluated runs is better on the same images, by how much, and whether chance would do.

    Parameters
    ----------
    runs
        two or more runs' folders
    common
        where their test images differ, compare on those that all have
    out
        the HTML page to write
    format
        a table for people, or all of it as JSON
    """
    import json
    from dataclasses import asdict

    from onsight.comparison.compare import compare as compare_runs
    from onsight.comparison.comparison import table

    found = compare_runs(runs, common=common, page=out)
    if format == "json":
        # A p-value that cannot be known is NaN, which is no JSON.
        say(json.dumps(json.loads(json.dumps(asdict(found)), parse_constant=lambda _: None)))
        return
    for rows in table(found):
        for line in columns(rows):
            say(line)
        say("")
    say(plain(found.verdict))
    say(f"Page: {out}")


@app.command
def runs(folder: Path | None = None, /) -> None:
    """List the runs in a folder (default: runs, or ONSIGHT_RUNS)."""
    from onsight.core.errors import RunError
    from onsight.runs.run import list_runs, read_evaluations, runs_folder

    found = list_runs(folder)
    if not found:
        say(f"No runs in {folder or runs_folder()}. Train one: onsight train")
        return
    rows = [("run", "data", "model", "epochs", "validation", "test", "created")]
    for run in found:
        history = run.history()
        validation = (run.model_epoch() or {}).get("val_accuracy")
        try:
            scores = read_evaluations(run).get("test")
            test = f"{scores['accuracy']:.2%}" if scores else ""
        except RunError:
            test = "damaged"
        rows.append(
            (
                str(run.folder),
                plain(str(run.dataset["name"])),
                str(run.spec.get("model")),
                f"{len(history)}/{run.spec.get('epochs')}" + ("" if run.is_trained else " unfinished"),
                "" if validation is None else f"{validation:.1%}",
                test,
                str(run.record.get("created"))[:16].replace("T", " "),
            )
        )
    for line in columns(rows):
        say(line)


@app.command
def models(name: str | None = None, /, *, image_size: int | None = None, classes: int = 10) -> None:
    """List the networks; with a name, show that one: layers, shapes, parameters, multiply-adds, what it is good for.

    Networks of your own are listed where ONSIGHT_IMPORT names their module.

    Parameters
    ----------
    name
        a network
    image_size
        side in pixels of the images that the table is for (default: 32, or the nearest that it takes)
    classes
        how many answers it gives
    """
    from onsight.models.registry import MODELS

    if name is None:
        for line in columns([(each, f"from {entry.smallest} px", entry.description) for each, entry in MODELS.items()]):
            say(line)
        return
    from onsight.models.summary import model_lines

    for line in model_lines(name, image_size, classes):
        say(line)


@app.command
def datasets() -> None:
    """List the data sets that have a name; a folder, zip or CSV of your own needs none."""
    from onsight.data.load import DATASETS

    for line in columns(list(DATASETS.items())):
        say(line)


@app.command
def presets() -> None:
    """List the presets with what each one sets."""
    from onsight.spec import PRESETS

    for name, (description, fields) in PRESETS.items():
        say(f"{name}: {description}")
        say("    " + " ".join(f"--{key.replace('_', '-')} {value}" for key, value in fields.items()))


@app.command
def clear_cache() -> None:
    """Remove decoded images, features and compiled programs, kept to be faster. Downloads and checks stay."""
    from onsight.data.pixel_cache import clear_cache as clear

    say(f"Freed {clear() / 1e6:,.1f} MB.")
