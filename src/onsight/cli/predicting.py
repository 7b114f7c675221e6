"""`predict`: which run answers, and where the answers go: to standard output, into a file, a figure or sub-folders."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from onsight.cli.app import EngineChoice
from onsight.cli.flags import Flag
from onsight.cli.output import say, table_lines, warn
from onsight.core.errors import DataError, SpecError
from onsight.core.files import argument, check_target, is_address, write_lines
from onsight.core.text import count, plain
from onsight.data.reading import names_shards
from onsight.inference.heat_maps import MOST
from onsight.inference.predict import Prediction, Predictor
from onsight.inference.writers import csv_lines, json_lines
from onsight.runs.run import UNCALIBRATED, Run, list_runs, open_run, runs_folder

if TYPE_CHECKING:
    from onsight.inference.sort_into import Sorter

# Part files, shards and sorting are imported where they are used: they take a fifth of the time of one prediction.


def predict(
    run: str,
    /,
    *images: str,
    top: Annotated[int, Flag("classes per answer")] = 3,
    format: Literal["table", "csv", "json", "parquet"] | None = None,  # noqa: A002
    batch_size: Annotated[int, Flag("images per step; changes the speed only")] = 256,
    engine: EngineChoice = "auto",
    on: Annotated[
        str | None,
        Flag("who makes parts: ray for the Ray cluster here, or ray://HOST:PORT (default: this machine)"),
    ] = None,
    tta: Annotated[bool, Flag("test-time augmentation: up to six views of images whose answer is not sure")] = False,
    explain: Annotated[Path | None, Flag("draw heat maps of the first 32 images into this .png or .svg")] = None,
    out: Annotated[
        str | None,
        Flag("write the answers to this file; with / at its end, to part files in this folder, for millions"),
    ] = None,
    sort_into: Annotated[
        Path | None, Flag("copy the images into sub-folders of this new folder, one per class")
    ] = None,
) -> None:
    """Classify images: files, folders, patterns, shards, addresses, or - for an image from standard input.

    Parameters
    ----------
    run
        the folder of a run, or runs/latest; if it is an image, a folder or a pattern instead, the latest run answers
    images
        what to classify
    format
        a table, CSV, JSON lines, or in part files Parquet (default: a table, in part files CSV)
    """
    chosen, given = run_and_images(run, images)
    if top < 1 or batch_size < 1:
        raise SpecError(f"--top {top} and --batch-size {batch_size} must be 1 or more.")
    if out is not None and is_folder(out):
        if format == "table" or explain or sort_into or "-" in given:
            raise SpecError(
                "Part files are CSV, JSON lines or Parquet, without --explain, --sort-into and images from standard "
                "input. Give --out the name of a file instead of a folder, or leave these out."
            )
        options = {"top": top, "batch_size": batch_size, "engine": engine, "tta": tta, "on": on}
        warn(parts_line(chosen, given, out, format=format or "csv", **options))
        return
    if on is not None or format == "parquet":
        raise SpecError(f"{'--on' if on else '--format parquet'} is for part files: add --out answers/ (with the /).")
    target = None if out is None else Path(out)
    if target is not None:
        check_target(target)
    if explain is not None or sort_into is not None:
        check_files("--explain" if explain else "--sort-into", given)
    if explain is not None:
        check_explain(explain, given, tta)
    sorter = None if sort_into is None else make_sorter(sort_into, given)
    predictor = Predictor(chosen, batch_size, engine, tta)
    if engine == "auto" and predictor.engine.name != "litert":
        warn(f"answering with {predictor.engine.name}: {predictor.engine.reason}.")
    if not predictor.run.is_calibrated:
        warn(f"the probabilities are {UNCALIBRATED}.")
    seen = Seen(MOST)
    predictions = seen.noted(predictor.stream(given, top=top))
    if sorter is not None:
        predictions = sorter.copied(predictions, predictor.engine.classes)
    lines = {"table": table_lines, "csv": csv_lines, "json": json_lines}[format or "table"](predictions, top)
    if target is None:
        for line in lines:
            say(line)
    else:
        write_lines(target, lines)
    if seen.failed:
        if not seen.answered:
            raise DataError(f"None of {count(seen.failed, 'image')} could be read.")
        warn(f"{seen.failed} of {count(seen.answered + seen.failed, 'image')} could not be read.")
    if target is not None:
        warn(f"{target} holds the answers for {count(seen.answered + seen.failed, 'image')}.")
    if sorter is not None:
        warn(copies(sorter))
    if explain is not None:
        from onsight.evaluation.explain import explain as draw_heat_maps

        _, method = draw_heat_maps(predictor.run, seen.first, path=explain, top=top, engine=engine)
        some = f" of the first {MOST} images" if seen.answered > MOST else ""
        warn(f"{explain} shows the heat maps{some} ({method}).")


def is_folder(out: str) -> bool:
    """Return whether answers go to part files in a folder: its name ends with /, or an earlier command made it."""
    from onsight.inference.parts import PLAN

    return out.endswith(("/", os.sep)) or (Path(out) / PLAN).is_file()


def parts_line(run: str | Run, given: Sequence[str], out: str, **options: Any) -> str:
    """Write part files, and return what was written.

    Raises:
        DataError: no image could be read.
    """
    from onsight.inference.parts import predict_parts

    made = predict_parts(run, given, out, **options)
    images = made.answered + made.unreadable
    if images and not made.answered:
        raise DataError(f"None of {count(images, 'image')} could be read.")
    line = f"{made.folder} holds the answers in {count(made.total, 'part file')}: {count(images, 'image')} now"
    line += f", {made.unreadable:,} of them could not be read" if made.unreadable else ""
    return line + (f", {count(made.kept, 'part')} before." if made.kept else ".")


def run_and_images(first: str, others: Sequence[str]) -> tuple[str | Run, list[str]]:
    """Return the run and the images. If the first argument names images instead of a run, the latest run answers."""
    if not names_images(first):
        if not others:
            raise SpecError("No image was given. For example: onsight predict runs/latest cat.jpg")
        return first, list(others)
    latest = open_run("latest")
    warn(f"answering with the latest run, {argument(latest.folder)}.")
    return latest, [first, *others]


def names_images(word: str) -> bool:
    """Return whether a word names images (a file, folder, pattern, shard, address, or standard input) and no run."""
    if word == "-" or is_address(word) or names_shards(word):
        return True
    path = Path(word)
    if path.name == "latest" and not path.exists():
        return False
    try:
        if (path / "spec.json").exists() or (len(path.parts) == 1 and (runs_folder() / path / "spec.json").exists()):
            return False
        if path.is_dir():
            return not list_runs(path)  # a folder of runs holds plots, which nobody wants to classify
        return path.is_file() or (glob.has_magic(word) and next(glob.iglob(word, recursive=True), None) is not None)
    except (OSError, ValueError):  # ValueError: the path contains a NUL
        return False


def check_files(flag: str, images: Sequence[str]) -> None:
    """Raise SpecError if some of the images are no files of their own on this machine, which a flag needs."""
    from onsight.data.shards import find_shards

    for word in images:
        if is_address(word) or names_shards(word) or (os.path.isdir(word) and find_shards(word)):
            raise SpecError(f"{flag} is for images that are files on this machine, but '{word}' is a shard or address.")


def check_explain(path: Path, images: Sequence[str], tta: bool) -> None:
    """Raise SpecError, before anything is computed, if heat maps of these images cannot be drawn into `path`."""
    if "-" in images:
        raise SpecError("--explain reads the image twice, but standard input can be read once only: give a file.")
    from onsight.evaluation.explain import check_drawing

    check_drawing(path)
    if tta:
        raise SpecError("--explain shows heat maps of one view, but --tta answers from six: leave one of them out.")


class Seen:
    """What is known about the predictions that have passed: how many, and the first ones, for heat maps."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.answered = self.failed = 0
        self.first: list[str] = []

    def noted(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Yield the predictions unchanged."""
        for prediction in predictions:
            self.answered += prediction.error is None
            self.failed += prediction.error is not None
            if prediction.error is None and len(self.first) < self.most:
                self.first.append(prediction.source)
            yield prediction


def make_sorter(folder: Path, images: Sequence[str]) -> Sorter:
    """Return what copies images into sub-folders."""
    from onsight.inference.sort_into import Sorter

    return Sorter(folder, images)


def copies(sorter: Sorter) -> str:
    """Return how many images were copied into which sub-folder."""
    from onsight.inference.sort_into import UNSURE

    found = Counter(sorter.counts)
    unsure = found.pop(UNSURE, 0)
    listed = [f"{plain(name)} {number:,}" for name, number in sorted(found.items())]
    listed += [f"{UNSURE} {unsure:,}"] * bool(unsure)
    return f"copied {count(sum(sorter.counts.values()), 'image')} into {sorter.folder}: {', '.join(listed) or 'none'}."
