import pickle
import stat
import struct
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onsight.core.errors import DataError, ImageError
from onsight.data import zip_file
from onsight.data.folder import read_folder
from onsight.data.load import load_dataset
from onsight.data.zip_file import read_zip

FLAT = ("cat/1.jpg", "cat/2.jpg", "dog/1.png")


def write(path, members, method=zipfile.ZIP_DEFLATED):
    """Write a zip of members: names, or (name or ZipInfo, content); by default, the content is the name."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for member in members:
            name, content = member if isinstance(member, tuple) else (member, member.encode())
            archive.writestr(name, b"" if content.endswith(b"/") else content)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "photos.zip"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", ["", "holiday/"])
def test_a_zip_is_read_like_its_folder(path, top, method):
    write(path, [(f"{top}{name}", name.encode() * 100) for name in FLAT], method)
    dataset = load_dataset(path)
    assert dataset.name == "photos"
    assert dataset.classes == ("cat", "dog")
    assert dataset.names == FLAT
    assert dataset.labels.tolist() == [0, 0, 1]
    assert dataset.provenance == "zip photos (3 images)"
    assert [dataset.read(index) for index in range(3)] == [name.encode() * 100 for name in FLAT]


def test_a_zip_of_a_folder_has_the_same_rows(path, tmp_path):
    names = [f"{part}/{name}" for part in ("train", "test") for name in FLAT]
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(name.encode())
    ours, theirs = read_zip(write(path, names)), read_folder(tmp_path / "photos")
    assert ours.names == theirs.names
    assert np.array_equal(ours.labels, theirs.labels)
    assert np.array_equal(ours.parts, theirs.parts)
    assert ours.read(4) == theirs.read(4)


def test_files_added_by_operating_systems_are_skipped(path):
    extra = [
        "holiday/",
        "holiday/cat/",
        "__MACOSX/holiday/cat/._1.jpg",
        "holiday/.DS_Store",
        "holiday/cat/notes.txt",
        "readme.txt",
    ]
    assert read_zip(write(path, [*(f"holiday/{name}" for name in FLAT), *extra])).names == FLAT


def test_a_part_is_not_taken_for_a_wrapping_folder(path):
    assert set(read_zip(write(path, [f"test/{name}" for name in FLAT])).parts.tolist()) == {"test"}


def test_the_fingerprint_depends_on_the_content_and_not_on_the_time(path):
    first = read_zip(write(path, FLAT)).fingerprint
    assert (
        read_zip(write(path, [zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)).filename for name in FLAT])).fingerprint
        == first
    )
    assert read_zip(write(path, [*FLAT[:2], (FLAT[2], b"other")])).fingerprint != first


def test_threads_and_copies_in_other_processes_read_the_right_bytes(path):
    names = [f"{label}/{index}.jpg" for label in ("cat", "dog") for index in range(50)]
    dataset = pickle.loads(pickle.dumps(read_zip(write(path, names))))
    barrier = threading.Barrier(4)

    def read_all(_):
        barrier.wait()
        return [dataset.read(index) for index in range(100)]

    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(read_all, range(4)):
            assert result == [name.encode() for name in dataset.names]


def test_bytes_before_the_zip_are_allowed(path):
    write(path, FLAT)
    path.write_bytes(b"#!/bin/sh\n" * 10 + path.read_bytes())
    assert read_zip(path).read(0) == b"cat/1.jpg"


def info(name, **changed):
    member = zipfile.ZipInfo(name)
    member.compress_type = zipfile.ZIP_DEFLATED
    for key, value in changed.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (["/etc/1.jpg"], "'/etc/1.jpg' is not a plain relative path"),
        (["cat/../../1.jpg"], "is not a plain relative path"),
        ([".."], "is not a plain relative path"),
        (["cat//1.jpg"], "is not a plain relative path"),
        (["./cat/1.jpg"], "is not a plain relative path"),
        (["cat\\1.jpg"], r"'cat\\\\1.jpg' is not a plain relative path"),
        (["C:/1.jpg"], "is not a plain relative path"),
        (["a/" * 33 + "1.jpg"], "is too deep or too long: at most 32 folders and 1,000 bytes are allowed"),
        (["a/" * 20_000 + "1.jpg"], "is too deep or too long"),
        (["cat/" + "é" * 500 + ".jpg"], "is too deep or too long"),
        ([(info("cat/9.jpg", external_attr=(stat.S_IFLNK | 0o777) << 16), b"/etc/passwd")], "is a link or a device"),
        ([(info("cat/9.jpg", external_attr=stat.S_IFIFO << 16), b"x")], "is a link or a device"),
        (["cat/1.jpg"], "'cat/1.jpg' appears twice"),
        (["cat/1.JPG"], "'cat/1.JPG' and 'cat/1.jpg' are the same file on some systems"),
        (["Cat/9.jpg"], "'Cat/9.jpg' and 'cat/' are the same file on some systems"),
        (["cat/e\u0301.jpg", "cat/\u00e9.jpg"], "are the same file on some systems"),
        (["cat/1.jpg/2.jpg"], "are the same file on some systems"),
        (["cat"], "are the same file on some systems"),
        (["cat/more.zip"], "is an archive itself"),
        (["cat/more.TAR"], "is an archive itself"),
        ([(info("cat/9.jpg", compress_type=zipfile.ZIP_LZMA), b"x")], "is compressed with method 14"),
        ([("cat/9.jpg", bytes(1_000_000))], "inflates from .* to 1,000,000 bytes: at most 200 times"),
        ([(".hidden/../1.jpg", b"x")], "is not a plain relative path"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_members_are_refused(path, members, reason):
    write(path, [*FLAT, *members])
    with pytest.raises(DataError, match=rf"'photos\.zip' is refused: .*{reason}"):
        read_zip(path)


def patch(path, old, new, count=-1):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))


def test_a_name_with_a_nul_is_refused(path):
    write(path, [*FLAT, "cat/9.jpgX.png"])
    patch(path, b"cat/9.jpgX.png", b"cat/9.jpg\0.png")
    with pytest.raises(DataError, match=r"'cat/9\.jpg\\x00\.png' is not a plain relative path"):
        read_zip(path)


def test_an_encrypted_zip_is_refused(path):
    write(path, FLAT)
    patch(path, b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0")
    with pytest.raises(DataError, match="is encrypted"):
        read_zip(path)


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("MAX_MEMBERS", 2, "has 3 members: at most 2"),
        ("MAX_TOTAL", 26, "inflates to 27 bytes: at most 26"),
        ("MAX_MEMBER", 8, "has 9 bytes: at most 8"),
        ("MAX_DIRECTORY", 100, "has a list of members of .* bytes: at most 100"),
    ],
)
def test_every_limit_is_enforced(path, monkeypatch, limit, value, reason):
    write(path, FLAT)
    read_zip(path)
    monkeypatch.setattr(zip_file, limit, value)
    with pytest.raises(DataError, match=reason):
        read_zip(path)


def test_a_member_that_lies_about_its_size_is_not_inflated_further(path):
    write(path, [*FLAT, ("dog/9.jpg", bytes(100_000))])
    # The list of members has 200 bytes for it, which is within all limits; its data inflates to 100,000.
    patch(path, struct.pack("<L", 100_000), struct.pack("<L", 200))
    dataset = read_zip(path)
    with pytest.raises(ImageError, match="its size or checksum differs"):
        dataset.read(dataset.names.index("dog/9.jpg"))
    assert dataset.read(0) == b"cat/1.jpg"


def test_a_damaged_member_fails_alone(path):
    write(path, FLAT, zipfile.ZIP_STORED)
    patch(path, b"cat/2.jpgcat/2.jpg", b"cat/2.jpgXat/2.jpg")  # the name and then the content
    dataset = read_zip(path)
    with pytest.raises(ImageError, match="checksum differs"):
        dataset.read(1)
    assert dataset.read(2) == b"dog/1.png"


def test_a_zip_that_has_changed_after_listing_is_noticed(path):
    dataset = read_zip(write(path, FLAT))
    write(path, ["much longer name/1.jpg", *FLAT])
    with pytest.raises(ImageError):
        dataset.read(2)
    path.unlink()
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        dataset.read(0)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\3\4" + bytes(100), b"PK\5\6" + b"\xff" * 18])
def test_a_file_that_is_not_a_zip_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"'photos\.zip' cannot be read as a zip"):
        read_zip(path)


def test_mutated_zips_are_read_or_refused(path):
    write(path, [*FLAT, *(f"dog/{index}.jpg" for index in range(5))])
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(2000):
        mutated = data.copy()
        spots = rng.integers(0, len(data), rng.integers(1, 6))
        mutated[spots] = rng.integers(0, 256, len(spots))
        path.write_bytes(mutated.tobytes()[: len(data) - int(rng.integers(0, 40)) * int(rng.random() < 0.1)])
        try:
            dataset = read_zip(path)
            for index in range(len(dataset)):
                dataset.read(index)
            outcomes.add("read")
        except DataError as error:  # ImageError is a DataError
            outcomes.add(type(error).__name__)
    assert outcomes == {"read", "DataError", "ImageError"}


def test_layout_errors_name_the_zip(path):
    with pytest.raises(DataError, match=r"^The zip 'photos' holds its images directly"):
        read_zip(write(path, ["1.jpg", "2.jpg"]))
    with pytest.raises(DataError, match=r"^The zip 'photos' has 1 empty class folder, 'bird'"):
        read_zip(write(path, [*FLAT, "bird/"]))
    with pytest.raises(DataError, match="has only one class, 'cat'"):
        read_zip(write(path, ["cat/1.jpg"]))
