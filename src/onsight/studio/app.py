"""The application of the studio: its page, the table, the stream, the reports and comparisons. All of it is GET."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from onsight.display.page import fill
from onsight.runs.run import Run
from onsight.serving.guard import Access, Guard
from onsight.serving.pages import static
from onsight.serving.predictions import as_json
from onsight.serving.refusals import Refused, bad, unknown
from onsight.studio.stream import events, places_of
from onsight.studio.table import Table

FILES = {"/page.css": (("web.css", "studio.css"), "text/css"), "/page.js": (("studio.js",), "text/javascript")}
MOST_RUNS = 20  # in one stream or comparison
MOST_STREAMS = 32
PATIENCE = 120.0  # seconds for a comparison
# A page of a run may be a stranger's. In a sandbox it has no origin: its scripts can ask this server for nothing.
SANDBOX = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ALONE = {"Content-Security-Policy": SANDBOX}


class Studio:
    """What answers.

    Attributes:
        table: the runs.
        stopping: whether the server ends; streams end with it.
    """

    def __init__(self, folder: Path) -> None:
        self.table = Table(folder)
        self.stopping: Callable[[], bool] = lambda: False
        self.streams = 0
        self.comparing = asyncio.Lock()

    def app(self, access: Access) -> ASGIApp:
        """Return the application, guarded."""
        routes = [
            Route("/", self.page),
            *static(FILES),
            Route("/v1/runs", self.runs),
            Route("/v1/events", self.events),
            Route("/runs/{name}/report", self.report),
            Route("/compare", self.compare),
        ]
        return Guard(Router(routes, redirect_slashes=False, default=nothing), access, lambda *_: None)

    async def page(self, request: Request) -> Response:
        """Return the page. It holds nothing of the runs: its script asks for that."""
        return Response(fill("studio.html.j2", {}), media_type="text/html")

    async def runs(self, request: Request) -> Response:
        """Return the table."""
        return as_json({"folder": str(self.table.folder), "runs": await self.table.rows()})

    async def events(self, request: Request) -> Response:
        """Stream the table and the histories of `?run=A&run=B`."""
        asked = await self.named(request)
        if self.streams >= MOST_STREAMS:
            raise Refused(503, "too_many_streams", f"{MOST_STREAMS} pages are open.", {"Retry-After": "10"})
        places = places_of(request.headers.get("last-event-id", ""), len(asked))

        async def counted() -> AsyncIterator[bytes]:
            self.streams += 1
            try:
                async for each in events(self.table, asked, places, self.stopping):
                    yield each
            finally:
                self.streams -= 1

        return StreamingResponse(counted(), media_type="text/event-stream")

    async def report(self, request: Request) -> Response:
        """Return the report.html of a run."""
        path = (await self.table.run(request.path_params["name"])).report
        if not path.is_file() or path.is_symlink():
            raise unknown("This run has no report yet.")
        return FileResponse(path, media_type="text/html", headers=ALONE)

    async def compare(self, request: Request) -> Response:
        """Return the comparison of `?run=A&run=B`, which a process of its own makes: it decodes images."""
        asked = await self.named(request)
        if len(asked) < 2:
            raise bad("A comparison needs two runs.")
        async with self.comparing:  # one at a time
            return await compared(asked)

    async def named(self, request: Request) -> list[Run]:
        """Return the runs that a request names, each once."""
        names = list(dict.fromkeys(request.query_params.getlist("run")))
        if len(names) > MOST_RUNS:
            raise bad(f"At most {MOST_RUNS} runs can be asked for.")
        return [await self.table.run(name) for name in names]


async def compared(runs: list[Run]) -> Response:
    """Return what `onsight compare` writes, or its message."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "compare.html"
        places = [str(run.folder.resolve()) for run in runs]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "onsight", "compare", "--out", str(page), *places,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
        except TimeoutError:
            said = f"The comparison took longer than {PATIENCE:g} s.".encode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            return Response(said, 409, media_type="text/plain")
        return Response(await asyncio.to_thread(page.read_bytes), media_type="text/html", headers=ALONE)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse an address that is not there."""
    raise unknown("There is nothing at this address.")
