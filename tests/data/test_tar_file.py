import gzip
import io
import os
import tarfile

import pytest

from onsight.core.errors import DataError, ImageError
from onsight.data import archive, tar_file
from trees import write_tar


def listed(tmp_path, *members):
    return [(each.name, each.label) for each in tar_file.listed(write_tar(tmp_path / "a.tar", members))]


def streamed(path):
    with open(path, "rb") as file:
        return list(tar_file.stream(file, path.name))


def special(name, kind, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info, b""


def test_labels_lie_beside_images(tmp_path):
    found = listed(
        tmp_path,
        ("a/1.jpg", b"one"), ("a/1.cls", b" cat\n"), ("a/1.txt", b"a caption"),
        ("2.json", b'{"label": 7}'), ("2.PNG", b"two"),
        ("3.json", b'"dog"'), ("3.webp", b"three"),
        ("4.jpg", b"four"), ("4.txt", b"bird"),
        ("5.jpg", b"five"), ("5.json", b"{no json"),
        ("6.cls", b"no image"),
        ("7.jpg", b"seven"),
    )  # fmt: skip
    labels = {"a/1.jpg": "cat", "2.PNG": "7", "3.webp": "dog", "4.jpg": "bird", "5.jpg": None, "7.jpg": None}
    assert found == [*labels.items()]


def test_masks_are_left_out_and_names_with_dots_are_not_lost(tmp_path):
    found = listed(
        tmp_path,
        ("1.jpg", b"image"), ("1.seg.png", b"mask"), ("1.cls", b"cat"),
        ("IMG.2020.jpg", b"one"), ("IMG.2020.cls", b"dog"), ("IMG.2021.jpg", b"two"), ("IMG.2021.cls", b"cat"),
    )  # fmt: skip
    assert found == [("1.jpg", "cat"), ("IMG.2020.jpg", "dog"), ("IMG.2021.jpg", "cat")]


def test_an_image_is_read_where_it_lies(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("1.jpg", b"first"), ("1.cls", b"x"), (f"{'long' * 60}.jpg", b"second")])
    assert [tar_file.read(str(path), *each.place) for each in tar_file.listed(path)] == [b"first", b"second"]
    assert [content for _, content in streamed(path)] == [b"first", b"second"]
    with pytest.raises(ImageError, match="has changed"):
        tar_file.read(str(path), 10**6, 5)
    with pytest.raises(ImageError, match="cannot be read"):
        tar_file.read(str(tmp_path / "gone.tar"), 0, 5)


def test_hidden_files_and_folders_are_skipped(tmp_path):
    members = [special("a", tarfile.DIRTYPE), ("a/._1.jpg", b"a Mac's"), ("__MACOSX/1.jpg", b""), ("./a/1.jpg", b"one")]
    assert listed(tmp_path, *members) == [("a/1.jpg", None)]


HOSTILE = {
    "a link": (special("1.jpg", tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
    "a hard link": (special("1.jpg", tarfile.LNKTYPE, linkname="0.jpg"), "is a link"),
    "a device": (special("1.jpg", tarfile.CHRTYPE), "device"),
    "a pipe": (special("1.jpg", tarfile.FIFOTYPE), "device"),
    "an absolute path": (("/etc/1.jpg", b"x"), "is not a plain relative path"),
    "a path that leaves": (("a/../../1.jpg", b"x"), "is not a plain relative path"),
    "a drive": (("C:/1.jpg", b"x"), "is not a plain relative path"),
    "backslashes": (("a\\1.jpg", b"x"), "is not a plain relative path"),
}


@pytest.mark.parametrize("member, reason", HOSTILE.values(), ids=HOSTILE)  # noqa: PT006
def test_a_hostile_member_is_refused(tmp_path, member, reason):
    path = write_tar(tmp_path / "a.tar", [("0.jpg", b"good"), member, ("2.jpg", b"good")])
    with pytest.raises(DataError, match=f"'a.tar' is refused: .*{reason}"):
        list(tar_file.listed(path))
    first, bad, last = streamed(path)  # an answer for each image: the others go on
    assert (first[1], last[1]) == (b"good", b"good")
    assert isinstance(bad[1], ImageError)
    assert reason in str(bad[1])


def header(size, kind=b"0"):
    """Return the header of a member with a size that need not be true."""
    info = tarfile.TarInfo("1.jpg")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


DAMAGED = {
    "empty": b"",
    "text": b"no tar at all" * 100,
    "cut short": header(5000) + b"x" * 100,
    "points back": header(-1024) + bytes(1024),
    "points far": header(1 << 60),
    "a long name without end": header(1 << 40, b"L"),
    "a huge pax header": header(archive.LONGEST_HEADER + 1, b"x") + bytes(2048),
    "compressed": gzip.compress(header(0) + bytes(1024)),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.timeout(20)
def test_a_damaged_tar_is_an_error(tmp_path, content):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    for read in (lambda: list(tar_file.listed(path)), lambda: streamed(path)):
        with pytest.raises(DataError, match=r"'a\.tar' is not a complete, uncompressed tar"):
            read()


def test_a_huge_image_is_not_read(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(header(tar_file.MAX_FILE + 512))
    os.truncate(path, 512 + tar_file.MAX_FILE + 512 + 1024)  # takes no room on the disk
    ((_, found),) = streamed(path)
    assert "bytes: at most" in str(found)


def test_a_tar_without_end_is_bounded(monkeypatch):
    monkeypatch.setattr(tar_file, "MAX_MEMBERS", 50)

    class Endless(io.RawIOBase):
        """A tar that repeats one member for ever."""

        block = header(3) + b"abc".ljust(512, b"\0")
        at = 0

        def read(self, size=-1):
            wanted = range(self.at, self.at + size)
            self.at += size
            return bytes(self.block[place % 1024] for place in wanted)

        def seek(self, place, whence=0):
            self.at = place
            return place

        def tell(self):
            return self.at

    with pytest.raises(DataError, match="more than 50 members"):
        list(tar_file.stream(Endless(), "a.tar"))
