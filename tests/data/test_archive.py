import hashlib
import io
import os
import tarfile

import pytest

from onsight.core.errors import DataError
from onsight.data import archive
from onsight.data.archive import checksum_of, unpack


def test_a_checksum_is_remembered_until_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    os.utime(path, (1e9, 1e9))
    first = checksum_of(path, "MD5")
    assert first == hashlib.md5(b"one").hexdigest()
    assert checksum_of(path, "SHA-256") == hashlib.sha256(b"one").hexdigest()

    counted = []
    digest = hashlib.file_digest
    monkeypatch.setattr(archive.hashlib, "file_digest", lambda *args: counted.append(1) or digest(*args))
    assert checksum_of(path, "MD5") == first
    assert not counted
    path.write_bytes(b"two")
    os.utime(path, (1e9 + 1, 1e9 + 1))
    assert checksum_of(path, "MD5") == hashlib.md5(b"two").hexdigest()


def test_the_checksum_of_a_file_written_just_now_is_not_remembered(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    stat = path.stat()
    checksum_of(path, "MD5")
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size and time, as if within the clock's resolution
    assert checksum_of(path, "MD5") == hashlib.md5(b"two").hexdigest()


@pytest.mark.parametrize("name", ["a" * 5000, "a" * (2 << 20)])
@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_very_long_header_is_refused(tmp_path, name, kind):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=kind) as tar:
        for member in (name, "wanted"):
            entry = tarfile.TarInfo(member)
            entry.size = 3
            tar.addfile(entry, io.BytesIO(b"yes"))
    if len(name) < 1 << 20:
        unpack(tmp_path / "a.tar.gz", {"wanted": range(3, 4)}, tmp_path / "out", most=10**7)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["wanted"]
    else:
        with pytest.raises(DataError, match=r"a header of 2,\d+,\d+ bytes"):
            unpack(tmp_path / "a.tar.gz", {"wanted": range(3, 4)}, tmp_path / "out", most=10**7)
        assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]
