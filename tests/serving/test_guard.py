"""Each row of the security table for servers is a test."""

import pytest

from clients import TOKEN, running
from onsight.serving.guard import Access
from onsight.serving.server import known_hosts


def test_every_address_needs_the_token_except_the_probes(server, red):
    for path in ("/", "/docs", "/openapi.json", "/metrics", "/v1/status", "/page.js", "/v2", "/v1/models/toy", "/x"):
        assert server("GET", path, token=None)[0] == 401, path
        assert server("GET", path, token=TOKEN[:-1] + "x")[0] == 401, path
    status, headers, answer = server.predict(red, token=None)
    assert (status, answer["error"]["code"]) == (401, "no_token")
    assert headers["www-authenticate"] == "Bearer"
    assert [server("GET", path, token=None)[0] for path in ("/livez", "/readyz")] == [200, 200]


def test_a_token_in_the_address_becomes_a_cookie(server):
    status, headers, _ = server("GET", f"/?token={TOKEN}", token=None)
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert cookie == f"onsight-{server.port}={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    pair = cookie.partition(";")[0]
    assert server("GET", "/", None, {"Cookie": f"other=1; {pair}"}, token=None)[0] == 200
    assert server("GET", "/", None, {"Cookie": f"onsight-1={TOKEN}"}, token=None)[0] == 401
    assert server("GET", "/?token=wrong", token=None)[0] == 401
    assert server("GET", f"/docs?token={TOKEN}", token=None)[0] == 401  # only the page takes it


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST:{port}", 200),
        ("[::1]:{port}", 200),
        ("127.0.0.1", 400),
        ("127.0.0.1:1", 400),
        ("evil.example:{port}", 400),
        ("localhost.evil.example:{port}", 400),
        ("evil.example", 400),
        ("127.0.0.1:{port}@evil.example", 400),
        ("[::1].evil.example:{port}", 400),
        ("", 400),
        ("192.168.0.1:{port}", 400),
    ],
)
def test_only_names_of_this_server_are_answered(server, host, status):
    """A page whose name has been rebound to 127.0.0.1 sends its own name."""
    found = server("GET", "/livez", None, {"Host": host.format(port=server.port)}, token=None)
    assert found[0] == status


def test_a_request_without_host_or_with_two_is_refused(server):
    for head in ("", f"Host: 127.0.0.1:{server.port}\r\nHost: evil.example\r\n"):
        answer = server.raw(f"GET /livez HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 400 "), answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "http://localhost:{port}"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_requests_of_other_pages_are_refused(server, red, headers, status):
    given = {name: value.format(port=server.port) for name, value in headers.items()}
    assert server("GET", "/v1/status", None, given)[0] == status
    assert server("POST", "/v1/predict", red, given | {"Content-Type": "image/png"})[0] == status


def test_ipv6_has_the_same_checks():
    access = Access(None, known_hosts("::1", 8000, ()), False, 8000)
    assert access.names_server("[::1]:8000")
    assert not access.names_server("[::2]:8000")
    assert not access.names_server("::1:8000")


def test_all_addresses_means_addresses_but_no_strange_name():
    access = Access("t", known_hosts("0.0.0.0", 8000, ["pics.example"]), True, 8000)
    for host in (
        "192.168.0.7:8000",
        "10.0.0.1",
        "[fe80::1]:8000",
        "pics.example",
        "pics.example:8000",
        "localhost:8000",
    ):
        assert access.names_server(host), host
    for host in ("evil.example", "evil.example:8000", "", "a@10.0.0.1.evil.example", "[", "999.1.1.1"):
        assert not access.names_server(host), host


def test_every_answer_has_the_headers_that_protect_it_and_none_that_opens_it(server, red):
    for status, headers, _ in (
        server("GET", "/"),
        server("GET", "/nothing"),
        server.predict(red),
        server("GET", "/", token=None),
        server("OPTIONS", "/v1/predict", None, {"Access-Control-Request-Method": "POST"}),
        server("DELETE", "/v1/predict"),
    ):
        assert headers["content-security-policy"].startswith("default-src 'none';"), status
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert not [name for name in headers if name.startswith("access-control")]
        assert "server" not in headers
        assert len(headers["x-request-id"]) == 16


@pytest.mark.parametrize(
    "path",
    [
        "/../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/page.css/../../etc/passwd",
        "//etc/passwd",
        "/v2/models/..%2f..",
        "/v1/models/%00",
    ],
)
def test_no_address_reaches_a_file(server, path):
    head = f"Host: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    answer = server.raw(f"GET {path} HTTP/1.1\r\n{head}".encode())
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), answer
    assert b"root:" not in answer


def test_the_token_is_in_no_answer_and_no_log(runs):
    with running(runs / "toy") as client:
        for answer in (
            client("GET", "/"),
            client("GET", "/docs"),
            client("GET", "/metrics"),
            client("GET", "/v1/status"),
        ):
            assert TOKEN not in str(answer[2])
        client("GET", f"/?token={TOKEN}x", token=None)
        client.raw(f"GET /?token={TOKEN} HTP\r\n\r\n".encode())
        client.predict(b"nothing")
        client.process.terminate()
        out, err = client.process.communicate(timeout=30)
        assert TOKEN not in client.address + out + err


def test_an_error_is_json_without_paths_or_traces(server):
    _, headers, answer = server("GET", "/nothing")
    assert headers["content-type"] == "application/json"
    assert answer == {
        "error": {"code": "not_found", "message": answer["error"]["message"], "request_id": headers["x-request-id"]}
    }
    assert server("DELETE", "/v1/predict")[0] == 405
    assert isinstance(server("GET", "/v2/models/none")[2]["error"], str)  # as clients of that protocol expect it
