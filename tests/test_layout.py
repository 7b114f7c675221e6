"""The layout of the code: what is imported when, and that strings which name code are correct."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import build_reference
import onsight

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "onsight"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FRAMEWORKS = ("keras", "tensorflow", "jax", "torch")
FILES = [path for path in sorted(SOURCE.rglob("*.py")) if "readers" not in path.parts]  # readers are standalone
PACKAGES = [path.parent.name for path in sorted(SOURCE.glob("*/__init__.py"))]
MODULES = [
    ".".join(("onsight", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__") for path in FILES
]
(BANNED,) = (
    pattern
    for pattern, rules in PROJECT["tool"]["ruff"]["lint"]["per-file-ignores"].items()
    if rules == ["TID253"] and pattern.startswith("src/")
)


def expand(pattern):
    """Return the patterns that a pattern with {a,b} stands for."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", pattern)
    return [f"{found[1]}{part}{found[3]}" for part in found[2].split(",")] if found else [pattern]


def loaded(modules, names):
    """Return the modules in `names` that are loaded in a new process after it has imported `modules`."""
    code = f"import sys, {', '.join(modules)}; print(*[name for name in {names!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_only_networks_and_optimizers_import_a_framework_at_import_time():
    allowed = {path for pattern in expand(BANNED) for path in ROOT.glob(pattern)}
    networks = {"models.registry", "models.custom", "models.summary", "models.model_file", "models.remove_channels"}
    free = [
        name
        for name, path in zip(MODULES, FILES, strict=True)
        if path not in allowed or name.removeprefix("onsight.") in networks
    ]
    assert len(free) > 100
    assert loaded(free, FRAMEWORKS) == []


@pytest.mark.parametrize("modules", [["onsight", "onsight.cli.app", "onsight.spec", "onsight.core.errors"]])
def test_the_command_line_does_not_import_numpy(modules):
    assert loaded(modules, (*FRAMEWORKS, "numpy", "scipy", "sklearn", "matplotlib")) == []


def test_package_files_contain_only_a_docstring():
    for name in PACKAGES:
        (only,) = ast.parse((SOURCE / name / "__init__.py").read_text()).body
        assert isinstance(only, ast.Expr), name
        assert "import" in only.value.value.lower(), name  # states what the package may import


def test_no_module_replaces_a_public_function():
    """Importing a package called `export` would replace the lazy `onsight.export`."""
    for name in MODULES:
        importlib.import_module(name)
    for name in {*onsight.__all__} - {*onsight._MODULES}:
        assert not isinstance(getattr(onsight, name), type(onsight)), name
    assert not {*PACKAGES} & {*onsight.__all__}


def named_code():
    """Yield (file, name) for every string that names code: "package.module:function" or "onsight.module.name"."""
    for path in [*FILES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            text = node.value
            if re.fullmatch(r"onsight(\.\w+)+(:\w+)?", text):
                yield path, text
            elif "import" in text:  # code for another process
                for module, names in re.findall(r"from (onsight[\w.]*) import ([\w, ]+)", text):
                    yield from ((path, f"{module}:{name.split()[0]}") for name in names.split(", ") if name.strip())
                yield from ((path, name) for name in re.findall(r"import (onsight(?:\.\w+)+)", text))
    (script,) = PROJECT["project"]["scripts"].values()
    yield ROOT / "pyproject.toml", script
    for override in PROJECT["tool"]["mypy"]["overrides"]:
        yield from ((ROOT / "pyproject.toml", name) for name in override["module"] if name.startswith("onsight"))


def test_strings_that_name_code_are_correct():
    found = list(named_code())
    assert len(found) > 20
    for path, name in found:
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            pytest.fail(f"{path.relative_to(ROOT)} names {name}: {error}")


def test_registries_name_functions_that_exist():
    from onsight.data.load import DATASETS
    from onsight.exporting.formats import FORMATS, READERS
    from onsight.models.registry import MODELS

    for entry in MODELS.values():
        for reference in filter(None, (entry.function, entry.prepare)):
            assert callable(pkgutil.resolve_name(f"onsight.models.{reference}"))
    for entry in DATASETS.values():
        assert callable(pkgutil.resolve_name(f"onsight.data.{entry.function}"))
    for name, entry in FORMATS.items():
        assert callable(pkgutil.resolve_name(f"onsight.exporting.{entry.writer}"))
        assert (READERS / f"read_{name}.py").is_file()


def test_every_command_can_be_loaded():
    from onsight.cli.app import COMMANDS, GROUPS
    from onsight.cli.flags import options_of

    assert len(COMMANDS) == 23
    for name, entry in COMMANDS.items():
        assert entry.group in GROUPS, name
        undescribed = [each.name for each in options_of(entry.load()) if not each.about.help]
        assert not undescribed, name


def test_settings_name_files_that_exist():
    for pattern in PROJECT["tool"]["ruff"]["lint"]["per-file-ignores"]:
        for each in expand(pattern):
            assert any(ROOT.glob(each)), each
    (artifacts,) = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["artifacts"]
    folder = artifacts.removesuffix("/*")
    assert (ROOT / folder).parent.is_dir()
    assert f"LITERT := {folder}\n" in (ROOT / "Makefile").read_text()
    assert f"/{folder}/\n" in (ROOT / ".gitignore").read_text()


def test_architecture_is_one_page_and_shows_the_current_layers_and_packages():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert len(text.splitlines()) <= 100
    layers = next(c["layers"] for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    assert "\n".join(f"    {layer}" for layer in layers if layer != "__main__") in text
    for name in PACKAGES:
        first = ast.get_docstring(ast.parse((SOURCE / name / "__init__.py").read_text())).partition("\n\n")[0]
        assert f"| `{name}` | {' '.join(first.split()).rstrip('.')} |" in text, name


def test_tests_mirror_the_packages():
    for folder in (ROOT / "tests").iterdir():
        if folder.is_dir() and folder.name != "attack" and any(folder.glob("*.py")):  # it attacks all packages
            assert folder.name in PACKAGES
            modules = {path.stem for path in (SOURCE / folder.name).glob("*.py")}
            for path in folder.glob("test_*.py"):
                name = path.stem.removeprefix("test_")
                assert any(f"{name}_".startswith(f"{module}_") for module in modules), path


def test_the_lazy_table_the_type_hints_and_the_reference_have_the_same_public_names():
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    (hints,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.asname: (node.module, alias.name) for node in hints.body for alias in node.names}
    assert {*typed, "__version__"} == {*onsight.__all__}
    for name, (module, original) in typed.items():
        expected = importlib.import_module(f"{module}.{original}") if name in onsight._MODULES else None
        found = getattr(onsight, name)
        assert found is (expected or getattr(importlib.import_module(module), original)), name
        assert inspect.getdoc(found), name
    assert (ROOT / "docs" / "reference.md").read_text() == build_reference.page()


def test_notebooks_and_examples_import_no_internals():
    for path in [*ROOT.glob("notebooks/*.py"), *ROOT.glob("examples/*.py"), ROOT / "README.md"]:
        assert not re.findall(r"^\s*(?:from onsight\.\S* import|import onsight\.)", path.read_text(), re.M), path


def test_modules_and_functions_stay_readable_at_once():
    """A module has about 450 lines at most, a function about 60 without its docstring."""
    for path in FILES:
        text = path.read_text()
        assert len(text.splitlines()) <= 470, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                assert not body or body[-1].end_lineno - body[0].lineno < 60, (path, node.name)
