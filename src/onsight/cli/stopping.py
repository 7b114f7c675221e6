"""Ctrl-C outside of training: one line that says what is kept and how to go on, exit code 130, and no traceback."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from typing import Any, NoReturn

CODE = 128 + signal.SIGINT
CHECKPOINTS = "The checkpoints that were saved are kept: onsight train --resume latest"
KEPT = {  # by command
    "check": "What was decoded stays in the cache, but nothing was written.",
    "evaluate": "Each file of the run is complete, the old one or the new; some may be missing.",
    "export": "Files of an earlier export are as they were, and nothing was added.",
    "predict": "The answers above are complete; a file for --out and a folder for --sort-into were not written.",
    **dict.fromkeys(("train", "distill", "prune"), CHECKPOINTS),
}


class Stopping:
    """Handles Ctrl-C for one command.

    The first Ctrl-C raises KeyboardInterrupt. One that comes while the command is leaving, for example while it waits
    for its threads, ends the process at once. Training has a handler of its own, which saves first, and passes a second
    Ctrl-C on to this one.
    """

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.leaving = self.said = False

    def listen(self) -> None:
        """Handle Ctrl-C from now on, unless it is ignored (a background job of a shell) or handled by somebody else."""
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self.handle)

    def handle(self, number: int, frame: Any) -> None:
        """Handle a Ctrl-C."""
        if self.leaving:
            self.leave_at_once()
        self.leaving = True
        raise KeyboardInterrupt

    def ignore(self) -> None:
        """Ignore Ctrl-C from now on, if it was handled here: the command is over.

        Python takes every other handler away while it shuts down, and then Ctrl-C would set the exit code to -2.
        """
        self.leaving = True
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == self.handle:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave_at_once(self) -> NoReturn:
        """End the process without any further step. What is written is complete or absent in this case, too."""
        if not self.said:
            os.write(2, f"\n{self.line()}\n".encode(errors="backslashreplace"))
        os._exit(CODE)

    def say(self) -> None:
        """Print what is kept and how to go on, once."""
        self.leaving = True
        if not self.said:
            self.said = True
            print(self.line(), file=sys.stderr)  # noqa: T201

    def line(self) -> str:
        """Return what is kept and how to go on."""
        from onsight.core.text import printable

        kept = KEPT.get(self.words[0] if self.words else "", "")
        again = shlex.join(["onsight", *self.words])
        if kept is not CHECKPOINTS:
            kept = f"{kept} To start again: {again}".strip()
        return printable(f"onsight: Stopped by Ctrl-C. {kept}")
