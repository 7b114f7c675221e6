"""export(run, formats): files for other runtimes. A file is kept only if it gives the same answers as the model.

Each file is first written to a temporary folder next to `export/`. Its own runtime opens it, in a process that does not
import Onsight, and classifies real and edge images. If the answers match those of Keras in float32, the file moves into
`export/`. Without Keras, the answers of the run's model.tflite stand for Keras': training proved them equal.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from onsight.core.backend import installed_backends
from onsight.core.errors import ExportError, ParityError, RunError, SpecError
from onsight.core.files import argument, now, replace_folder, temporary_sibling, write_atomic, write_json
from onsight.core.progress import Reporter
from onsight.core.records import ExportRow, ExportTable
from onsight.core.spread import spread
from onsight.core.text import count
from onsight.display.reporters import make_reporter
from onsight.exporting.contract import (
    ROUNDING,
    checksums,
    make_contract,
    own_answers,
    read_contract,
    readme,
    size_of,
)
from onsight.exporting.formats import FORMATS, READERS, check_formats, file_name, precision_of, write
from onsight.exporting.image_files import drawn, open_files
from onsight.exporting.judge import MAX_DROP, Precision, Questions, fewer, judge, judge_distances
from onsight.inference.engines import Engine, open_engine
from onsight.inference.parity import TOLERANCE, compare, edge_images, farthest, why_not_probabilities
from onsight.models.model_file import read_description
from onsight.reporting.export_table import Exports
from onsight.reporting.report import report
from onsight.runs.images import open_images
from onsight.runs.run import Run, open_run, read_object

GATE = 256  # the number of real and edge images, which come first
CALIBRATION = 512  # training images that int8 takes the ranges of its values from
TIMEOUT = 1800  # seconds that a reader may take


def export(
    run: str | Path | Run,
    formats: Sequence[str],
    *,
    precision: Precision = "float32",
    max_drop: float = MAX_DROP,
    reporter: Reporter | None = None,
) -> Exports:
    """Write `formats` into the run's `export/`, with labels, contract, test vectors and README; return their table.

    Args:
        run: the run, its folder, or `latest`. Its images must still be where they were.
        formats: keys of `FORMATS`.
        precision: the precision of the formats that support it. The other formats are written in float32.
        max_drop: points of validation accuracy that int8 may lose.
        reporter: receives the progress.

    Raises:
        SpecError: a format is unknown, or none of the formats has the precision.
        ExportError: a package is missing, or a converter failed.
        ParityError: the answers of a file differ from Keras'. It was not written; the other files were.
    """
    if not formats:
        raise SpecError(f"No format was given. Formats: {', '.join(FORMATS)}. For example: onsight export RUN litert")
    if not 0 <= max_drop <= 100:
        raise SpecError(f"--max-drop {max_drop:g} is not in points of accuracy: expected a number from 0 to 100.")
    wanted = list(dict.fromkeys(formats))
    check_formats(wanted, precision)
    run = open_run(run)
    run.require_trained()
    with reporter or make_reporter() as show:
        questions = ask_model(run, show)
        staged = temporary_sibling(run.export_folder)
        staged.mkdir()
        try:
            (staged / "vectors" / "files").mkdir(parents=True)
            rows, failures = make_all(run, wanted, precision, staged, questions, max_drop, show)
            if rows:
                table = complete(run, staged, rows, questions)
                replace_folder(staged, run.export_folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        if rows:
            report(run)
    if failures:
        raise joined(failures, [row["file"] for row in rows])
    return Exports(table)


def make_all(
    run: Run,
    names: list[str],
    precision: Precision,
    folder: Path,
    questions: Questions,
    max_drop: float,
    show: Reporter,
) -> tuple[list[ExportRow], list[ExportError]]:
    """Write formats into `folder`; return the rows of those that passed, and the errors of the others."""
    rows, failures = [], []
    for name in names:
        written = precision_of(name, precision)
        try:
            rows.append(make(run, name, written, folder, questions, max_drop, show))
        except ExportError as error:
            failures.append(error)
            remove(folder / file_name(name, written))
    return rows, failures


def joined(failures: list[ExportError], written: list[str]) -> ExportError:
    """Return one error for all formats that failed, which says what was written all the same."""
    text = " ".join(str(error) for error in failures)
    if written:
        text += f" Written all the same: {', '.join(written)}."
    parity = any(isinstance(error, ParityError) for error in failures)
    return ParityError(text) if parity else ExportError(text)


def open_reference(run: Run) -> Engine:
    """Return what every file is compared with: Keras, or without it the run's model.tflite.

    Raises:
        SpecError: Keras is not installed, and the run has no verified model.tflite.
    """
    if installed_backends():
        return open_engine(run, "keras")
    return open_engine(run, "auto")


def ask_model(run: Run, show: Reporter) -> Questions:
    """Return the images that every file is tested with, and the model's answers in float32. Log the test use."""
    images = open_images(run, ("train", "validation", "test"), show.work)
    pixels, reference = images.pixels, open_reference(run)
    train, validation, test = (images.readable(part) for part in ("train", "validation", "test"))
    source = validation if len(validation) else train
    files = open_files(images.dataset, source, reference.size, reference.fit, show)
    edges = np.concatenate([edge_images(reference.size), files])
    real = source[spread(len(source), GATE - len(edges))]
    asked = np.concatenate([pixels.images[real], edges, pixels.images[validation], pixels.images[test]])
    stands = "; Keras is not installed, and training proved this file equal to it" if reference.name == "litert" else ""
    show.note("comparing", f"with {reference.name} in float32 on {count(len(asked), 'image')}{stands}")
    if len(test):
        run.log_test_use("export: compared the answers of files with Keras', read no label", scored=False)
    expected, distances = reference.answer(asked)
    start = len(real) + len(edges)
    calibration = pixels.images[train[spread(len(train), CALIBRATION)]]
    within, edged = slice(start, start + len(validation)), slice(len(real), start)
    labels = images.dataset.labels[validation]
    return Questions(asked, expected, edged, within, labels, calibration, distances, reference.distance_threshold)


