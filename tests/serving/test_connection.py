"""Connections that are slow, silent, too many, too large or not HTTP, against a server with short limits."""

import asyncio
import socket
import threading
import time

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from clients import everything, wait_for  # noqa: E402
from onsight.serving import connection  # noqa: E402


async def hello(scope, receive, send):
    """Answer at once, without reading the body; /read reads it first."""
    size = 0
    if scope["path"] == "/read":
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message["body"])
            more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": f"{size:5}".encode()})


@pytest.fixture(scope="module")
def port():
    """The port of a server whose limits are short."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PATIENCE": 0.5, "LINGER": 0.5, "MOST": 20}.items():
            patch.setattr(connection, name, value)
        server = uvicorn.Server(uvicorn.Config(hello, **connection.options()))
        listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        wait_for(lambda: server.started)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(20)
        listening.close()
    assert not thread.is_alive()


def send(port, *parts, wait=0.0):
    """Send bytes with pauses in between, and return what comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), 20) as opened:
        for part in parts:
            try:
                opened.sendall(part)
            except OSError:
                break
            time.sleep(wait)
        return everything(opened)


GET = b"GET / HTTP/1.1\r\nHost: x\r\n"


def test_a_connection_that_says_nothing_is_closed(port):
    assert send(port) == b""


def test_headers_that_do_not_end_are_answered_with_408(port):
    assert send(port, GET).startswith(b"HTTP/1.1 408 ")
    drops = [b"GET / HTTP/1.1\r\n", *[b"A: b\r\n"] * 20]
    assert send(port, *drops, wait=0.1).startswith(b"HTTP/1.1 408 ")


def test_line_breaks_do_not_keep_a_connection_open(port):
    started = time.monotonic()
    send(port, GET + b"\r\n", *[b"\r\n"] * 30, wait=0.1)
    assert time.monotonic() - started < 15


def test_headers_that_are_too_large_are_refused(port):
    assert send(port, GET + b"A: " + b"x" * 20_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert send(port, GET, b"A: " + b"x" * 20_000, wait=0.05).startswith(b"HTTP/1.1 400 ")
    assert send(port, b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert send(port, GET + b"A: b\r\n" * 4000 + b"\r\n").startswith(b"HTTP/1.1 400 ")


def test_the_rest_of_a_refused_body_is_not_waited_for_long(port):
    started = time.monotonic()
    answer = send(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", *[b"x"] * 30, wait=0.1)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 5\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: -3\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length : 3\r\n",
        b" Content-Length: 3\r\n",
        b"A: b\nContent-Length: 3\r\n\x00",
    ],
)
def test_a_body_whose_length_could_be_read_in_two_ways_is_refused(port, head):
    """Otherwise a proxy and this server could disagree where the next request begins."""
    smuggled = b"0\r\n\r\nGET /read HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = send(port, b"POST /read HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n" + smuggled)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "content",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\xff" * 3000,
     b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"],
)  # fmt: skip
def test_what_is_not_http_is_refused_and_closed(port, content):
    answer = send(port, content)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 ")), answer


def test_too_many_connections_are_refused(port):
    opened = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(20)]
    try:
        assert send(port).startswith(b"HTTP/1.1 503 ")
    finally:
        for each in opened:
            each.close()
    wait_for(lambda: send(port, GET + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 "))


def test_a_request_after_another_on_one_connection_is_answered(port):
    body = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    answer = send(port, body, body, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", wait=0.05)
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert answer.count(b"    3") == 2
