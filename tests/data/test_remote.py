"""Addresses: memory:// for speed, and a local S3 server behind a proxy that breaks off, fails and stalls."""

import http.client
import json
import logging
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from onsight.core.errors import DataError, DownloadError, ImageError, SpecError
from onsight.data import pixel_cache, remote
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.data.shards import images_of
from trees import draw, write_shards

pytestmark = pytest.mark.usefixtures("only_training")

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def _own(monkeypatch, tmp_path):
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def memory():
    """An empty file system in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


def fill(system, root, count=6):
    for number in range(count):
        for channel, label in enumerate(("red", "green", "blue")):
            system.pipe_file(f"{root}/{label}/{number}.jpg", draw(channel, number))


def test_a_folder_at_an_address(memory):
    fill(memory, "/bucket/photos")
    memory.pipe_file("/bucket/photos/.hidden/x.jpg", b"hidden")
    memory.pipe_file("/bucket/photos/notes.txt", b"no image")
    dataset = load_dataset("memory://bucket/photos/")
    assert (dataset.name, dataset.classes, len(dataset)) == ("photos", ("blue", "green", "red"), 18)
    assert dataset.names[0] == "blue/0.jpg"
    assert dataset.provenance == "memory folder photos (18 images)"
    assert not load_pixels(dataset, 16).broken
    assert load_dataset("memory://bucket/photos").fingerprint == dataset.fingerprint
    assert len(load_dataset("memory://bucket")) == 18  # the only folder is passed over


def test_parts_and_layouts_are_those_of_a_folder(memory):
    for part in ("train", "test"):
        fill(memory, f"/b/{part}")
    assert set(load_dataset("memory://b").parts.tolist()) == {"train", "test"}


def test_shards_and_zips_are_downloaded_once(memory, tmp_path, monkeypatch):
    folder = write_shards(tmp_path / "shards")
    for path in folder.iterdir():
        memory.pipe_file(f"/b/{path.name}", path.read_bytes())
    for address in ("memory://b", "memory://b/photos-{000..002}.tar", "memory://b/*.tar"):
        assert len(load_dataset(address)) == 60
    assert len([*(tmp_path / "cache" / "remote").glob("*/*.tar")]) == 3
    assert load_dataset("memory://b").classes == ("blue", "green", "red")
    assert next(name for name, _ in images_of("memory://b/photos-001.tar")) == "photos-001.tar/01000.jpg"


def test_a_listing_that_changes_in_between(memory):
    fill(memory, "/b")
    dataset = load_dataset("memory://b")
    memory.rm("/b/red/0.jpg")
    memory.pipe_file("/b/green/0.jpg", b"another size")
    found = {dataset.names[index]: reason for index, reason in load_pixels(dataset, 16).broken.items()}
    assert found["red/0.jpg"].startswith("cannot be read: There is nothing at 'memory://b/red/0.jpg'")
    assert found["green/0.jpg"].startswith("has changed since it was listed: 12 bytes, expected")
    assert load_dataset("memory://b").fingerprint != dataset.fingerprint


def test_a_read_that_breaks_off_goes_on_where_it_was(memory, monkeypatch):
    fill(memory, "/b", 40)
    dataset = load_dataset("memory://b")
    seen, whole = [], remote.read

    def flaky(root, entries, name):
        seen.append(name)
        if name == dataset.names[90] and len(seen) < 200:
            raise DownloadError("the network is gone.", "It is kept.")
        return whole(root, entries, name)

    broken = load_dataset("memory://b")
    object.__setattr__(broken, "reader", lambda name: flaky("memory://b/", dataset.reader.args[1], name))
    with pytest.raises(DownloadError, match="It is kept"):
        load_pixels(broken, 16)
    first = len(seen)
    seen.extend([""] * 200)
    pixels = load_pixels(broken, 16)
    again = seen[first + 200 :]
    assert len(again) < 60  # of 120: most were kept
    assert dataset.names[0] not in again
    assert not pixels.broken
    assert (pixels.images.reshape(120, -1).max(axis=1) > 0).all()
    whole_again = pixel_cache.decode.load(dataset.read(7), 16)
    assert (pixels.images[7] == whole_again).all()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://nothing/here", r"There is nothing at 'memory://nothing/here': no such bucket, folder or file"),
        ("memory://", "names no bucket or folder"),
        ("nothing://bucket", "fsspec knows no addresses that begin with nothing://"),
        ("gdrive://bucket", r"needs the package gdrive_fsspec. Install it: pip install gdrive_fsspec"),
        ("file:///etc", "is no address of files elsewhere"),
        ("simplecache::s3://bucket", "No data set"),
        ("s3://key:secret@bucket/photos", "holds credentials, which the run would record"),
        ("https://host/photos.tar?X-Amz-Signature=abc", "holds credentials"),
        ("http://169.254.169.254/latest/", "is refused"),
        ("http://[fe80::1]/a/", "is refused"),
        ("http://metadata.google.internal/a/", "is refused"),
        ("s3://169.254.169.254/latest/", "is refused"),
    ],
)
def test_addresses_that_cannot_be_read(memory, address, message):
    with pytest.raises((SpecError, DataError), match=message) as caught:
        load_dataset(address)
    assert "secret" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_a_host_that_resolves_to_a_metadata_address_is_refused(monkeypatch):
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answer)
    with pytest.raises(SpecError, match="is refused"):
        load_dataset("https://innocent.example/photos/")


def test_secrets_in_a_message_are_left_out():
    with pytest.raises(DownloadError) as caught, remote.words("s3://b"):
        raise OSError("GET https://b/x?X-Amz-Signature=0123abc&token=456def failed\nmore")
    assert "0123abc" not in str(caught.value)
    assert "456def" not in str(caught.value)
    assert "more" not in str(caught.value)


def test_a_missing_fsspec_is_named(monkeypatch):
    monkeypatch.setattr(remote, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"needs fsspec. Install it: pip install 'onsight\[remote\]'"):
        load_dataset("s3://bucket/photos")


def test_a_bug_is_no_network_error(memory):
    with pytest.raises(TypeError), remote.words("s3://b"):
        raise TypeError("a bug")


def test_data_elsewhere_is_not_read_unasked(memory):
    fill(memory, "/b")
    with pytest.raises(DataError, match="is not on this machine"):
        load_dataset("memory://b", download=False)


class Faults:
    """What the proxy does to the next requests for objects: a list of faults, taken from the front."""

    def __init__(self):
        self.coming, self.requests = [], []


@pytest.fixture(scope="module")
def s3():
    """A local S3 server behind a proxy with faults: (file system for filling it, faults)."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    behind = server.get_host_and_port()
    faults = Faults()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = http.client.HTTPConnection(*behind, timeout=20)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            is_object = self.command == "GET" and "list-type" not in self.path and self.path.count("/") > 1
            faults.requests.append((self.command, self.path, self.headers.get("Range")))
            fault = faults.coming.pop(0) if is_object and faults.coming else ""
            if fault == "500":
                self.send_response(500)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "stall":
                threading.Event().wait(3)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if fault == "break off" else content)
            self.close_connection = fault == "break off"

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815

        def log_message(self, *args):
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{proxy.server_port}", f"http://{behind[0]}:{behind[1]}", faults
    proxy.shutdown()
    proxy.server_close()
    server.stop()