def make(
    run: Run, name: str, precision: Precision, folder: Path, questions: Questions, max_drop: float, show: Reporter
) -> ExportRow:
    """Write one format into `folder`, run it in its own runtime, judge its answers, and return its row of the table.

    Raises:
        ParityError: its answers differ from Keras'.
    """
    path = folder / file_name(name, precision)
    if FORMATS[name].asked:
        questions = fewer(questions, FORMATS[name].asked)
    show.note("writing", f"{path.name}  ({FORMATS[name].description})")
    write(name, run.model_folder, path, precision, questions.calibration)
    if not FORMATS[name].runs_here:
        show.note("not proven", f"{path.name}: only macOS can run it. Export it there to compare its answers")
        return not_proven(name, precision, path)
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "pictures.npy"
        np.save(images, questions.images)
        single = run_reader(name, path, images, Path(scratch), threads=1)
        answers, distances = read_answers(Path(scratch))
        parallel = run_reader(name, path, images, None, threads=os.cpu_count() or 1)
    row = judge(path.name, precision, answers, questions, max_drop, run.classes)
    if distances:
        judge_distances(path.name, precision, row, distances, questions)
    if precision != "float32":
        found = {"probabilities": answers} | ({"distances": distances} if distances else {})
        own = {kind: values[max(values)][questions.vectors] for kind, values in found.items()}
        np.savez(folder / "vectors" / own_answers(path.name), **own)
    return {
        "file": path.name,
        "format": name,
        "precision": precision,
        "bytes": size_of(path),
        **row,
        "latency_ms": single["latency_ms"],
        "latency_p95_ms": single["latency_p95_ms"],
        "images_per_second": single["images_per_second"],
        "threads": os.cpu_count() or 1,
        "latency_ms_all": parallel["latency_ms"],
        "latency_p95_ms_all": parallel["latency_p95_ms"],
        "images_per_second_all": parallel["images_per_second"],
        "peak_mb": single["peak_mb"],
        "first_answer_seconds": single["first_answer_seconds"],
        "made": now(),
    }


