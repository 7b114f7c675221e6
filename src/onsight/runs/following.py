"""history.jsonl while it grows: what is new since a place in it, and whether a training still writes it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

from onsight.runs.run import Run, finite

CHUNK = 1 << 20  # bytes that are read at once
FRESH = 10.0  # seconds; a training appends every two, and a new one has not locked its folder yet
State = Literal["trained", "training", "stopped"]


class Place(NamedTuple):
    """A place in a history.jsonl."""

    file: int = 0  # the number of the file: a resumed training replaces it
    offset: int = 0  # bytes that were read, up to the end of a line

    def __str__(self) -> str:
        return f"{self.file:x}-{self.offset:x}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Return the place that a text names; the beginning if it names none."""
        found = re.fullmatch("([0-9a-f]{1,32})-([0-9a-f]{1,16})", text)
        return cls(int(found[1], 16), int(found[2], 16)) if found else cls()


class News(NamedTuple):
    """What is new in a history.jsonl."""

    place: Place  # where to go on
    again: bool  # whether these lines are the first: what was read before is void
    lines: list[dict[str, Any]]  # events, whose numbers are finite or None
    more: bool = False  # whether there are more lines already


def news(path: Path, place: Place) -> News:
    """Return the complete lines of a history.jsonl after a place. A missing file has none."""
    try:
        # A named pipe would block for ever.
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError:
        return News(Place(), place != Place(), [])
    with open(file, "rb") as opened:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            return News(Place(), place != Place(), [])
        again = place.file != facts.st_ino or place.offset > facts.st_size
        start = 0 if again else place.offset
        opened.seek(start)
        content = opened.read(CHUNK)
    end = content.rfind(b"\n") + 1
    if not end and len(content) == CHUNK:  # no line of ours
        end = CHUNK
    lines = [line for each in content[:end].splitlines() if (line := parsed(each))]
    return News(Place(facts.st_ino, start + end), again, lines, len(content) == CHUNK)


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return the event of a line; None if a crash damaged it."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return finite(value) if isinstance(value, dict) else None


def state(run: Run) -> State:
    """Return whether a run is trained, in training, or stopped: nobody trains it, and it has no model."""
    if run.is_trained:
        return "trained"
    return "training" if run.is_locked() or age(run) < FRESH else "stopped"


def age(run: Run) -> float:
    """Return the seconds since the training last wrote something; on other machines, the lock may not be seen."""
    newest = 0.0
    for name in ("spec.json", "history.jsonl"):
        with contextlib.suppress(OSError):  # there is none yet, or the run has just been deleted
            newest = max(newest, (run.folder / name).stat().st_mtime)
    return time.time() - newest
