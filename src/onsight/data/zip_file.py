"""A zip of a folder of images -> `Dataset`, without extracting anything.

A zip may come from anyone. Its members are listed and checked once, and then read in place. No name in the zip decides
where a byte is written, and every limit is enforced again while inflating.
"""

from __future__ import annotations

import io
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from onsight.core.errors import DataError, ImageError
from onsight.data.archive import path_refusal
from onsight.data.dataset import Dataset
from onsight.data.folder import arrange, below, is_image, is_within_hidden
from onsight.data.folder_layout import needless_levels
from onsight.data.reading import AUTOMATIC, Reading

MAX_MEMBERS = 200_000
MAX_TOTAL = 4 << 30  # bytes, inflated
MAX_MEMBER = 32 << 20  # bytes, inflated
MAX_RATIO = 200  # inflated to compressed
MAX_DIRECTORY = 64 << 20  # bytes of the list of members: room for 200,000 names of 280 characters
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".jar")
ENCRYPTED = 0x2041  # flag bits: encrypted, strongly encrypted, with an encrypted directory


class Member(NamedTuple):
    """Where an image lies in a zip, and the size and checksum that it must have when inflated."""

    offset: int  # of the member's own header
    compressed: int  # bytes
    size: int  # bytes
    method: int
    crc: int


def read_zip(path: Path, complete: bool = True, reading: Reading = AUTOMATIC) -> Dataset:
    """List the images in the zip at `path`, which holds a folder that `read_folder` accepts, or its contents.

    Raises:
        DataError: The zip has another layout, or holds something that no honest zip of images holds.
    """
    path = path.resolve()
    members, folders = _list(path)
    prefix = needless_levels(folders, reading.layout)
    members, folders = below(prefix, members), {*below(prefix, dict.fromkeys(folders))}
    stamps = _stamps(members)
    return arrange("zip", path.stem, stamps, folders, partial(read_member, path, members), complete, reading)


def find_images(path: Path) -> tuple[dict[str, str], set[str], Callable[[str], bytes]]:
    """Return {path: stamp} of the images in a zip, the paths of all folders in it, and what reads an image.

    Raises:
        DataError: The zip holds something that no honest zip of images holds.
    """
    members, folders = _list(path)
    return _stamps(members), folders, partial(read_member, path, members)


def _stamps(members: dict[str, Member]) -> dict[str, str]:
    return {name: f"{member.size} {member.crc}" for name, member in members.items()}


def read_member(path: Path, members: dict[str, Member], name: str) -> bytes:
    """Return the inflated bytes of the member `name` of the zip at `path`.

    Each call opens the file itself: processes cannot share an open `ZipFile`, and if each opened its own, it would list
    up to 200,000 members again.

    Raises:
        ImageError: The member is damaged; the message is the reason without the path.
    """
    member = members[name]
    try:
        with open(path, "rb") as file:
            file.seek(member.offset)
            header = file.read(30)  # it ends with the lengths of the name and of the extra field, which follow it
            if header[:4] != b"PK\3\4" or len(header) < 30:
                raise ImageError("is not where the zip says: the zip is damaged, or has changed since it was listed")
            file.seek(sum(struct.unpack("<26x2H", header)), io.SEEK_CUR)
            content = file.read(member.compressed)
        if member.method == zipfile.ZIP_DEFLATED:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    except zlib.error as error:
        raise ImageError(f"is damaged in the zip: {error}") from error
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise ImageError("is damaged in the zip: its size or checksum differs")
    return content


def _list(path: Path) -> tuple[dict[str, Member], set[str]]:
    """Return {path: member} of the images in a zip, and the paths of all folders, without hidden ones."""
    try:
        with _Capped(path) as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
        raise DataError(f"'{path.name}' cannot be read as a zip: {error}") from error
    if len(infos) > MAX_MEMBERS:
        raise DataError(f"'{path.name}' has {len(infos):,} members: at most {MAX_MEMBERS:,} are allowed")
    total = sum(info.file_size for info in infos)
    if total > MAX_TOTAL:
        raise DataError(f"'{path.name}' inflates to {total:,} bytes: at most {MAX_TOTAL:,} are allowed")

    members: dict[str, Member] = {}
    spelled: dict[str, str] = {}  # case-folded path -> the path as spelled, a folder's with "/" at its end
    for info in infos:
        name = info.orig_filename  # as stored in the zip; zipfile has already cleaned `filename`
        refusal = _refusal(info) or _clash(name, members, spelled)
        if refusal:
            raise DataError(f"'{path.name}' is refused: {name[:200]!a} {refusal}")
        if not name.endswith("/"):
            members[name] = Member(info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)
    images = {name: member for name, member in members.items() if is_image(name) and not is_within_hidden(name)}
    folders = {name[:-1] for name in spelled.values() if name.endswith("/") and not is_within_hidden(name)}
    return images, folders


def _refusal(info: zipfile.ZipInfo) -> str:
    """Return why a zip with this member is refused, or an empty string."""
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if refusal := path_refusal(name.removesuffix("/")):
        return refusal
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & ENCRYPTED:
        return "is encrypted"
    if name.lower().endswith(ARCHIVES):
        return "is an archive itself"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed with method {info.compress_type}: zip the files again with the usual method, deflate"
    if max(info.file_size, info.compress_size) > MAX_MEMBER:
        return f"has {info.file_size:,} bytes: at most {MAX_MEMBER:,} are allowed"
    if info.file_size > MAX_RATIO * info.compress_size:
        return (
            f"inflates from {info.compress_size:,} to {info.file_size:,} bytes: at most {MAX_RATIO} times as many are "
            "allowed"
        )
    return ""


def _clash(name: str, members: dict[str, Member], spelled: dict[str, str]) -> str:
    """Add `name` and the folders above it to `spelled`; return why `name` is refused, or an empty string."""
    pieces = name.removesuffix("/").split("/")
    paths = ["/".join(pieces[:length]) + "/" for length in range(1, len(pieces))] + [name]
    for path in paths:
        known = spelled.setdefault(unicodedata.normalize("NFC", path.rstrip("/")).casefold(), path)
        if known != path:
            return f"and {known[:200]!a} are the same file on some systems"
    return "appears twice" if name in members else ""


class _Capped(io.FileIO):
    """A file that refuses a huge read: `ZipFile` reads the whole list of members at once, however large it is."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise DataError(
                f"'{self.name}' has a list of members of {size:,} bytes: at most {MAX_DIRECTORY:,} are allowed"
            )
        return super().read(-1 if size is None else size) or b""
