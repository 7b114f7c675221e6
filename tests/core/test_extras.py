"""Without what only training needs, Onsight answers, evaluates, compares, reports and exports."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MISSING = ("keras", "tensorflow", "jax", "scipy", "sklearn", "matplotlib", "seaborn", "pandas")
PROGRAM = f"""
import sys
for name in {MISSING}:
    sys.modules[name] = None  # as if it were not installed
from onsight.__main__ import main
main()
"""


def light(*words):
    """Run the command line in a process that lacks `MISSING`; return its exit code and all that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=280
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def run(toy_run, tmp_path):
    """Return the folder of a copy of an evaluated run, as it comes from the machine that trained it."""
    return shutil.copytree(toy_run.folder, tmp_path / "runs" / "toy-1")


def test_a_light_install_answers_evaluates_compares_reports_and_exports(run, tmp_path):
    before = json.loads((run / "evaluations" / "test" / "metrics.json").read_text())
    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "red.png")
    code, said = light("predict", run, "red.png")
    assert (code, "red" in said) == (0, True), said
    shutil.copytree(run, tmp_path / "runs" / "toy-2")
    code, said = light("evaluate", run)
    assert code == 0, said
    assert re.search(r"no plots .*'onsight\[train\]'", said)
    assert re.search(r"no map .*'onsight\[train\]'", said)
    after = json.loads((run / "evaluations" / "test" / "metrics.json").read_text())
    assert {key: value for key, value in after.items() if key != "evaluated_at"} == {
        key: value for key, value in before.items() if key != "evaluated_at"
    }
    assert not list((run / "evaluations" / "test").glob("*.png"))  # those of before would be of other answers
    for words in (("compare", run, tmp_path / "runs" / "toy-2"), ("report", run), ("export", run, "litert")):
        code, said = light(*words)
        assert code == 0, said
    assert b"labels.txt" in (run / "export" / "model.tflite").read_bytes()
    assert np.load(run / "export" / "vectors" / "probabilities.npy").dtype == np.float32


def test_what_needs_another_extra_says_which(run):
    code, said = light("evaluate", run, "--robustness")
    assert (code, "--robustness needs SciPy" in said, "'onsight[train]'" in said) == (2, True, True), said
    code, said = light("check", "digits")
    assert (code, said.strip()) == (
        2, "onsight: scikit-learn is not installed. Install it: pip install 'onsight[train]'"
    )  # fmt: skip
    code, said = light("export", run, "saved_model")
    assert (code, "onsight[tensorflow]" in said) == (2, True), said


def test_the_core_asks_for_nothing_that_only_training_needs():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w-]+", each)[0] for each in project["dependencies"]]
    assert not {"scipy", "scikit-learn", "matplotlib", "seaborn", "keras"} & set(names)
    for framework in ("tensorflow", "jax"):
        assert "onsight[train]" in project["optional-dependencies"][framework]
