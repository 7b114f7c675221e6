"""A connection of uvicorn with limits that uvicorn does not have: of headers, of silence, and of connections."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MOST = 128  # connections at the same time; a browser opens six, a load balancer some tens
PATIENCE = 10.0  # seconds for the headers of a request
LINGER = 2.0  # seconds in which the rest of a refused body is read, so that the client sees the refusal
HEADERS = 16 << 10  # bytes


class Joined:
    """A transport that sends what is written in one turn of the event loop at once.

    uvicorn writes the headers and the body of an answer separately: two system calls, where one will do.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self.loop = loop
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send bytes soon."""
        if not self.parts:
            self.loop.call_soon(self.flush)
        self.parts.append(data)

    def flush(self) -> None:
        """Send what was written."""
        if self.parts:
            self.transport.write(b"".join(self.parts))
            self.parts.clear()

    def close(self) -> None:
        """Send what was written, then close."""
        self.flush()
        self.transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


class Connection(HttpToolsProtocol):
    """One connection."""

    timer: asyncio.TimerHandle | None = None
    reading = False  # whether a request has begun whose headers are not complete
    received = 0  # bytes of these headers, at most

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection if there are too many; otherwise give it time to say something."""
        super().connection_made(transport)
        self.transport = Joined(transport, self.loop)  # type: ignore[assignment]
        if len(self.connections) > MOST:
            self.refuse(503, "too_many_connections", "There are too many connections. Try again in a second.")
        else:
            self.arm(PATIENCE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Limit the headers, in size and time. Bytes that begin no request do not keep a connection open."""
        idle = self.cycle is None or self.cycle.response_complete
        if self.timer is None and idle:
            self.arm(PATIENCE)
        super().data_received(data)
        if self.reading:
            self.received += len(data)
            if self.received > HEADERS:
                self.refuse(400, "headers_too_large", f"The headers are larger than {HEADERS >> 10} KiB.")

    def on_message_begin(self) -> None:
        """Start to wait for headers."""
        self.reading, self.received = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop to wait for headers; the application limits the time of the body."""
        self.reading = False
        self.disarm()
        if sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url) > HEADERS:
            self.refuse(400, "headers_too_large", f"The headers are larger than {HEADERS >> 10} KiB.")
            return
        if any(name == b"transfer-encoding" and value.lower() != b"chunked" for name, value in self.headers):
            self.refuse(400, "bad_request", "The only Transfer-Encoding that is known is chunked.")
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on, unless its headers were refused."""
        if self.cycle is not None and not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop to wait for the rest of a body that was refused."""
        if self.cycle is None or self.transport.is_closing():
            return
        if self.cycle.response_complete:
            self.disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the rest of a refused body, but not for long."""
        super().on_response_complete()
        if self.cycle.more_body and not self.transport.is_closing():
            self.arm(LINGER)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP in the same form as everything else."""
        self.refuse(400, "not_http", "The request is not valid HTTP/1.1.")

    def arm(self, seconds: float) -> None:
        """Close the connection after a time."""
        self.disarm()
        self.timer = self.loop.call_later(seconds, self.give_up)

    def disarm(self) -> None:
        """Leave the connection open."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def give_up(self) -> None:
        """Close the connection: with an answer if a request has begun."""
        if self.reading and self.received:
            self.refuse(408, "headers_too_slow", f"The headers took longer than {PATIENCE:g} s.")
        else:
            self.transport.close()

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer without the application, and close the connection. An answer that has begun is only cut off."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            content = json.dumps({"error": {"code": code, "message": message}}).encode()
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(content)
            self.transport.write(STATUS_LINE[status] + head + content)
        self.transport.close()


def options() -> dict[str, Any]:
    """Return what uvicorn's `Config` needs for such connections."""
    return {
        "http": Connection,
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "log_config": None,
        "log_level": "critical",
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": 5,
        "timeout_graceful_shutdown": 10,
        "backlog": MOST,
    }
