"""What the archives of data sets have in common: a checksum that is remembered, and a few members that are wanted."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Self

from onsight.core.errors import DataError
from onsight.core.files import cache_folder, checksum, sync_folder, temporary_sibling, write_atomic

LONGEST_HEADER = 1 << 20  # bytes
HEADERS = b"xgXLK"  # types of members: pax (x, g, and X of Solaris), and GNU's long names of files (L) and links (K)


def unpack(archive: Path, wanted: Mapping[str, range], folder: Path, *, most: int) -> None:
    """Write the members of a .tar.gz that are wanted to `folder`, under the names that we know them by.

    The other members are passed over, and none decides where anything is written. What is there already is kept, and
    nothing comes to it from an archive that turns out to be damaged.

    Args:
        archive: the .tar.gz.
        wanted: each file's name, and the sizes in bytes that it may have.
        folder: where they go.
        most: bytes that the archive may inflate to; it is read to its end, where the compression's checksum is.

    Raises:
        DataError: the archive is damaged, inflates to too much, lacks a file or has it in another size; or `folder`
            cannot be written.
    """
    missing = {name for name in wanted if not (folder / name).is_file()}
    if not missing:
        return
    partial = temporary_sibling(folder)
    try:
        partial.mkdir(parents=True)
        with _Limited(archive, most) as stream:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20, tarinfo=_Member) as tar:
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
                if not (folder / path.name).is_file():  # another process may have been here
                    os.replace(path, folder / path.name)
            sync_folder(folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"'{archive}' is not a whole .tar.gz ({error}): get it again") from error
    except OSError as error:
        raise DataError(f"'{archive}' cannot be unpacked to '{folder}': {error} (ONSIGHT_CACHE moves it)") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if missing:
        raise DataError(f"'{archive}' lacks {', '.join(sorted(missing))}: is it the official archive?")


class _Member(tarfile.TarInfo):
    """A header, of which the kinds that tarfile reads whole (long names, pax) must not be long."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size > LONGEST_HEADER and member.type in HEADERS:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member


class _Limited(gzip.GzipFile):
    """A compressed file that ends in an error when little of it inflates to very much."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path)
        self.most, self.left = most, most

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(size)
        self.left -= len(chunk)
        if self.left < 0:
            raise DataError(f"'{self.name}' inflates to more than {self.most:,} bytes: not the official archive")
        return chunk


def checksum_of(path: Path, kind: str) -> str:
    """Return a file's SHA-256 or MD5 in hexadecimal digits, remembered in the cache by (path, size, time of change)."""
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{kind}"
    note = cache_folder() / "checksums" / hashlib.sha256(os.fsencode(key)).hexdigest()
    if note.is_file():
        return note.read_text()
    found = checksum(path, kind)
    # A file that was written just now could change again within the clock's grain and look the same.
    if time.time_ns() - stat.st_mtime_ns > 2_000_000_000:
        with contextlib.suppress(OSError):  # where the cache cannot be written, the next start counts again
            note.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(note, found)
    return found
