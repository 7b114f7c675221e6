"""Each notebook matches its script, was executed from top to bottom, and is executed again with tiny settings."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupytext")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

HERE = Path(__file__).resolve().parents[1] / "notebooks"
build = SimpleNamespace(**runpy.run_path(str(HERE / "build.py")))
THREE = "measure.__kwdefaults__['names'] = ('contrast', 'fog', 'pixelate')"  # three corruptions instead of fifteen
TINY = {
    "tutorial": 'DATA = "toy"\nANN_EPOCHS = CNN_EPOCHS = 1',
    "your_own_photos": 'STAND_IN = "toy"\nIMAGES_PER_CLASS = 40\nEPOCHS = 1',
    "understand": f'DATA = "toy"\nEPOCHS = 1\nfrom onsight.evaluation.robustness import measure\n{THREE}',
}

each = pytest.mark.parametrize("name", build.NAMES)


@pytest.fixture(scope="module")
def kernel():
    """Yield the manager and client of one kernel for all tests, because importing TensorFlow takes most of the time."""
    from jupyter_client import KernelManager

    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=300)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("name", ["tutorial", "your_own_photos", pytest.param("understand", marks=pytest.mark.slow)])
def test_a_notebook_executes(name, kernel, tmp_path):
    notebook = build.read_script(name, f"import os\nos.chdir({str(tmp_path)!r})\n{TINY[name]}")
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    build.execute(notebook, tmp_path, *kernel)
    assert build.find_problems(notebook) == []
    assert any("text/html" in output.get("data", ()) for cell in notebook.cells for output in cell.get("outputs", ()))


@each
def test_the_published_notebook_matches_its_script(name):
    published = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    script = build.read_script(name)
    assert [(cell.cell_type, cell.source) for cell in published.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ]
    nbformat.validate(published)


@each
def test_the_published_notebook_was_executed_in_order(name):
    published = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    code = [cell for cell in published.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert build.find_problems(published) == []


@each
def test_the_first_cell_installs_onsight_only_if_it_is_missing(name):
    first = next(cell for cell in build.read_script(name).cells if cell.cell_type == "code").source
    assert re.search(r'except ModuleNotFoundError:\n    %pip install --quiet "onsight\[tensorflow\]"\n', first)
    assert sum("pip install" in cell.source for cell in build.read_script(name).cells) == 1
    assert "http" not in (HERE / f"{name}.py").read_text()


def test_all_notebooks_are_built_and_tested():
    assert sorted(build.NAMES) == sorted(path.stem for path in HERE.glob("*.ipynb")) == sorted(TINY)


def test_problems_are_found():
    output = nbformat.v4.new_output
    cells = [
        nbformat.v4.new_code_cell(outputs=[output("stream", name="stderr", text="a warning")]),
        nbformat.v4.new_code_cell(outputs=[output("error", ename="E", evalue="failed", traceback=[])]),
        nbformat.v4.new_code_cell(outputs=[output("stream", text="in /home/me/photos")]),
        nbformat.v4.new_code_cell(outputs=[output("stream", text="in runs/home/me and 1/work/2")]),
    ]
    found = build.find_problems(nbformat.v4.new_notebook(cells=cells))
    assert len(found) == 3
    big = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output("stream", text="x" * 700_000)])])
    assert "bytes" in build.find_problems(big)[0]
