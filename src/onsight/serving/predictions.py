"""`/v1/predict` and `/v1/explain`: our own way to ask, with a file as the body or with several files in JSON."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from onsight.serving.bodies import Bodies, is_number, kind_of
from onsight.serving.models import Models, Served
from onsight.serving.pool import Item
from onsight.serving.refusals import Refused, bad

PICTURES = 64  # images in one JSON request, at most
TOP = 3  # classes in an answer, if the request does not say how many


class Strict(BaseModel):
    """Base of what a request may hold: nothing else."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Pictures(Strict):
    """Several images in one request."""

    images: list[str] = Field(min_length=1, max_length=PICTURES, description="image files in base64")


class Guess(BaseModel):
    """One class of an answer."""

    class_: str = Field(alias="class")
    probability: float


class Answer(BaseModel):
    """The answer for one image."""

    model: str = Field(description="the name of the model")
    top: list[Guess] = Field(description="the likeliest classes, likeliest first")
    unsure: bool
    reason: Literal["close", "far"] | None = Field(
        description="why it is unsure: two classes are close, or the image is unlike the training images"
    )
    distance: float | None = Field(description="how unlike the training images it is, from 0 to 2, if known")


class Problem(BaseModel):
    """Why there is no answer."""

    code: str = Field(description="a stable name for programs")
    message: str = Field(description="a sentence for people")
    request_id: str | None = None


class Failed(BaseModel):
    """An image or a request without an answer."""

    error: Problem


class Predictions:
    """The endpoints."""

    def __init__(self, models: Models, bodies: Bodies) -> None:
        self.models = models
        self.bodies = bodies

    async def predict(self, request: Request) -> Response:
        """Classify an image, or up to 64."""
        model = self.models.find(parameter(request, "model"))
        top = number(request, "top", TOP, len(model.facts["classes"]))
        kind = kind_of(request)
        if kind.startswith("image/"):
            async with self.bodies.read(request) as data:
                ((answer, _),) = await self.models.ask(model, [Item(data, top=top)])
            if "error" in answer:
                raise unreadable(answer)
            return as_json(worded(model, answer))
        if kind != "application/json":
            raise Refused(
                415,
                "unknown_type",
                "Send an image file with Content-Type: image/jpeg or the like, or application/json.",
            )
        async with self.bodies.read(request) as data:
            items = [Item(file, top=top) for file in pictures(data)]
            answers = await self.models.ask(model, items)
        return as_json([worded(model, answer) for answer, _ in answers])

    async def explain(self, request: Request) -> Response:
        """Return a heat map of an image as a PNG file."""
        model = self.models.find(parameter(request, "model"))
        if not kind_of(request).startswith("image/"):
            raise Refused(415, "unknown_type", "Send an image file with Content-Type: image/jpeg or the like.")
        name = parameter(request, "class")
        if name is not None and name not in model.facts["classes"]:
            raise bad("The model has no such class.")
        chosen = None if name is None else model.facts["classes"].index(name)
        async with self.bodies.read(request) as data:
            answer, content = await model.explain(Item(data, extra={"explain": chosen}))
        if "error" in answer:
            raise unreadable(answer)
        return Response(content, media_type="image/png")


def parameter(request: Request, name: str) -> str | None:
    """Return a parameter of the query of a request, None if it is missing."""
    return request.query_params.get(name) if request.scope["query_string"] else None  # most have none


def number(request: Request, name: str, default: int, most: int) -> int:
    """Return a whole number from the query of a request, from 1 to `most`; larger ones count as `most`."""
    text = parameter(request, name)
    if text is None:
        return min(default, most)
    if not is_number(text) or int(text) < 1:
        raise bad(f"The parameter {name} must be a whole number, 1 or more.")
    return min(int(text), most)


def pictures(body: bytes) -> list[bytes]:
    """Return the image files in the body of a JSON request."""
    try:
        asked = Pictures.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise bad(f'Expected {{"images": [BASE64, …]}} with 1 to {PICTURES} files: {place}: {first["msg"]}.') from None
    return [from_base64(text) for text in asked.images]


def from_base64(text: str) -> bytes:
    """Return the bytes that a text stands for."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise bad("An image is not base64.") from None


def worded(model: Served, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of a worker with the names of the classes."""
    if "error" in answer:
        return {"error": {"code": "unreadable_image", "message": answer["error"]}}
    classes = model.facts["classes"]
    return {
        "model": model.name,
        "top": [{"class": classes[index], "probability": share} for index, share in answer["top"]],
        "unsure": answer["reason"] is not None,
        "reason": answer["reason"],
        "distance": answer["distance"],
    }


def unreadable(answer: dict[str, Any]) -> Refused:
    """Return the refusal of a request whose only image cannot be used."""
    return Refused(400, "unreadable_image", answer["error"])


def as_json(value: Any) -> Response:
    """Return a response with a JSON body."""
    return Response(json.dumps(value, separators=(",", ":")), media_type="application/json")
