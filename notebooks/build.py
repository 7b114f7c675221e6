"""Write each notebook from its script, execute it from top to bottom, and keep it with its outputs.

`make notebooks`, or: python notebooks/build.py [NAME…]. Takes CIFAR-10 from ONSIGHT_DATA, the cache, or the download.
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
MOST_BYTES = 600_000  # of a notebook with its outputs
ABSOLUTE = re.compile(r"""(?<![\w.:/])(?:/(?:home|root|tmp|work|usr|opt|mnt|Users|content)/|[A-Z]:\\)""")


def read_script(name: str, parameters: str = "") -> nbformat.NotebookNode:
    """Return a script as a notebook without outputs; `parameters` is code that follows the cell of that tag."""
    notebook = jupytext.read(HERE / f"{name}.py")
    for cell in list(notebook.cells):
        if parameters and "parameters" in cell.metadata.get("tags", ()):
            notebook.cells.insert(notebook.cells.index(cell) + 1, nbformat.v4.new_code_cell(parameters))
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name}-{number}"  # else each build would give it another
    notebook.metadata.pop("jupytext", None)
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: Path, manager: Any = None, client: Any = None) -> None:
    """Run every cell in `folder`, on a new kernel or on that of a manager and its client.

    Raises:
        CellExecutionError: one fails.
    """
    where = {"metadata": {"path": str(folder)}}
    runner = NotebookClient(
        notebook, km=manager, timeout=3600, startup_timeout=300, resources=where, record_timing=False
    )
    runner.kc = client
    runner.execute()
    notebook.metadata.pop("language_info", None)  # the version of this Python


def shrink(notebook: nbformat.NotebookNode) -> None:
    """Write the figures with 256 colours, for a third of the bytes: nobody sees a difference at this size."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", ()):
                image = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB")
                content = io.BytesIO()
                image.quantize(256).save(content, "PNG", optimize=True)
                output.data["image/png"] = base64.b64encode(content.getvalue()).decode()


def find_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what no published notebook should hold: errors, warnings, a path of this machine, too many bytes."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"{cell.id}: {output.get('evalue') or output.get('text')}")
            said = nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])]))
            found += [f"{cell.id}: the path {match[0]}…" for match in ABSOLUTE.finditer(said)]
    if (size := len(nbformat.writes(notebook))) > MOST_BYTES:
        found.append(f"{size:,} bytes, more than {MOST_BYTES:,}")
    return found


def main(names: list[str]) -> int:
    """Build the notebooks and return the exit code."""
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
