"""The commands and code in the documents are executed, and their links and names are checked."""

import ast
import doctest
import importlib
import importlib.util
import re
import shlex
import shutil
import sys
import textwrap
import types
from itertools import chain
from pathlib import Path

import pytest

import onsight
from onsight.__main__ import main
from onsight.models.registry import MODELS
from onsight.spec import PRESETS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
DECISIONS = ROOT / "docs" / "decisions"


def blocks(text, language=""):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.fixture
def photos(draw_photos, tmp_path):
    """Create the files that the README's commands use: photos/ with classes, more/ and cat.jpg."""
    folder = draw_photos(("cat", "dog"), count=20, size=(40, 32))
    shutil.copytree(folder / "dog", tmp_path / "more")
    shutil.copy(folder / "cat" / "1.jpg", tmp_path / "cat.jpg")


def test_the_readmes_commands(photos, monkeypatch, capsys):
    commands = [
        shlex.split(line, comments=True)
        for block in blocks(README)
        for line in block.splitlines()
        if line.startswith("onsight ")
    ]
    assert [words[1] for words in commands] == [
        "check", "train", "evaluate", "predict", "predict", "predict", "train", "export", "models",
    ]  # fmt: skip
    for words in commands:
        if "--resume" in words:  # simulate a training that was stopped before it wrote its model
            (run,) = Path("runs").glob("photos-*")
            shutil.rmtree(run / "model")
        monkeypatch.setattr(sys, "argv", words)
        main()
        out = capsys.readouterr().out
        assert out or "--out" in words
    assert Path("answers.csv").read_text().startswith("path,label1,")
    assert (run / "model" / "model.json").exists()
    assert (run / "report.html").exists()


def test_the_readmes_python(photos, capsys):
    (code,) = blocks(README, "python")
    names = {}
    exec(compile(ast.parse(code), "README.md", "exec"), names)
    out = capsys.readouterr().out
    assert "95 % interval" in out
    assert "cat" in out
    assert names["model"].input_shape[-1] == 3


def test_the_readmes_links_and_names_exist():
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    presets, models = (re.findall(rf"--{flag} (\w+)", README) for flag in ("preset", "model"))
    assert len(targets) > 5  # a pattern that finds nothing would pass
    assert presets
    assert models
    assert [target for target in targets if not (ROOT / target).exists()] == []
    assert {*presets} <= {*PRESETS}
    assert {*models} <= {*MODELS}


def anchor(heading):
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(path):
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)", prose, re.M)}


def test_the_tables_of_cifar10_are_made_from_the_records():
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "benchmarks" / "reproduce.py")
    reproduce = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reproduce)
    records = reproduce.read_records()
    assert reproduce.BEGIN + reproduce.table(reproduce.in_readme(records)) + reproduce.END in README
    assert all(reproduce.ROWS[name].command == found["command"] for name, found in records.items())
    networks = (ROOT / "docs" / "models.md").read_text()
    for name, found in records.items():
        if network := reproduce.ROWS[name].network:
            (line,) = (line for line in networks.splitlines() if line.startswith(f"| `{network}` |"))
            assert f"| {100 * found['accuracy']:.2f} % (" in line
            assert f"`{found['command']}`" in line


@pytest.mark.parametrize("path", sorted(DECISIONS.glob("*.md")), ids=lambda path: path.stem)
def test_a_file_of_decisions(path):
    lines = path.read_text().splitlines()
    assert not [line for line in lines if len(line) > 100 and not line.startswith("|")]
    if path.name == "README.md":
        return
    index = (DECISIONS / "README.md").read_text()
    assert f"]({path.name})" in index
    _, *entries = re.split(r"^## ", path.read_text(), flags=re.M)
    assert entries
    for entry in entries:
        heading = entry.partition("\n")[0]
        assert re.findall(r"^\*\*(\w+)\*\*", entry, re.M)[:2] == ["Decision", "Why"], heading
        assert f"[{heading}]({path.name}#{anchor(heading)})" in index, heading


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_the_links_in_docs_resolve(path):
    for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", path.read_text()):
        name, _, place = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), target
        assert not place or place in anchors(linked), target


def test_make_targets_in_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text()
    for name in ("README.md", "CONTRIBUTING.md"):
        targets = re.findall(r"^make (\w+)", (ROOT / name).read_text(), re.M)
        assert targets, name
        for target in targets:
            assert re.search(rf"^{target}:", makefile, re.M), target


def test_files_contain_no_registry_address_and_no_local_path():
    registries = re.compile(r"pypi\.org|pythonhosted|registry\.npm|/work/|/root/")
    shown = ROOT.glob("notebooks/*"), ROOT.glob("examples/*")
    for path in [*ROOT.glob("*.*"), *ROOT.glob("requirements/*"), *ROOT.glob("src/onsight/**/*.py"), *chain(*shown)]:
        if path.is_file() and path.suffix not in (".png",):
            assert not registries.search(path.read_text()), path


EXAMPLES = [
    path for path in sorted((ROOT / "src" / "onsight").rglob("*.py")) if re.search(r">>>(?!.*\+SKIP)", path.read_text())
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_in_docstrings(path):
    name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


def steps_of(heading):
    """Return the code blocks of a section of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = re.search(rf"^## {heading}.*?\n(.*?)^## ", text, re.M | re.S)[1]
    return [textwrap.dedent(block) for block in re.findall(r"^   ```python\n(.*?)^   ```", section, re.M | re.S)]


def module_of(package, name, code, monkeypatch):
    """Install the code of a step as a module of Onsight, as if it were a file."""
    name = f"onsight.{package}.{name}"
    module = types.ModuleType(name)
    exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, name, module)


def test_a_model_is_added_as_contributing_says(monkeypatch):
    from onsight.models import registry
    from onsight.testing import check_model

    code, line = steps_of("Add a model")
    module_of("models", "tiny", code, monkeypatch)
    exec(line, registry.__dict__)
    try:
        assert registry.build_model("tiny", 32, 3).output_shape == (None, 3)
        check_model("tiny")
    finally:
        del registry.MODELS["tiny"]


def test_a_data_set_is_added_as_contributing_says(monkeypatch):
    from onsight.data import load

    code, line = steps_of("Add a data set")
    module_of("data", "stripes", code, monkeypatch)
    exec(line, load.__dict__)
    try:
        run = onsight.train(onsight.TrainSpec("stripes", model="mlp", epochs=3), reporter=onsight.Reporter())
        assert onsight.evaluate(run, reporter=onsight.Reporter()).metrics["accuracy"] > 0.8
    finally:
        del load.DATASETS["stripes"]
