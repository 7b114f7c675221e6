import os
import pickle
import socket
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from onsight.core.errors import DataError, ImageError
from onsight.data import folder as folder_module
from onsight.data.folder import read_folder
from onsight.data.load import load_dataset
from trees import make


@pytest.fixture
def photos(tmp_path):
    return tmp_path / "photos"


FLAT = ("cat/1.jpg", "cat/2.JPEG", "dog/1.png")
DIVIDED = ("train/cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg", "test/dog/2.jpg")


def test_one_folder_per_class(photos):
    dataset = load_dataset(make(photos, *FLAT))
    assert dataset.name == "photos"
    assert dataset.classes == ("cat", "dog")
    assert dataset.names == FLAT
    assert dataset.labels.tolist() == [0, 0, 1]
    assert dataset.labels.dtype == np.int64
    assert dataset.parts.tolist() == ["", "", ""]
    assert dataset.provenance == "folder photos (3 images)"
    assert dataset.images is None
    assert [dataset.read(index) for index in range(3)] == [name.encode() for name in FLAT]


def test_an_incomplete_set_can_be_listed_on_request(photos):
    make(photos, *DIVIDED, "train/bird/1.jpg")
    (photos / "test" / "cow").mkdir()
    dataset = load_dataset(photos, complete=False)
    assert dataset.classes == ("bird", "cat", "cow", "dog")
    assert dataset.names == (
        "test/cat/2.jpg",
        "test/dog/2.jpg",
        "train/bird/1.jpg",
        "train/cat/1.jpg",
        "train/dog/1.jpg",
    )
    assert dataset.labels.tolist() == [1, 3, 0, 1, 3]
    with pytest.raises(DataError, match="cow"):
        load_dataset(photos)


def test_a_test_folder_alone_is_a_test_set(photos):
    assert set(read_folder(make(photos, "test/cat/1.jpg", "test/dog/1.jpg")).parts.tolist()) == {"test"}


def test_a_class_may_be_called_train(photos):
    dataset = read_folder(make(photos, "train/1.jpg", "car/1.jpg", "plane/1.jpg"))
    assert dataset.classes == ("car", "plane", "train")
    assert set(dataset.parts.tolist()) == {""}


def test_folders_below_a_class_belong_to_it(photos):
    dataset = read_folder(make(photos, "cat/black/2020/1.jpg", "cat/1.jpg", "dog/1.jpg"))
    assert dataset.names == ("cat/1.jpg", "cat/black/2020/1.jpg", "dog/1.jpg")
    assert dataset.labels.tolist() == [0, 0, 1]


def test_hidden_files_and_other_files_than_images_are_skipped(photos):
    make(
        photos,
        *FLAT,
        ".cache/1.jpg",
        "cat/._1.jpg",
        "__MACOSX/cat/1.jpg",
        "cat/notes.txt",
        "cat/jpg",
        "cover.jpg",
        "readme.md",
    )
    (photos / "cat" / "folder.jpg").mkdir()
    assert read_folder(photos).names == FLAT


def test_the_fingerprint_depends_on_names_sizes_and_times(photos):
    marks = [read_folder(make(photos, *FLAT)).fingerprint]
    assert read_folder(photos).fingerprint == marks[0]
    (photos / "cat/1.jpg").write_bytes(b"other")
    os.utime(photos / "cat/1.jpg", (1e9, 1e9))
    marks.append(read_folder(photos).fingerprint)
    os.utime(photos / "cat/1.jpg", (1e9, 1e9 + 1))
    marks.append(read_folder(photos).fingerprint)
    (photos / "cat/1.jpg").rename(photos / "cat/3.jpg")
    marks.append(read_folder(photos).fingerprint)
    assert len(set(marks)) == 4


def test_a_folder_that_was_moved_keeps_its_fingerprint(photos):
    before = read_folder(make(photos, *FLAT)).fingerprint
    assert read_folder(photos.rename(photos.with_name("images"))).fingerprint == before


