"""The workers of a model and the images that wait for them: batches without a timer, time limits, bounded queues.

A worker that is free takes what waits, at most `BATCH` images. Under low load that is one image, at once; under high
load batches grow by themselves. One message per batch goes to the worker, and one comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from onsight.core.errors import OnsightError, RunError
from onsight.serving.frames import HEAD, packed, unpacked
from onsight.serving.refusals import Refused, busy

BATCH = 16  # images per message, at most
BATCH_BYTES = 16 << 20  # of their files together, if there is more than one
QUEUE = 64  # images that wait; if so many wait, further requests are refused
DEADLINE = 10.0  # seconds from the arrival of an image to its answer
TIME_LIMIT = 4.0  # seconds that a worker may take for a batch before it is killed
START_LIMIT = 120.0  # seconds until a worker must have loaded its model; Keras takes long on a busy machine
TROUBLE = "the image took too long to decode or stopped the decoder"


@dataclass(slots=True)
class Item:
    """One image that waits for its answer.

    Attributes:
        data: the bytes of an image file, or of a uint8 array of the model's size.
        kind: "file" or "pixels".
        top: the number of classes in the answer.
        full: whether the answer has all probabilities, as bytes.
        extra: `{"explain": class}` asks for a heat map of a class, or of the likeliest one if it is None.
        alone: whether it goes to a worker without others, because a worker has failed on the batch that it was in.
        answer: its answer, and the bytes that come with it.
    """

    data: bytes
    kind: str = "file"
    top: int = 1
    full: bool = False
    extra: dict[str, int | None] = field(default_factory=dict)
    alone: bool = False
    answer: asyncio.Future[tuple[dict[str, Any], bytes]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def wanted(self) -> dict[str, Any]:
        """What the worker has to know about it."""
        return {"kind": self.kind, "top": self.top, "full": self.full, **self.extra}


class Pool:
    """Worker processes with one model. They are started by `start` and restarted when they fail.

    Attributes:
        facts: what a worker says about its model; empty until the first one has loaded it.
    """

    def __init__(
        self,
        run: str,
        processes: int,
        queue: int = QUEUE,
        noted: Callable[[int], None] | None = None,
        limit: float | None = None,
    ) -> None:
        """Prepare a pool for a run.

        Args:
            run: the path of the run.
            processes: the number of workers; if Keras has to answer, one.
            queue: images that may wait.
            noted: receives the size of each batch.
            limit: seconds that a worker may take for a batch, `TIME_LIMIT` if it is None.
        """
        self.run = run
        self.processes = processes
        self.queue = queue
        self.limit = limit or TIME_LIMIT
        self.noted = noted or (lambda size: None)
        self.facts: dict[str, Any] = {}
        self.waiting: deque[Item] = deque()
        self.idle: deque[asyncio.Future[None]] = deque()
        self.working = 0  # images at workers
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the workers, and return when they are warm.

        Raises:
            OnsightError: the run cannot be opened.
        """
        workers: list[asyncio.subprocess.Process] = []

        async def spawn() -> None:
            workers.append(await self._spawned())

        try:
            await spawn()
            others = self.processes - 1 if self.facts["engine"] == "litert" else 0
            await together(spawn() for _ in range(others))
        except BaseException:
            await asyncio.gather(*map(end, workers))
            raise
        self.tasks = [asyncio.create_task(self._work(worker)) for worker in workers]
        await asyncio.sleep(0)  # each begins: a task that is cancelled before would not end its worker

    async def ask(self, items: Sequence[Item]) -> list[tuple[dict[str, Any], bytes]]:
        """Return the answer of each image, in order, with the bytes that come with it.

        Raises:
            Refused: too many images wait, or the answers took too long.
        """
        if len(self.waiting) >= self.queue:
            raise busy()
        self.waiting.extend(items)
        for _ in range(min(len(items), len(self.idle))):
            self.idle.popleft().set_result(None)
        timer = asyncio.get_running_loop().call_later(DEADLINE, late, items)
        try:
            return [await item.answer for item in items]
        finally:
            timer.cancel()
            for item in items:
                item.answer.cancel()

    async def drain(self) -> None:
        """Answer what waits, then end the workers."""
        while self.waiting or self.working:
            await asyncio.sleep(0.01)
        await self.close()

    async def close(self) -> None:
        """End the workers at once, and return when they have ended."""
        await cancelled(self.tasks)

    async def _work(self, worker: asyncio.subprocess.Process) -> None:
        """Let one worker answer batch after batch. Replace it when it fails."""
        try:
            while True:
                batch = await self._take()
                self.working += len(batch)
                try:
                    async with asyncio.timeout(self.limit):
                        await exchange(worker, batch)
                except (TimeoutError, asyncio.IncompleteReadError, OSError, ValueError, KeyError):
                    self._again(batch)
                    await end(worker)
                    worker = await self._replaced()
                finally:
                    self.working -= len(batch)
        finally:
            await end(worker)

    async def _take(self) -> list[Item]:
        """Return the images that a free worker takes, at least one."""
        while True:
            batch: list[Item] = []
            size = 0
            share = -(-len(self.waiting) // (len(self.idle) + 1))  # the others that are free take their share
            while self.waiting and len(batch) < min(BATCH, share):
                item = self.waiting[0]
                size += len(item.data)
                if batch and (item.alone or batch[0].alone or size > BATCH_BYTES):
                    break
                self.waiting.popleft()
                if not item.answer.done():  # nobody waits for it any more
                    batch.append(item)
            if batch:
                self.noted(len(batch))
                return batch
            if not self.waiting:
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self.idle.append(waiter)
                await waiter

    def _again(self, batch: list[Item]) -> None:
        """Put images on which a worker has failed back, each alone. One that was alone already is to blame."""
        for item in reversed(batch):
            if item.answer.done():
                continue
            if item.alone:
                item.answer.set_result(({"error": TROUBLE}, b""))
            else:
                item.alone = True
                self.waiting.appendleft(item)

    async def _replaced(self) -> asyncio.subprocess.Process:
        """Return a new worker. Try for as long as it takes: the others go on meanwhile."""
        while True:
            with contextlib.suppress(OnsightError):
                return await self._spawned()
            await asyncio.sleep(1)

    async def _spawned(self) -> asyncio.subprocess.Process:
        """Return a new worker that has loaded the model."""
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "onsight.serving.worker", self.run,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment(),
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_LIMIT):
                header, _ = await received(worker)
            if "error" in header:
                raise RunError(str(header["error"]))
        except (TimeoutError, asyncio.IncompleteReadError, OSError, ValueError):
            await end(worker)
            raise RunError(f"A worker for {self.run} could not be started; its own message is above.") from None
        except BaseException:
            await end(worker)
            raise
        self.facts = header["facts"]
        return worker


