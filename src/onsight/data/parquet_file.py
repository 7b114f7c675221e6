"""Parquet files with a column of images: which images and labels they hold, and what reads them.

The column of images holds the bytes of files, or as Hugging Face writes it, {bytes, path}. Labels are text or numbers.
The names of numbered classes are in the metadata that Hugging Face writes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from onsight.core.errors import DataError, ImageError, SpecError, unknown_name
from onsight.core.files import stamp
from onsight.data.folder import MAX_FILE, Sample
from onsight.data.reading import Reading
from onsight.data.table import LABEL, columns_named

IMAGE = ("image", "img", "picture", "photo", "jpg", "png", "bytes", "content")  # the first name wins
MAX_GROUP = 4 << 30  # bytes of the images of a row group, which are in memory at once when they are read at random
ROWS = 256  # that are in memory at once in a stream


def stream(file: IO[bytes], where: str) -> Iterator[tuple[str, bytes | ImageError]]:
    """Yield the number and the bytes of the image of each row, or why the image cannot be used.

    Raises:
        DataError: the file is damaged, or has no column of images.
    """
    with _words(where):
        table = _open(file)
        column = _image_column(table, where, None)
        row = 0
        for batch in table.iter_batches(batch_size=ROWS, columns=[column]):
            for value in batch.column(0):
                yield row_name(row), _content(value.as_py())
                row += 1


def listed(path: Path, reading: Reading) -> Iterator[Sample]:
    """Yield the images of the Parquet file at `path`, with their labels.

    Raises:
        DataError: the file is damaged, or has no columns of images and labels.
    """
    with _words(path.name):
        table = _open(path)
        _image_column(table, path.name, reading.path_column)
        column = _label_column(table, path.name, reading)
        names = _class_names(table).get(column)
        row = 0
        for group in range(table.num_row_groups):
            labels = table.read_row_group(group, columns=[column]).column(0).to_pylist()
            for place, label in enumerate(labels):
                yield Sample(row_name(row), (group, place), *_label(label, names))
                row += 1


def read(path: str, group: int, row: int, column: str | None = None) -> bytes:
    """Return the bytes of the image in a row of a row group of the Parquet file at `path`.

    Raises:
        ImageError: they cannot be read.
    """
    try:
        content = _content(_row_group(path, stamp(os.stat(path)), group, column)[row].as_py())
    except IndexError:
        raise ImageError("is not where it was: the file has changed since it was listed") from None
    except DataError as error:
        raise ImageError(str(error)) from None
    if isinstance(content, ImageError):
        raise content
    return content


def row_name(row: int) -> str:
    """Return the name of the image in a row: the names sort like the rows."""
    return f"{row:08}"


@lru_cache(maxsize=4)  # images are read in order, by a few threads
def _row_group(path: str, stamped: str, group: int, column: str | None) -> Any:
    """Return the images of a row group, as an Arrow array. The file may be written anew: `stamped` is its stamp."""
    with _words(Path(path).name):
        table = _open(path)
        size = table.metadata.row_group(group).total_byte_size
        if size > MAX_GROUP:
            raise DataError(f"row group {group} has {size:,} bytes, more than {MAX_GROUP:,}: write smaller row groups")
        return table.read_row_group(group, columns=[_image_column(table, path, column)]).column(0)


def _open(file: Any) -> Any:
    """Return the opened file."""
    from pyarrow import parquet

    return parquet.ParquetFile(file)


@contextlib.contextmanager
def _words(where: str) -> Iterator[None]:
    """Turn errors of pyarrow into a DataError, and its absence into a SpecError."""
    if not find_spec("pyarrow"):
        raise SpecError(f"'{where}' is a Parquet file: reading it needs pyarrow. pip install 'onsight[remote]'")
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).partition("\n")[0][:200]
        raise DataError(f"'{where}' is not a complete Parquet file ({reason})") from error


def _image_column(table: Any, where: str, asked: str | None) -> str:
    """Return the name of the column of images."""
    from pyarrow import types

    def holds_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    names = []
    for field in table.schema_arrow:
        inner = field.type.field("bytes").type if _has_bytes(field.type) else field.type
        if holds_bytes(inner):
            names.append(field.name)
    if asked and asked not in names:
        raise DataError(f"'{where}': {unknown_name('column of images', asked, names)}")
    if not names:
        shown = ", ".join(table.schema_arrow.names)[:200]
        raise DataError(
            f"'{where}' has no column of images: expected bytes, or {{bytes, path}} as Hugging Face writes it; its "
            f"columns are {shown}"
        )
    usual = sorted(columns_named(names, IMAGE)) or list(range(len(names)))
    if not asked and len(usual) > 1:
        shown = " or ".join(names[place] for place in usual)
        raise DataError(f"'{where}': the images could be in {shown}: choose one with --path-column")
    return asked or names[usual[0]]


def _has_bytes(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def _label_column(table: Any, where: str, reading: Reading) -> str:
    """Return the name of the column of labels."""
    names = [name for name in table.schema_arrow.names if name]
    asked = reading.label_column
    if asked and asked not in names:
        raise DataError(f"'{where}': {unknown_name('column', asked, names)}")
    found = [asked] if asked else [names[place] for place in columns_named(names, LABEL)] or list(_class_names(table))
    if len(found) != 1:
        shown = f"could be in {' or '.join(found)}" if found else f"are missing among {', '.join(names)[:200]}"
        raise DataError(f"'{where}': the labels {shown}: choose their column with --label-column")
    return str(found[0])


def _class_names(table: Any) -> dict[str, list[str]]:
    """Return {column: names of its classes}, from Hugging Face's metadata."""
    try:
        features = json.loads((table.schema_arrow.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            str(column): [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _label(value: Any, names: list[str] | None) -> tuple[str | None, str]:
    """Return the label of a row, and why it has none."""
    if isinstance(value, str) and value.strip():
        return value.strip(), ""
    if isinstance(value, int) and not isinstance(value, bool):
        if names is None and value >= 0:
            return str(value), ""
        if names is not None and 0 <= value < len(names):
            return names[value], ""
    return None, f"has the label {str(value)[:40]!a}, which is no class"


def _content(value: Any) -> bytes | ImageError:
    """Return the bytes of an image, or why it cannot be used."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes) or not content:
        path = value.get("path") if isinstance(value, dict) else None
        return ImageError(f"The row holds no bytes{f', only the path {str(path)[:200]!a}' if path else ''}.")
    if len(content) > MAX_FILE:
        return ImageError(f"The image has {len(content):,} bytes: at most {MAX_FILE:,} are allowed.")
    return content
