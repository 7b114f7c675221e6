"""Tar files with images: which images and labels they hold, and what reads them. Nothing is extracted.

In WebDataset's format, files that follow each other and have the same name up to its first dot are one sample:
`0001.jpg` and its label, `0001.cls`, `0001.json` or `0001.txt`. A tar may come from anyone. No name in it decides where
a byte is written, and nothing large is read before its size is known.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from onsight.core.errors import DataError, ImageError
from onsight.data.archive import ShortHeader, path_refusal
from onsight.data.folder import MAX_FILE, Sample, is_hidden, is_image
from onsight.data.table import LABEL

MAX_MEMBERS = 1_000_000  # of a tar
MAX_SIZE = 1 << 40  # bytes of a member
MAX_LABEL = 1 << 20  # bytes of a file with a label
LABELS = ("cls", "json", "txt")  # the endings of files with labels, the first wins


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int  # of its first byte
    size: int
    refusal: str  # why it must not be read, or ""

    @property
    def key(self) -> str:
        """The name up to the first dot of its last piece: that of the sample."""
        folder, slash, last = self.name.rpartition("/")
        return folder + slash + last.partition(".")[0]

    @property
    def stem(self) -> str:
        """The name up to its last dot: longer than the key for 0001.seg.png, and for names with dates."""
        return self.name.rpartition(".")[0]

    @property
    def ending(self) -> str:
        """What follows the key, in lower case, without a dot."""
        return self.name.removeprefix(self.key)[1:].lower()


def stream(file: IO[bytes], where: str) -> Iterator[tuple[str, bytes | ImageError]]:
    """Yield the name and the bytes of each image of a tar, or why the image cannot be used.

    Raises:
        DataError: the tar is damaged.
    """
    with _words(where):
        for sample in _samples(file, where):
            for image in _images(sample):
                yield image.name, ImageError(image.refusal) if image.refusal else _read(file, image)


def listed(path: Path) -> Iterator[Sample]:
    """Yield the images of the tar at `path`, with the labels that lie beside them.

    Raises:
        DataError: the tar is damaged, or holds something that no honest tar of images holds.
    """
    with open(path, "rb") as file, _words(path.name):
        for sample in _samples(file, path.name):
            for member in sample:
                if member.refusal:
                    raise DataError(f"'{path.name}' is refused: {member.name[:200]!a} {member.refusal}")
            beside = {member.name.lower(): member for member in sample if member.ending.endswith(LABELS)}
            for image in _images(sample):
                near = (f"{stem}.{ending}".lower() for stem in (image.stem, image.key) for ending in LABELS)
                label = next((text for name in near if (text := _label(file, beside.get(name)))), None)
                yield Sample(image.name, (image.offset, image.size), label)


def read(path: str, offset: int, size: int) -> bytes:
    """Return the bytes of an image of the tar at `path`.

    Raises:
        ImageError: they cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    if len(content) < size:
        raise ImageError("is not where it was: the tar has changed since it was listed")
    return content


def _samples(file: IO[bytes], where: str) -> Iterator[list[Member]]:
    """Yield the files of each sample of a tar, without hidden ones."""
    sample: list[Member] = []
    for member in _members(file, where):
        if sample and member.key != sample[0].key:
            yield sample
            sample = []
        sample.append(member)
    if sample:
        yield sample


def _members(file: IO[bytes], where: str) -> Iterator[Member]:
    end = 0
    with tarfile.open(fileobj=file, mode="r:", tarinfo=ShortHeader) as tar:
        for number, info in enumerate(iter(tar.next, None)):
            tar.members.clear()  # type: ignore[attr-defined]  # otherwise tarfile would keep them all
            if number == MAX_MEMBERS:
                raise DataError(f"'{where}' has more than {MAX_MEMBERS:,} members: divide it")
            if info.offset_data <= end or not 0 <= info.size <= MAX_SIZE:
                raise tarfile.ReadError(f"a size of {info.size:,} bytes")  # if negative, it would be read for ever
            end = info.offset_data
            name = info.name.removeprefix("./")
            if not info.isdir() and not any(is_hidden(piece) for piece in name.split("/") if piece != ".."):
                yield Member(name, info.offset_data, info.size, _refusal(info, name))


@contextlib.contextmanager
def _words(where: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise DataError(f"'{where}' is not a complete, uncompressed tar ({error})") from error


def _refusal(info: tarfile.TarInfo, name: str) -> str:
    if not info.isreg() or info.issparse():
        return "is a link, a device or a sparse file"
    if refusal := path_refusal(name):
        return refusal
    if info.size > MAX_FILE:
        return f"has {info.size:,} bytes: at most {MAX_FILE:,} are allowed"
    return ""


def _read(file: IO[bytes], member: Member) -> bytes:
    file.seek(member.offset)
    content = file.read(member.size)
    if len(content) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    return content


def _images(sample: list[Member]) -> list[Member]:
    """Return the images of a sample: not its masks, like 0001.seg.png, if it has an image of its own name."""
    images = [member for member in sample if is_image(member.name)]
    return [member for member in images if "." not in member.ending] or images


def _label(file: IO[bytes], member: Member | None) -> str:
    """Return the label in a file that lies beside an image, or "" if there is none."""
    if member is None or member.size > MAX_LABEL:
        return ""
    text = _read(file, member).decode("utf-8", "replace").strip()
    if not member.name.lower().endswith(".json"):
        return text
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
        if isinstance(value, dict):
            value = next((value[key] for key in LABEL if key in value), None)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value).strip()
    return ""
