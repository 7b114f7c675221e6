"""The worker of a model and the images that wait for it: batches without a timer, time limits, bounded queues.

A thread of the worker that is free takes what waits, at most `BATCH` images. Under low load that is one image, at once;
under high load batches grow by themselves. One message per batch goes to the worker, and one comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from onsight.core.errors import OnsightError
from onsight.serving.child import FAILED, Child, started
from onsight.serving.refusals import Refused, busy

BATCH = 16  # images per message, at most
BATCH_BYTES = 16 << 20  # of their files together, if there is more than one
QUEUE = 64  # images that wait; if so many wait, further requests are refused
DEADLINE = 10.0  # seconds from the arrival of an image to its answer
TIME_LIMIT = 4.0  # seconds that a worker may take for a batch before it is killed
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
        alone: whether the worker gets it without others, because a worker has failed while it was there.
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
    """A worker process with one model, which answers several batches at a time. It is replaced when it fails.

    Attributes:
        facts: what the worker says about its model; empty until it has loaded it.
    """

    def __init__(
        self,
        run: str,
        threads: int,
        queue: int = QUEUE,
        noted: Callable[[int], None] | None = None,
        limit: float | None = None,
    ) -> None:
        """Prepare a pool for a run.

        Args:
            run: the path of the run.
            threads: batches that the worker answers at a time; if Keras has to answer, one.
            queue: images that may wait.
            noted: receives the size of each batch.
            limit: seconds that the worker may take for a batch, `TIME_LIMIT` if it is None.
        """
        self.run = run
        self.threads = threads
        self.queue = queue
        self.limit = limit or TIME_LIMIT
        self.noted = noted or (lambda size: None)
        self.facts: dict[str, Any] = {}
        self.waiting: deque[Item] = deque()
        self.idle: deque[asyncio.Future[None]] = deque()
        self.working = 0  # images at the worker
        self.tasks: list[asyncio.Task[None]] = []  # one for each thread of the worker
        self.worker: Child | None = None
        self.changing = asyncio.Lock()  # held while the worker is replaced
        self.turns = asyncio.Semaphore(0)  # threads of the worker that have nothing to do
        self.taking = asyncio.Lock()  # held while a task takes one turn, or all

    async def start(self) -> None:
        """Start the worker, and return when it is warm.

        Raises:
            OnsightError: the run cannot be opened.
        """
        self.worker = await started(self.run, self.threads)
        self.facts = self.worker.facts
        self.turns = asyncio.Semaphore(self.facts["threads"])
        self.tasks = [asyncio.create_task(self._work()) for _ in range(self.facts["threads"])]

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
        """Answer what waits, then end the worker."""
        while self.waiting or self.working:
            await asyncio.sleep(0.01)
        await self.close()

    async def close(self) -> None:
        """End the worker at once, and return when it has ended."""
        await cancelled(self.tasks)
        if self.worker is not None:
            await self.worker.end()

    async def _work(self) -> None:
        """Let one thread of the worker answer batch after batch."""
        while True:
            batch = await self._take()
            self.working += len(batch)
            try:
                async with self._turn(batch[0].alone):
                    await self._answer(batch)
            finally:
                self.working -= len(batch)

    @asynccontextmanager
    async def _turn(self, alone: bool) -> AsyncIterator[None]:
        """Wait for a thread of the worker; for all of them, if nothing else may be there meanwhile."""
        turns = len(self.tasks) if alone else 1
        async with self.taking:
            for _ in range(turns):
                await self.turns.acquire()
        try:
            yield
        finally:
            for _ in range(turns):
                self.turns.release()

    async def _answer(self, batch: list[Item]) -> None:
        """Let the worker answer a batch. If it fails, replace it, and put the images back."""
        async with self.changing:
            worker = self.worker
        assert worker
        try:
            async with asyncio.timeout(self.limit):
                await exchange(worker, batch)
        except FAILED:
            self._again(batch)
            async with self.changing:
                if self.worker is worker:  # the first of those whose batches it had
                    await worker.end()
                    self.worker = await self._replaced()

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

    async def _replaced(self) -> Child:
        """Return a new worker. Try for as long as it takes."""
        while True:
            with contextlib.suppress(OnsightError):
                return await started(self.run, self.threads)
            await asyncio.sleep(1)


def late(items: Sequence[Item]) -> None:
    """Give up on the answers that are still missing."""
    for item in items:
        if not item.answer.done():
            item.answer.set_exception(Refused(504, "too_slow", f"The answer took longer than {DEADLINE:g} s."))
            item.answer.exception()  # for those that nobody waits for: the first one is enough


async def exchange(worker: Child, batch: list[Item]) -> None:
    """Let a worker answer a batch, and hand the answers out."""
    header, parts = await worker.ask({"items": [item.wanted for item in batch]}, [item.data for item in batch])
    for item, answer, content in zip(batch, header["answers"], parts, strict=True):
        if not item.answer.done():
            item.answer.set_result((answer, content))


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
