"""Files that are either complete or absent: atomic writes, checksums, and the location of the cache."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from onsight.core.errors import SpecError
from onsight.core.text import plain

if TYPE_CHECKING:
    import numpy as np

# What a file system answers that has no locks, or cannot make a folder durable.
UNSUPPORTED = {getattr(errno, kind) for kind in ("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "ENOLCK")
               if hasattr(errno, kind)}  # fmt: skip
LARGEST = 256 << 20  # bytes of a file of a run: dataset.json of a million images has 100 MB


def expanded(path: str | Path) -> Path:
    """Return a path with ~ expanded. Unlike `Path.expanduser`, return it unchanged for an unknown user."""
    return Path(os.path.expanduser(path))


def is_address(data: str | Path) -> bool:
    """Return whether `data` is the address of files elsewhere, like s3://bucket/photos, and no path or name."""
    return isinstance(data, str) and re.match(r"[a-z][a-z0-9+.-]+://", data) is not None


def located(data: str) -> str:
    """Return a path as it is valid from every folder, and an address unchanged."""
    return data if is_address(data) else os.path.realpath(expanded(data))


def from_here(path: str | Path) -> str:
    """Return a path as it is valid from the current folder: relative if it lies in that folder, otherwise absolute."""
    if is_address(path):
        return str(path)
    full, here = Path(os.path.abspath(expanded(path))), Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(full)


def argument(path: str | Path) -> str:
    """Return a path as an argument of a command that the user can paste where they stand."""
    text = from_here(path)
    return plain(shlex.quote(f".{os.sep}{text}" if text.startswith("-") else text))


