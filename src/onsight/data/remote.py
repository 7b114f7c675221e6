"""Files at fsspec's addresses: s3://bucket/photos/, gs://, hf://, https://, and every other scheme that fsspec knows.

Credentials come from where each service's own package looks for them, never from the address: a run records its
address. Whatever fails for a moment is tried again; the rest becomes an error in words.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from onsight.core.errors import DataError, DownloadError, ImageError, OnsightError, SpecError
from onsight.core.files import cache_folder, file_lock, is_address, is_disk_full, stamp, sync_folder
from onsight.core.progress import Progress
from onsight.data.folder import MAX_FILE

Result = TypeVar("Result")
MAX_SHARD = 64 << 30  # bytes of a shard whose size the server does not say
BLOCK = 8 << 20  # bytes per request
ATTEMPTS = 3
PAUSE = 0.5  # seconds before the second attempt, doubled before the third
# Schemes whose address names a host, rather than a bucket.
HOSTS = {"http", "https", "ftp", "sftp", "ssh", "smb", "webdav", "webhdfs", "hdfs"}
# Schemes of fsspec that read this machine, or wrap other addresses.
LOCAL = {"file", "local", "asynclocal", "zip", "tar", "libarchive", "git", "reference", "dir", "data", "jupyter",
         "cached", "filecache", "blockcache", "simplecache", "generic", "asyncwrapper", "async_wrapper"}  # fmt: skip
METADATA = {"metadata.google.internal", "metadata.goog", "100.100.100.200", "fd00:ec2::254"}
SECRET = re.compile(r"(?i)(sig|token|key|secret|passw|credential)[^&=]*=")
CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE; for public data, FSSPEC_S3_ANON=true",
    "gs": "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "Set HF_TOKEN, or run `hf auth login`",
    "abfs": "Set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING",
}
STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "LastModified", "last_modified", "mtime", "created")


class Entry(NamedTuple):
    """A file at an address."""

    size: int | None  # bytes, if the service says it
    stamp: str  # changes when the file changes


def check_address(address: str) -> None:
    """Check that an address may be opened and recorded.

    Raises:
        SpecError: it holds credentials, names this machine, or a host that is never a store of images.
    """
    scheme, _, rest = address.partition("://")
    if "::" in re.sub(r"\[[^]]*]", "", address) or scheme in LOCAL:  # not that of an IPv6 host
        raise SpecError(f"'{scheme}://' is no address of files elsewhere: give the path, or the plain address.")
    parts = urlsplit(address)
    if parts.password is not None or SECRET.search(parts.query):
        raise SpecError(
            f"The address {scheme}://… holds credentials, which the run would record. Leave them out. "
            f"{CREDENTIALS.get(scheme, 'Give them as the package for this scheme documents')}."
        )
    host = (parts.hostname or "").rstrip(".")
    if not rest.strip("/"):
        raise SpecError(f"'{address}' names no bucket or folder.")
    known = [host]
    if scheme in HOSTS:
        with contextlib.suppress(OSError):  # a host that is unknown fails when it is opened
            known += [str(each[4][0]) for each in socket.getaddrinfo(host, None)]
    for each in known:
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(each.partition("%")[0]).is_link_local:
                each = "metadata.goog"
        if each.lower() in METADATA:
            raise SpecError(f"'{address}' is refused: {host} is an address of this machine's network, not of images.")


def _filesystem(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path of the address in it."""
    check_address(address)
    scheme = address.partition("://")[0]
    if not find_spec("fsspec"):
        raise SpecError(f"Reading {scheme}:// addresses needs fsspec. Install it: pip install 'onsight[remote]'")
    import fsspec
    from fsspec.registry import known_implementations

    try:
        return cast(tuple[Any, str], fsspec.core.url_to_fs(address, use_listings_cache=False))
    except ImportError:
        package = known_implementations[scheme]["class"].partition(".")[0]
        raise SpecError(
            f"Reading {scheme}:// addresses needs the package {package}. Install it: pip install {package}"
        ) from None
    except ValueError as error:
        if scheme in known_implementations:
            raise SpecError(f"'{address}' is no address that {scheme}:// has: {error}") from None
        raise SpecError(f"fsspec knows no addresses that begin with {scheme}://, as '{address}' does.") from None


def _tried(address: str, work: Callable[[Any, str], Result], attempts: int = ATTEMPTS) -> Result:
    """Return work(file system, path); what may pass is tried again.

    Raises:
        DataError: there is nothing at the address, or it may not be read.
        DownloadError: it failed every time.
    """
    for attempt in range(attempts):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            with words(address):
                return work(*_filesystem(address))
        except DownloadError:
            if attempt + 1 == attempts:
                raise
    raise AssertionError("unreachable")


@contextlib.contextmanager
def words(address: str) -> Iterator[None]:
    """Turn what fails while an address is read into a DataError, or into a DownloadError if it may pass."""
    scheme = address.partition("://")[0]
    hint = CREDENTIALS.get({"gcs": "gs", "s3a": "s3", "az": "abfs"}.get(scheme, scheme), "Check your credentials")
    try:
        yield
    except OnsightError:
        raise
    except FileNotFoundError:
        raise DataError(f"There is nothing at '{address}': no such bucket, folder or file.") from None
    except PermissionError as error:
        raise DataError(f"'{address}' may not be read ({_plain(error)}). {hint}.") from None
    except Exception as error:
        kind = type(error)
        if re.search("Credential|Token|Auth", kind.__name__):
            raise DataError(f"There are no valid credentials for '{address}' ({_plain(error)}). {hint}.") from None
        if kind.__module__ == "builtins" and not isinstance(error, OSError):
            raise  # a bug
        remedy = "Start the command again: what was decoded or downloaded is kept, and so are part files."
        raise DownloadError(f"'{address}' could not be read: {_plain(error)}.", remedy) from error


