import base64
import io

import numpy as np
from PIL import Image

import onsight
from clients import png


def test_a_file_is_answered_like_predict(server, toy_run, red):
    status, headers, answer = server.predict(red, "?top=2")
    assert status == 200
    assert headers["content-type"] == "application/json"
    (expected,) = onsight.predict(toy_run, red, top=2)
    assert [each["class"] for each in answer["top"]] == [name for name, _ in expected.top]
    np.testing.assert_allclose(
        [each["probability"] for each in answer["top"]], [share for _, share in expected.top], atol=2e-6
    )
    assert answer | {"top": []} == {"model": "toy", "top": [], "unsure": False, "reason": None, "distance": None}


def test_an_image_unlike_the_training_images_is_unsure(server, knowing_run):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    _, _, answer = server.predict(png(noise), "?model=knowing")
    (expected,) = onsight.predict(knowing_run, noise)
    assert answer["model"] == "knowing"
    assert (answer["unsure"], answer["reason"]) == (expected.unsure, expected.reason)
    assert abs(answer["distance"] - expected.distance) < 1e-5


def test_several_images_have_an_answer_or_an_error_each(server, red):
    files = [base64.b64encode(each).decode() for each in (red, b"nothing", red)]
    status, _, (first, second, third) = server.post("/v1/predict", {"images": files})
    assert status == 200
    assert first == third
    assert first["top"][0]["class"] == "red"
    assert second["error"]["code"] == "unreadable_image"
    assert server.post("/v1/predict?top=1", {"images": files * 22})[0] == 400  # 66 are more than 64
    status, _, answers = server.post("/v1/predict?top=1", {"images": files[:1] * 64})
    assert (status, len(answers)) == (200, 64)


def test_what_cannot_be_used_is_refused_with_a_code(server, red):
    for body, kind, code, status in (
        (b"nothing", "image/png", "unreadable_image", 400),
        (red[: len(red) // 2], "image/png", "unreadable_image", 400),
        (red, "text/plain", "unknown_type", 415),
        (red, "multipart/form-data; boundary=x", "unknown_type", 415),
        (b"{", "application/json", "bad_request", 400),
        (b'{"images": []}', "application/json", "bad_request", 400),
        (b'{"images": ["!"]}', "application/json", "bad_request", 400),
        (b'{"images": ["aa"], "url": "http://x"}', "application/json", "bad_request", 400),
    ):
        found, headers, answer = server("POST", "/v1/predict", body, {"Content-Type": kind})
        assert (found, answer["error"]["code"]) == (status, code)
        assert answer["error"]["request_id"] == headers["x-request-id"]
    for query in ("?top=0", "?top=x", "?top=-1"):
        assert server.predict(red, query)[0] == 400
    assert len(server.predict(red, "?top=1000")[2]["top"]) == 3
    assert server.predict(red, "?model=other")[0] == 404


def test_a_heat_map_is_a_png(server, red):
    status, headers, content = server("POST", "/v1/explain?class=green", red, {"Content-Type": "image/png"})
    assert (status, headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(content)).size == (320, 320)
    assert server("POST", "/v1/explain?class=none", red, {"Content-Type": "image/png"})[0] == 400
    assert server("POST", "/v1/explain", b"x", {"Content-Type": "image/png"})[0] == 400
