"""embed and similar: the features of images, and the images that resemble an image most by them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onsight.core.errors import DataError, ExportError, ImageError, SpecError
from onsight.core.files import check_target, expanded, stamp, write_atomic, write_lines
from onsight.core.progress import Reporter
from onsight.core.text import count
from onsight.data.dataset import Dataset
from onsight.data.folder import read_file
from onsight.data.load import DATASETS
from onsight.data.pixel_cache import load_pixels
from onsight.data.unlabelled import load_every_image
from onsight.display.reporters import make_reporter
from onsight.features.extract import CachedFeatures, Extractor, LitertExtractor, published_extractor
from onsight.features.prototypes import unit
from onsight.features.published_weights import PUBLISHED
from onsight.imaging import decode
from onsight.imaging.fit import Fit
from onsight.inference.engines import read_litert
from onsight.inference.sources import expand
from onsight.models.model_file import read_description
from onsight.models.registry import MODELS
from onsight.runs.run import Run, open_run

WRITERS = (".npz", ".csv", ".parquet")  # suffixes that `write_embeddings` knows


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The features of n images.

    Attributes:
        names: n names of images.
        features: (n, d) float32, the inputs of the network's head.
        labels: (n,) int64, indices into `classes`; -1 for an image without a label.
        classes: the classes of the data; empty for a folder without class folders.
        skipped: the number of images that could not be read.
    """

    names: tuple[str, ...]
    features: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    skipped: int = 0

    def __repr__(self) -> str:
        return f"Embeddings({len(self.names):,} images, {self.features.shape[1]:,} features)"


class Network(NamedTuple):
    """What computes features, and how it sees images."""

    extract: CachedFeatures
    size: int  # pixels per side
    fit: Fit


class Neighbour(NamedTuple):
    """One image that resembles another."""

    query: str
    name: str
    similarity: float  # cosine of the features, at most 1


def embed(
    source: str | Path | Run, data: str | Path, *, out: Path | None = None, reporter: Reporter | None = None
) -> Embeddings:
    """Return the features of all readable images of a data set, and write them to `out`.

    Args:
        source: a finished run, or the name of a network with published weights, such as efficientnet_lite0.
        data: a named data set, or a folder, zip or CSV of images. Class folders are not needed.
        out: an .npz, .csv or .parquet file.
        reporter: receives the progress.

    Raises:
        SpecError: `source` is neither a run nor such a network, or `out` has another suffix.
        DataError: there are no readable images.
    """
    if out is not None:
        check_output(out)
    with reporter or make_reporter() as show:
        found = compute(open_network(source, show), listed(data, show), show)
        if out is not None:
            write_embeddings(out, found)
    return found


def similar(
    source: str | Path | Run,
    images: Sequence[str | Path],
    data: str | Path,
    *,
    top: int = 12,
    reporter: Reporter | None = None,
) -> list[Neighbour]:
    """Return, for each of the images, the `top` images of a data set that resemble it most, most similar first.

    An image of the data set that is the query itself is left out. Arguments and errors are those of `embed`.
    """
    if top < 1:
        raise SpecError(f"--top {top} shows nothing; expected 1 or more.")
    with reporter or make_reporter() as show:
        network = open_network(source, show)
        asked = compute(network, files_of([os.fspath(image) for image in images]), show, strict=True)
        others = listed(data, show)
        found = compute(network, others, show)
    cosines = unit(asked.features) @ unit(found.features).T
    rows = []
    for query, row in zip(asked.names, cosines, strict=True):
        order = np.argsort(-row, kind="stable").tolist()
        kept = [index for index in order if not is_same(query, found.names[index], data)]
        rows += [Neighbour(query, found.names[index], float(row[index])) for index in kept[:top]]
    return rows


def is_same(query: str, name: str, data: str | Path) -> bool:
    """Return whether an image of a data set is the file `query`."""
    path = expanded(data)
    path = path / name if path.is_dir() else Path(name)
    return path.exists() and os.path.realpath(path) == os.path.realpath(query)


def open_network(source: str | Path | Run, show: Reporter) -> Network:
    """Return the network of a run, or a published network, ready to compute features."""
    if isinstance(source, str) and source in MODELS and not Path(source).exists():
        if source not in PUBLISHED:
            raise SpecError(
                f"There are no published weights for {source}. Give a run, or one of: {', '.join(PUBLISHED)}."
            )
        size = MODELS[source].default_size
        extract = published_extractor(source, size)
        show.note("features", f"of {source}, trained on ImageNet, at {size} px")
        return Network(extract, size, "cut")
    run = open_run(source)
    found = network_of(run)
    show.note("features", f"of {run.name}, at {found.size} px")
    return found


