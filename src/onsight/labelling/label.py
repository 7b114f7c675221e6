"""`label`: orders the images by what an answer would help, and serves the page that asks about them."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onsight.checks.measures import load_small, measure
from onsight.core.errors import DataError, OnsightError, SpecError
from onsight.core.files import check_target, expanded, located
from onsight.core.progress import Reporter
from onsight.core.text import count
from onsight.data.dataset import Dataset
from onsight.data.labels import NONE, Row, append_rows, begun, can_hold, folder_of, name_in
from onsight.data.pixel_cache import load_pixels
from onsight.data.unlabelled import load_every_image
from onsight.display.reporters import make_reporter
from onsight.imaging import decode
from onsight.inference.embed import network_of
from onsight.inference.engines import open_engine
from onsight.inference.predict import answered
from onsight.labelling.queue import Question, questions
from onsight.reporting.commands import train_command
from onsight.runs.images import load_own
from onsight.runs.run import Run, open_run
from onsight.serving.server import announced, bound, chosen_token, require_packages

SIDE = 768  # pixels per side of the images on the page, at most
BATCH = 256  # images per step of the model


def label(
    run: str | Path | Run,
    photos: str | Path | None = None,
    *,
    out: Path = Path("labels.csv"),
    host: str = "127.0.0.1",
    port: int | None = None,
    token: bool = True,
    names: Sequence[str] = (),
    announce: Callable[[str, bool], None],
    reporter: Reporter | None = None,
) -> None:
    """Ask people about images on a page, and write their answers to a labels.csv, until a signal ends it.

    Args:
        run: a finished run, which says what is worth asking.
        photos: a folder of images, with class folders or without; None: the images of the run.
        out: the labels.csv. If it exists, its answers stay, and their images are not asked about again.
        host: the address to listen on; `port`, `token`, `names` and `announce` are those of `serve`.
        port: the port.
        token: whether requests must carry a token.
        names: further names of the server.
        announce: receives the address, and whether it holds the token.
        reporter: shows the progress.

    Raises:
        SpecError: a setting cannot work.
        DataError: the images or the labels.csv cannot be used.
        RunError: the run cannot be opened.
    """
    require_packages("label")
    check_target(out)
    chosen = chosen_token(token, host)
    from onsight.labelling.app import Work, make_app
    from onsight.labelling.desk import Desk
    from onsight.serving.service import Server

    found = open_run(run)
    with reporter or make_reporter() as show:
        dataset, own, paths = images_of(found, photos, out)
        if NONE in found.classes:
            raise DataError(f"{found.name} has a class {NONE}, which means none of the classes in {out}: rename it.")
        said = begun(out)
        asked = ordered(found, dataset, own, show)
        show.note("asking", f"about {count(len(asked), 'image')}, copies once; {len(said):,} have answers in {out}")
    labels = [dataset.classes[each] if each >= 0 else "" for each in dataset.labels.tolist()]
    for index, path in enumerate(paths):
        if people := said.get(path):
            labels[index] = max(people.values()).label

    def write(rows: list[Row]) -> None:
        append_rows(out, rows)

    desk = Desk(asked, paths, labels, said.keys(), found.classes, write)
    command = train_command(found, labels=str(out))
    work = Work(desk, found.name, found.classes, user(), str(out), command, partial(drawn, dataset))
    with bound(host, port) as listening:
        access = announced(listening, host, names, chosen, announce)
        asyncio.run(Server(make_app(work, access)).serve(sockets=[listening]))


def images_of(run: Run, photos: str | Path | None, out: Path) -> tuple[Dataset, NDArray[np.int64], list[str]]:
    """Return the images to ask about, (n,) their labels among the classes of the run or -1, and their paths.

    A path is the name of an image in the data set of the run, or else absolute, so that the file can be added to it.

    Raises:
        SpecError: `photos` is no folder.
        DataError: the images cannot be used.
    """
    own: Dataset | None = None
    known: set[str] = set()
    root: Path | None = None
    try:
        own = load_own(run)
        known, root = {*own.names, *own.left_out}, folder_of(own)
    except OnsightError:
        if photos is None:
            raise
    if own and (photos is None or run.spec["data"] in (str(photos), located(str(photos)))):
        return own, own.labels, [*own.names]
    if not expanded(str(photos)).is_dir():
        raise SpecError(f"'{photos}' is no folder of images. Leave it out for the images of {run.name}.")
    dataset = load_every_image(str(photos))
    place = {name: index for index, name in enumerate(run.classes)}
    numbers = np.array([*(place.get(name, -1) for name in dataset.classes), -1], np.int64)
    folder = expanded(str(photos)).resolve()
    paths = [name_in(os.path.join(folder, name), known, root, out) for name in dataset.names]
    return dataset, numbers[dataset.labels], paths


def ordered(run: Run, dataset: Dataset, labels: NDArray[np.int64], show: Reporter) -> list[Question]:
    """Return the questions in the order of asking."""
    network, engine = network_of(run), open_engine(run)
    pixels = load_pixels(dataset, network.size, show.work, fit=network.fit, pass_over_all=True)
    named = np.flatnonzero([can_hold(name) for name in dataset.names])
    index = np.setdiff1d(named, list(pixels.broken))
    if not len(index):
        raise DataError(f"No image of {dataset.name} can be read.")
    answers = answered(engine, pixels.images, index, BATCH, show)
    features = network.extract(pixels.images, index, lambda done, of: show.work("computing features", done, of))
    # Copies are found as `check` finds them.
    facts = measure(dataset, load_small(dataset, show.work), show.work)
    return questions(labels, index, facts, features, answers, engine.distance_threshold)


def drawn(dataset: Dataset, index: int) -> bytes:
    """Return an image as a WebP file: all of it, on grey."""
    whole = np.asarray(dataset.images[index]) if dataset.images is not None else decode.decode(dataset.read(index))
    return decode.thumbnail(whole, SIDE, "pad")


def user() -> str:
    """Return the name of who has started this, as a proposal; empty if it is not known."""
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return ""
