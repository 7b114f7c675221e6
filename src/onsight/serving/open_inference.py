"""The Open Inference Protocol, version 2 (KServe, Triton): health, metadata, and infer with its binary extension."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from onsight.core.backend import installed_version
from onsight.serving.arrays import bytes_of, files, numbers, pixels, whole
from onsight.serving.bodies import Bodies, is_number
from onsight.serving.models import Models, Served
from onsight.serving.pool import Item
from onsight.serving.predictions import as_json, from_base64
from onsight.serving.refusals import Refused, bad

LENGTH = "Inference-Header-Content-Length"
INPUT, OUTPUT, DISTANCE = "image", "probabilities", "distance"


class Input(BaseModel):
    """A tensor of a request."""

    name: str
    shape: list[int] = Field(max_length=8)
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class Wanted(BaseModel):
    """A tensor of the answer, as the request asks for it."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """The JSON part of a request."""

    id: str | None = Field(None, max_length=256)
    parameters: dict[str, Any] = {}
    inputs: list[Input] = Field(min_length=1, max_length=1)
    outputs: list[Wanted] = Field([], max_length=8)


class OpenInference:
    """The endpoints."""

    def __init__(self, models: Models, bodies: Bodies) -> None:
        self.models = models
        self.bodies = bodies

    async def live(self, request: Request) -> Response:
        """Say that the server runs."""
        return as_json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Say whether every model can answer."""
        if not self.models.ready:
            raise Refused(503, "not_ready", "The server is not ready.")
        return as_json({"ready": True})

    async def server(self, request: Request) -> Response:
        """Describe the server."""
        return as_json(
            {"name": "onsight", "version": installed_version("onsight"), "extensions": ["binary_tensor_data"]}
        )

    async def model_ready(self, request: Request) -> Response:
        """Say whether a model can answer."""
        return as_json({"name": self.models.find(**request.path_params).name, "ready": True})

    async def metadata(self, request: Request) -> Response:
        """Describe a model."""
        model = self.models.find(**request.path_params)
        size, classes = model.facts["size"], len(model.facts["classes"])
        outputs = [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, classes]}]
        if model.facts["distance_threshold"] is not None:
            outputs.append({"name": DISTANCE, "datatype": "FP32", "shape": [-1]})
        return as_json(
            {
                "name": model.name,
                "versions": ["1"],
                "platform": f"onsight_{model.facts['engine'].partition(' ')[0]}",
                "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, size, size, 3]}],
                "outputs": outputs,
            }
        )

    async def infer(self, request: Request) -> Response:
        """Answer a request."""
        model = self.models.find(**request.path_params)
        async with self.bodies.read(request) as body:
            asked, binary = parts_of(request, body)
            items = items_of(asked.inputs[0], binary, model.facts["size"])
            answers = await self.models.ask(model, items)
        contents = {OUTPUT: b"".join(whole(answers))}
        shapes = {OUTPUT: [len(items), len(model.facts["classes"])]}
        if model.facts["distance_threshold"] is not None:
            contents[DISTANCE] = struct.pack(f"<{len(items)}f", *(answer["distance"] for answer, _ in answers))
            shapes[DISTANCE] = [len(items)]
        return response(model, asked, contents, shapes)


def parts_of(request: Request, body: bytes) -> tuple[InferRequest, bytes]:
    """Return the JSON part of a request, and the bytes that follow it."""
    length = request.headers.get(LENGTH, str(len(body)))
    if not is_number(length) or int(length) > len(body):
        raise bad(f"The header {LENGTH} does not fit the body.")
    try:
        return InferRequest.model_validate_json(body[: int(length)]), body[int(length) :]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise bad(f"{'.'.join(map(str, first['loc'])) or 'The body'}: {first['msg']}.") from None


def items_of(tensor: Input, binary: bytes, size: int) -> list[Item]:
    """Return the images of a request: UINT8 [n, size, size, 3], or BYTES [n] or [n, 1] of files."""
    if tensor.name != INPUT:
        raise bad(f"The model has one input, '{INPUT}'.")
    if any(side < 0 for side in tensor.shape):
        raise bad("A shape has no negative numbers.")
    count = math.prod(tensor.shape)
    in_binary = "binary_data_size" in tensor.parameters
    if in_binary and tensor.parameters["binary_data_size"] != len(binary):
        raise bad("binary_data_size does not fit the body.")
    if not in_binary and tensor.data is None:
        raise bad("The input has no data.")
    if tensor.datatype == "UINT8":
        if len(tensor.shape) != 4 or tensor.shape[1:] != [size, size, 3]:
            raise bad(f"The shape is {tensor.shape}; expected [n, {size}, {size}, 3].")
        content = binary if in_binary else bytes_of(tensor.data or [], count)
        if len(content) != count:
            raise bad(f"There are {len(content):,} bytes; the shape asks for {count:,}.")
        return pixels(content, size)
    if tensor.datatype != "BYTES":
        raise bad(f"The datatype is '{tensor.datatype[:20]}'; expected UINT8 or BYTES.")
    found = elements(binary) if in_binary else [from_base64(each) for each in strings(tensor.data or [])]
    if len(found) != count:
        raise bad(f"There are {len(found):,} elements; the shape asks for {count:,}.")
    return files(found)


def strings(data: list[Any]) -> list[str]:
    """Return base64 texts, which may lie in lists of one."""
    found = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in data]
    if not all(isinstance(each, str) for each in found):
        raise bad("BYTES in JSON are texts in base64.")
    return found


def elements(binary: bytes) -> list[bytes]:
    """Return the elements of a BYTES tensor: each has its length before it, 4 bytes in little-endian order."""
    found, start = [], 0
    while start < len(binary):
        if start + 4 > len(binary):
            raise bad("A BYTES tensor is cut off.")
        (length,) = struct.unpack_from("<I", binary, start)
        start += 4
        if start + length > len(binary):
            raise bad("A BYTES tensor is cut off.")
        found.append(binary[start : start + length])
        start += length
    return found


def response(model: Served, asked: InferRequest, contents: dict[str, bytes], shapes: dict[str, list[int]]) -> Response:
    """Return the answer, each tensor in JSON or in bytes, as it was asked for."""
    every = bool(asked.parameters.get("binary_data_output"))
    wanted = asked.outputs or [Wanted(name=name) for name in contents]
    outputs, parts = [], []
    for each in wanted:
        if each.name not in contents:
            raise bad(f"The model has no such output. Known: {', '.join(contents)}.")
        if each.parameters.get("classification"):
            raise bad("The classification extension is not supported; /v1/predict names classes.")
        content = contents[each.name]
        output: dict[str, Any] = {"name": each.name, "datatype": "FP32", "shape": shapes[each.name]}
        if each.parameters.get("binary_data", every):
            output["parameters"] = {"binary_data_size": len(content)}
            parts.append(content)
        else:
            output["data"] = numbers(content)
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": model.name, "model_version": "1", "outputs": outputs}
    if asked.id is not None:
        answer["id"] = asked.id
    if not parts:
        return as_json(answer)
    text = json.dumps(answer, separators=(",", ":")).encode()
    headers = {LENGTH: str(len(text))}
    return Response(b"".join([text, *parts]), media_type="application/octet-stream", headers=headers)