def _plain(error: Exception) -> str:
    """Return the first line of a message, without what could be a secret in it."""
    text = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    return re.sub(SECRET.pattern + r"[^&\s'\"]+", r"\1…", text).rstrip(".")


def listed(address: str) -> dict[str, Entry]:
    """Return {path below the address: entry} of all files there; of a single file, its name."""

    def find(system: Any, root: str) -> dict[str, Entry]:
        root = root.rstrip("/")
        found = system.find(root, detail=True)
        if not found:
            raise FileNotFoundError(address)
        return {
            path.removeprefix(root).lstrip("/") or path.rpartition("/")[2]: _entry(info) for path, info in found.items()
        }

    return _tried(address, find)


def matches(pattern: str) -> list[str]:
    """Return the addresses that a pattern names, sorted.

    Raises:
        DataError: it names nothing.
    """
    if not re.search(r"[*?\[]", pattern):
        return [pattern]
    scheme, _, rest = pattern.partition("://")
    start = f"{scheme}://{rest.partition('/')[0] if scheme in HOSTS else ''}"

    def find(system: Any, path: str) -> list[str]:
        found = [str(each) if scheme in HOSTS else str(each).lstrip("/") for each in system.glob(path)]
        return [each if is_address(each) else start + each for each in found]

    found = _tried(pattern, find)
    if not found:
        raise DataError(f"There is nothing at '{pattern}'.")
    return sorted(found)


def _entry(info: dict[str, Any]) -> Entry:
    size = info.get("size")
    mark = next((str(info[key]) for key in STAMPS if info.get(key)), "")
    return Entry(size if isinstance(size, int) else None, f"{size} {mark}".strip())


def entry(place: str) -> Entry:
    """Return the size and stamp of one file, local or at an address."""
    if is_address(place):
        return _tried(place, lambda system, path: _entry(system.info(path)))
    status = os.stat(place)
    return Entry(status.st_size, stamp(status))


def read(root: str, entries: dict[str, Entry], name: str) -> bytes:
    """Return the bytes of the file `name` below the address `root`.

    Raises:
        ImageError: it is gone, has changed since it was listed, or is too large.
        DownloadError: the service did not answer.
    """
    address, size = f"{root.rstrip('/')}/{name}", entries[name].size
    if size is not None and size > MAX_FILE:
        raise ImageError(f"is larger than {MAX_FILE >> 20} MiB")

    def get(system: Any, path: str) -> bytes:
        if size is not None:  # a range, because s3fs asks for the size of an object otherwise
            return cast(bytes, system.cat_file(path, start=0, end=size + 1)) if size else b""
        with system.open(path, "rb", block_size=0) as file:
            return cast(bytes, file.read(MAX_FILE + 1))

    try:
        content = _tried(address, get)
    except DownloadError:
        raise
    except DataError as error:
        raise ImageError(f"cannot be read: {error}") from None
    if size is not None and len(content) != size:
        raise ImageError(f"has changed since it was listed: {len(content):,} bytes, expected {size:,}")
    return content


@contextlib.contextmanager
def open_place(place: str) -> Iterator[IO[bytes]]:
    """Open a file on this machine or at an address, to be read from its beginning to its end."""
    if not is_address(place):
        try:
            file = open(place, "rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise DataError(f"'{place}' cannot be read: {error.strerror}") from error
        with file:
            yield file
        return
    with words(place):
        system, path = _filesystem(place)
        with system.open(path, "rb", block_size=BLOCK, cache_type="readahead") as file:
            yield file


def fetched(place: str, progress: Progress | None = None) -> tuple[Path, Entry]:
    """Return the path of a file on this machine, and its entry. One at an address is downloaded into the cache first.

    The bytes that were received stay when a download breaks off, and the next one goes on behind them.

    Raises:
        DataError: the file is gone, or the disk is full.
        DownloadError: the service did not answer.
    """
    size, stamped = found = entry(place)
    if not is_address(place):
        return Path(place), found
    name = place.rpartition("/")[2]
    folder = cache_folder() / "remote" / hashlib.sha256(f"{place} {stamped}".encode()).hexdigest()[:32]
    target, partial = folder / name, folder / f"{name}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / ".lock"):
        if not target.exists():
            if size is None:
                partial.unlink(missing_ok=True)  # nothing could show that it is complete
            _tried(place, lambda system, path: _append(system, path, partial, size, name, progress))
            os.replace(partial, target)
            sync_folder(folder)
    return target, found


def _append(system: Any, path: str, partial: Path, size: int | None, name: str, progress: Progress | None) -> None:
    """Append what `partial` lacks of a file."""
    with system.open(path, "rb", block_size=BLOCK, cache_type="none") as source, open(partial, "ab") as file:
        if file.tell():
            source.seek(file.tell())
        while chunk := source.read(BLOCK):
            try:
                file.write(chunk)
            except OSError as error:
                if is_disk_full(error):
                    raise DataError(
                        f"The disk that holds {partial.parent} is full, {file.tell():,} bytes into {name}. Make room, "
                        "or set ONSIGHT_CACHE to a folder elsewhere."
                    ) from None
                raise
            if file.tell() > (MAX_SHARD if size is None else size):
                partial.unlink()
                raise DataError(f"'{name}' sends more bytes than were listed: it has changed. Start again.")
            if progress:
                progress(f"downloading {name}", file.tell(), size)
        file.flush()
        os.fsync(file.fileno())
        if size is not None and file.tell() < size:
            raise ConnectionError(f"the connection ended after {file.tell():,} of {size:,} bytes")
