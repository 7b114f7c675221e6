"""labels.csv: what people said about images, one line per answer. It corrects and adds labels of a data set.

The file only grows. Its columns are path, label, previous, who and when; path and label suffice. A path is a name in
the data set, or that of a file: absolute, or relative to the folder of labels.csv. The label is a class, `NONE` for an
image that is none of the classes, or empty where an answer was taken back. The last line of a person about an image
counts; of several people's, the latest, and the others are listed.
"""

from __future__ import annotations

import csv
import hashlib
import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onsight.core.errors import DataError, unknown_name
from onsight.core.files import read_regular, stamp, sync_folder
from onsight.core.text import count, short
from onsight.data.dataset import Dataset, Relabelled, fingerprint
from onsight.data.folder import read_file
from onsight.data.pixel_cache import Pixels
from onsight.data.reading import LabelsFile, Reading
from onsight.metrics.predictions_csv import csv_cell, uncelled

COLUMNS = ("path", "label", "previous", "who", "when")
NONE = "<none>"  # the label of an image that is none of the classes


class Row(NamedTuple):
    """A line of labels.csv."""

    path: str
    label: str
    previous: str
    who: str
    when: str


class Answer(NamedTuple):
    """What a person said last about an image."""

    line: int
    label: str
    who: str


# The file ------------------------------------------------------------------------------------------------------------


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add lines to a labels.csv, which is created with its header if there is none. They are on the disk on return."""
    text = "".join(",".join(map(csv_cell, row)) + "\n" for row in rows)
    with open(path, "ab+") as file:
        if size := file.tell():
            file.seek(size - 1)
            text = text if file.read(1) == b"\n" else f"\n{text}"  # a line that a crash has cut
        else:
            text = ",".join(COLUMNS) + "\n" + text
        file.write(text.encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())
    if not size:
        sync_folder(path.absolute().parent)


def read_answers(content: bytes, name: str) -> tuple[dict[str, dict[str, Answer]], int]:
    """Return path -> person -> their last answer, for the content of a labels.csv called `name`.

    Answers that were taken back are left out. The second value is the number of lines that lack cells, as those do
    that a crash has cut; they do not count. So that such a line cannot swallow the next one, no cell has a line break.

    Raises:
        DataError: it is not such a file.
    """
    lines = content.decode("utf-8-sig", "surrogateescape").split("\n")
    columns = columns_of(lines[0])
    if lacking := [column for column in ("path", "label") if column not in columns]:
        raise DataError(
            f"{name} has no column {' and no column '.join(lacking)}. Its first line must be {','.join(COLUMNS)}; "
            "path and label suffice."
        )
    answers: dict[str, dict[str, Answer]] = {}
    incomplete = 0
    for number, line in enumerate(lines[1:], start=2):
        cells = cells_of(line)
        if len(cells) < len(columns):
            incomplete += bool(cells)
            continue
        row = {column: uncelled(cell) for column, cell in zip(columns, cells, strict=False)}
        who = row.get("who", "")
        people = answers.setdefault(row["path"], {})
        people.pop(who, None)
        if label := unicodedata.normalize("NFC", row["label"].strip()):
            people[who] = Answer(number, label, who)
    return {path: people for path, people in answers.items() if people}, incomplete


def cells_of(line: str) -> list[str]:
    """Return the cells of a line; one with an empty cell if it is none of a CSV."""
    try:
        return next(csv.reader([line.rstrip("\r")]), [])
    except csv.Error:
        return [""]


def columns_of(line: str) -> list[str]:
    """Return the names in the first line of a CSV, in lower case."""
    return [cell.strip().lower() for cell in cells_of(line)]


def can_hold(name: str) -> bool:
    """Return whether a labels.csv can hold the name of an image."""
    return not {"\n", "\r"} & {*name}


def begun(path: Path) -> dict[str, dict[str, Answer]]:
    """Return the answers in a labels.csv that is to grow, as `read_answers` does; none if there is no such file.

    Raises:
        DataError: it is not called .csv, is another file, or has other columns than the lines that are added.
    """
    check_suffix(path)
    content = path.read_bytes() if path.exists() else b""
    if content and columns_of(content.decode("utf-8-sig", "replace").partition("\n")[0]) != [*COLUMNS]:
        raise DataError(
            f"'{path}' does not begin with the line {','.join(COLUMNS)}, so no line is added: choose another --out."
        )
    return read_answers(content, path.name)[0] if content else {}


def check_suffix(path: Path) -> None:
    """Raise DataError unless a file of labels is called .csv."""
    if path.suffix.lower() != ".csv":
        raise DataError(
            f"The labels '{path}' are not in a .csv file. `onsight label` writes one, with the columns "
            f"{', '.join(COLUMNS)}; path and label suffice."
        )


def content_of(file: LabelsFile) -> bytes:
    """Return the content of a labels.csv, as far as it counts.

    A run that a stranger made may name any file; one that is not called .csv is not opened.

    Raises:
        DataError: it is not called .csv, cannot be read, or is no longer what it was.
    """
    check_suffix(file.path)
    try:
        content = read_regular(file.path)[: file.size]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"The labels '{file.path}' cannot be read: {why or error}. `onsight label` writes such a file."
        ) from None
    if file.sha256 and hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataError(
            f"The labels '{file.path}' are no longer what they were when the run was made: lines may be added to the "
            "file, but not changed. Restore it, or train again."
        )
    return content


# The data set --------------------------------------------------------------------------------------------------------


def with_labels(dataset: Dataset, reading: Reading) -> Dataset:
    """Return a data set with the labels of `reading.labels`.

    An image of the data set gets the label, or is left out if it is none of the classes. Other images are added at the
    end. Where the user has chosen among the classes, images of the other classes are left out.

    Raises:
        DataError: the file cannot be used, or its images cannot be added.
    """
    assert reading.labels
    content = content_of(reading.labels)
    where = reading.labels.path.name
    answers, incomplete = read_answers(content, where)
    place = {name: index for index, name in enumerate(dataset.names)}
    number = {name: index for index, name in enumerate(dataset.classes)}
    labels, kept = dataset.labels.copy(), np.ones(len(dataset), bool)
    corrected, conflicts = [], []
    added: dict[str, int] = {}
    for name, answer, conflict in decided(answers, dataset, reading.labels.path):
        known = answer.label in number
        if not known and answer.label != NONE and not (reading.classes or reading.exclude):
            raise DataError(
                f"{where}, line {answer.line}: {unknown_name('class', answer.label, dataset.classes)} "
                f"An image that is none of them has the label {NONE}."
            )
        conflicts += [conflict] if conflict else []
        if name not in place:
            added |= {name: number[answer.label]} if known and name not in dataset.left_out else {}
        elif not known:
            kept[place[name]] = False
        elif labels[place[name]] != number[answer.label]:
            labels[place[name]] = number[answer.label]
            corrected.append(name)
    out = tuple(dataset.names[index] for index in np.flatnonzero(~kept).tolist())
    changes = Relabelled(
        len(content), hashlib.sha256(content).hexdigest(), tuple(corrected), tuple(added), out, tuple(conflicts)
    )
    return changed(dataset, labels, kept, added, changes, where, incomplete)


def decided(
    answers: Mapping[str, Mapping[str, Answer]], dataset: Dataset, file: Path
) -> Iterable[tuple[str, Answer, str]]:
    """Yield each image by its name in the data set, or else its absolute path, its label, and who disagrees, in words.

    The same image may have been named in two ways.
    """
    known = {*dataset.names, *dataset.left_out}
    root = folder_of(dataset)
    together: dict[str, dict[str, Answer]] = {}
    for path, people in answers.items():
        together.setdefault(name_in(path, known, root, file), {}).update(people)
    for name, people in together.items():
        last = max(people.values())
        labels = {answer.label for answer in people.values()}
        said = ", ".join(f"{short(each.who) or 'nobody'}: {each.label}" for each in sorted(people.values()))
        yield name, last, f"'{name}' ({said})" if len(labels) > 1 else ""


def name_in(path: str, known: Collection[str], root: Path | None, file: Path) -> str:
    """Return the name of an image in a data set with the names `known` below `root`, or else its absolute path."""
    if path in known:
        return path
    full = os.path.normpath(file.absolute().parent / path)
    inside = os.path.relpath(full, root).replace(os.sep, "/") if root else path
    return inside if inside in known else full


def folder_of(dataset: Dataset) -> Path | None:
    """Return the folder that the names of a data set begin at, or None if its images are not files in one."""
    reader = dataset.reader
    if isinstance(reader, partial) and reader.func is read_file:
        return Path(reader.args[0]).absolute()
    return None


def changed(
    dataset: Dataset,
    labels: NDArray[np.int64],
    kept: NDArray[np.bool_],
    added: Mapping[str, int],
    changes: Relabelled,
    where: str,
    incomplete: int,
) -> Dataset:
    """Return a data set with other labels (n,), without the images that are not `kept`, and with those `added`."""
    if added and dataset.reader is None:
        raise DataError(
            f"{where} names {count(len(added), 'image')} that {dataset.name} lacks, first '{next(iter(added))}'. "
            "Images can be added to a folder, zip, CSV or shards; of a named data set, labels can only be corrected."
        )
    index = np.flatnonzero(kept)
    part = "train" if "train" in dataset.parts else ""
    names = (*(dataset.names[each] for each in index.tolist()), *added)
    labels = np.concatenate([labels[index], np.array([*added.values()], np.int64)])
    parts = np.concatenate([dataset.parts[index], np.full(len(added), part, "<U10")])
    stamps = [f"{name} {stamp_of(name)}" for name in added]
    facts = [
        f"{count(len(images), 'image')} {what}"
        for images, what in (
            (changes.corrected, "corrected"), (changes.added, "added"), (changes.left_out, "left out"),
        ) if images
    ]  # fmt: skip
    summary = f"{where}: {', '.join(facts) or 'it changes nothing'}"
    notes = [f"labels of {summary}"]
    if incomplete:
        notes.append(f"{count(incomplete, 'line')} of {where} not used, because cells are missing")
    if changes.conflicts:
        shown = ", ".join(changes.conflicts[:3])
        more = f" and {len(changes.conflicts) - 3:,} more" if len(changes.conflicts) > 3 else ""
        notes.append(f"people disagree in {where}, and the last answer counts: {shown}{more}")
    return replace(
        dataset,
        names=names,
        labels=labels,
        parts=parts,
        provenance=f"{dataset.provenance}, with {summary}",
        fingerprint=fingerprint(dataset.classes, labels, parts, [dataset.fingerprint, *changes.left_out, *stamps]),
        images=dataset.images if dataset.images is None else dataset.images[index],
        reader=partial(read_either, dataset.reader, frozenset(added)) if added and dataset.reader else dataset.reader,
        left_out=dataset.left_out | {*changes.left_out},
        notes=(*dataset.notes, *notes),
        relabelled=changes,
    )


def read_either(reader: Callable[[str], bytes], added: frozenset[str], name: str) -> bytes:
    """Return the bytes of an added image, or of one that `reader` reads."""
    return read_file(Path(), name) if name in added else reader(name)


def stamp_of(path: str) -> str:
    """Return a text that changes when a file changes."""
    try:
        status = os.stat(path)
    except OSError:
        return "unreadable"
    return stamp(status)


def added_images(dataset: Dataset) -> NDArray[np.bool_]:
    """Return (n,) bool: the images that a labels.csv has added."""
    added = {*dataset.relabelled.added} if dataset.relabelled else set()
    return np.array([name in added for name in dataset.names], bool)


def needless_copies(dataset: Dataset, pixels: Pixels) -> NDArray[np.bool_]:
    """Return (n,) bool: the added images that are copies of others. Trained on, they could leak a test image."""
    added = added_images(dataset)
    if not added.any():
        return added
    firsts = np.zeros(len(dataset), bool)
    firsts[np.unique(pixels.hashes, return_index=True)[1]] = True  # the added images come last
    copies: NDArray[np.bool_] = added & (~firsts | pixels.among(pixels.prints(np.flatnonzero(~added))))
    copies[list(pixels.broken)] = False
    return copies
