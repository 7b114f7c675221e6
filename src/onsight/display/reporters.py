"""Reporters that show progress: live in a terminal or a notebook, plain lines elsewhere, nothing when quiet.

Outside notebooks everything goes to standard error, so that standard output holds answers only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from onsight.core.progress import Reporter
from onsight.core.text import duration, epoch_line, note_line, printable


class PlainReporter(Reporter):
    """Prints plain lines, for files and pipes."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._said = 0.0

    def note(self, label: str, text: str) -> None:
        self.console.print(Text(printable(note_line(label, text))))

    def work(self, what: str, done: int, total: int | None) -> None:
        if done == total or time.monotonic() - self._said > 5:
            self._said = time.monotonic()
            self.console.print(Text(f"{what}: {done:,}" + (f" of {total:,}" if total else "")))

    def epoch(self, row: Mapping[str, Any]) -> None:
        self.console.print(Text(epoch_line(row)))


class LiveReporter(Reporter):
    """Shows one progress bar that moves, and above it the notes and one line per epoch, which stay."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._display: Progress | None = None
        self._task = TaskID(0)

    def note(self, label: str, text: str) -> None:
        self.console.print(Text(printable(note_line(label, text))))

    def work(self, what: str, done: int, total: int | None) -> None:
        self._show(what, done, total, f"{done:,}" + (f" of {total:,}" if total else ""))
        if done == total:
            self._hide()

    def tick(self, facts: Mapping[str, Any]) -> None:
        text = f"loss {facts['loss']:.3f}  {facts['accuracy']:6.1%}  {facts['images_per_second']:,.0f} img/s"
        if facts["seconds_left"] is not None:
            text += f"  {duration(facts['seconds_left'])} left"
        self._show(f"epoch {facts['epoch']}/{facts['epochs']}", facts["step"], facts["steps"], text)

    def epoch(self, row: Mapping[str, Any]) -> None:
        self.console.print(Text(epoch_line(row)), no_wrap=True, overflow="ellipsis")

    def _show(self, what: str, done: int, total: int | None, text: str) -> None:
        if self._display is None:
            columns = TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[text]}")
            self._display = Progress(*columns, console=self.console, transient=True, refresh_per_second=5)
            self._display.start()
            self._task = self._display.add_task(what, total=total, text=text)
        assert self._task is not None
        self._display.update(self._task, description=what, completed=done, total=total, text=text)

    def _hide(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hide()


class NotebookReporter(Reporter):
    """Keeps one output of a notebook cell up to date: a progress bar, curves, a table of epochs, and the notes."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._handle: Any = None
        self._notes: list[tuple[str, str]] = []
        self._history: list[dict[str, Any]] = []
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

    def _draw(self, ended: bool = False) -> None:
        from IPython.display import display

        from onsight.display import notebook  # here, because it needs this module's words for an epoch and a duration

        self._drawn = time.monotonic()
        content = {
            "text/html": notebook.work(self._bar, self._text, self._history, self._notes, ended),
            "text/plain": notebook.work_text(self._history, self._notes),
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
        self._start()  # whoever goes on with this reporter, as for several seeds, gets an output for each


def in_notebook() -> bool:
    """Return whether an IPython kernel runs this process, so that what is shown can be changed in place."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def make_reporter(quiet: bool = False) -> Reporter:
    """Return what fits: an output that changes in a notebook; on standard error, live in a terminal, else lines."""
    if quiet:
        return Reporter()
    if in_notebook():
        return NotebookReporter()
    return LiveReporter() if sys.stderr.isatty() else PlainReporter()
