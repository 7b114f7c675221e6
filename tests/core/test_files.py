import errno
import hashlib
import os
import sys

import pytest
from filelock import Timeout

from onsight.core.errors import SpecError
from onsight.core.files import cache_folder, file_lock, sha256, sync_folder, write_atomic, write_json


def test_write_atomic_replaces_the_whole_file(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "one")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "two")
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_write_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_onsight_cache_moves_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("ONSIGHT_CACHE")
    assert cache_folder().name == "onsight"


@pytest.mark.parametrize("kind", ["EINVAL", "EOPNOTSUPP", "ENOSYS"])
def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path, monkeypatch, kind):
    def refuse(descriptor):
        raise OSError(getattr(errno, kind), kind)

    monkeypatch.setattr(os, "fsync", refuse)
    sync_folder(tmp_path)


def test_a_disk_that_fails_while_syncing_is_an_error(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)


@pytest.mark.parametrize("kind", ["ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, kind):
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(getattr(errno, kind), kind)

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(SpecError, match=r"has no file locks.*ONSIGHT_CACHE.*ONSIGHT_RUNS"), file_lock(tmp_path / "a"):
        pytest.fail("it has no lock")


def test_a_lock_that_another_holds_times_out(tmp_path):
    with file_lock(tmp_path / "a"), pytest.raises(Timeout), file_lock(tmp_path / "a", timeout=0):
        pytest.fail("both have the lock")


@pytest.mark.parametrize("kind", ["EIO", "ESTALE", "ENOTCONN"])
def test_a_storage_that_fails_is_one_sentence(tmp_path, monkeypatch, capsys, kind):
    from onsight import __main__
    from onsight.runs import run

    def fail(path, *rest):
        raise OSError(getattr(errno, kind), os.strerror(getattr(errno, kind)), str(path))

    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "spec.json").write_text("{}")
    monkeypatch.setattr(run, "list_runs", lambda folder: fail(tmp_path / "runs"))
    monkeypatch.setattr(sys, "argv", ["onsight", "runs", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as end:
        __main__.run()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "The storage of" in said
    assert "run the command again" in said
