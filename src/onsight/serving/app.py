"""The application: which address is answered by what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from onsight.serving import pages
from onsight.serving.bodies import Bodies
from onsight.serving.guard import Access, Guard
from onsight.serving.metrics import Metrics
from onsight.serving.models import Models
from onsight.serving.open_inference import OpenInference
from onsight.serving.predictions import Predictions, as_json
from onsight.serving.refusals import Refused, unknown
from onsight.serving.tensorflow_serving import TensorFlowServing


def make_app(models: Models, access: Access, metrics: Metrics) -> ASGIApp:
    """Return the application, guarded."""
    bodies = Bodies()
    return Guard(
        Router(routes(models, bodies, metrics), redirect_slashes=False, default=nothing), access, metrics.request
    )


def routes(models: Models, bodies: Bodies, metrics: Metrics) -> list[Route]:
    """Return every address. The one that is asked most comes first."""
    own = Predictions(models, bodies)
    v2, tf = OpenInference(models, bodies), TensorFlowServing(models, bodies)

    async def livez(request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def readyz(request: Request) -> Response:
        if not models.ready:
            raise Refused(503, "not_ready", "The server is starting or stopping.", {"Retry-After": "1"})
        return Response("ok\n", media_type="text/plain")

    async def numbers(request: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def status(request: Request) -> Response:
        return as_json(
            {
                "models": {name: model.facts | model.watch.summary() for name, model in models.all.items()},
                "shadows": [shadow.summary() for shadow in models.shadows],
            }
        )

    return [
        Route("/v1/predict", own.predict, methods=["POST"]),
        Route("/v1/explain", own.explain, methods=["POST"]),
        Route("/v1/status", status),
        *named("/v2/models/{name}", "/infer", v2.infer, "POST"),
        *named("/v2/models/{name}", "", v2.metadata),
        *named("/v2/models/{name}", "/ready", v2.model_ready),
        Route("/v2", v2.server),
        Route("/v2/health/live", v2.live),
        Route("/v2/health/ready", v2.ready),
        *named("/v1/models/{name}", ":predict", tf.predict, "POST"),
        *named("/v1/models/{name}", "/metadata", tf.metadata),
        *named("/v1/models/{name}", "", tf.status),
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", numbers),
        *pages.routes(),
    ]


def named(path: str, action: str, endpoint: Callable[..., Any], method: str = "GET") -> list[Route]:
    """Return the routes of an action of a model, with and without a version."""
    return [Route(f"{path}{version}{action}", endpoint, methods=[method]) for version in ("", "/versions/{version}")]


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse an address that is not there."""
    raise unknown("There is nothing at this address. /docs lists what there is.")
