"""Loading MNIST, Fashion-MNIST, SVHN and STL-10, tested on small files in their formats."""

import functools
import gzip
import hashlib
import io
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from scipy.io import savemat

from onsight.core.errors import DataError, DownloadError
from onsight.data.load import DATASETS, load_dataset
from onsight.data.mnist_svhn_stl10 import IDX, LAYOUTS, load_classic

TRAIN, TEST = 5, 3
LABELS = {"train": [3, 0, 9, 1, 7], "test": [9, 4, 0]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ONSIGHT_DATA", raising=False)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Give all data sets 5 training and 3 test images; the checksums of their files are the published ones."""
    for name, layout in LAYOUTS.items():
        md5 = {file: hashlib.md5(data).hexdigest() for file, data in contents(name).items()}
        monkeypatch.setitem(LAYOUTS, name, replace(layout, counts=(TRAIN, TEST), md5=md5, sizes={}))


def images(name, part):
    """Return (n, side, side, 3) uint8, grey for the two MNISTs; always the same images."""
    count, side = (TRAIN if part == "train" else TEST), LAYOUTS[name].side
    rng = np.random.default_rng([*name.encode(), *part.encode()])
    if "mnist" in name:
        return np.repeat(rng.integers(0, 256, (count, side, side, 1), np.uint8), 3, axis=-1)
    return rng.integers(0, 256, (count, side, side, 3), np.uint8)


def idx(values):
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return gzip.compress(header + values.tobytes(), mtime=0)


def mat(name, part, **changed):
    labels = np.array(LABELS[part], np.uint8)[:, np.newaxis]
    labels[labels == 0] = 10
    content = io.BytesIO()
    savemat(content, {"X": np.moveaxis(images(name, part), 0, -1), "y": labels} | changed, do_compression=True)
    return content.getvalue()


def tar(name, **changed):
    content = io.BytesIO()
    files = {"unlabeled_X.bin": bytes(5000), "class_names.txt": b"airplane", "fold_indices.txt": b"0"}
    for part in ("test", "train"):
        files[f"{part}_X.bin"] = images(name, part).transpose(0, 3, 2, 1).tobytes()  # planes, column by column
        files[f"{part}_y.bin"] = bytes(label + 1 for label in LABELS[part])
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for file, data in (files | changed).items():
            entry = tarfile.TarInfo(f"stl10_binary/{file}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return content.getvalue()


@functools.cache  # a MATLAB file contains the second at which it was made
def contents(name):
    """Return {file: bytes} of a whole data set."""
    if name == "svhn":
        return {"train_32x32.mat": mat(name, "train"), "test_32x32.mat": mat(name, "test")}
    if name == "stl10":
        return {"stl10_binary.tar.gz": tar(name)}
    made = (idx(values) for part in ("train", "test")
            for values in (images(name, part)[..., 0], np.array(LABELS[part], np.uint8)))  # fmt: skip
    return dict(zip(IDX, made, strict=True))


def write(name, folder, **changed):
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in contents(name).items():
        (folder / file).write_bytes(changed.get(file.partition(".")[0].replace("-", "_"), data))
    return folder


@pytest.mark.parametrize("name", LAYOUTS)
def test_pixels_labels_and_parts_are_what_the_files_hold(name, tmp_path):
    dataset = load_dataset(name, write(name, tmp_path / "copy"))
    np.testing.assert_array_equal(dataset.images, np.concatenate([images(name, part) for part in ("train", "test")]))
    assert dataset.images.dtype == np.uint8
    assert dataset.images.flags.c_contiguous
    assert dataset.labels.tolist() == LABELS["train"] + LABELS["test"]
    assert dataset.labels.dtype == np.int64
    assert dataset.parts.tolist() == ["train"] * TRAIN + ["test"] * TEST
    assert dataset.classes == LAYOUTS[name].classes
    assert len(dataset.classes) == 10
    assert dataset.name == name
    assert dataset.provenance == f"official {LAYOUTS[name].title} (checksums match)"


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_with_other_checksums_are_an_unverified_copy(name, tmp_path, monkeypatch):
    monkeypatch.setitem(LAYOUTS, name, replace(LAYOUTS[name], md5=dict.fromkeys(LAYOUTS[name].files, "0" * 32)))
    dataset = load_dataset(name, write(name, tmp_path / "copy"))
    assert dataset.provenance == f"unverified copy of {LAYOUTS[name].title}"


def test_the_registry_has_the_number_of_images():
    for name, count in (("mnist", 70_000), ("fashion_mnist", 70_000), ("svhn", 99_289), ("stl10", 13_000)):
        assert f"{count:,}" in DATASETS[name].description


@pytest.mark.parametrize("inside", ["", "mnist"])
def test_a_copy_is_found_by_either_folder(tmp_path, inside, monkeypatch):
    write("mnist", tmp_path / "data" / inside)
    monkeypatch.setenv("ONSIGHT_DATA", str(tmp_path / "data"))
    assert len(load_dataset("mnist")) == 8


def test_data_sets_with_the_same_file_names_lie_in_their_own_folders(tmp_path):
    for name in ("mnist", "fashion_mnist"):
        write(name, tmp_path / name)
    both = [load_dataset(name, tmp_path) for name in ("mnist", "fashion_mnist")]
    assert not np.array_equal(both[0].images, both[1].images)
    assert load_dataset("fashion_mnist", tmp_path / "mnist").provenance == "unverified copy of Fashion-MNIST"


def test_another_label_changes_the_fingerprint(tmp_path):
    one = load_dataset("mnist", write("mnist", tmp_path / "one"))
    other = idx(np.array([3, 0, 9, 1, 8], np.uint8))
    assert load_dataset("mnist", write("mnist", tmp_path / "two", train_labels_idx1_ubyte=other)).fingerprint != (
        one.fingerprint
    )


@pytest.mark.parametrize(
    ("name", "file", "data", "message"),
    [
        ("mnist", "train_images_idx3_ubyte", b"nothing", r"not a complete \.gz file"),
        ("mnist", "train_images_idx3_ubyte", gzip.compress(bytes(99))[:-9], r"not a complete \.gz file"),
        ("mnist", "train_images_idx3_ubyte", idx(np.zeros((5, 28, 27), np.uint8)), "not an IDX file of 5 x 28 x 28"),
        ("mnist", "t10k_labels_idx1_ubyte", idx(np.zeros(4, np.uint8)), "not an IDX file of 3 bytes"),
        ("mnist", "t10k_labels_idx1_ubyte", gzip.compress(bytes(10**7)), "begins with 0000000000000000, expected 0000"),
        ("mnist", "t10k_labels_idx1_ubyte", idx(np.array([1, 2, 10], np.uint8)), "image 7 has the class index 10"),
        ("svhn", "train_32x32", b"nothing", "not a complete MATLAB 5 file"),
        ("svhn", "train_32x32", mat("svhn", "train")[:-100], "holds the matrices"),
        ("svhn", "test_32x32", mat("svhn", "test", X=np.zeros((32, 32, 3, 9), np.uint8)), "holds the matrices"),
        ("svhn", "train_32x32", mat("svhn", "train").replace(b"\0" * 4, b"\1" * 4), "not a complete MATLAB 5 file"),
        ("svhn", "test_32x32", mat("svhn", "test", y={"a": 1}), "holds the matrices"),
        ("svhn", "test_32x32", mat("svhn", "test", y=np.zeros((3, 1), np.uint8)), "image 5 has the class index -1"),
        ("svhn", "test_32x32", mat("svhn", "test", y=np.full((3, 1), 11, np.uint8)), "image 5 has the class index 11"),
        ("stl10", "stl10_binary", b"nothing", r"not a complete \.tar\.gz"),
        ("stl10", "stl10_binary", tar("stl10")[:-99], r"not a complete \.tar\.gz|lacks"),
        ("stl10", "stl10_binary", tar("stl10", **{"test_y.bin": bytes(4)}), "test_y.bin has 4 bytes, expected 3"),
        ("stl10", "stl10_binary", tar("stl10", **{"test_y.bin": bytes(3)}), "image 5 has the class index -1"),
    ],
    # Archives contain the second at which they were made: as test names they would differ between workers.
    ids=lambda value: "data" if isinstance(value, bytes) else None,
)
def test_damaged_files_are_refused_with_what_was_expected(name, file, data, message, tmp_path):
    with pytest.raises(DataError, match=message):
        load_classic(name, write(name, tmp_path, **{file: data}))


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path):
    write("svhn", tmp_path / "copy")
    (tmp_path / "copy" / "test_32x32.mat").unlink()
    with pytest.raises(DataError, match=r"test_32x32\.mat' is missing: SVHN, cropped digits consists of train_32x32"):
        load_dataset("svhn", tmp_path / "copy")
    with pytest.raises(DataError, match="'nowhere' does not exist: give a folder that holds stl10_binary"):
        load_dataset("stl10", tmp_path.relative_to(tmp_path) / "nowhere")
    with pytest.raises(DataError, match="STL-10 is not on this machine"):
        load_dataset("stl10", tmp_path, download=False)


@pytest.fixture
def server(tmp_path):
    """Serve a folder; yield (folder, address)."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_download_is_kept_and_its_checksum_recorded(name, server, tmp_path, monkeypatch):
    folder, address = server
    write(name, folder)
    monkeypatch.setenv(f"ONSIGHT_{name.upper()}_URL", address)
    reports = []
    first = load_dataset(name, progress=lambda *words: reports.append(words))
    assert reports[-1][0] == f"downloading {LAYOUTS[name].files[-1]}"
    for file, data in contents(name).items():
        kept = tmp_path / "cache" / "downloads" / name / file
        assert kept.read_bytes() == data
        assert kept.with_name(f"{file}.sha256").read_text() == hashlib.sha256(data).hexdigest()
        (folder / file).unlink()  # the second load needs no server
    again = load_dataset(name)
    assert again.fingerprint == first.fingerprint
    assert again.provenance == first.provenance


def test_a_file_that_changes_after_the_first_download_is_refused(server, tmp_path, monkeypatch):
    folder, address = server
    monkeypatch.setitem(LAYOUTS, "svhn", replace(LAYOUTS["svhn"], md5={}))  # as if nobody published any
    write("svhn", folder)
    monkeypatch.setenv("ONSIGHT_SVHN_URL", address)
    load_dataset("svhn")
    kept = tmp_path / "cache" / "downloads" / "svhn" / "test_32x32.mat"
    kept.write_bytes(mat("svhn", "test", y=np.ones((3, 1), np.uint8)))
    with pytest.raises(DataError, match=r"test_32x32\.mat' has changed since it was downloaded"):
        load_dataset("svhn")
    kept.unlink()  # as the message advises; or as if an earlier download had broken off before this file
    assert load_dataset("svhn").provenance == "unverified copy of SVHN, cropped digits"
    for file in LAYOUTS["svhn"].files:
        (kept.parent / file).unlink()
    (folder / "train_32x32.mat").write_bytes(mat("svhn", "train", y=np.ones((5, 1), np.uint8)))
    with pytest.raises(DownloadError, match=r"another checksum: expected SHA-256 .* as in the first download"):
        load_dataset("svhn")


def test_files_with_another_checksum_than_published_are_not_kept(server, tmp_path, monkeypatch):
    folder, address = server
    write("fashion_mnist", folder, t10k_labels_idx1_ubyte=idx(np.zeros(3, np.uint8)))
    monkeypatch.setenv("ONSIGHT_FASHION_MNIST_URL", address)
    with pytest.raises(DownloadError, match=r"has the MD5 .*, expected .*It was removed"):
        load_dataset("fashion_mnist")
    left = [path.name for path in (tmp_path / "cache" / "downloads" / "fashion_mnist").iterdir()]
    assert not [name for name in left if name.startswith("t10k-labels") and not name.endswith(".lock")]
