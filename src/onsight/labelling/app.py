"""The page of `label` and what it asks for. Requests name sessions and numbers of questions, never a path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from onsight.core.errors import ImageError
from onsight.data.labels import NONE
from onsight.display.page import fill
from onsight.labelling.desk import Desk
from onsight.serving.app import nothing
from onsight.serving.bodies import Bodies
from onsight.serving.guard import Access, Guard
from onsight.serving.pages import static
from onsight.serving.predictions import as_json
from onsight.serving.refusals import Refused, bad, unknown

FILES = {
    "/page.css": (("web.css", "label.css"), "text/css"),
    "/page.js": (("label.js",), "text/javascript"),
}


class Work(NamedTuple):
    """What the page is about."""

    desk: Desk
    run: str
    classes: tuple[str, ...]
    user: str  # the name that the page proposes
    file: str  # of labels.csv, as people know it
    command: str  # that trains with it
    draw: Callable[[int], bytes]  # an image as a WebP file


class Step(BaseModel):
    """What a request says. `label` is a class, or null for none of the classes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    session: str = Field(min_length=1, max_length=64)
    who: str = Field(default="", max_length=64)
    question: int = 0
    label: str | None = Field(default=None, max_length=128)


def make_app(work: Work, access: Access) -> ASGIApp:
    """Return the application, guarded."""
    return Guard(Router(routes(work), redirect_slashes=False, default=nothing), access, lambda *_: None)


def routes(work: Work) -> list[Route]:
    """Return every address."""
    desk, bodies = work.desk, Bodies()

    async def step(request: Request) -> Step:
        async with bodies.read(request) as body:
            try:
                return Step.model_validate_json(body)
            except ValidationError:
                raise bad("The body is not the JSON that this address takes.") from None

    async def start(request: Request) -> Response:
        return as_json({name: getattr(work, name) for name in ("run", "classes", "user", "file", "command")})

    async def ask(request: Request) -> Response:
        return as_json(state(work, (await step(request)).session))

    async def label(request: Request) -> Response:
        said = await step(request)
        desk.label(said.session, said.question, said.who.strip(), NONE if said.label is None else said.label)
        return as_json(state(work, said.session))

    async def skip(request: Request) -> Response:
        said = await step(request)
        desk.skip(said.session, said.question)
        return as_json(state(work, said.session))

    async def undo(request: Request) -> Response:
        said = await step(request)
        if not desk.undo(said.session, said.who.strip()):
            raise Refused(409, "nothing_to_undo", "There is nothing to undo.")
        return as_json(state(work, said.session))

    async def image(request: Request) -> Response:
        number = request.path_params["number"]
        desk.check(number)
        try:
            content = await asyncio.to_thread(work.draw, desk.questions[number].images[0])
        except ImageError:
            raise unknown("The image can no longer be read.") from None
        return Response(content, media_type="image/webp")

    async def page(request: Request) -> Response:
        return Response(fill("label.html.j2", {}), media_type="text/html")

    steps = {"next": ask, "label": label, "skip": skip, "undo": undo}
    return [
        Route("/", page),
        *static(FILES),
        Route("/v1/start", start),
        *(Route(f"/v1/{name}", endpoint, methods=["POST"]) for name, endpoint in steps.items()),
        Route("/v1/image/{number:int}", image),
    ]


def state(work: Work, session: str) -> dict[str, Any]:
    """Return the question for a session, null if there is none left for it, and how far all have come."""
    desk = work.desk
    number = desk.next(session)
    facts: dict[str, Any] = {"question": None, "given": desk.given, "of": len(desk.questions)}
    facts["undo"] = bool(desk.session(session).steps)
    facts["skipped"] = len(desk.session(session).skipped)
    if number is not None:
        asked = desk.questions[number]
        facts["question"] = {
            "number": number,
            "path": desk.paths[asked.images[0]],
            "label": desk.labels[asked.images[0]],
            "copies": len(asked.images) - 1,
            "reason": asked.reason,
            "top": [{"class": work.classes[index], "probability": share} for index, share in asked.top],
        }
    return facts
