"""The pages of the server: the one that classifies, the one that documents, and /openapi.json."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from onsight.display.page import TEMPLATES, fill
from onsight.serving.predictions import as_json

FILES = {  # address -> the templates that make up its content, and its media type
    "/page.css": (("web.css", "serve.css"), "text/css"),
    "/page.js": (("classify.js", "serve.js"), "text/javascript"),
}


def routes() -> list[Route]:
    """Return the addresses of the pages."""
    return [
        Route("/", page),
        *(Route(path, static) for path in FILES),
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


async def static(request: Request) -> Response:
    """Return the style or the script of the pages."""
    names, kind = FILES[request.url.path]
    return Response(b"\n".join((TEMPLATES / name).read_bytes() for name in names), media_type=kind)


async def described(request: Request) -> Response:
    """Return the description for programs."""
    from onsight.serving.openapi import description

    return as_json(description())
