import hashlib
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from onsight.core.errors import DownloadError
from onsight.data import download as download_module
from onsight.data.download import download

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


class Server(ThreadingHTTPServer):
    """Serve CONTENT at every path, in the manner that the path names; `asked` logs (path, range, if-range)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        self.over = threading.Event()
        self.etag = '"1"'

    def handle_error(self, request, client_address):
        """Print nothing when the client disconnects: some tests do that on purpose."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        manner = self.path.strip("/")
        asked = self.server.asked
        asked.append((manner, self.headers.get("Range"), self.headers.get("If-Range")))
        first = len(asked) == 1
        if manner == "absent":
            self.send_error(404)
        elif manner == "busy" or (manner == "busy-once" and first):
            self.send_error(503)
        elif manner == "circle" or (manner == "moved" and first):
            self.redirect(manner)
        elif manner == "to-ftp":
            self.redirect("ftp://127.0.0.1/file")
        elif manner == "garbage":
            self.whole(bytes(len(CONTENT)))
        elif manner == "login-page":
            self.whole(b"<html>Please log in</html>", "text/html")
        elif manner == "to-nowhere":
            self.redirect("http://[half")
        elif manner == "empty":
            self.whole(b"")
        elif manner == "drip":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            for start in range(0, len(CONTENT), 7):
                self.wfile.write(CONTENT[start : start + 7])
                self.wfile.flush()
                if self.server.over.wait(0.05):
                    break
        elif manner == "never-more":  # breaks off, and answers the rest with 416
            if self.headers.get("Range"):
                self.send_error(416)
            else:
                self.send(CONTENT, 200, stop=HALF)
        elif manner == "endless":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT + b"more")
        elif manner == "deaf":
            self.send(CONTENT, 200, stop=HALF if first else None)
        elif manner == "elsewhere":
            self.send(CONTENT[7:], 206, {"Content-Range": f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}"})
        elif manner == "stubborn" and self.headers.get("Range"):  # resumes, whatever version the client holds
            span = f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.send(CONTENT[1000:], 206, {"Content-Range": span, "ETag": '"2"'})
        elif manner == "cut-always":
            self.ranged(stop=1000)
        elif manner == "changes":
            self.ranged(stop=HALF if first else None)
            self.server.etag = '"2"'
        elif manner in ("cut", "stall"):
            self.ranged(stop=HALF if first else None, stall=manner == "stall")
        else:
            self.ranged()

    def redirect(self, to):
        self.send_response(302)
        self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def whole(self, content, kind="application/gzip"):
        self.send(content, 200, {"Content-Type": kind})

    def ranged(self, **how):
        """Answer as RFC 9110 prescribes: with the rest of the file if it has the requested version, else with all."""
        span = self.headers.get("Range")
        if not span or self.headers.get("If-Range", self.server.etag) != self.server.etag:
            return self.send(CONTENT, 200, **how)
        start = int(span.removeprefix("bytes=").removesuffix("-"))
        if start >= len(CONTENT):
            return self.send_error(416)
        span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        return self.send(CONTENT[start:], 206, {"Content-Range": span}, **how)

    def send(self, content, status, headers=None, stop=None, stall=False):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), "ETag": self.server.etag, **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content[:stop])
        self.wfile.flush()
        if stall and stop:
            self.server.over.wait(20)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(download_module, "PAUSE", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "downloads" / "file.tar.gz"


def fetch(server, path, target, **options):
    options = {"sha256": SHA256, "size": len(CONTENT), "timeout": 0.3, **options}
    return download(server.url(path), target, **options)


def partial_of(target):
    return target.with_name(target.name + ".partial")


def left_by_an_earlier_start(target, content):
    target.parent.mkdir()
    partial_of(target).write_bytes(content)


def test_without_a_published_checksum_that_of_the_first_download_is_kept(server, target):
    note = target.with_name(f"{target.name}.sha256")
    assert fetch(server, "whole", target, sha256=None, size=None).read_bytes() == CONTENT
    assert note.read_text() == SHA256
    target.unlink()
    with pytest.raises(DownloadError, match=f"expected SHA-256 {SHA256} as in the first download .remove {note.name}"):
        fetch(server, "garbage", target, sha256=None, size=None)
    assert not target.exists()
    assert fetch(server, "whole", target, sha256=None, size=None).exists()
    asked = len(server.asked)
    assert fetch(server, "whole", target, sha256=None, size=None).exists()
    assert len(server.asked) == asked  # the file is in place, with the recorded checksum


def test_what_a_killed_download_left_beside_its_checksum_is_removed(server, target):
    left_by_an_earlier_start(target, b"x" * 1000)
    (target.parent / f".{target.name}.sha256.123-00ff00ff.partial").write_text("half")
    fetch(server, "whole", target, sha256=None, size=None)
    assert sorted(path.suffix for path in target.parent.iterdir()) == [".gz", ".lock", ".sha256"]


def test_the_first_download_ignores_a_partial_file_without_a_version(server, target):
    left_by_an_earlier_start(target, b"x" * 1000)
    assert fetch(server, "whole", target, sha256=None, size=None).read_bytes() == CONTENT


@pytest.mark.parametrize("version", ['"1"', '"0"'])
def test_the_first_download_resumes_only_the_same_version(server, target, version):
    left_by_an_earlier_start(target, (CONTENT if version == server.etag else b"x" * 1000)[:1000])
    partial_of(target).with_name(f"{partial_of(target).name}.etag").write_text(version)
    assert fetch(server, "whole", target, sha256=None, size=None).read_bytes() == CONTENT
    assert server.asked[-1] == ("whole", "bytes=1000-", version)
    assert sorted(path.suffix for path in target.parent.iterdir()) == [".gz", ".lock", ".sha256"]


@pytest.mark.parametrize(("path", "version"), [("stubborn", '"1"'), ("stubborn", ""), ("whole", "")])
def test_the_first_download_never_joins_pieces_of_two_files(server, target, path, version):
    left_by_an_earlier_start(target, b"x" * 1000)
    partial_of(target).with_name(f"{partial_of(target).name}.etag").write_text(version)
    assert fetch(server, path, target, sha256=None, size=None).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "message"),
    [("endless", "does not report its size"), ("absent", "answered 404"), ("to-ftp", "ftp.* is refused")],
)
def test_an_unknown_size_is_an_error(server, target, path, message):
    with pytest.raises(DownloadError, match=message):
        fetch(server, path, target, sha256=None, size=None)
    assert not target.with_name(f"{target.name}.sha256").exists()


