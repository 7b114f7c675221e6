import base64

import numpy as np
import pytest

from clients import png
from onsight.inference.engines import open_engine

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def test_rows_and_columns_of_arrays_and_files(server, toy_run):
    expected = open_engine(toy_run).probabilities(IMAGES)
    arrays = IMAGES.tolist()
    files = [{"b64": base64.b64encode(png(image)).decode()} for image in IMAGES]
    for value, key in (
        ({"instances": arrays}, "predictions"),
        ({"instances": files, "signature_name": "serving_default"}, "predictions"),
        ({"instances": [{"image": each} for each in arrays]}, "predictions"),
        ({"instances": [{"image": each} for each in files]}, "predictions"),
        ({"inputs": arrays}, "outputs"),
        ({"inputs": {"image": files}}, "outputs"),
    ):
        for path in ("/v1/models/toy:predict", "/v1/models/toy/versions/1:predict"):
            status, _, answer = server.post(path, value)
            assert status == 200
            np.testing.assert_allclose(answer[key], expected, rtol=1e-6)


def test_status_and_metadata(server):
    (state,) = server("GET", "/v1/models/toy")[2]["model_version_status"]
    assert (state["version"], state["state"], state["status"]["error_code"]) == ("1", "AVAILABLE", "OK")
    found = server("GET", "/v1/models/toy/metadata")[2]["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert [each["size"] for each in found["inputs"]["image"]["tensor_shape"]["dim"]] == ["-1", "32", "32", "3"]
    assert found["outputs"]["probabilities"]["dtype"] == "DT_FLOAT"
    assert server("GET", "/v1/models/none")[0] == 404


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"instances": []},
        {"instances": [], "inputs": []},
        {"instances": [1]},
        {"instances": [[[[1, 2]]]]},
        {"instances": [{"b64": "!"}]},
        {"instances": [{"b64": 3}]},
        {"instances": [{"url": "http://x"}]},
        {"instances": [{"b64": "aGFsbG8="}]},
        {"instances": [[[[0, 0, 256]] * 32] * 32]},
        {"instances": [[[[0, 0, 0]] * 32] * 31 + [[[0, 0, 0]]]]},
        {"instances": [[[[0, 0, 0]] * 32] * 32] * 65},
        {"instances": [[[[0, 0, 0]] * 32] * 32], "signature_name": "other"},
    ],
)
def test_what_does_not_fit_is_refused(server, value):
    status, _, answer = server.post("/v1/models/toy:predict", value)
    assert status == 400
    assert isinstance(answer["error"], str)


def test_nested_json_is_refused(server):
    deep = b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert server("POST", "/v1/models/toy:predict", deep, {"Content-Type": "application/json"})[0] == 400
