"""Answers for millions of images, in part files that together are in the order of the images.

A part answers for one shard, or for 10,000 images that are files of their own. It is complete or absent, so the same
call goes on where an earlier one was stopped. plan.json in the folder says what the parts are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from onsight.core.errors import DataError, SpecError
from onsight.core.files import alone, argument, leftovers, make_folder, read_json, write_atomic, write_json
from onsight.core.progress import Reporter
from onsight.core.text import count
from onsight.display.reporters import make_reporter
from onsight.imaging.decode import ImageSource
from onsight.inference.engines import EngineName
from onsight.inference.on_ray import on_ray
from onsight.inference.part import Part, Settings, Work, answer
from onsight.inference.predict import Predictor
from onsight.inference.sources import Source, as_iterable, find_places
from onsight.inference.writers import check_format
from onsight.runs.run import Run, open_run

FILES = 10_000  # images of a part that are files of their own
PLAN, LOCK = "plan.json", ".lock"  # names in the folder
SHOWN = 3  # failed parts that an error names


class Parts(NamedTuple):
    """What `predict_parts` has done.

    Attributes:
        folder: the folder of the part files.
        total: the number of part files.
        kept: how many of them an earlier call had made.
        answered: the number of images that this call has answered.
        unreadable: the number of images that this call could not read.
    """

    folder: Path
    total: int
    kept: int
    answered: int
    unreadable: int


def predict_parts(
    run: str | Path | Run,
    images: ImageSource | Iterable[ImageSource],
    folder: str | Path,
    *,
    format: str = "csv",  # noqa: A002 - the flag's name
    top: int = 3,
    batch_size: int = 256,
    engine: EngineName = "auto",
    tta: bool = False,
    on: str | None = None,
    reporter: Reporter | None = None,
) -> Parts:
    """Write the answers for any number of images to part files, in their order. The same call goes on after a stop.

    Args:
        run: the run, its folder, or `latest`.
        images: one or more shards (.tar or .parquet), patterns, folders, files or addresses, like s3://bucket/photos.
        folder: where the part files go. A part is complete or absent.
        format: "csv", "json" (one object per line) or "parquet".
        top: the number of classes per answer.
        batch_size: images per step; changes the speed only.
        engine: what answers: "litert", "keras", or "auto": LiteRT if it can answer.
        tta: test-time augmentation.
        on: where the work is done: None for this machine, "ray" for the Ray cluster here (or a new one of this
            machine's cores), or ray://HOST:PORT. Every machine reads the images itself: they are at addresses, or in a
            folder that all share.
        reporter: receives the progress.

    Raises:
        SpecError: the folder holds something else, or the answers of another call.
        DataError: there are no images, they have changed since the earlier call, or some parts could not be made.
    """
    check_format(format)
    opened = open_run(run)
    opened.require_model()
    settings = Settings(format, top, batch_size, engine, tta)
    with reporter or make_reporter() as show:
        work = plan(as_iterable(images))
        out = Path(folder)
        make_folder(out)
        with alone(out / LOCK, f"writing answers to {out}"):
            missing = prepare(out, opened, settings, [each.mark for each in work])
            if on is None:
                parts = on_this_machine(opened, settings, work, missing)
            else:
                parts = on_ray(on, opened, settings, work, missing)
            kept, failed, answered, unreadable = len(work) - len(missing), [], 0, 0
            for done, (number, part) in enumerate(parts, start=kept + 1):
                if part.error:
                    failed.append(part.error)
                else:
                    write_atomic(part_path(out, format, number), part.content)
                answered, unreadable = answered + part.answered, unreadable + part.unreadable
                show.work("answering", done, len(work))
    if failed:
        reasons = "\n".join(f"  {reason}" for reason in failed[:SHOWN])
        raise DataError(
            f"{count(len(failed), 'part')} of {len(work):,} could not be made; the others are in {argument(out)}. The "
            f"same command tries them again. The first reasons:\n{reasons}"
        )
    return Parts(out, len(work), kept, answered, unreadable)


def plan(images: Iterable[ImageSource]) -> list[Work]:
    """Return what each part answers for, in the order of the images.

    Raises:
        DataError: a path or address names no image.
    """
    from onsight.data.remote import entry

    work: list[Work] = []
    files: list[tuple[str, Source]] = []

    def close() -> None:
        for start in range(0, len(files), FILES):
            some = tuple(files[start : start + FILES])
            names = "\n".join(name for name, _ in some)
            work.append(Work(hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest(), sources=some))
        files.clear()

    for place in find_places(images):
        if isinstance(place, str):
            close()
            work.append(Work(f"{place} {entry(place).stamp}", shard=place))
        else:
            files.append(place)
    close()
    return work


def prepare(folder: Path, run: Run, settings: Settings, marks: list[str]) -> list[int]:
    """Write plan.json if there is none; return the numbers of the parts that are missing.

    Raises:
        SpecError: the folder holds something else, or the answers of another call.
        DataError: the images have changed since an earlier call.
    """
    path = folder / PLAN
    asked: dict[str, Any] = {"schema": 1, "model": model_mark(run), **settings._asdict(), "parts": marks}
    del asked["batch_size"]  # it changes the speed only
    if not path.exists():
        for left in leftovers(path):
            left.unlink()
        if any(each.name != LOCK for each in folder.iterdir()):
            raise SpecError(f"--out {folder} holds something other than answers. Name a new folder.")
        write_json(path, asked)
    try:
        found = read_json(path)
        differing = [key for key in asked if found.get(key) != asked[key]]
    except (ValueError, AttributeError):
        raise SpecError(f"{path} is damaged. Name a new folder.") from None
    kind = settings.format
    missing = [number for number in range(len(marks)) if not part_path(folder, kind, number).exists()]
    if differing == ["parts"]:
        then = found["parts"] if isinstance(found["parts"], list) else []
        if len(then) == len(marks) and all(marks[at] == then[at] for at in {*range(len(marks))} - {*missing}):
            write_json(path, asked)  # a shard was repaired, for example
            return missing
        raise DataError(
            f"The images have changed since {folder} was begun: {count(len(then), 'part')} then, "
            f"{len(marks):,} now, or other files in them. Name a new folder for new answers."
        )
    if differing:
        raise SpecError(
            f"{folder} holds answers of another command: {', '.join(differing)} differ. Name a new folder, or repeat "
            "that command to go on with it."
        )
    return missing


def on_this_machine(run: Run, settings: Settings, work: list[Work], missing: list[int]) -> Iterator[tuple[int, Part]]:
    """Yield the number and the content of each part that is missing."""
    predictor = Predictor(run, settings.batch_size, settings.engine, settings.tta)
    for number in missing:
        yield number, answer(predictor, work[number], settings)


def model_mark(run: Run) -> str:
    """Return the SHA-256 of what says everything about a model: its description, which has those of its weights."""
    return hashlib.sha256((run.model_folder / "model.json").read_bytes()).hexdigest()


def part_path(folder: Path, kind: str, number: int) -> Path:
    """Return the path of a part file. The names sort like the images."""
    return folder / f"part-{number:06}.{'jsonl' if kind == 'json' else kind}"
