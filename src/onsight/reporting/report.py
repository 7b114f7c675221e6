"""report(run) -> report.html: one file that tells the whole truth about a run, and verdict(run): its first lines.

Both read the run folder and nothing else, and work in every state of a run: before the first epoch, while it trains,
trained, evaluated. The page asks nothing of any network; its one script opens images and sorts tables.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

from onsight.core.files import write_atomic
from onsight.core.text import percent, plain, short, times
from onsight.display.page import TEMPLATES, fill
from onsight.reporting import sections
from onsight.reporting.commands import train_command
from onsight.reporting.verdict import _next_step, _sentences
from onsight.runs.run import Run, place, read_evaluations


def report(folder: Path | str | Run) -> Path:
    """Write `report.html` into a run and return its path.

    It is made again each time, from what the run holds by then. Raises RunError when the folder is no run or one of
    its files is damaged.
    """
    run = folder if isinstance(folder, Run) else Run(folder)
    page = fill("report.html.j2", _filters(), **_page(run)).lstrip()
    path = run.report
    write_atomic(path, page.encode("utf-8", "replace"))  # a name that is no Unicode is shown with "?"
    return path


def _page(run: Run) -> dict[str, Any]:
    """Return everything that the template shows."""
    history, evaluations = run.history(), read_evaluations(run)
    first = next(iter(evaluations), None)
    metrics = evaluations[first] if first else None
    sentences, lead = _sentences(run, history, metrics, first), ""
    if metrics:  # the page sets the accuracy large and the rest of its sentence beside it
        lead = sentences.pop(0).removeprefix(percent(metrics["accuracy"])).strip()
    advice, command = _next_step(run, history, metrics)
    script = (TEMPLATES / "report.js").read_text("utf-8")
    return {
        **sections.page(run, history, evaluations),
        "state": "evaluated" if metrics else "trained" if run.is_trained else "training",
        "progress": f"{history[-1]['epoch'] if history else 0} of {run.spec.get('epochs')}",
        "lead": lead,
        "sentences": sentences,
        "advice": advice,
        "command": command,
        "repeat": train_command(run),
        "place": place(run),
        "style": (TEMPLATES / "report.css").read_text("utf-8"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "made": datetime.now().astimezone().isoformat(timespec="minutes"),
    }


def _filters() -> dict[str, Any]:
    """Return what the page's template brings values into words with."""
    return {
        "percent": lambda share: _unbroken(percent(share)),
        "unbroken": _unbroken,
        "width": lambda share: f"{100 * min(1.0, max(0.0, float(share))):.2f}",
        "times": times,
        "name": short,
        "plain": lambda text: short(text, 200),
        "quoted": lambda text: plain(shlex.quote(str(text))),
        "number": lambda number: f"{number:,}",
        "shape": _shape,
        "time": _time,
    }


def _unbroken(text: str) -> str:
    """Return `text` with its percent signs tied to their numbers."""
    return text.replace(" %", "\u00a0%")


def _shape(sizes: Any) -> str:
    """Return a layer's output shape as text, without the batch: 32 × 32 × 16."""
    if not isinstance(sizes, list):
        return str(sizes)
    return " × ".join(str(size) for size in (sizes[1:] if sizes and sizes[0] is None else sizes))


def _time(text: Any) -> str:
    """Return an ISO time to the minute; what is none, as it is."""
    try:
        return f"{datetime.fromisoformat(str(text)):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return str(text)
