"""The REST interface of TensorFlow Serving: `POST /v1/models/NAME:predict`, the status of a model and its metadata."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from onsight.serving.arrays import bytes_of, files, numbers, pixels, shape_of, whole
from onsight.serving.bodies import Bodies
from onsight.serving.models import Models
from onsight.serving.open_inference import INPUT, OUTPUT
from onsight.serving.pool import Item
from onsight.serving.predictions import as_json, from_base64
from onsight.serving.refusals import bad


class TensorFlowServing:
    """The endpoints."""

    def __init__(self, models: Models, bodies: Bodies) -> None:
        self.models = models
        self.bodies = bodies

    async def status(self, request: Request) -> Response:
        """Describe the state of a model."""
        self.models.find(**request.path_params)
        state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return as_json({"model_version_status": [state]})

    async def metadata(self, request: Request) -> Response:
        """Describe the input and the output of a model."""
        model = self.models.find(**request.path_params)
        size, classes = model.facts["size"], len(model.facts["classes"])
        signature = {
            "inputs": {INPUT: tensor("DT_UINT8", [-1, size, size, 3])},
            "outputs": {OUTPUT: tensor("DT_FLOAT", [-1, classes])},
            "method_name": "tensorflow/serving/predict",
        }
        return as_json(
            {
                "model_spec": {"name": model.name, "signature_name": "", "version": "1"},
                "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
            }
        )

    async def predict(self, request: Request) -> Response:
        """Answer a request in the row format ("instances") or the column format ("inputs")."""
        model = self.models.find(**request.path_params)
        async with self.bodies.read(request) as body:
            row, value = asked(body)
            items = items_of(value, model.facts["size"])
            answers = await self.models.ask(model, items)
        found = [numbers(content) for content in whole(answers)]
        return as_json({"predictions" if row else "outputs": found})


def tensor(kind: str, shape: list[int]) -> dict[str, Any]:
    """Return a tensor as a signature describes it."""
    sides = [{"size": str(side), "name": ""} for side in shape]
    return {"dtype": kind, "tensor_shape": {"dim": sides, "unknown_rank": False}, "name": ""}


def asked(body: bytes) -> tuple[bool, list[Any]]:
    """Return whether a request has the row format, and its images."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise bad("The body is not JSON.") from None
    if not isinstance(value, dict) or ("instances" in value) == ("inputs" in value):
        raise bad('Expected {"instances": [IMAGE, …]} or {"inputs": [IMAGE, …]}.')
    if value.get("signature_name", "serving_default") not in ("", "serving_default"):
        raise bad("The model has one signature, serving_default.")
    row = "instances" in value
    found = value["instances"] if row else value["inputs"]
    if not row and isinstance(found, dict) and set(found) == {INPUT}:
        found = found[INPUT]
    if not isinstance(found, list) or not found:
        raise bad("Expected a list of at least one image.")
    return row, found


def items_of(images: list[Any], size: int) -> list[Item]:
    """Return the images of a request: arrays [size, size, 3], or {"b64": FILE}, each perhaps in {"image": …}."""
    images = [each[INPUT] if isinstance(each, dict) and set(each) == {INPUT} else each for each in images]
    if all(isinstance(each, dict) and set(each) == {"b64"} and isinstance(each["b64"], str) for each in images):
        return files([from_base64(each["b64"]) for each in images])
    shape = [size, size, 3]
    if not all(isinstance(each, list) and shape_of(each) == shape for each in images):
        raise bad(f'Each image must be an array of shape [{size}, {size}, 3], or {{"b64": BASE64}} of a file.')
    return pixels(b"".join(bytes_of(each, math.prod(shape)) for each in images), size)
