"""The server's side of a worker process (`serving.worker`): messages by number, several on their way at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from onsight.core.errors import RunError
from onsight.serving.frames import HEAD, packed, unpacked

START_LIMIT = 120.0  # seconds until a worker must have loaded its model; Keras takes long on a busy machine
# What comes of a process that has ended, takes too long (TimeoutError is an OSError), or writes what is no message.
FAILED = (asyncio.IncompleteReadError, OSError, ValueError, KeyError, TypeError, RecursionError)

Answer = asyncio.Future[tuple[dict[str, Any], list[bytes]]]


class Child:
    """A worker process.

    Attributes:
        process: the process.
        facts: what it says about its model.
    """

    def __init__(self, process: asyncio.subprocess.Process, facts: dict[str, Any]) -> None:
        self.process = process
        self.facts = facts
        self.number = 0
        self.asked: dict[int, Answer] = {}
        self.reading = asyncio.create_task(self._read())

    async def ask(self, header: dict[str, Any], parts: Sequence[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        """Return what the worker answers to a message.

        Raises:
            OSError: the process has ended, or has written what is no message.
        """
        assert self.process.stdin
        if self.reading.done():
            raise OSError("the worker has ended")
        self.number += 1
        answer: Answer = asyncio.get_running_loop().create_future()
        self.asked[number := self.number] = answer
        try:
            self.process.stdin.writelines(packed(header | {"number": number}, parts))
            await self.process.stdin.drain()
            return await answer
        finally:
            self.asked.pop(number, None)

    async def _read(self) -> None:
        """Hand out the answers until the process ends."""
        try:
            while True:
                header, parts = await received(self.process)
                answer = self.asked.pop(header["number"], None)
                if answer is not None and not answer.done():
                    answer.set_result((header, parts))
        except FAILED as error:
            for answer in self.asked.values():
                if not answer.done():
                    answer.set_exception(OSError(f"the worker has ended: {error}"))

    async def end(self) -> None:
        """End the process at once, and return when it has ended."""
        await end(self.process)
        await self.reading


async def started(run: str, threads: int) -> Child:
    """Return a worker that has loaded the model of a run and answers this many messages at a time.

    Raises:
        RunError: it cannot be started, or cannot open the run.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "onsight.serving.worker", run, str(threads),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    try:
        async with asyncio.timeout(START_LIMIT):
            header, _ = await received(process)
        if "error" in header:
            raise RunError(str(header["error"]))
        return Child(process, header["facts"])
    except FAILED:
        await end(process)
        raise RunError(f"A worker for {run} could not be started; its own message is above.") from None
    except BaseException:
        await end(process)
        raise


async def received(process: asyncio.subprocess.Process) -> tuple[dict[str, Any], list[bytes]]:
    """Return the next message of a worker."""
    assert process.stdout
    text, content = HEAD.unpack(await process.stdout.readexactly(HEAD.size))
    whole = await process.stdout.readexactly(text + content)
    return unpacked(whole[:text], whole[text:])


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process at once, and return when it has ended.

    `process.kill()` first polls the process. If it has just died, that takes its exit code away from asyncio, which
    then warns and reports 255.
    """
    with contextlib.suppress(ProcessLookupError):
        if os.name == "nt":
            process.kill()
        elif process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
    await process.wait()


def environment() -> dict[str, str]:
    """Return the environment of child processes: without the token, which they need not know."""
    return {name: value for name, value in os.environ.items() if name != "ONSIGHT_TOKEN"}
