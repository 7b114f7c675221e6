"""Reporters that show progress: a live display in a terminal or a notebook, and plain lines elsewhere.

Outside notebooks they write to standard error, because standard output is for answers only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Any, TextIO

from onsight.core.progress import Reporter
from onsight.core.text import columns, duration, epoch_line, note_line, printable


class PlainReporter(Reporter):
    """Print plain lines, for files and pipes, and for terminals where Rich is not installed."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream
        self._printed_at = 0.0
        self._printed: set[tuple[str, ...]] = set()

    def say(self, line: str) -> None:
        """Print a line at once, without what could control a terminal."""
        print(printable(line), file=self.stream or sys.stderr, flush=True)

    def note(self, label: str, text: str) -> None:
        self.say(note_line(label, text))

    def work(self, what: str, done: int, total: int | None) -> None:
        if done == total or time.monotonic() - self._printed_at > 5:
            self._printed_at = time.monotonic()
            self.say(f"{what}: {done:,}" + (f" of {total:,}" if total else ""))

    def epoch(self, row: Mapping[str, Any]) -> None:
        self.say(epoch_line(row))

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print the rows that are new or have changed."""
        for row, line in zip(rows, columns(rows), strict=True):
            if tuple(row) not in self._printed:
                self.say(line)
        self._printed = {tuple(row) for row in rows}


class NotebookReporter(Reporter):
    """Update one output of a notebook cell: a progress bar, curves, a table of epochs, and the notes."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._handle: Any = None
        self._notes: list[tuple[str, str]] = []
        self._history: list[dict[str, Any]] = []
        self._rows: Sequence[Sequence[str]] = ()
        self._bar: tuple[str, int, int | None] | None = None
        self._text = ""
        self._drawn = 0.0

    def note(self, label: str, text: str) -> None:
        self._notes.append((label, text))
        self._draw()

    def work(self, what: str, done: int, total: int | None) -> None:
        self._bar, self._text = (what, done, total), f"{done:,}" + (f" of {total:,}" if total else "")
        if done == total:
            self._bar = None
        if self._bar is None or time.monotonic() - self._drawn > 0.3:
            self._draw()

    def tick(self, facts: Mapping[str, Any]) -> None:
        # The bar covers all epochs, because the user waits for the whole training.
        done = (facts["epoch"] - 1) * facts["steps"] + facts["step"]
        self._bar = f"epoch {facts['epoch']} of {facts['epochs']}", done, facts["epochs"] * facts["steps"]
        self._text = f"loss {facts['loss']:.3f}, {facts['accuracy']:.1%}, {facts['images_per_second']:,.0f} images/s"
        if facts["seconds_left"] is not None:
            self._text += f", {duration(facts['seconds_left'])} left"
        self._draw()

    def epoch(self, row: Mapping[str, Any]) -> None:
        self._history.append(dict(row))
        if row["epoch"] == row["epochs"]:
            self._bar = None
        self._draw()

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        self._rows = rows
        self._draw()

    def _draw(self, ended: bool = False) -> None:
        from IPython.display import display

        from onsight.display import notebook  # imported here, because only notebooks need it

        self._drawn = time.monotonic()
        content = {
            "text/html": notebook.work(self._bar, self._text, self._history, self._notes, ended, self._rows),
            "text/plain": notebook.work_text(self._history, self._notes, self._rows),
        }
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar = None
        if self._handle is not None:
            self._draw(ended=True)
        self._start()  # if this reporter is used again, for example for the next seed, it shows a new output


def in_notebook() -> bool:
    """Return whether this process is an IPython kernel, whose outputs can be updated in place."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def make_reporter(quiet: bool = False, verbose: bool = False) -> Reporter:
    """Return the reporter for a notebook, a terminal, or a file or pipe; with `quiet`, one that shows nothing."""
    if quiet:
        return Reporter()
    made: Reporter
    if in_notebook():
        made = NotebookReporter()
    elif sys.stderr.isatty() and find_spec("rich"):
        from onsight.display.live_reporter import LiveReporter

        made = LiveReporter()
    else:
        made = PlainReporter()
    made.verbose = verbose
    return made