@pytest.fixture
def bucket(s3, monkeypatch):
    """A bucket with 30 images in three classes, its credentials set, and what the proxy does to requests."""
    address, behind, faults = s3
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address, "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 1)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    system = s3fs.S3FileSystem(endpoint_url=behind, skip_instance_cache=True)
    if not system.exists("photos"):
        system.mkdir("photos")
        fill(system, "photos", 10)
    faults.coming.clear()
    faults.requests.clear()
    yield faults
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket_is_read_like_a_folder(bucket):
    dataset = load_dataset("s3://photos/")
    assert (dataset.classes, len(dataset)) == (("blue", "green", "red"), 30)
    pixels = load_pixels(dataset, 16)
    assert not pixels.broken
    assert len(bucket.requests) < 45  # one request per image, and a few to list them
    bucket.requests.clear()
    load_pixels(load_dataset("s3://photos"), 16)
    assert not [path for _, path, _ in bucket.requests if path.endswith(".jpg")]  # from the cache


@pytest.mark.parametrize("fault", ["500", "break off", "stall"])
def test_faults_that_pass_cost_nothing(bucket, fault):
    dataset = load_dataset("s3://photos/")
    bucket.coming += [fault] * 2
    assert not load_pixels(dataset, 16).broken
    assert not bucket.coming


