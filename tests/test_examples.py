"""Each example runs unchanged, with fewer epochs, and its docstring states the expected time and accuracy."""

import ast
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import onsight
from onsight.models.registry import MODELS
from onsight.spec import PRESETS

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Train for one epoch only: these tests check that the examples run, not their accuracy."""
    monkeypatch.setitem(PRESETS["quick"][1], "epochs", 1)
    monkeypatch.setattr("onsight.training.resolve.SMALL_SET", 1)


@pytest.fixture
def photos(draw_photos):
    """Create the photos of conftest.py as PNG files."""
    return draw_photos(suffix="png")


def run(name, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.slow
def test_folder(photos, monkeypatch, capsys):
    run("folder.py", monkeypatch, photos, photos / "red" / "2.png", photos / "blue" / "0.png")
    said = capsys.readouterr().out
    assert "72 images in 3 classes" in said
    assert "95 % interval" in said
    assert re.search(r"red.2\.png (red|green|blue) \d", said)
    (report,) = Path("runs").glob("*/report.html")
    assert str(report) in said


@pytest.mark.slow
def test_table(monkeypatch, capsys):
    run("table.py", monkeypatch)
    said = capsys.readouterr().out
    assert "95 % interval" in said
    assert said.count("% of ") == 6
    assert len(list(Path("scans").glob("*.png"))) == 1797


def test_table_of_the_user(photos, monkeypatch, capsys):
    rows = [f"{path},{path.parent.name},{path.stem[-1]}" for path in sorted(photos.rglob("*.png"))]
    Path("mine.csv").write_text("\n".join(["path,label,last digit", *rows]))
    run("table.py", monkeypatch, "mine.csv")
    assert "95 % interval" in capsys.readouterr().out


@pytest.fixture
def _registry():
    """Remove the models that a script registers."""
    known = dict(MODELS)
    yield
    for name in MODELS.keys() - known:
        del MODELS[name]


@pytest.mark.usefixtures("_registry")
def test_own_model(monkeypatch, capsys):
    spec = onsight.TrainSpec
    monkeypatch.setattr(onsight, "TrainSpec", lambda **fields: spec(**fields | {"data": "toy", "epochs": 1}))
    run("own_model.py", monkeypatch)
    assert "95 % interval" in capsys.readouterr().out
    (made,) = onsight.list_runs()
    assert made.spec["model"] == "mine"
    assert onsight.predict(made, onsight.load_dataset("toy").images[0])[0].label in made.classes


@pytest.mark.slow
def test_export_and_use(monkeypatch, capsys):
    spec = onsight.TrainSpec
    monkeypatch.setattr(onsight, "TrainSpec", lambda **fields: spec(**fields | {"data": "toy", "model": "cnn"}))
    run("export_and_use.py", monkeypatch)
    said = capsys.readouterr().out
    assert len(re.findall(r" (?:red|green|blue)\b", said)) == 10
    assert float(said.split()[-1]) < 1e-5


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_example_is_short_and_states_what_to_expect(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    about = ast.get_docstring(ast.parse(text))
    assert f"python examples/{path.name}" in about
    assert re.search(r"\d (?:s|min)\b", about)
    assert re.search(r"\d % ", about)


def test_all_examples_are_tested():
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == ["export_and_use", "folder", "own_model", "table"]


RECIPES = sorted((EXAMPLES / "scale").iterdir())


def texts(value):
    """Return the commands in a file of YAML: the texts that are run, and lists of words as one text."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value[:1] == ["onsight"]:
        return [shlex.join(value)]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for child in children for text in texts(child)]


def environment_of(value):
    """Return the environment variables that a file of YAML sets."""
    if isinstance(value, dict) and "name" in value and ("value" in value or "valueFrom" in value):
        return {value["name"]: value.get("value", "3")}
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {name: text for child in children for name, text in environment_of(child).items()}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_commands_of_the_recipes_are_accepted(path, monkeypatch):
    """The schedulers are not here: what can be checked is that files parse and that Onsight takes the commands."""
    import yaml

    from onsight.cli.app import parsed
    from onsight.training.distributed import find_place

    given = {"SKYPILOT_NUM_NODES": "4", "SKYPILOT_NODE_RANK": "3"}
    if path.suffix == ".sh":
        subprocess.run(["bash", "-n", path], check=True)
        found = [path.read_text()]
    else:
        document = yaml.safe_load(path.read_text())
        found, given = texts(document), given | environment_of(document)
        for name in ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID"):
            if f"JAX_{name}" in given:
                monkeypatch.setenv(f"JAX_{name}", given[f"JAX_{name}"])
    lines = [line for text in found for line in re.findall(r"^(?:srun \S+ )?(onsight train .*)", text, re.M)]
    assert len(lines) == 1
    line = re.sub(r'"\$\(echo .*\):3456"', "10.0.0.1:3456", lines[0]).replace(" || status=$?", "")
    line = re.sub(r"\$\{?(\w+)(?::-[^}]*)?\}?", lambda match: given.get(match[1], "place"), line)
    function, _, options = parsed(shlex.split(line)[1:])
    assert function.__name__ == "train"
    assert options["spec"].backend == "jax"
    if path.name == "ray.sh":
        assert options["workers"] == 4
        return
    assert options["or_resume"]
    if path.stem in ("jobset", "skypilot"):
        place = find_place(options["coordinator"], options["processes"], options["rank"])
        assert place.processes == 4
        assert place.rank == 3
