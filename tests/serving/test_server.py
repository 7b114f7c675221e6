import http.client
import json
import re
import signal
import socket
import threading
from pathlib import Path

import pytest

from clients import TOKEN, running, wait_for
from onsight.core.errors import SpecError
from onsight.serving import server as serving


def test_settings_that_cannot_work_are_refused_with_what_to_do(onsight, runs, monkeypatch):
    for words, said in (
        ((), "No run was given"),
        (("gone",), "There is no run at gone"),
        ((runs / "toy", "--host", "0.0.0.0", "--no-token"), "--no-token works on this machine only"),
        ((runs / "toy", "--host", "203.0.113.1"), "cannot listen on 203.0.113.1"),
        ((runs / "toy", "--port", "99999"), "expected 0 to 65535"),
        ((runs / "toy", "--shadow"), "--shadow needs a second run"),
    ):
        code, _, err = onsight("serve", *words)
        assert (code, said in err) == (2, True), err
    monkeypatch.setenv("ONSIGHT_TOKEN", "short")
    code, _, err = onsight("serve", runs / "toy")
    assert code == 2
    assert "ONSIGHT_TOKEN has 5 characters" in err


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(serving, "find_spec", lambda name: None if name == "uvicorn" else True)
    with pytest.raises(SpecError, match=r"needs uvicorn\. Install: pip install 'onsight\[serve\]'"):
        serving.serve(["x"], announce=print)


def test_a_token_is_made_and_has_192_bits(monkeypatch):
    monkeypatch.delenv("ONSIGHT_TOKEN", raising=False)
    tokens = {serving.chosen_token(True, "127.0.0.1") for _ in range(5)}
    assert len(tokens) == 5
    assert {len(token) for token in tokens} == {32}
    assert serving.chosen_token(False, "::1") is None


def test_a_token_that_is_made_is_printed_once_in_the_address(runs, red):
    with running(runs / "toy", token=None) as client:
        token = client.address.partition("?token=")[2]
        assert len(token) == 32
        assert client.predict(red, token=token)[0] == 200
        assert client.predict(red, token=token[:-1])[0] == 401


def test_the_next_port_is_taken_if_nobody_named_one(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(serving, "PORT", taken.getsockname()[1])
        with serving.bound("127.0.0.1", None) as found:
            assert found.getsockname()[1] > serving.PORT
        with pytest.raises(SpecError, match="in use"):
            serving.bound("127.0.0.1", serving.PORT)


def test_without_a_token_the_checks_of_pages_remain(runs, red):
    with running(runs / "toy", "--no-token", token=None) as client:
        assert client.address.endswith(f":{client.port}/")
        assert client.predict(red, token=None)[0] == 200
        assert client("GET", "/", None, {"Origin": "http://evil.example"}, token=None)[0] == 403
        assert client("GET", "/", None, {"Host": "evil.example"}, token=None)[0] == 400


def test_ipv6(runs, red):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with running(runs / "toy", "--host", "::1", ready=False) as client:
        assert client.address.startswith("http://[::1]:")
        wait_for(lambda: status_on_ipv6(client.port, f"[::1]:{client.port}") == 200)
        assert status_on_ipv6(client.port, f"evil.example:{client.port}") == 400


def status_on_ipv6(port, host):
    connection = http.client.HTTPConnection("::1", port, timeout=20)
    connection.request("GET", "/readyz", headers={"Host": host})
    status = connection.getresponse().status
    connection.close()
    return status


def test_it_answers_503_until_it_is_warm(runs, red):
    with running(runs / "toy", ready=False) as client:
        assert client("GET", "/livez", token=None)[0] == 200
        status, headers, answer = client.predict(red)
        if status != 200:  # the machine was faster than this test
            assert (status, answer["error"]["code"], headers["retry-after"]) == (503, "not_ready", "1")
        wait_for(lambda: client("GET", "/readyz", token=None)[0] == 200)
        assert client.predict(red)[0] == 200


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_after_it_has_answered_what_it_accepted(runs, red, name):
    with running(runs / "toy") as client:
        connection = socket.create_connection(("127.0.0.1", client.port), 30)
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: image/png\r\nContent-Length: {len(red)}\r\n\r\n"
        ).encode()
        connection.sendall(head + red[:-1])  # accepted, but not complete
        wait_for(lambda: 'onsight_requests_total{code="200",route="/livez"}' in client("GET", "/metrics")[2].decode()
                 or client("GET", "/livez")[0] != 200)  # fmt: skip
        client.process.send_signal(getattr(signal, name))
        wait_for(lambda: refused(client.port))
        connection.sendall(red[-1:])
        answer = connection.recv(65536)
        connection.close()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert client.process.wait(30) == 0


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return True
    return False


