"""Download one large file: resume it where it broke off, check it, and rename it into place last."""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from onsight.core import files
from onsight.core.errors import DownloadError
from onsight.core.text import count

PAUSE = 0.5  # seconds before the second attempt, doubled before each further one
CHUNK = 1 << 18  # bytes: the most that one read returns
PROGRESS = 1 << 20  # bytes: an attempt that received this much does not count as failed
LEAST, WINDOW = 1024, 30.0  # bytes per second below which a server counts as stalled, over so many seconds
HEADERS = {"User-Agent": "onsight", "Accept-Encoding": "identity"}
WORTH_RETRYING = {408, 416, 425, 429, 500, 502, 503, 504}  # HTTP status codes


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    remedy: str = "",
    progress: Callable[[int, int], None] | None = None,
    timeout: float = 5.0,
    attempts: int = 4,
    within: float | None = None,
    magic: bytes = b"",
) -> Path:
    """Download `url` to `target` and return `target`.

    `target` is only ever complete, with the given checksum, or absent. When a download breaks off, the bytes received
    stay in `target` + ".partial", and the next download resumes there. It starts from the beginning if neither a
    checksum nor the server can show that the two pieces belong together.
    Two processes that want the same file take turns: the second one finds the file in place.

    Args:
        url: An http or https address. Up to 5 redirects are followed, never from https to http.
        target: Path of the file. An existing file with the right checksum is kept, and nothing is downloaded.
        sha256: SHA-256 of the whole file, 64 hexadecimal digits. None if nobody has published it: then the checksum of
            the first download is kept in `target` + ".sha256", and later downloads must have the same one.
        md5: MD5 of the whole file, if only that was published.
        size: Size of the whole file in bytes; None if only the server knows it.
        remedy: What to do if the download fails, for the error message; by default, how to use a copy of a data set.
        progress: Called with (bytes so far, bytes in total).
        timeout: Seconds without a byte after which the server counts as stalled.
        attempts: The download fails after this many failed attempts in a row that received less than 1 MiB each. Bytes
            count that no earlier attempt had reached.
        within: Seconds after which the download is given up, for one that the user did not ask for; None: no limit.
        magic: What the file begins with, for one whose checksum nobody has published.

    Raises:
        DownloadError: The message has the reason, and how to go on with a file obtained by other means.
    """
    remedy = remedy or f"Put {target.name} in a folder and pass --data-dir FOLDER (or set ONSIGHT_DATA)."
    kind, published = ("MD5", md5) if md5 else ("SHA-256", sha256)
    check_scheme(url)
    until = None if within is None else time.monotonic() + within
    partial = target.with_name(target.name + ".partial")
    try:
        files.create_folder(target.parent)
        with files.file_lock(target.with_name(target.name + ".lock")):
            note = target.with_name(target.name + ".sha256")
            for left in files.leftovers(note):  # of a killed process: we hold the lock, so nobody else is writing
                left.unlink(missing_ok=True)
            first = published is None and not note.is_file()
            expected = note.read_text() if published is None and not first else published
            if target.is_file() and files.checksum(target, kind) == expected:
                return target
            if size is None:
                size = _length(url, timeout, attempts)
            if not size:
                raise DownloadError(f"{url} is empty: it has 0 bytes.")
            if first and not _held_version(partial):  # nothing could show that the partial file is wrong
                partial.unlink(missing_ok=True)
            resumed = partial.exists()
            _fetch(url, partial, size, progress, timeout, attempts, until)
            found = files.checksum(partial, kind)
            if found != expected and resumed and not first:
                # The partial file was left by an earlier run: download the whole file before blaming the server.
                partial.unlink()
                _fetch(url, partial, size, progress, timeout, attempts, until)
                found = files.checksum(partial, kind)
            if found != expected and not first:
                for each in (partial, _version(partial)):
                    each.unlink(missing_ok=True)
                earlier = "" if published else f" as in the first download (remove {note.name} to accept the new file)"
                raise DownloadError(
                    f"{url} sent a file with another checksum: expected {kind} {expected}{earlier}, got {found}. "
                    "The file was removed."
                )
            if first:
                _check_beginning(url, partial, magic)
                files.write_atomic(note, found)
            os.replace(partial, target)
            _version(partial).unlink(missing_ok=True)
            files.sync_folder(target.parent)
            return target
    except DownloadError as error:
        raise DownloadError(str(error), remedy) from error.__cause__
    except OSError as error:
        raise DownloadError(f"Could not write {target}: {error.strerror or error}.", remedy) from error


def _length(url: str, timeout: float, attempts: int, pause: float = PAUSE) -> int:
    """Return the size of the file in bytes, as the server reports it."""
    request = urllib.request.Request(url, headers=HEADERS)
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=timeout) as response:
            if response.length is None:
                raise DownloadError(f"{url} does not report its size, so an incomplete download could not be noticed.")
            return int(response.length)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in WORTH_RETRYING and attempts > 1:
            time.sleep(pause)
            return _length(url, timeout, attempts - 1, 2 * pause)
        raise DownloadError(f"{url} answered {error.code} {error.reason}.") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = _plain(getattr(error, "reason", error))
        raise DownloadError(f"Could not reach {urlsplit(url).hostname}: {reason}.") from error


def _check_beginning(url: str, partial: Path, magic: bytes) -> None:
    """Remove a file that does not begin with `magic`, and raise DownloadError."""
    with open(partial, "rb") as file:
        found = file.read(len(magic))
    if found != magic:
        for each in (partial, _version(partial)):
            each.unlink(missing_ok=True)
        raise DownloadError(f"{url} sent something else: it begins with {found!r}, expected {magic!r}. It was removed.")


