"""Build each notebook from its script: execute it from top to bottom and save it with its outputs.

Run `make notebooks` or `python notebooks/build.py [NAME…]`. CIFAR-10 comes from ONSIGHT_DATA, the cache, or the
download.
"""

from __future__ import annotations

import base64
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
NAMES = ("tutorial", "your_own_photos", "understand")
MAX_BYTES = 600_000  # size limit of one notebook with its outputs
ABSOLUTE = re.compile(r"""(?<![\w.:/])(?:/(?:home|root|tmp|work|usr|opt|mnt|Users|content)/|[A-Z]:\\)""")


def read_script(name: str, parameters: str = "") -> nbformat.NotebookNode:
    """Return the script `name` as a notebook without outputs.

    Args:
        name: one of `NAMES`.
        parameters: code for an extra cell after the cell with the tag `parameters`; empty: no extra cell.
    """
    notebook = jupytext.read(HERE / f"{name}.py")
    for cell in list(notebook.cells):
        if parameters and "parameters" in cell.metadata.get("tags", ()):
            notebook.cells.insert(notebook.cells.index(cell) + 1, nbformat.v4.new_code_cell(parameters))
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name}-{number}"  # a fixed id: otherwise every build would give the cell a new one
    notebook.metadata.pop("jupytext", None)
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: Path, manager: Any = None, client: Any = None) -> None:
    """Execute every cell with `folder` as the working directory.

    Args:
        notebook: the notebook; its outputs are replaced.
        folder: the working directory of the kernel.
        manager: the KernelManager of a running kernel; None starts a new kernel.
        client: the client of that kernel.

    Raises:
        CellExecutionError: a cell fails.
    """
    resources = {"metadata": {"path": str(folder)}}
    runner = NotebookClient(
        notebook, km=manager, timeout=3600, startup_timeout=300, resources=resources, record_timing=False
    )
    runner.kc = client
    runner.execute()
    notebook.metadata.pop("language_info", None)  # it names the version of this Python


def shrink(notebook: nbformat.NotebookNode) -> None:
    """Reduce the figures to 256 colours. This saves two thirds of the bytes, and the difference is not visible."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", ()):
                image = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB")
                content = io.BytesIO()
                image.quantize(256).save(content, "PNG", optimize=True)
                output.data["image/png"] = base64.b64encode(content.getvalue()).decode()


def find_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what must not be in a published notebook: errors, warnings, paths of this machine, too many bytes."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"{cell.id}: {output.get('evalue') or output.get('text')}")
            text = nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])]))
            found += [f"{cell.id}: an absolute path, {match[0]}…" for match in ABSOLUTE.finditer(text)]
    if (size := len(nbformat.writes(notebook))) > MAX_BYTES:
        found.append(f"{size:,} bytes: the limit is {MAX_BYTES:,}")
    return found


def main(names: list[str]) -> int:
    """Build the notebooks `names`, or all of them; return the exit code: the number of notebooks with problems."""
    failed = 0
    for name in names or NAMES:
        print(f"{name}.ipynb", flush=True)
        notebook = read_script(name)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        shrink(notebook)
        problems = find_problems(notebook)
        print(*(f"  {problem}" for problem in problems), sep="\n", end="\n" * bool(problems))
        if problems:
            failed += 1
        else:
            nbformat.write(notebook, HERE / f"{name}.ipynb")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
