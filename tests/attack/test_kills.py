"""Nothing is lost when a command is killed before any of its changes to a folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import onsight
from attack import kill_at
from attack.kill_at import KILLED
from onsight.core.errors import RunError
from onsight.core.files import replace_folder, sha256
from onsight.core.progress import Reporter
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import clear_cache, load_pixels
from onsight.runs.run import Run


def run_killed(point, folder, *words):
    """Run a command, killed at this change of the folder; return its exit code and what it said."""
    command = [sys.executable, kill_at.__file__, str(point), folder, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=os.environ)
    assert done.returncode in (0, 2, KILLED), done.stderr
    return done.returncode, done.stderr.strip()


def test_a_finished_run_that_is_trained_longer_is_behind_until_it_has_a_new_model(toy_run, tmp_path, monkeypatch):
    from onsight.training import loop

    run = Run(shutil.copytree(toy_run.folder, tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_model", lambda *rest: (_ for _ in ()).throw(KeyError("a bug")))
        with pytest.raises(KeyError):
            onsight.resume(run, epochs=run.spec["epochs"] + 1, reporter=Reporter())
    stopped = Run(run.folder)
    assert stopped.is_behind
    assert not stopped.is_trained
    with pytest.raises(RunError, match=r"is trained longer, and its model/ is of before.* train --resume"):
        onsight.evaluate(stopped, reporter=Reporter())
    again = onsight.resume(stopped.folder, epochs=stopped.spec["epochs"], reporter=Reporter())  # the same command
    assert again.is_trained
    assert sha256(again.model_folder / "weights.safetensors") != sha256(toy_run.model_folder / "weights.safetensors")
    with pytest.raises(RunError, match="has finished"):
        onsight.resume(again.folder, reporter=Reporter())


def test_an_export_killed_between_its_renames_keeps_the_old_one(toy_run, tmp_path):
    run = Run(shutil.copytree(toy_run.folder, tmp_path / "run"))
    (run.folder / "export").mkdir()
    (run.folder / "export" / "table.json").write_text("old")
    new = tmp_path / "new"
    new.mkdir()
    (new / "table.json").write_text("new")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", Killer(Path.rename, after=1))
        with pytest.raises(KeyboardInterrupt):
            replace_folder(new, run.folder / "export")
    assert not (run.folder / "export").exists()
    assert (run.export_folder / "table.json").read_text() == "old"
    replace_folder(new, run.export_folder)
    assert (run.export_folder / "table.json").read_text() == "new"
    assert not list(run.folder.glob(".export*"))


@pytest.mark.parametrize("point", [1, 2, 4, 8])
def test_a_killed_clear_cache_breaks_nothing(point, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cache"))
    dataset = load_dataset(photos)
    before = load_pixels(dataset, 16).hashes
    code, _ = run_killed(point, tmp_path / "cache", "clear-cache")
    assert code == KILLED
    assert load_pixels(dataset, 16).hashes.tolist() == before.tolist()
    clear_cache()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]


class Killer:
    """Calls a method until it has been called often enough; then the process is killed, as it were."""

    def __init__(self, method, after):
        self.method, self.left = method, after

    def __get__(self, path, owner):
        return lambda *rest: self(path, *rest)

    def __call__(self, path, *rest):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.method(path, *rest)