def test_links_are_followed_but_not_in_circles(tmp_path, photos):
    make(photos, *FLAT)
    make(tmp_path / "elsewhere", "a.jpg", "b.jpg", "deep/c.jpg")
    (photos / "bird").symlink_to(tmp_path / "elsewhere")
    (photos / "dog" / "2.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    (photos / "cat" / "round").symlink_to(photos)
    (tmp_path / "elsewhere" / "deep" / "round").symlink_to(tmp_path / "elsewhere")
    dataset = read_folder(photos)
    assert dataset.names == ("bird/a.jpg", "bird/b.jpg", "bird/deep/c.jpg", *FLAT, "dog/2.jpg")
    assert dataset.read(6) == b"a.jpg"


def test_a_broken_link_is_an_unreadable_image(photos):
    make(photos, *FLAT)
    (photos / "dog" / "2.jpg").symlink_to("nowhere.jpg")
    dataset = read_folder(photos)
    with pytest.raises(ImageError, match=r"^cannot be read: No such file or directory$"):
        dataset.read(dataset.names.index("dog/2.jpg"))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no sockets in folders")
def test_a_link_to_itself_is_an_unreadable_image(photos):
    make(photos, *FLAT)
    (photos / "cat" / "loop.jpg").symlink_to("loop.jpg")
    dataset = read_folder(photos)
    with pytest.raises(ImageError, match="cannot be read"):
        dataset.read(dataset.names.index("cat/loop.jpg"))


def test_a_socket_with_the_name_of_an_image_is_skipped(photos, monkeypatch):
    make(photos, *FLAT)
    monkeypatch.chdir(photos)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("dog/2.jpg")
        assert read_folder(Path()).names == FLAT


def test_a_huge_file_is_not_read_into_memory(photos, monkeypatch):
    monkeypatch.setattr(folder_module, "MAX_FILE", 8)
    dataset = read_folder(make(photos, *FLAT))
    with pytest.raises(ImageError, match="larger than"):
        dataset.read(0)


def test_two_unicode_spellings_are_one_class(photos):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    paths = [f"train/{composed}/1.jpg", f"test/{decomposed}/2.jpg", "train/bar/1.jpg", "test/bar/1.jpg"]
    assert read_folder(make(photos, *paths)).classes == ("bar", composed)


def test_the_current_folder_has_a_name(photos, monkeypatch):
    make(photos, *FLAT)
    monkeypatch.chdir(photos)
    dataset = load_dataset(".")
    assert dataset.name == "photos"
    monkeypatch.chdir("/")
    assert dataset.read(0) == b"cat/1.jpg"


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["cat/notes.txt"], r"holds no images \(.*\.jpg.*\): expected one sub-folder per class"),
        (["1.jpg", "2.jpg"], "holds its images directly, without class folders: expected one sub-folder per class"),
        (["cat/1.jpg", "2.jpg"], "has only one class, 'cat'"),
        (
            [*FLAT, "bird/", "cow/"],
            "has 2 empty class folders, 'bird', 'cow': remove every empty folder, add images, or leave .*d,cow",
        ),
        ([*DIVIDED, "test/bird/"], "has 1 empty class folder, 'test/bird': remove every empty folder, add"),
        ([*DIVIDED, "train/bird/1.jpg"], "test has no images of 'bird', but another part has"),
        ([*DIVIDED, "test/bird/1.jpg"], "train has no images of 'bird'"),
        ([*DIVIDED, "validation/cat/1.jpg"], "validation has no images of 'dog'"),
        (["train/cat/1.jpg", "train/dog/1.jpg", "test/1.jpg"], "there are no class folders in 'test'"),
        (["train/cat/1.jpg", "train/dog/1.jpg", "test/"], "there are no class folders in 'test'"),
        (["train/1.jpg", "test/1.jpg"], "there are no class folders in 'test', 'train'"),
        ([*FLAT, "x" * 129 + "/1.jpg"], "rename it to 1 to 128 printable characters"),
        ([*FLAT, "new\nline/1.jpg"], r"has the class 'new\\nline'"),
    ],
)
def test_another_layout_is_an_error_that_says_what_is_wrong(photos, paths, reason):
    make(photos, *(path for path in paths if not path.endswith("/")))
    for path in paths:
        if path.endswith("/"):
            (photos / path).mkdir(parents=True)
    with pytest.raises(DataError, match=f"^The folder 'photos'.*{reason}"):
        read_folder(photos)


def test_a_folder_without_images_next_to_the_parts_is_skipped(photos):
    make(photos, *DIVIDED, "notes/readme.txt")
    assert len(read_folder(photos)) == 4


def test_a_file_name_that_is_not_utf8_is_refused(photos):
    make(photos, *FLAT)
    with open(os.fsencode(photos) + b"/dog/\xff.jpg", "wb"):
        pass
    with pytest.raises(DataError, match=r"'dog/\\udcff\.jpg' is not valid UTF-8: rename it"):
        read_folder(photos)


def test_a_folder_whose_path_is_not_utf8_is_refused(photos):
    place = Path(os.fsdecode(os.fsencode(photos) + b"\xf3"))
    make(place, *FLAT)
    with pytest.raises(DataError, match="not valid UTF-8, so no report could hold it: rename"):
        load_dataset(place)


def test_other_processes_can_read(photos):
    dataset = read_folder(make(photos, *FLAT))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(dataset.read, range(3))) == [name.encode() for name in FLAT]
    assert pickle.loads(pickle.dumps(dataset)).read(2) == b"dog/1.png"


@pytest.mark.parametrize(("folder", "count"), [("cifar10-folders", 60_000), ("hymenoptera", 398)])
def test_real_folders(folder, count):
    place = os.environ.get("ONSIGHT_TEST_DATA")
    if not place or not (Path(place) / folder).is_dir():
        pytest.skip(f"needs {folder} in the folder that ONSIGHT_TEST_DATA names")
    dataset = load_dataset(Path(place) / folder)
    assert len(dataset) == count
    assert set(dataset.parts.tolist()) == {"train", "test"}
    assert dataset.read(0)[:2] == b"\xff\xd8"  # a JPEG
