"""report(run) writes report.html, one page with everything that is known about a run, and the model card.

It reads only the run folder, and works in every state of a run: before the first epoch, during training, trained or
evaluated. The page makes no network request. Its only script opens images and sorts tables.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

from onsight.core.files import write_atomic
from onsight.core.text import percent, short, times
from onsight.display.page import TEMPLATES, fill
from onsight.imaging import heat
from onsight.reporting import sections
from onsight.reporting.commands import check_command, train_command
from onsight.reporting.model_card import write_model_card
from onsight.reporting.verdict import next_step, sentences
from onsight.runs.run import Run, place, read_evaluations


def report(folder: Path | str | Run) -> Path:
    """Write `report.html` into a run folder and return its path; write MODEL_CARD.md, too, if the run is trained.

    Each call writes the pages again from the files that the run has now.

    Raises:
        RunError: the folder is not a run, or one of its files is damaged.
    """
    run = folder if isinstance(folder, Run) else Run(folder)
    page = fill("report.html.j2", _filters(), **_page(run)).lstrip()
    path = run.report
    write_atomic(path, page.encode("utf-8", "replace"))  # bytes of a name that are not Unicode become "?"
    if run.is_trained:
        write_model_card(run)
    return path


def _page(run: Run) -> dict[str, Any]:
    """Return the values of all variables in the template."""
    history, evaluations = run.history(), read_evaluations(run)
    first = next(iter(evaluations), None)
    metrics = evaluations[first] if first else None
    findings, lead = sentences(run, history, metrics, first), ""
    if metrics:  # the page shows the accuracy in large type, followed by the rest of its sentence
        lead = findings.pop(0).removeprefix(percent(metrics["accuracy"])).strip()
    advice, command = next_step(run, history, metrics, shared=True)
    script = (TEMPLATES / "report.js").read_text("utf-8")
    return {
        **sections.page(run, history, evaluations),
        "state": "evaluated" if metrics else "trained" if run.is_trained else "training",
        "progress": f"{history[-1]['epoch'] if history else 0} of {run.spec.get('epochs')}",
        "lead": lead,
        "sentences": findings,
        "advice": advice,
        "command": command,
        "repeat": train_command(run, shared=True),
        "place": place(run),
        "check_command": check_command(run, shared=True),
        "style": f":root {{ --heat: {heat.css_gradient()}; }}\n" + (TEMPLATES / "report.css").read_text("utf-8"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "made": datetime.now().astimezone().isoformat(timespec="minutes"),
    }


def _filters() -> dict[str, Any]:
    """Return the filters of the template, which format values as text."""
    return {
        "percent": lambda share: _unbroken(percent(share)),
        "unbroken": _unbroken,
        "width": lambda share: f"{100 * min(1.0, max(0.0, float(share))):.2f}",
        "times": times,
        "name": short,
        "plain": lambda text, most=200: short(text, most),
        "number": lambda number: f"{number:,}",
        "shape": _shape,
        "time": _time,
    }


def _unbroken(text: str) -> str:
    """Return `text` with no line break between a number and its percent sign."""
    return text.replace(" %", "\u00a0%")


def _shape(sizes: Any) -> str:
    """Return a layer's output shape as text, without the batch: 32 × 32 × 16."""
    if not isinstance(sizes, list):
        return str(sizes)
    return " × ".join(str(size) for size in (sizes[1:] if sizes and sizes[0] is None else sizes))


def _time(text: Any) -> str:
    """Return an ISO time to the minute; any other text unchanged."""
    try:
        return f"{datetime.fromisoformat(str(text)):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return str(text)