def test_a_file_arrives_complete_and_nothing_else_is_left(server, target):
    reports = []
    assert fetch(server, "whole", target, progress=lambda *done: reports.append(done)) == target
    assert target.read_bytes() == CONTENT
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(reports) == reports
    assert not partial_of(target).exists()


def test_an_existing_file_is_not_downloaded_again(server, target):
    fetch(server, "whole", target)
    fetch(server, "whole", target)
    assert len(server.asked) == 1


def test_an_existing_wrong_file_is_replaced(server, target):
    target.parent.mkdir()
    target.write_bytes(b"half of it")
    assert fetch(server, "whole", target).read_bytes() == CONTENT


@pytest.mark.parametrize("manner", ["cut", "stall"])
def test_a_broken_download_resumes_where_it_stopped(server, target, manner):
    assert fetch(server, manner, target).read_bytes() == CONTENT
    assert server.asked == [(manner, None, None), (manner, f"bytes={HALF}-", '"1"')]


def test_the_next_start_resumes_where_the_last_one_stopped(server, target):
    left_by_an_earlier_start(target, CONTENT[:1000])
    assert fetch(server, "whole", target).read_bytes() == CONTENT
    assert server.asked == [("whole", "bytes=1000-", None)]


def test_a_complete_partial_file_is_used_without_a_request(server, target):
    left_by_an_earlier_start(target, CONTENT)
    assert fetch(server, "whole", target).read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(CONTENT), CONTENT + b"more"])
def test_a_wrong_partial_file_is_downloaded_again(server, target, left):
    left_by_an_earlier_start(target, left)
    assert fetch(server, "whole", target).read_bytes() == CONTENT


def test_a_server_that_cannot_resume_sends_the_whole_file(server, target):
    assert fetch(server, "deaf", target).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_pieces_of_a_file_that_changes_between_attempts_are_not_joined(server, target):
    assert fetch(server, "changes", target).read_bytes() == CONTENT
    assert server.asked[1:] == [("changes", f"bytes={HALF}-", '"1"')]


def test_a_response_with_another_range_is_not_appended(server, target):
    left_by_an_earlier_start(target, CONTENT[:1000])
    with pytest.raises(DownloadError, match="another range"):
        fetch(server, "elsewhere", target)
    assert not target.exists()


def test_a_wrong_file_is_removed_and_both_checksums_are_named(server, target):
    with pytest.raises(DownloadError) as caught:
        fetch(server, "garbage", target)
    message = str(caught.value)
    assert SHA256 in message
    assert hashlib.sha256(bytes(len(CONTENT))).hexdigest() in message
    assert "--data-dir FOLDER" in message
    assert [path.name for path in target.parent.iterdir()] == ["file.tar.gz.lock"]


def test_a_login_page_is_noticed_by_its_size(server, target):
    with pytest.raises(DownloadError, match=r"26 bytes of text/html, expected 1,048,576"):
        fetch(server, "login-page", target)
    assert len(server.asked) == 1


def test_more_bytes_than_expected_are_not_kept(server, target):
    with pytest.raises(DownloadError, match="more than the expected"):
        fetch(server, "endless", target)
    assert partial_of(target).stat().st_size == 0


def test_an_absent_file_is_requested_once(server, target):
    with pytest.raises(DownloadError, match=r"404 Not Found.*Put file\.tar\.gz in a folder"):
        fetch(server, "absent", target)
    assert len(server.asked) == 1


def test_a_busy_server_is_tried_again(server, target):
    assert fetch(server, "busy-once", target).read_bytes() == CONTENT


