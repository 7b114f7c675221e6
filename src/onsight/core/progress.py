"""Progress: what a verb reports while it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

Progress = Callable[[str, int, int | None], None]  # what is done, items or bytes so far, how many in total if known


class Reporter(AbstractContextManager["Reporter"]):
    """Receives the progress of a verb and shows nothing. Its subclasses show what they receive.

    Attributes:
        verbose: whether a training notes every setting with its reason, instead of folding the usual ones.
    """

    verbose = False

    def note(self, label: str, text: str) -> None:
        """Show one fact: a choice and its reason, a finding, or where a file is.

        Args:
            label: one or two words that name the fact, such as "data" or "run".
            text: the fact.
        """

    def work(self, what: str, done: int, total: int | None) -> None:
        """Show the progress of a long task: `done` of `total` items or bytes."""

    def tick(self, facts: Mapping[str, Any]) -> None:
        """Show the state of training: epoch, epochs, step, steps, loss, accuracy, images_per_second, seconds_left."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Show a finished epoch: its line of history.jsonl, plus `epochs` and `seconds_left`."""

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Show a table in the place of the one before: a heading and, the best first, one row for each trial."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the display."""