def cache_folder() -> Path:
    """Return the folder for downloads and decoded images: `ONSIGHT_CACHE`, or the user's cache folder."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("ONSIGHT_CACHE")
    return expanded(chosen) if chosen else user_cache_path("onsight", appauthor=False)


def temporary_sibling(path: Path) -> Path:
    """Return an unused name in the folder of `path`, on the same file system, so that a rename is atomic."""
    return path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.partial")


def leftovers(path: Path) -> list[Path]:
    """Return what lies beside `path` under names of `temporary_sibling`: killed processes may have left it."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.*.partial"))


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` so that `path` holds either its old content or all of the new, even after a power cut."""
    data = content.encode() if isinstance(content, str) else content
    write_file(path, lambda file: file.write(data))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines as they come; the file appears, or is replaced, once all are written."""
    write_file(path, lambda file: file.writelines(encoded(lines)))


def encoded(lines: Iterable[str]) -> Iterator[bytes]:
    """Yield lines as bytes, whatever names of files are in them."""
    return (f"{line}\n".encode(errors="backslashreplace") for line in lines)


def write_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` write a file piece by piece; it appears, or is replaced, once all is written."""
    partial = temporary_sibling(path)
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_folder(new: Path, folder: Path) -> None:
    """Rename the folder `new` to `folder`, which may exist already. If this is killed, `restore_folder` repairs it."""
    restore_folder(folder)
    old = _aside(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Put back what a killed `replace_folder` has moved aside, if that can be done."""
    if not folder.exists():
        with contextlib.suppress(OSError):
            _aside(folder).rename(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def remove_folder(folder: Path) -> None:
    """Remove a folder, so that it is there as a whole or not at all, also if this is killed; and what was left then."""
    aside = temporary_sibling(folder)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
    for left in leftovers(folder):
        shutil.rmtree(left, ignore_errors=True)
    if folder.parent.is_dir():
        sync_folder(folder.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Raises ValueError for NaN and infinity."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable (Windows does this by itself and cannot open a folder)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:  # this file system does it by itself, or not at all
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a file that another library wrote durable."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def create_mapped(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap:
    """Return a new memory-mapped .npy file of zeros whose disk space is allocated at once.

    Otherwise a disk that fills up while the file is mapped would kill the process.
    """
    import numpy as np

    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "rb+") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    return array


def is_disk_full(error: OSError) -> bool:
    """Return whether a write failed because the disk or a quota is full. safetensors reports this only in words."""
    full = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
    return error.errno in full or any(words in str(error) for words in ("No space left", "not enough space"))


def is_storage_failure(error: OSError) -> bool:
    """Return whether a disk or a network file system failed."""
    kinds = ("EIO", "ESTALE", "ENODEV", "ENXIO", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENOTCONN", "EREMOTEIO")
    return error.filename is not None and error.errno in {getattr(errno, kind, None) for kind in kinds}


@contextlib.contextmanager
def file_lock(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock of a file. The operating system releases it even after a crash.

    Args:
        path: the file, which is created.
        timeout: seconds to wait for it; -1: for ever.

    Raises:
        filelock.Timeout: another process holds it.
        SpecError: the file system has no locks.
    """
    from filelock import FileLock  # imported here: it would take a tenth of the time of one prediction

    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        raise SpecError(
            f"The file system of {path.parent} has no file locks, which keep two processes from the same work. Use a "
            "folder on another one: ONSIGHT_CACHE names the folder of the cache, ONSIGHT_RUNS that of the runs."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def alone(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock of a file. Raise SpecError if another process holds it, which then is `doing` the same."""
    from filelock import Timeout

    try:
        with file_lock(path, timeout=0):
            yield
    except Timeout:
        raise SpecError(f"Another process is {doing}. Wait until it ends, or stop it.") from None


def is_user_fixable(error: OSError) -> bool:
    """Return whether an error concerns a path or permission of the user rather than this program."""
    kinds = ("EACCES", "EPERM", "EROFS", "ENAMETOOLONG", "ELOOP", "ENOTDIR", "EISDIR", "EEXIST")
    return error.filename is not None and error.errno in {getattr(errno, kind) for kind in kinds}


def check_target(path: Path) -> None:
    """Raise SpecError if no file can be written to `path`, before any work whose result would be lost."""
    if path.is_dir():
        raise SpecError(f"'{path}' is a folder; expected the name of a file to write.")
    if not path.parent.is_dir():
        raise SpecError(f"'{path}' cannot be written: there is no folder '{path.parent}'. Create it first.")


def create_folder(path: Path) -> None:
    """Create a folder and its parents, if they are missing, so that a power cut keeps them."""
    missing = list(takewhile(lambda each: not each.exists(), (path, *path.parents)))
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def make_folder(path: Path) -> None:
    """Create a folder as `create_folder` does. Raise SpecError if that is impossible."""
    try:
        create_folder(path)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise SpecError(f"The folder '{path}' cannot be created: {error.strerror}.") from None


def numbered_folder(root: Path, name: str) -> Path:
    """Create a folder in `root`, called `name` and the number after the highest there, and return its path.

    Letters that are not safe in a file name become hyphens. No two processes get the same folder.
    """
    make_folder(root)
    taken = [int(match[1]) for path in root.iterdir() if (match := re.fullmatch(r".*-(\d{4,})", path.name))]
    number = max(taken, default=0) + 1
    while True:
        folder = root / f"{re.sub(r'[^A-Za-z0-9._]+', '-', name).strip('-.') or 'unnamed'}-{number:04d}"
        try:
            folder.mkdir()
            sync_folder(root)
            return folder
        except FileExistsError:  # another process took the number a moment ago
            number += 1


def read_regular(path: Path, most: int = LARGEST) -> bytes:
    """Return the content of a file that anyone may have put there.

    Raises:
        OSError: it is missing, cannot be read, or is no regular file: one would wait for a pipe, and a device
            may never end.
        ValueError: it has more than `most` bytes.
    """
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content


def stamp(status: os.stat_result) -> str:
    """Return what changes when a file is written or replaced.

    A program can set size and modification time as they were; the time of the change itself and the inode it cannot.
    """
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def read_json(path: Path, most: int = LARGEST) -> Any:
    """Return the value in a JSON file that anyone may have put there.

    Raises:
        OSError: as `read_regular`.
        ValueError: it is too large, or no JSON.
    """
    try:
        return json.loads(read_regular(path, most))
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file, without lines that a crash damaged. A missing file has none."""
    lines = []
    with contextlib.suppress(FileNotFoundError):
        for line in read_regular(path).split(b"\n"):
            with contextlib.suppress(ValueError, RecursionError):
                value = json.loads(line)
                if isinstance(value, dict):
                    lines.append(value)
    return lines


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    return checksum(path, "SHA-256")


def checksum(path: Path, kind: str) -> str:
    """Return the SHA-256 or MD5 of a file in hexadecimal digits. MD5 is only for files published without a SHA-256."""
    hashes = {"SHA-256": hashlib.sha256, "MD5": lambda: hashlib.md5(usedforsecurity=False)}
    with open(path, "rb") as file:
        return hashlib.file_digest(file, hashes[kind]).hexdigest()


def now() -> str:
    """Return the current time as ISO 8601 in UTC, to the microsecond. `latest` sorts runs by it."""
    return datetime.now(UTC).isoformat()