def test_a_busy_server_is_tried_again_for_the_size(server, target):
    assert fetch(server, "busy-once", target, size=None).read_bytes() == CONTENT
    target.unlink()
    with pytest.raises(DownloadError, match="answered 503"):
        fetch(server, "busy", target, size=None, attempts=3)
    assert len(server.asked) == 3 + 3


@pytest.mark.parametrize(("manner", "reason"), [("busy", "503"), ("cut-always", "connection ended")])
def test_a_server_that_never_delivers_is_given_up(server, target, manner, reason):
    with pytest.raises(DownloadError, match=f"broke off 3 times.*{reason}"):
        fetch(server, manner, target, attempts=3)
    assert len(server.asked) == 3


def test_attempts_that_receive_much_do_not_count_as_failed(server, target, monkeypatch):
    monkeypatch.setattr(download_module, "PROGRESS", 1000)
    content_left = CONTENT[: len(CONTENT) - 5000]
    left_by_an_earlier_start(target, content_left)
    assert fetch(server, "cut-always", target, attempts=2).read_bytes() == CONTENT
    assert len(server.asked) == 5


def test_bytes_that_come_again_are_no_progress(server, target, monkeypatch):
    monkeypatch.setattr(download_module, "PROGRESS", 1000)
    with pytest.raises(DownloadError, match="broke off 4 times"):
        fetch(server, "never-more", target)
    assert len(server.asked) <= 10


def test_a_server_that_drips_is_given_up(server, target, monkeypatch):
    monkeypatch.setattr(download_module, "WINDOW", 0.2)
    with pytest.raises(DownloadError, match="broke off 2 times: it sends fewer than 1,024 bytes per second"):
        fetch(server, "drip", target, attempts=2)


def test_a_download_that_nobody_asked_for_ends_in_time(server, target):
    with pytest.raises(DownloadError, match=r"is slow: .* of 1,048,576 bytes came in time and are kept"):
        fetch(server, "drip", target, within=0.2)
    assert partial_of(target).stat().st_size
    assert fetch(server, "file", target).read_bytes() == CONTENT


def test_a_file_that_begins_otherwise_does_not_become_the_truth(server, target):
    with pytest.raises(DownloadError, match=r"begins with b'.*', expected b'MATLAB'"):
        fetch(server, "file", target, sha256=None, magic=b"MATLAB")
    assert [path.name for path in target.parent.iterdir()] == [f"{target.name}.lock"]
    assert fetch(server, "file", target, sha256=None, magic=CONTENT[:6]).read_bytes() == CONTENT


def test_an_empty_file_and_a_malformed_redirect_are_errors(server, target):
    with pytest.raises(DownloadError, match="is empty: it has 0 bytes"):
        fetch(server, "empty", target, size=None)
    with pytest.raises(DownloadError, match="redirects to a malformed address"):
        fetch(server, "to-nowhere", target)


def test_redirects_are_followed(server, target):
    assert fetch(server, "moved", target).read_bytes() == CONTENT


def test_circular_redirects_end(server, target):
    with pytest.raises(DownloadError, match="302"):
        fetch(server, "circle", target)
    assert len(server.asked) <= 6


def test_a_redirect_to_another_protocol_is_refused(server, target):
    with pytest.raises(DownloadError, match=r"ftp://127\.0\.0\.1/file' is refused"):
        fetch(server, "to-ftp", target)


@pytest.mark.parametrize(
    ("url", "after"), [("ftp://127.0.0.1/a", "http://a"), ("file:///a", "http://a"), ("http://a", "https://a")]
)
def test_unsafe_addresses_are_refused(url, after):
    with pytest.raises(DownloadError, match="is refused"):
        download_module.check_scheme(url, after)


def test_without_a_network_the_error_comes_at_once_and_says_what_to_do(server, target):
    closed = server.url("whole")
    server.shutdown()
    server.server_close()
    began = time.perf_counter()
    with pytest.raises(DownloadError) as caught:
        download(closed, target, sha256=SHA256, size=len(CONTENT))
    assert time.perf_counter() - began < 2
    assert str(caught.value) == (
        "Could not reach 127.0.0.1: Connection refused. "
        "Put file.tar.gz in a folder and pass --data-dir FOLDER (or set ONSIGHT_DATA)."
    )


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "downloads").write_text("a file, not a folder")
    with pytest.raises(DownloadError, match=r"Could not write .*file\.tar\.gz"):
        fetch(server, "whole", tmp_path / "downloads" / "file.tar.gz")


def test_processes_that_want_the_same_file_download_it_once(server, target):
    code = (
        "import sys; from pathlib import Path; from onsight.data.download import download;"
        f"download({server.url('whole')!r}, Path({str(target)!r}), sha256={SHA256!r}, size={len(CONTENT)})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_published_md5_is_checked(server, target):
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert download(server.url("cut"), target, md5=md5, size=len(CONTENT)).read_bytes() == CONTENT
    download(server.url("whole"), target, md5=md5)
    assert len(server.asked) == 2  # cut off, resumed, and then in place
    target.write_bytes(b"damaged")
    with pytest.raises(DownloadError, match=rf"with another checksum: expected MD5 {md5}, got .* Do this\.$"):
        download(server.url("garbage"), target, md5=md5, remedy="Do this.")
