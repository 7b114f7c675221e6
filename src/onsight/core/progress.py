"""Progress: what a verb tells while it works, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any


class Reporter(AbstractContextManager["Reporter"]):
    """Says nothing; its subclasses show what they are told."""

    def note(self, text: str) -> None:
        """Show one fact: a choice and its reason, a finding, where something lies."""

    def work(self, what: str, done: int, total: int | None) -> None:
        """Show how far a long piece of work is: `done` of `total` things or bytes."""

    def tick(self, facts: Mapping[str, Any]) -> None:
        """Show where training is: epoch, epochs, step, steps, loss, accuracy, images_per_second, seconds_left."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Show a finished epoch: its line of the history, with `epochs` and `seconds_left`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the display down."""


Progress = Callable[[str, int, int | None], None]  # what is done, bytes so far, bytes in all
