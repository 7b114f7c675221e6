"""A running server for the tests of its interfaces."""

import shutil

import numpy as np
import pytest

from clients import png, running

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")


@pytest.fixture(scope="session")
def runs(toy_run, knowing_run, tmp_path_factory):
    """A folder with copies of the toy run and of the one that knows distances: a server adds a file to its runs."""
    folder = tmp_path_factory.mktemp("served")
    for name, run in (("toy", toy_run), ("knowing", knowing_run)):
        shutil.copytree(run.folder, folder / name)
    return folder


@pytest.fixture(scope="session")
def server(runs):
    """A server with both runs. Tests share it and leave it running."""
    with running(runs / "toy", runs / "knowing") as client:
        yield client


@pytest.fixture(scope="session")
def red():
    """A PNG file that is red."""
    return png(np.zeros((40, 60, 3), np.uint8) + np.array([220, 30, 30], np.uint8))