def network_of(run: Run, *, by_keras: bool = True) -> Network:
    """Return the network of a finished run: by its model.tflite, which needs no framework, or by Keras.

    Raises:
        RunError: the run is not finished, or its network is a custom one that has not been registered in this process.
        SpecError: model.tflite cannot give the features, and Keras is not installed or is not to be used (`by_keras`).
        ModelFileError: a file of the model is damaged.
    """
    run.require_model()
    description = read_description(run.model_folder)
    size, fit = description.image_size, description.fit
    if description.litert_sha256 and find_spec("ai_edge_litert"):
        content = read_litert(run.model_folder, description)
        with contextlib.suppress(ExportError):
            return Network(LitertExtractor(content, size, len(description.classes)), size, fit)
    if not by_keras:
        raise SpecError(f"LiteRT cannot give the features of {run.name}: use --engine auto.")
    run.require_network()
    answering = run.load_model()
    import keras  # only after load_model, which chooses the backend

    model = keras.Model(answering.input, answering.get_layer("logits").output, name=answering.name)
    return Network(Extractor(model), size, fit)


def listed(data: str | Path, show: Reporter) -> Dataset:
    """Return all images of a data set, labelled or not; a file or pattern is a data set too."""
    path = expanded(data)
    if str(data) in DATASETS or path.is_dir() or (path.suffix.lower() in (".zip", ".csv") and path.exists()):
        found = load_every_image(data, show.work)
        for note in found.notes:
            show.note("data", note)
        return found
    return files_of([os.fspath(data)])


def files_of(paths: Iterable[str]) -> Dataset:
    """Return files as a data set without labels. Folders and patterns stand for the images that they name."""
    names = tuple(dict.fromkeys(str(name) for name, _ in expand(paths)))
    stamps = [f"{name} {stamp(os.stat(name))}" for name in map(os.path.abspath, names)]
    return Dataset(
        name="images",
        classes=(),
        names=names,
        labels=np.full(len(names), -1, np.int64),
        parts=np.full(len(names), "", dtype="<U10"),
        provenance=count(len(names), "image"),
        fingerprint=hashlib.sha256("\n".join(stamps).encode(errors="surrogateescape")).hexdigest(),
        reader=partial(read_file, Path()),
    )


def compute(network: Network, dataset: Dataset, show: Reporter, *, strict: bool = False) -> Embeddings:
    """Return the features of the readable images of a data set. With `strict`, each of them must be readable."""
    pixels = load_pixels(dataset, network.size, show.work, fit=network.fit, pass_over_all=True)
    if pixels.broken and (strict or len(pixels.broken) == len(dataset)):
        index, reason = next(iter(pixels.broken.items()))
        error = ImageError if strict else DataError
        raise error(f"{dataset.names[index]} cannot be read: {reason}")
    chosen = np.setdiff1d(np.arange(len(dataset)), list(pixels.broken))
    features = network.extract(pixels.images, chosen, lambda done, of: show.work("computing features", done, of))
    names = tuple(dataset.names[index] for index in chosen.tolist())
    return Embeddings(names, features, dataset.labels[chosen], dataset.classes, len(pixels.broken))


def check_output(path: Path) -> None:
    """Raise SpecError if `write_embeddings` could not write to `path`."""
    if path.suffix.lower() not in WRITERS:
        raise SpecError(f"--out {path} has no known suffix; expected one of {', '.join(WRITERS)}.")
    if path.suffix.lower() == ".parquet" and not find_spec("pyarrow"):
        raise SpecError(f"--out {path} needs pyarrow, which is not installed. Install it: pip install pyarrow")
    check_target(path)


def write_embeddings(path: Path, found: Embeddings) -> None:
    """Write features as .npz (names, features, labels, classes), or as a table with one row per image."""
    import io

    suffix = path.suffix.lower()
    if suffix == ".npz":
        content = io.BytesIO()
        classes, names = np.array(found.classes, dtype=np.str_), np.array(found.names, dtype=np.str_)
        np.savez(content, names=names, features=found.features, labels=found.labels, classes=classes)
        write_atomic(path, content.getvalue())
        return
    label = [found.classes[index] if index >= 0 else "" for index in found.labels.tolist()]
    columns = [f"f{number}" for number in range(found.features.shape[1])]
    if suffix == ".csv":
        from onsight.metrics.predictions_csv import csv_cell

        head = ",".join(["path", "label", *columns])
        rows = (
            ",".join([csv_cell(name), csv_cell(text), *(f"{value:.7g}" for value in row)])
            for name, text, row in zip(found.names, label, found.features.tolist(), strict=True)
        )
        write_lines(path, chain([head], rows))
        return
    import pyarrow as arrow
    from pyarrow import parquet

    table: dict[str, Any] = {"path": list(found.names), "label": label}
    table |= {name: found.features[:, number] for number, name in enumerate(columns)}
    content = io.BytesIO()
    parquet.write_table(arrow.table(table), content)
    write_atomic(path, content.getvalue())


def picture(dataset: Dataset, name: str, side: int = 192) -> bytes | None:
    """Return a WebP thumbnail of an image, or None if it cannot be read. Pages show it at half its side."""
    index = dataset.names.index(name)
    try:
        source = dataset.images[index] if dataset.images is not None else dataset.read(index)
        return decode.thumbnail(decode.load(source, side), side)
    except ImageError:  # the file has changed since its features were computed
        return None
