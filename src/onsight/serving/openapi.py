"""/openapi.json: every address, with the schemas of the pydantic models."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic.json_schema import models_json_schema

from onsight.core.backend import installed_version
from onsight.serving.open_inference import InferRequest
from onsight.serving.predictions import PICTURES, TOP, Answer, Failed, Pictures

IMAGE = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
MODEL = ("model", "query", "the name of a model; the first, if it is left out")


class Endpoint(NamedTuple):
    """One address."""

    method: str
    path: str
    summary: str
    body: dict[str, Any] | None = None
    answer: dict[str, Any] | None = None
    parameters: tuple[tuple[str, str, str], ...] = ()  # (name, where, meaning)
    example: str = ""


def of(name: str) -> dict[str, Any]:
    """Return a reference to a schema as the content of a JSON body."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


ENDPOINTS = (
    Endpoint(
        "post",
        "/v1/predict",
        f"Classify an image: the body is the file. Or up to {PICTURES} images in JSON; each gets its answer or error.",
        IMAGE | of("Pictures"),
        {
            "application/json": {
                "schema": {
                    "oneOf": [
                        {"$ref": "#/components/schemas/Answer"},
                        {
                            "type": "array",
                            "items": {
                                "oneOf": [
                                    {"$ref": "#/components/schemas/Answer"},
                                    {"$ref": "#/components/schemas/Failed"},
                                ]
                            },
                        },
                    ]
                }
            }
        },
        (MODEL, ("top", "query", f"the number of classes in an answer; {TOP}, if it is left out")),
        'curl -H "Authorization: Bearer $ONSIGHT_TOKEN" -H "Content-Type: image/jpeg" --data-binary @cat.jpg '
        "URL/v1/predict?top=3",
    ),
    Endpoint(
        "post",
        "/v1/explain",
        "Return a heat map as a PNG file: where the image supports the likeliest class, or the one that is named.",
        IMAGE,
        {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        (MODEL, ("class", "query", "the class to explain")),
        'curl -H "Authorization: Bearer $ONSIGHT_TOKEN" -H "Content-Type: image/jpeg" --data-binary @cat.jpg '
        "-o why.png URL/v1/explain",
    ),
    Endpoint("get", "/v1/status", "What the models are, what they have answered, drift, and how shadows differ."),
    Endpoint(
        "post",
        "/v2/models/{name}/infer",
        "Open Inference Protocol: the input image is UINT8 [n, size, size, 3], or BYTES [n] of image files; the "
        "output is probabilities. The binary extension works.",
        of("InferRequest"),
    ),
    Endpoint("get", "/v2/models/{name}", "Open Inference Protocol: the inputs and outputs of a model."),
    Endpoint("get", "/v2/models/{name}/ready", "Open Inference Protocol: whether a model can answer."),
    Endpoint("get", "/v2", "Open Inference Protocol: the server and its extensions."),
    Endpoint("get", "/v2/health/live", "Open Inference Protocol: whether the server runs."),
    Endpoint("get", "/v2/health/ready", "Open Inference Protocol: whether every model can answer."),
    Endpoint(
        "post",
        "/v1/models/{name}:predict",
        'TensorFlow Serving: "instances" or "inputs" with arrays [size, size, 3] or {"b64": FILE}.',
        {"application/json": {"schema": {"type": "object"}}},
    ),
    Endpoint("get", "/v1/models/{name}/metadata", "TensorFlow Serving: the signature of a model."),
    Endpoint("get", "/v1/models/{name}", "TensorFlow Serving: the state of a model."),
    Endpoint("get", "/livez", "Whether the server runs. Needs no token."),
    Endpoint("get", "/readyz", "Whether it can answer: 503 while it starts or stops. Needs no token."),
    Endpoint("get", "/metrics", "Counters for Prometheus."),
    Endpoint("get", "/docs", "This documentation as a page."),
    Endpoint("get", "/openapi.json", "This documentation for programs."),
)
STATUSES = {
    "400": "the request, or its image, cannot be used",
    "401": "no valid token",
    "403": "sent by another web page",
    "408": "the request was sent too slowly",
    "413": "the body is larger than 16 MiB",
    "429": "too many images wait; the header Retry-After says when to try again",
    "503": "the server starts or stops",
    "504": "the answer took too long",
}


def description() -> dict[str, Any]:
    """Return the description of the server, OpenAPI 3.1."""
    _, schemas = models_json_schema(
        [(model, "validation") for model in (Answer, Failed, Pictures, InferRequest)],
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method] = operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Onsight", "version": installed_version("onsight")},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def operation(endpoint: Endpoint) -> dict[str, Any]:
    """Return the description of one address."""
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": where, "description": meaning, "schema": {"type": "string"}}
        for name, where, meaning in endpoint.parameters
    ]
    if "{name}" in endpoint.path:
        parameters.append({"name": "name", "in": "path", "required": True, "schema": {"type": "string"}})
    found: dict[str, Any] = {"summary": endpoint.summary, "parameters": parameters}
    if endpoint.body:
        found["requestBody"] = {"required": True, "content": endpoint.body}
    if endpoint.example:
        found["x-example"] = endpoint.example
    if endpoint.path in ("/livez", "/readyz"):
        found["security"] = []
    answer: dict[str, Any] = {"description": "the answer"} | ({"content": endpoint.answer} if endpoint.answer else {})
    found["responses"] = {"200": answer} | {
        code: {"description": meaning, "content": of("Failed")} for code, meaning in STATUSES.items()
    }
    return found