def test_a_service_that_stays_down_is_an_error_that_keeps_what_was_read(bucket):
    dataset = load_dataset("s3://photos/")
    bucket.coming += [""] * 20 + ["500"] * 5000
    with pytest.raises(DownloadError, match=r"'s3://photos/.*jpg' could not be read: .*decoded or downloaded is"):
        load_pixels(dataset, 16)
    bucket.coming.clear()
    bucket.requests.clear()
    assert not load_pixels(dataset, 16).broken
    assert len(bucket.requests) <= 14


def test_a_download_that_breaks_off_goes_on(bucket, tmp_path, monkeypatch):
    import s3fs

    monkeypatch.setattr(remote, "BLOCK", 5000)
    folder = write_shards(tmp_path / "shards", 1, 30)
    content = (folder / "photos-000.tar").read_bytes()
    s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], skip_instance_cache=True).pipe_file(
        "photos/shards/a.tar", content
    )
    bucket.coming += ["", "", "500", "break off"]
    path, _ = remote.fetched("s3://photos/shards/a.tar")
    assert path.read_bytes() == content
    starts = [span for command, path, span in bucket.requests if command == "GET" and path.endswith("a.tar")]
    assert len(starts) >= len(content) // 5000
    assert starts[1] == "bytes=5000-9999"


def test_no_bucket_and_no_credentials_are_said_in_words(bucket, monkeypatch):
    with pytest.raises(DataError, match=r"There is nothing at 's3://no-such-bucket': no such bucket"):
        load_dataset("s3://no-such-bucket")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=r"no valid credentials for 's3://photos' .*Set AWS_ACCESS_KEY_ID"):
        load_dataset("s3://photos")


def test_no_run_holds_credentials(bucket, monkeypatch, tmp_path):
    """Whatever a data set of an address keeps can be shown."""
    dataset = load_dataset("s3://photos")
    held = json.dumps([dataset.name, dataset.provenance, dataset.names, dataset.notes, repr(dataset.reader)])
    assert "testing" not in held


def test_an_image_that_is_too_large_is_not_read():
    with pytest.raises(ImageError, match="is larger than 256 MiB"):
        remote.read("memory://b", {"a.jpg": remote.Entry(remote.MAX_FILE + 1, "")}, "a.jpg")


def test_a_run_whose_data_is_elsewhere(memory, tmp_path, monkeypatch):
    """Training, evaluation, and the check read an address; the run records it as it is."""
    import onsight

    fill(memory, "/b/photos", 20)
    monkeypatch.setenv("ONSIGHT_RUNS", str(tmp_path / "runs"))
    show = onsight.Reporter()
    spec = onsight.TrainSpec("memory://b/photos", model="mlp", epochs=2, image_size=16, batch_size=16)
    run = onsight.train(spec, reporter=show)
    assert run.spec["data"] == "memory://b/photos"
    assert onsight.evaluate(run, reporter=show).metrics["n"] > 0
    assert onsight.evaluate(run, data="memory://b/photos", reporter=show).metrics["n"] > 0
    assert onsight.check("memory://b/photos", features=False, reporter=show).record["data"] == "memory://b/photos"