def not_proven(name: str, precision: Precision, path: Path) -> ExportRow:
    """Return the row of a file that this system cannot run: nothing about its answers and its speed is known."""
    return {
        "file": path.name,
        "format": name,
        "precision": precision,
        "bytes": size_of(path),
        "max_difference": None,
        "agreement": None,
        "compared": 0,
        "validation_n": 0,
        "validation_accuracy": None,
        "source_accuracy": None,
        "latency_ms": None,
        "latency_p95_ms": None,
        "images_per_second": None,
        "threads": 0,
        "latency_ms_all": None,
        "latency_p95_ms_all": None,
        "images_per_second_all": None,
        "peak_mb": None,
        "first_answer_seconds": None,
        "made": now(),
    }


def run_reader(name: str, path: Path, images: Path, answers: Path | None, threads: int) -> dict[str, Any]:
    """Run a file in its own runtime, in a process without Onsight, and return what readers/run.py measured.

    Args:
        name: the format, a key of `FORMATS`.
        path: the file or folder.
        images: an .npy file of the images to classify.
        answers: the folder to write the answers to; None: only measure the speed.
        threads: the number of threads of the runtime.

    Raises:
        ExportError: the file cannot be opened, or it fails or takes too long. The message quotes the runtime's.
    """
    reader = READERS / f"read_{name}.py"
    sizes = ",".join(map(str, FORMATS[name].batches))
    words = [reader, path / FORMATS[name].opened, images, answers or "-", threads, sizes]
    # As for training on TensorFlow (`core.backend.set_environment`), whatever the backend is here.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
    started = time.time()
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(READERS / "run.py"), *map(str, words)],
            env=environment, capture_output=True, text=True, timeout=TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ExportError(f"{path.name} did not answer within {TIMEOUT // 60} minutes.") from None
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("INFO")]
        last = lines[-1][:300] if lines else f"exit code {done.returncode}"
        raise ExportError(f"{path.name} cannot be read as {name}: {last}. It is damaged, or another kind of file.")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"first_answer_seconds": found.pop("first_answer_at") - started}


def read_answers(folder: Path) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Return what readers/run.py wrote: {batch size: probabilities} and {batch size: distances}.

    The latter is empty if the file has no such output.
    """
    found: list[dict[int, np.ndarray]] = []
    for kind in ("answers", "distances"):
        paths = {int(path.stem.partition("-")[2]): path for path in folder.glob(f"{kind}-*.npy")}
        found.append({size: np.load(path, allow_pickle=False) for size, path in sorted(paths.items())})
    return found[0], found[1]


def complete(run: Run, folder: Path, rows: list[ExportRow], questions: Questions) -> list[ExportRow]:
    """Copy files of earlier exports that are still valid into `folder`, write the other files, and return the table.

    A file is valid if it was made from the weights that the run has now and is unchanged. The other files are labels,
    contract, table, test vectors and README.
    """
    description = read_description(run.model_folder)
    contract = read_contract(run.export_folder)
    table: list[ExportRow] = []
    new = {row["file"] for row in rows}
    if contract and contract["weights_sha256"] == description.weights_sha256:
        for row in (read_object(run.export_folder / "table.json", ExportTable) or {"files": []})["files"]:
            source = run.export_folder / row["file"]
            kept = row["file"] not in new and row["file"] in contract["files"]
            if kept and checksums(source) == contract["files"][row["file"]]["sha256"]:  # neither replaced nor missing
                if row["precision"] != "float32":
                    answers = run.export_folder / "vectors" / own_answers(row["file"])
                    if not answers.exists() or stored(answers) != len(questions.vectors):
                        continue  # an earlier version wrote the file
                    shutil.copy2(answers, folder / "vectors")
                (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / row["file"])
                table.append(row)
    table += rows
    vectors = questions.vectors
    np.save(folder / "vectors" / "pictures.npy", questions.images[vectors])
    for name, data in drawn().items():
        write_atomic(folder / "vectors" / "files" / name, data)
    np.save(folder / "vectors" / "probabilities.npy", questions.expected[vectors])
    if questions.distances is not None:
        np.save(folder / "vectors" / "distances.npy", questions.distances[vectors])
    write_json(folder / "labels.json", list(description.classes))
    write_json(folder / "table.json", {"files": table})
    write_json(folder / "contract.json", make_contract(description, folder, table))
    write_atomic(folder / "README.md", readme(run, description, table))
    return table


def stored(path: Path) -> int:
    """Return for how many test vectors a quantized file's own answers are stored."""
    with np.load(path, allow_pickle=False) as file:
        return len(file["probabilities"])