def late(items: Sequence[Item]) -> None:
    """Give up on the answers that are still missing."""
    for item in items:
        if not item.answer.done():
            item.answer.set_exception(Refused(504, "too_slow", f"The answer took longer than {DEADLINE:g} s."))
            item.answer.exception()  # for those that nobody waits for: the first one is enough


async def exchange(worker: asyncio.subprocess.Process, batch: list[Item]) -> None:
    """Let a worker answer a batch, and hand the answers out."""
    assert worker.stdin
    worker.stdin.writelines(packed({"items": [item.wanted for item in batch]}, [item.data for item in batch]))
    await worker.stdin.drain()
    header, parts = await received(worker)
    for item, answer, content in zip(batch, header["answers"], parts, strict=True):
        if not item.answer.done():
            item.answer.set_result((answer, content))


async def received(worker: asyncio.subprocess.Process) -> tuple[dict[str, Any], list[bytes]]:
    """Return the next message of a worker."""
    assert worker.stdout
    text, content = HEAD.unpack(await worker.stdout.readexactly(HEAD.size))
    whole = await worker.stdout.readexactly(text + content)
    return unpacked(whole[:text], whole[text:])


async def end(process: asyncio.subprocess.Process) -> None:
    """End a child process at once."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do several things at the same time. If one fails, cancel the others, let them finish, and raise its error.

    `asyncio.gather` returns when the first task was cancelled, while others are still ending their child processes.
    """
    tasks = [asyncio.create_task(each) for each in work]
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await cancelled(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks once, and let each finish what it does at its end: a second time would interrupt that."""
    waited = list(tasks)
    for task in waited:
        task.cancel()
    await asyncio.gather(*waited, return_exceptions=True)


def environment() -> dict[str, str]:
    """Return the environment of child processes: without the token, which they need not know."""
    return {name: value for name, value in os.environ.items() if name != "ONSIGHT_TOKEN"}


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