def test_a_model_that_cannot_be_loaded_ends_it(runs, tmp_path, onsight):
    import shutil

    shutil.copytree(runs / "toy", tmp_path / "damaged")
    (tmp_path / "damaged" / "model" / "model.tflite").write_bytes(b"x")
    code, _, err = onsight("serve", tmp_path / "damaged", "--port", "0")
    assert code == 2
    assert "damaged or replaced" in err


def test_a_body_that_is_too_long_is_refused_before_it_is_read(server):
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: image/png\r\n"
    )
    answer = server.raw(f"{head}Content-Length: {17 << 20}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    answer = server.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 17)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_overload_gives_only_the_codes_that_it_may(server, red):
    """64 clients with several images each: far more than the workers can answer at once."""
    import base64

    files = [base64.b64encode(red).decode()] * 32
    codes = []

    def ask():
        for _ in range(4):
            codes.append(server.post("/v1/predict", {"images": files})[0])
            codes.append(server.predict(red[:50])[0])

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(codes) == 192
    assert {*codes} <= {200, 400, 429, 503}
    assert {200, 429} <= {*codes}
    wait_for(lambda: server.predict(red)[0] == 200)


def test_malformed_requests_leave_it_as_it_was(server, red):
    import random

    rng = random.Random(0)
    whole = (
        f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: image/png\r\nConnection: close\r\nContent-Length: {len(red)}\r\n\r\n"
    ).encode() + red
    statuses = set()
    for _ in range(200):
        broken = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
            connection.sendall(bytes(broken))
            connection.shutdown(socket.SHUT_WR)
            statuses.add(connection.recv(65536)[9:12])
    assert statuses <= {b"", b"200", b"400", b"401", b"403", b"404", b"405", b"408", b"413", b"415"}, statuses
    assert server.predict(red)[0] == 200
    assert server.process.poll() is None


def test_metrics_are_by_route_template_and_class(server, red):
    server.predict(red)
    server("GET", "/v2/models/strange-name")
    text = server("GET", "/metrics")[2].decode()
    assert 'onsight_requests_total{code="404",route="/v2/models/{name}"}' in text
    assert "strange-name" not in text
    assert 'onsight_images_total{class="red",model="toy"}' in text
    assert 'onsight_unsure_images_total{model="knowing",reason="far"}' in text
    assert 'onsight_distance_total{model="knowing"}' in text
    assert 'onsight_distance_total{model="toy"}' not in text
    assert "onsight_batch_images_bucket" in text
    assert 'onsight_queue_images{model="toy"} 0.0' in text
    wait_for(lambda: server("GET", "/v1/status")[2]["models"]["toy"]["drift"] is not None)
    assert 'onsight_drift_odds{model="toy"}' in server("GET", "/metrics")[2].decode()


def test_only_the_server_itself_imports_what_it_needs():
    """The process that listens has neither NumPy nor Pillow: they are in the workers, where images are decoded."""
    import subprocess
    import sys

    code = (
        "import sys, onsight.serving.app, onsight.serving.service, onsight.serving.server;"
        "print(json.dumps([name for name in ('numpy', 'PIL', 'keras', 'scipy') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", "import json;" + code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "serving").iterdir())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.suffix)
def test_the_commands_of_the_examples_are_valid(path):
    from onsight.cli.app import parsed

    start = r'^(?:CMD \["onsight", |ExecStart=/opt/onsight/bin/onsight )(.*?)\]?$'
    (line,) = re.findall(start, path.read_text(), re.M)
    assert len(EXAMPLES) == 2
    words = re.sub(r"[\",]", "", line).split()
    asked = parsed(words)
    assert words[0] == asked.function.__name__ == "serve"
    assert asked.options["port"] == 8000