def check_export(run: str | Path | Run, reporter: Reporter | None = None) -> list[tuple[str, float]]:
    """Run every file of a run's `export/` on the test vectors again and compare the answers. This needs no Keras.

    Returns:
        One (file, largest difference of a probability) per file that this system can run.

    Raises:
        RunError: nothing was exported.
        ExportError: a file was damaged or replaced, or its runtime is not installed.
        ParityError: the answers of a file have changed since it was written.
    """
    run = open_run(run)
    folder = run.export_folder
    contract = read_contract(folder)
    if contract is None:
        raise RunError(f"{run.folder} has no export/. Create it: onsight export {argument(run.folder)} litert")
    if contract["weights_sha256"] != read_description(run.model_folder).weights_sha256:
        raise ExportError(f"{folder} was made from other weights than the run has now. Export again.")
    found = []
    with reporter or make_reporter() as show:
        for name, entry in contract["files"].items():
            format_, path = FORMATS[entry["format"]], folder / name
            if checksums(path) != entry["sha256"]:
                raise ExportError(
                    f"{path} does not have the SHA-256 that contract.json names: it was damaged or replaced."
                )
            if not format_.runs_here:
                show.note("not checked", f"{name}: only macOS can run it")
                continue
            if missing := [package for package in format_.reads if not find_spec(package)]:
                wanted = " ".join(f"'{format_.reads[package]}'" for package in missing)
                raise ExportError(f"Checking {name} needs {', '.join(missing)}. Install: pip install {wanted}")
            show.note("checking", f"{name}")
            found.append((name, check_file(path, entry, folder / "vectors")))
    return found


def check_file(path: Path, entry: dict[str, Any], vectors: Path) -> float:
    """Return the largest difference between a file's answers and those in the test vectors.

    Raises:
        ParityError: the answers are not probabilities, or differ by more than when the file was written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        run_reader(entry["format"], path, vectors / "pictures.npy", Path(scratch), threads=1)
        answers, distances = read_answers(Path(scratch))
    for rows in answers.values():
        if why := why_not_probabilities(rows):
            raise ParityError(f"The answers of {path.name} are not probabilities: {why}.")
    quantized = entry["precision"] != "float32"
    if quantized:
        with np.load(vectors / own_answers(path.name), allow_pickle=False) as file:
            expected, away = file["probabilities"], file["distances"] if distances else None
    else:
        expected = np.load(vectors / "probabilities.npy", allow_pickle=False)
        away = np.load(vectors / "distances.npy", allow_pickle=False) if distances else None
    allowed = ROUNDING if quantized else TOLERANCE
    largest = max(compare(rows, expected[: len(rows)]).largest for rows in answers.values())
    if not largest <= allowed:
        raise ParityError(
            f"{path.name} differs from its test vectors by {largest:.2g}; at most {allowed:.2g} is allowed."
        )
    if away is not None:
        apart = max(farthest(rows, away[: len(rows)]) for rows in distances.values())
        if not apart <= allowed:
            raise ParityError(
                f"The distances of {path.name} differ from its test vectors by {apart:.2g}; at most {allowed:.2g} is "
                "allowed."
            )
    return largest


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
