"""Server-sent events: the table of the runs when it changes, and the lines of history.jsonl as they are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from onsight.runs.following import Place, news
from onsight.runs.run import Run
from onsight.studio.table import Table

PAUSE = 1.0  # seconds between two looks at the files
SILENCE = 15  # looks without news, after which a comment shows that the server is there


def places_of(text: str, runs: int) -> list[Place]:
    """Return where a reader had come to in each history, from the id of the last event; the beginning if it has none.

    >>> places_of("1f-2a,0-0", 2)
    [Place(file=31, offset=42), Place(file=0, offset=0)]
    """
    given = text.split(",")
    return [Place.parse(each) for each in given] if len(given) == runs else [Place()] * runs


async def events(
    table: Table, runs: Sequence[Run], places: list[Place], stopping: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Yield events until the server stops.

    `runs` holds the whole table. `lines` holds the new lines of one run; with `again`, what was sent of it is void. Its
    id says where each history goes on, so that a reader whose connection broke misses nothing.
    """
    shown: list[dict[str, Any]] | None = None
    silent = 0
    yield b"retry: 2000\n\n"
    while not stopping():
        rows = await table.rows()
        sent, more = rows != shown, False
        if rows != shown:
            shown = rows
            yield event("runs", rows)
        for number, run in enumerate(runs):
            found = await asyncio.to_thread(news, run.folder / "history.jsonl", places[number])
            places[number] = found.place
            more |= found.more
            if found.again or found.lines:
                sent = True
                content = {"run": run.folder.name, "again": found.again, "lines": found.lines}
                yield event("lines", content, ",".join(map(str, places)))
        silent = 0 if sent else silent + 1
        if silent == SILENCE:
            silent = 0
            yield b": still there\n\n"
        if not more:
            await asyncio.sleep(PAUSE)


def event(name: str, content: object, number: str | None = None) -> bytes:
    """Return one event. JSON has no line breaks, so no text in it can begin another event."""
    head = f"event: {name}\n" + (f"id: {number}\n" if number else "")
    return f"{head}data: {json.dumps(content, separators=(',', ':'))}\n\n".encode()
