"""What every request passes first: who may ask, from which page, under which name; and what every answer carries.

The model of a local server: any web page that the user visits can send requests to 127.0.0.1, and can give its own name
that address (DNS rebinding). So a request must name this server (Host), come from no other page (Origin,
Sec-Fetch-Site) and carry the token.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onsight.serving.refusals import Refused

OPEN = ("/livez", "/readyz")  # for probes, which have no token; they tell nothing
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
OTHER_PROTOCOLS = ("/v2/", "/v1/models/")  # their clients expect an error that is a string


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        token: what a request must carry; None: nothing.
        hosts: the values of Host that name this server.
        any_address: whether every IP address does, too, because the server listens on all of its own.
        port: the port, which is part of the name of the cookie: browsers share cookies between ports.
    """

    token: str | None
    hosts: frozenset[str]
    any_address: bool
    port: int

    @property
    def cookie(self) -> str:
        """The name of the cookie that holds the token."""
        return f"onsight-{self.port}"

    def names_server(self, host: str) -> bool:
        """Return whether a Host names this server. A name that an attacker has registered does not."""
        if host.lower() in self.hosts:
            return True
        if not self.any_address:
            return False
        try:
            ipaddress.ip_address(urlsplit(f"//{host}").hostname or "")
        except ValueError:
            return False
        return True

    def accepts(self, token: str) -> bool:
        """Return whether a token is right, in a time that does not depend on it."""
        return self.token is None or hmac.compare_digest(token.encode(), self.token.encode())


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, access: Access, measured: Callable[[str, int, float], None]) -> None:
        """Guard an application.

        Args:
            app: what answers the requests that pass.
            access: who may use it.
            measured: receives route, status and seconds of each request.
        """
        self.app = app
        self.access = access
        self.measured = measured

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        request_id = os.urandom(8).hex()
        status = 0
        error: Refused | None = None

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}  # a page of its own kind has its own policy
                added = [header for header in HEADERS if header[0] not in given]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *added]
            await send(message)

        try:
            self.check(scope)
            await self.app(scope, receive, send_guarded)
        except Refused as refusal:
            error = refusal
        except HTTPException as problem:  # of the router: another method
            error = Refused(problem.status_code, "not_allowed", "This address does not take this method.")
            error.headers = dict(problem.headers or {})
        except Exception:
            traceback.print_exc()  # the token is in none of the names that a traceback shows
            error = Refused(500, "internal", "The server has made a mistake. Its log names it by the request's id.")
        if error and not status:
            await refuse(scope["path"], error, request_id, send_guarded)
        self.measured(route_of(scope), status, time.perf_counter() - started)

    def check(self, scope: Scope) -> None:
        """Raise Refused unless a request may be answered."""
        found: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in SINGLE and name in found:
                raise Refused(400, "bad_request", f"The request has two headers {name.decode()}.")
            found[name] = value
        host = found.get(b"host", b"").decode("latin-1")
        if not self.access.names_server(host):
            raise Refused(400, "unknown_host", "The request does not name this server in its header Host.")
        if scope["path"] in OPEN:
            return
        origin = found.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc.lower() != host.lower():
            raise Refused(403, "other_origin", "Requests of other web pages are not answered.")
        if found.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            raise Refused(403, "other_origin", "Requests of other web pages are not answered.")
        if self.access.token is None or self.access.accepts(token_of(found, self.access.cookie)):
            return
        if scope["path"] == "/" and self.access.accepts(query_token(scope)):
            raise Refused(303, "token_taken", "", {"Location": "/", "Set-Cookie": self.new_cookie()})
        raise Refused(
            401,
            "no_token",
            "The request has no valid token. Open the address that the command has printed, or send the header "
            "Authorization: Bearer TOKEN.",
            {"WWW-Authenticate": "Bearer"},
        )

    def new_cookie(self) -> str:
        """Return the header that gives the token to a browser that has shown it."""
        return f"{self.access.cookie}={self.access.token}; Path=/; HttpOnly; SameSite=Strict"


SINGLE = (b"host", b"origin", b"content-length", b"content-type", b"authorization", b"inference-header-content-length")


def token_of(headers: dict[bytes, bytes], cookie: str) -> str:
    """Return the token of a request: from the header Authorization, or from the cookie."""
    kind, _, value = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == cookie:
            return value
    return ""


def query_token(scope: Scope) -> str:
    """Return the token in the address of a request."""
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]


def route_of(scope: Scope) -> str:
    """Return the template of the route that a request has taken, of a closed set: addresses are strangers' text."""
    return str(getattr(scope.get("route"), "path", "other"))


async def refuse(path: str, error: Refused, request_id: str, send: Send) -> None:
    """Send a refusal as JSON."""
    value: object = {"code": error.code, "message": error.message, "request_id": request_id}
    if path.startswith(OTHER_PROTOCOLS):
        value = error.message
    content = json.dumps({"error": value}).encode()
    headers = [(name.lower().encode(), text.encode()) for name, text in error.headers.items()]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
