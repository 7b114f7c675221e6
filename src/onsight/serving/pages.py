"""The pages of the server: the one that classifies, the one that documents, and /openapi.json."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from onsight.display.page import TEMPLATES, fill
from onsight.serving.predictions import as_json

FILES = {
    "/page.css": (("web.css", "serve.css"), "text/css"),
    "/page.js": (("classify.js", "serve.js"), "text/javascript"),
}


def routes() -> list[Route]:
    """Return the addresses of the pages."""
    return [
        Route("/", page),
        *static(FILES),
        Route("/docs", docs),
        Route("/openapi.json", described),
    ]


async def page(request: Request) -> Response:
    """Return the page that classifies. It holds nothing of the models: its script asks for that."""
    return Response(fill("serve.html.j2", {}), media_type="text/html")


async def docs(request: Request) -> Response:
    """Return the page that documents every address."""
    from onsight.serving.openapi import STATUSES, description  # takes 3 MB, which most servers never need

    return Response(fill("serve_docs.html.j2", {}, description=description(), errors=STATUSES), media_type="text/html")


def static(files: Mapping[str, tuple[tuple[str, ...], str]]) -> list[Route]:
    """Return the addresses of styles and scripts: address -> the templates that make it up, and its media type."""

    async def content(request: Request) -> Response:
        names, kind = files[request.url.path]
        return Response(b"\n".join((TEMPLATES / name).read_bytes() for name in names), media_type=kind)

    return [Route(path, content) for path in files]


async def described(request: Request) -> Response:
    """Return the description for programs."""
    from onsight.serving.openapi import description

    return as_json(description())
