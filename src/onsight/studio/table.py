"""The table of the runs in a folder, and the commands that go on with each. A row is read again if its files change."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from onsight.core.errors import OnsightError
from onsight.core.files import argument
from onsight.reporting.commands import train_command
from onsight.runs.following import state
from onsight.runs.run import Run
from onsight.runs.summary import summarise
from onsight.serving.refusals import unknown

FRESH = 1.0  # seconds for which the table is not read again, however many look at it
READ = ("spec.json", "dataset.json", "history.jsonl", "model", "report.html", "evaluations/test/metrics.json")


class Table:
    """The runs of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, tuple[object, Run, dict[str, Any]]] = {}
        self.shown: list[dict[str, Any]] = []
        self.read_at = 0.0
        self.lock = asyncio.Lock()

    async def rows(self) -> list[dict[str, Any]]:
        """Return one row per run, the newest first."""
        async with self.lock:
            if time.monotonic() - self.read_at > FRESH:
                self.shown = await asyncio.to_thread(self.read)
                self.read_at = time.monotonic()
        return self.shown

    async def run(self, name: str) -> Run:
        """Return the run of this name. The name is looked up, and never becomes part of a path."""
        await self.rows()
        if name not in self.known:
            raise unknown("There is no such run.")
        return self.known[name][1]

    def read(self) -> list[dict[str, Any]]:
        """Read what has changed."""
        known = {}
        for path in self.folder.iterdir() if self.folder.is_dir() else []:
            if not (path / "spec.json").is_file():
                continue
            seen = [when(path / name) for name in READ]
            before = self.known.get(path.name)
            try:
                if before and before[0] == seen:
                    known[path.name] = before
                else:
                    run = Run(path)
                    known[path.name] = (seen, run, row(run))
            except (OnsightError, OSError, LookupError, TypeError, ValueError, AttributeError):
                continue  # it is being written or deleted, damaged, or of a newer version: the others are shown
        self.known = known
        rows = [each | {"state": state(run)} for _, run, each in known.values()]
        return sorted(rows, key=lambda each: (each["created"], each["name"]), reverse=True)


def when(path: Path) -> tuple[int, int] | None:
    """Return what changes if a file changes."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino


def row(run: Run) -> dict[str, Any]:
    """Return what the page shows of a run, except its state."""
    place = argument(run.folder)
    summary = summarise(run)
    commands = {}
    if not run.is_trained:
        commands["Continue its training"] = f"onsight train --resume {place}"
    elif summary["test"] is None:
        commands["Score it on its test images"] = f"onsight evaluate {place}"
    if run.is_trained:
        commands |= {
            "Classify images": f"onsight predict {place} photos/",
            "Write it for other runtimes": f"onsight export {place} onnx",
            "Answer over HTTP": f"onsight serve {place}",
        }
    commands["Train it again"] = train_command(run)
    commands["Send it to a tracker"] = f"onsight log {place} --to mlflow"
    report = run.report.is_file() and not run.report.is_symlink()  # a link could lead out of the run
    return {"name": run.folder.name, "place": place, **summary, "report": report, "commands": commands}
