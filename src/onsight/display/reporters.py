"""Reporters that show progress: a live display in a terminal or a notebook, and plain lines elsewhere.

Outside notebooks they write to standard error, because standard output is for answers only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from onsight.core.progress import Reporter
from onsight.core.text import columns, duration, epoch_line, note_line, printable

WIDE = 60  # columns of a terminal that has room for a bar


class PlainReporter(Reporter):
    """Print plain lines, for files and pipes."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._printed_at = 0.0
        self._printed: set[tuple[str, ...]] = set()

    def note(self, label: str, text: str) -> None:
        self.console.print(Text(printable(note_line(label, text))))

    def work(self, what: str, done: int, total: int | None) -> None:
        if done == total or time.monotonic() - self._printed_at > 5:
            self._printed_at = time.monotonic()
            self.console.print(Text(f"{what}: {done:,}" + (f" of {total:,}" if total else "")))

    def epoch(self, row: Mapping[str, Any]) -> None:
        self.console.print(Text(epoch_line(row)))

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print the rows that are new or have changed."""
        for row, line in zip(rows, columns(rows), strict=True):
            if tuple(row) not in self._printed:
                self.console.print(Text(printable(line)))
        self._printed = {tuple(row) for row in rows}


class BelowTable(Progress):
    """A progress bar below what `above` returns."""

    above: Callable[[], Text | None] = staticmethod(lambda: None)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield what is shown, from the top to the bottom."""
        if text := self.above():
            yield text
        yield from super().get_renderables()


class LiveReporter(Reporter):
    """Show one live progress bar; the notes and one line per epoch stay above it."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._display: BelowTable | None = None
        self._task = TaskID(0)
        self._rows: Sequence[Sequence[str]] = ()

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

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Show the table above the progress bar, as many rows as fit; when the display is removed, it stays."""
        self._rows = rows

    def _lines(self, most: int) -> Text:
        """Return the table, without the rows after `most`."""
        cut = [*columns(self._rows)[:most], *(["…"] if len(self._rows) > most else [])]
        return Text(printable("\n".join(cut)), no_wrap=True, overflow="ellipsis")

    def _show(self, what: str, done: int, total: int | None, text: str) -> None:
        if self._display is None:
            # A narrow terminal cuts the end of the numbers and leaves the bar out, but never the number of the epoch.
            whole, cut = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
            bar = [BarColumn(bar_width=20)] if self.console.width >= WIDE else []
            parts = (
                TextColumn("{task.description}", table_column=whole),
                *bar,
                TextColumn("{task.fields[text]}", table_column=cut),
            )
            self._display = BelowTable(*parts, console=self.console, transient=True, refresh_per_second=5, expand=True)
            self._display.above = lambda: self._lines(max(3, self.console.height - 6)) if self._rows else None
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
        if self._rows:
            self.console.print(self._lines(len(self._rows)))
            self._rows = ()


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
    made = NotebookReporter() if in_notebook() else LiveReporter() if sys.stderr.isatty() else PlainReporter()
    made.verbose = verbose
    return made
