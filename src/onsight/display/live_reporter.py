"""The reporter of a terminal: a live progress bar, drawn by Rich."""

from __future__ import annotations

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
