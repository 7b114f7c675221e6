"""Archives of data sets: unpack a few wanted members of a .tar.gz, and cache the checksums of files."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Self

from onsight.core.errors import DataError
from onsight.core.files import cache_folder, checksum, stamp, sync_folder, temporary_sibling, write_atomic

LONGEST_HEADER = 1 << 20  # bytes
MAX_DEPTH, MAX_PATH = 32, 1000  # folders above a file in an archive, and bytes of its path
HEADERS = b"xgXLK"  # member types: pax headers (x, g, and Solaris's X), GNU long names of files (L) and of links (K)


def unpack(archive: Path, wanted: Mapping[str, range], folder: Path, *, most: int) -> None:
    """Unpack the wanted members of a .tar.gz into `folder`, under their names in `wanted`.

    Other members are skipped. No path in the archive decides where a file is written. Files that are already in
    `folder` are kept. A damaged archive adds nothing to `folder`.

    Args:
        archive: the .tar.gz.
        wanted: each file's name, and the sizes in bytes that it may have.
        folder: the folder for the files.
        most: the most bytes that the archive may inflate to. The archive is read to its end, because the checksum of
            the compressed data is there.

    Raises:
        DataError: the archive is damaged, inflates to more than `most`, or lacks a wanted file or has it in another
            size; or `folder` cannot be written.
    """
    missing = {name for name in wanted if not (folder / name).is_file()}
    if not missing:
        return
    partial = temporary_sibling(folder)
    try:
        partial.mkdir(parents=True)
        with _Limited(archive, most) as stream:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20, tarinfo=ShortHeader) as tar:
                while member := tar.next():
                    name = PurePosixPath(member.name).name
                    content = tar.extractfile(member) if name in missing and member.isreg() else None
                    if content:
                        if member.size not in wanted[name]:
                            raise DataError(
                                f"'{archive}': {name} has {member.size:,} bytes, expected "
                                f"{'at most ' if len(wanted[name]) > 1 else ''}{wanted[name][-1]:,}"
                            )
                        write_atomic(partial / name, content.read())
                        missing.remove(name)
            while stream.read(1 << 20):
                pass
        if not missing:
            folder.mkdir(exist_ok=True)
            for path in partial.iterdir():
                if not (folder / path.name).is_file():  # another process may have written it
                    os.replace(path, folder / path.name)
            sync_folder(folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"'{archive}' is not a complete .tar.gz ({error}): download it again") from error
    except OSError as error:
        raise DataError(
            f"'{archive}' cannot be unpacked to '{folder}': {error} (set ONSIGHT_CACHE to use another folder)"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if missing:
        raise DataError(f"'{archive}' lacks {', '.join(sorted(missing))}: is it the official archive?")


def path_refusal(path: str) -> str:
    """Return why an archive with this path of a file (or of a folder, without "/" at its end) is refused, or ""."""
    pieces = path.split("/")
    if "\0" in path or "\\" in path or re.match("[A-Za-z]:", path) or {"", ".", ".."} & {*pieces}:
        return "is not a plain relative path"
    if len(pieces) > MAX_DEPTH + 1 or len(path.encode(errors="surrogateescape")) > MAX_PATH:
        return f"is too deep or too long: at most {MAX_DEPTH} folders and {MAX_PATH:,} bytes are allowed"
    return ""


class ShortHeader(tarfile.TarInfo):
    """A tar header that must be short if tarfile would read its data into memory whole (long names, pax)."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block, as `TarInfo.frombuf` does."""
        member = super().frombuf(buf, encoding, errors)
        if member.size > LONGEST_HEADER and member.type in HEADERS:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes, expected at most {LONGEST_HEADER:,}")
        return member


class _Limited(gzip.GzipFile):
    """A gzip file that raises an error when it inflates to more than `most` bytes, as a decompression bomb does."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path)
        self.most, self.left = most, most

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(size)
        self.left -= len(chunk)
        if self.left < 0:
            raise DataError(f"'{self.name}' inflates to more than {self.most:,} bytes: it is not the official archive")
        return chunk


def checksum_of(path: Path, kind: str) -> str:
    """Return a file's SHA-256 or MD5 in hexadecimal digits, cached by its path and stamp."""
    status = path.stat()
    key = f"{path.resolve()}|{stamp(status)}|{kind}"
    note = cache_folder() / "checksums" / hashlib.sha256(os.fsencode(key)).hexdigest()
    if note.is_file():
        return note.read_text()
    found = checksum(path, kind)
    # A file written just now could change again within the resolution of the clock: same size and time, other bytes.
    if time.time_ns() - status.st_mtime_ns > 2_000_000_000:
        with contextlib.suppress(OSError):  # without a writable cache, the next start computes it again
            note.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(note, found)
    return found