def _fetch(
    url: str,
    partial: Path,
    size: int,
    progress: Callable[[int, int], None] | None,
    timeout: float,
    attempts: int,
    until: float | None,
) -> None:
    """Download until `partial` holds `size` bytes; give up after `attempts` failures in a row, or at `until`."""
    failed = 0
    began = most = _size(partial)
    now = most
    while now != size:
        try:
            _attempt(url, partial, size, progress, timeout, until)
            reason: Exception = ConnectionError(f"the connection ended after {_size(partial):,} of {size:,} bytes")
        except urllib.error.HTTPError as error:
            error.close()
            reason = error
            if error.code == 416:  # "range not satisfiable": `partial` is longer than the file on the server
                partial.unlink(missing_ok=True)
            elif error.code not in WORTH_RETRYING:
                raise DownloadError(f"{url} answered {error.code} {error.reason}.") from error
        except urllib.error.URLError as error:
            # The server was never reached. Without a network this fails at once, and retrying would look like a hang.
            if _size(partial) == began:
                raise DownloadError(f"Could not reach {urlsplit(url).hostname}: {_plain(error.reason)}.") from error
            reason = error
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            reason = error
        now = _size(partial)
        if now == size:
            break
        failed = 1 if now - most >= PROGRESS else failed + 1
        most = max(most, now)
        if failed >= attempts:
            raise DownloadError(
                f"{url} broke off {count(failed, 'time')}: {_plain(reason)}; {now:,} of {size:,} bytes are kept."
            )
        time.sleep(PAUSE * 2 ** (failed - 1))


def _attempt(
    url: str,
    partial: Path,
    size: int,
    progress: Callable[[int, int], None] | None,
    timeout: float,
    until: float | None,
) -> None:
    """Request the bytes that `partial` lacks, once, and append them; the response may end early without an error."""
    held, version = _size(partial), _held_version(partial)
    headers = dict(HEADERS)
    if held:
        headers["Range"] = f"bytes={held}-"
        if version:
            headers["If-Range"] = version
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.build_opener(_Redirects).open(request, timeout=timeout) as response:
        # A weak ETag (W/) promises the same meaning, not the same bytes: it does not allow joining two pieces.
        etag = response.headers.get("ETag", "")
        if response.status == 206:
            span = re.match(r"bytes (\d+)-\d+/(\d+|\*)$", response.headers.get("Content-Range", ""))
            if not span or int(span[1]) != held:
                partial.unlink(missing_ok=True)
                raise http.client.HTTPException("the server sent another range than the requested one")
            if version and etag and etag != version:
                partial.unlink(missing_ok=True)
                raise http.client.HTTPException("the file on the server has changed since the download began")
            offered = None if span[2] == "*" else int(span[2])
        else:
            held = 0  # the server cannot resume, or has a new version: it sends the whole file
            offered = response.length
        if offered is not None and offered != size:
            kind = response.headers.get_content_type()
            raise DownloadError(
                f"{response.url} offers {offered:,} bytes of {kind}, expected {size:,}: it is not the right file."
            )
        if not held:  # remove the old bytes before the new version is recorded
            partial.unlink(missing_ok=True)
        if etag.startswith('"'):
            files.write_atomic(_version(partial), etag)
        else:
            _version(partial).unlink(missing_ok=True)
        with open(partial, "ab" if held else "wb") as file:
            since, before = time.monotonic(), held
            while chunk := _receive(response):
                held += len(chunk)
                if (passed := time.monotonic() - since) >= WINDOW:
                    if held - before < LEAST * passed:
                        raise ConnectionError(f"it sends fewer than {LEAST:,} bytes per second")
                    since, before = time.monotonic(), held
                if until is not None and time.monotonic() > until:
                    raise DownloadError(
                        f"{response.url} is slow: {held:,} of {size:,} bytes came in time and are kept."
                    )
                if held > size:
                    file.truncate(0)
                    raise DownloadError(f"{response.url} sent more than the expected {size:,} bytes.")
                file.write(chunk)
                if progress:
                    progress(held, size)
            file.flush()
            os.fsync(file.fileno())


def _version(partial: Path) -> Path:
    """Return the path that keeps the ETag of `partial`: bytes that are added later must have the same one."""
    return partial.with_name(f"{partial.name}.etag")


def _held_version(partial: Path) -> str:
    """Return the strong ETag of the bytes in `partial`, or an empty string."""
    path = _version(partial)
    etag = path.read_text() if path.is_file() else ""
    return etag if etag.startswith('"') else ""


def _receive(response: http.client.HTTPResponse) -> bytes:
    """Return the next bytes, empty at the end; raise `ConnectionError` on failure, to tell it from a disk error."""
    try:
        return response.read1(CHUNK)  # `read` waits for a full chunk and loses it if the connection breaks
    except OSError as error:
        raise ConnectionError(_plain(error)) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow up to 5 redirects, to http and https only, and never from https to http."""

    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            check_scheme(newurl, after=req.full_url)
        except DownloadError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any) -> Any:
        """Follow a redirect, whose address may be malformed."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError as error:
            fp.close()
            raise DownloadError(f"{req.full_url} redirects to a malformed address ({error}).") from error

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def check_scheme(url: str, after: str = "http:") -> None:
    """Raise DownloadError unless `url` is https, or is http and not the target of a redirect from https (`after`)."""
    scheme = urlsplit(url).scheme
    if scheme != "https" and (scheme != "http" or urlsplit(after).scheme == "https"):
        raise DownloadError(
            f"'{url}' is refused: it must begin with https:// (or with http://, unless https redirects to it)."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _plain(reason: object) -> str:
    """Return an exception's message, without its error number."""
    return (isinstance(reason, OSError) and reason.strerror) or str(reason) or type(reason).__name__
