"""A folder with three runs, one of each state, and a studio that shows it."""

import os
import shutil

import pytest

from clients import running
from onsight.runs.run import Run

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")


@pytest.fixture(scope="session")
def make_runs(toy_run):
    """Return a function that fills a folder with runs: two trained and evaluated, one that has stopped."""

    def make(folder):
        for name in ("first", "second", "dead"):
            shutil.copytree(toy_run.folder, folder / name)
        dead = folder / "dead"
        for name in ("model", "evaluations"):
            shutil.rmtree(dead / name)
        (dead / "report.html").unlink()
        Run(dead).rewrite_history(Run(dead).history()[:3])
        for path in dead.iterdir():
            os.utime(path, (1, 1))
        return folder

    return make


@pytest.fixture(scope="session")
def folder(make_runs, tmp_path_factory):
    """The folder. Tests only read it."""
    return make_runs(tmp_path_factory.mktemp("studio") / "runs")


@pytest.fixture(scope="session")
def studio(folder):
    """A studio of that folder. Tests share it and leave it running."""
    with running(folder, command="studio", ready=False) as client:
        yield client
