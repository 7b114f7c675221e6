"""The Open Inference Protocol, with raw requests and with Triton's own client, unchanged, where it is installed."""

import base64
import json
import struct

import numpy as np
import pytest

import onsight
from clients import TOKEN, png

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(toy_run):
    from onsight.inference.engines import open_engine

    return open_engine(toy_run).probabilities(IMAGES)


def test_health_and_metadata(server, toy_run):
    assert server("GET", "/v2/health/live")[2] == {"live": True}
    assert server("GET", "/v2/health/ready")[2] == {"ready": True}
    assert server("GET", "/v2")[2]["extensions"] == ["binary_tensor_data"]
    assert server("GET", "/v2/models/toy/ready")[0] == 200
    assert server("GET", "/v2/models/toy/versions/1")[2] == {
        "name": "toy",
        "versions": ["1"],
        "platform": "onsight_litert",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert [each["name"] for each in server("GET", "/v2/models/knowing")[2]["outputs"]] == ["probabilities", "distance"]
    assert server("GET", "/v2/models/toy/versions/2")[0] == 404


def test_numbers_in_json(server, expected):
    for data in (IMAGES.tolist(), IMAGES.ravel().tolist()):
        value = {"id": "7", "inputs": [{"name": "image", "shape": [3, 32, 32, 3], "datatype": "UINT8", "data": data}]}
        status, _, answer = server.post("/v2/models/toy/infer", value)
        assert (status, answer["id"], answer["model_name"]) == (200, "7", "toy")
        (output,) = answer["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [3, 3])
        np.testing.assert_allclose(np.reshape(output["data"], (3, 3)), expected, rtol=1e-6)


def test_files_in_json_and_in_bytes(server, toy_run, expected):
    files = [png(image) for image in IMAGES]
    tensor = {"name": "image", "shape": [3], "datatype": "BYTES", "data": [base64.b64encode(f).decode() for f in files]}
    answer = server.post("/v2/models/toy/infer", {"inputs": [tensor]})[2]
    np.testing.assert_allclose(np.reshape(answer["outputs"][0]["data"], (3, 3)), expected, rtol=1e-6)
    content = b"".join(struct.pack("<I", len(file)) + file for file in files)
    tensor = {"name": "image", "shape": [3, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(content)}}
    status, headers, body = binary(
        server, "toy", {"inputs": [tensor], "parameters": {"binary_data_output": True}}, content
    )
    assert status == 200
    length = int(headers["inference-header-content-length"])
    assert json.loads(body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 36}
    np.testing.assert_array_equal(np.frombuffer(body[length:], "<f4").reshape(3, 3), expected)


def test_the_distance_is_a_second_output(server, knowing_run):
    value = {"inputs": [{"name": "image", "shape": [3, 32, 32, 3], "datatype": "UINT8", "data": IMAGES.tolist()}]}
    answer = server.post("/v2/models/knowing/infer", value)[2]
    found = [each.distance for each in onsight.predict(knowing_run, list(IMAGES))]
    np.testing.assert_allclose(answer["outputs"][1]["data"], found, atol=2e-6)
    value["outputs"] = [{"name": "distance"}]
    (only,) = server.post("/v2/models/knowing/infer", value)[2]["outputs"]
    assert only["name"] == "distance"


def binary(server, name, value, content):
    text = json.dumps(value).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}
    return server("POST", f"/v2/models/{name}/infer", text + content, headers)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"datatype": "FP32"},
        {"shape": [1, 16, 16, 3]},
        {"shape": [-1, 32, 32, 3]},
        {"shape": [2, 32, 32, 3]},
        {"shape": [65, 32, 32, 3]},
        {"shape": [0, 32, 32, 3], "data": []},
        {"data": None},
        {"data": [256] * 3072},
        {"data": ["x"] * 3072},
        {"data": [0] * 3071},
        {"datatype": "BYTES", "shape": [1], "data": ["!"]},
        {"datatype": "BYTES", "shape": [1], "data": [7]},
        {"datatype": "BYTES", "shape": [2], "data": ["aGFsbG8="]},
        {"datatype": "BYTES", "shape": [1], "data": ["aGFsbG8="]},
        {"parameters": {"binary_data_size": 3072}},
        {"parameters": {"binary_data_size": -1}},
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(server, change):
    tensor = {"name": "image", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [0] * 3072} | change
    status, _, answer = server.post("/v2/models/toy/infer", {"inputs": [tensor]})
    assert status == 400
    assert isinstance(answer["error"], str)


def test_a_binary_part_that_is_cut_off_is_refused(server):
    for content in (b"\x05\x00\x00\x00abc", b"\x01", struct.pack("<I", 2**32 - 1) + b"x"):
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(content)}}
        assert binary(server, "toy", {"inputs": [tensor]}, content)[0] == 400
    for length in ("x", "-1", "99999", "1" * 5000):
        headers = {"Inference-Header-Content-Length": length}
        assert server("POST", "/v2/models/toy/infer", b"{}", headers)[0] == 400


def test_tritons_client_works_unchanged(server, expected):
    http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")

    def token():  # the client changes the dict that it is given
        return {"headers": {"Authorization": f"Bearer {TOKEN}"}}

    with http.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live(**token())
        assert client.is_server_ready(**token())
        assert client.is_model_ready("toy", **token())
        assert client.get_server_metadata(**token())["name"] == "onsight"
        assert client.get_model_metadata("toy", **token())["inputs"][0]["shape"] == [-1, 32, 32, 3]
        for in_binary in (True, False):
            tensor = http.InferInput("image", [3, 32, 32, 3], "UINT8")
            tensor.set_data_from_numpy(IMAGES, binary_data=in_binary)
            for outputs in (None, [http.InferRequestedOutput("probabilities", binary_data=in_binary)]):
                found = client.infer("toy", [tensor], outputs=outputs, **token(), request_id="1")
                np.testing.assert_allclose(found.as_numpy("probabilities"), expected, rtol=1e-6)
                assert found.get_response()["id"] == "1"
        files = np.array([png(image) for image in IMAGES], dtype=object)
        tensor = http.InferInput("image", [3], "BYTES")
        tensor.set_data_from_numpy(files)
        found = client.infer("toy", [tensor], **token())
        np.testing.assert_array_equal(found.as_numpy("probabilities"), expected)
        tensor = http.InferInput("image", [1, 8, 8, 3], "UINT8")
        tensor.set_data_from_numpy(IMAGES[:1, :8, :8])
        with pytest.raises(Exception, match="expected \\[n, 32, 32, 3\\]"):
            client.infer("toy", [tensor], **token())
