"""Running servers: one that ends at a signal after its answers, and one that keeps models and reloads at SIGHUP."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Generator
from typing import Any

import uvicorn

from onsight.core.errors import OnsightError
from onsight.core.memory import release_libraries
from onsight.core.text import printable
from onsight.serving.child import end, environment
from onsight.serving.connection import options
from onsight.serving.models import Models, Served
from onsight.serving.pool import cancelled, together


class Server(uvicorn.Server):
    """Serves an application until a signal ends it, then answers what it has accepted."""

    def __init__(self, app: Any) -> None:
        super().__init__(uvicorn.Config(app, **options()))

    def stop(self) -> None:
        """Accept no more, answer what was accepted, and end. Asked twice: end at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    def handlers(self) -> dict[str, Callable[[], None]]:
        """Return what is done at which signal."""
        return {"SIGINT": self.stop, "SIGTERM": self.stop}

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Listen to signals in the event loop, so that a handler never interrupts anything.

        uvicorn would raise the signal again in the end, and the exit code would not be 0.
        """
        loop = asyncio.get_running_loop()
        before = {}
        for name, done in self.handlers().items():
            if number := getattr(signal, name, None):
                before[number] = signal.signal(number, lambda *_, done=done: loop.call_soon_threadsafe(done))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Service(Server):
    """Serves an application and keeps its models."""

    def __init__(self, app: Any, models: Models) -> None:
        super().__init__(app)
        self.models = models
        self.tasks: set[asyncio.Task[None]] = set()

    async def run_on(self, listening: socket.socket) -> None:
        """Answer on a listening socket until a signal ends it. Load the models meanwhile.

        Raises:
            OnsightError: a model cannot be loaded.
        """
        starting = asyncio.create_task(self.load())
        try:
            await self.serve(sockets=[listening])
        finally:
            await cancelled([starting, *self.tasks])
            for model in self.models.all.values():
                await model.close()
        with contextlib.suppress(asyncio.CancelledError):
            await starting

    async def load(self) -> None:
        """Start the workers of every model; end the server if one cannot start."""
        try:
            await together(model.start() for model in self.models.all.values())
        except OnsightError:
            self.should_exit = True
            raise
        release_libraries()
        for model in self.models.all.values():
            self.background(self.learn_reference(model))

    async def learn_reference(self, model: Served) -> None:
        """Find out what a model answers on validation images, if no file says it yet."""
        if model.watch.reference is not None:
            return
        learning = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "onsight.serving.reference", model.pool.run,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env=environment(),
        )  # fmt: skip
        try:
            if await learning.wait() == 0:
                model.start_watching()
        finally:
            await end(learning)

    async def reload(self) -> None:
        """Open the runs again, as the command line names them. One that cannot be opened stays as it is."""
        for model in self.models.all.values():
            before = model.pool.run
            try:
                await model.swap()
            except OnsightError as error:
                note(f"{model.name} was not reloaded, and {before} goes on: {error}")
                continue
            note(f"{model.name} answers with {model.pool.run} now.")
            self.background(self.learn_reference(model))

    def background(self, work: Any) -> None:
        """Do something meanwhile."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def stop(self) -> None:
        """End as any server, and tell probes so."""
        super().stop()
        self.models.draining = True

    def handlers(self) -> dict[str, Callable[[], None]]:
        """Return what is done at which signal."""
        return {**super().handlers(), "SIGHUP": lambda: self.background(self.reload())}


def note(line: str) -> None:
    """Print what the person who runs the server should know."""
    print(f"onsight: {printable(line)}", file=sys.stderr, flush=True)  # noqa: T201
