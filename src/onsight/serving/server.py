"""`serve`: checks the settings, chooses token and port, prints the address, and lets `service` run.

`label` and `studio` begin in the same way.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from onsight.core.errors import SpecError

if TYPE_CHECKING:
    from onsight.serving.guard import Access

PORT = 8000
TRIED = 100  # ports, if nobody named one
LOOPBACK = ("127.0.0.1", "::1", "localhost")
SHORTEST_TOKEN = 32  # characters; a token of ours has 192 bits in 32


def serve(
    runs: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    token: bool = True,
    names: Sequence[str] = (),
    shadow: bool = False,
    announce: Callable[[str, bool], None],
) -> None:
    """Serve finished runs over HTTP until a signal ends it.

    Args:
        runs: each a run, or NAME=RUN; the first answers where no name is given.
        host: the address to listen on.
        port: the port; None: 8000, or the next that is free.
        token: whether requests must carry a token: that of ONSIGHT_TOKEN, or a new one.
        names: further names under which the server is reached, as they occur in Host.
        shadow: whether the images of the first run go to the others, too.
        announce: receives the address, and whether it holds the token. A token of ONSIGHT_TOKEN is known and is not
            shown: what a service prints ends in a log.

    Raises:
        SpecError: a setting cannot work.
        RunError: a run cannot be opened.
    """
    require_packages("serve")
    chosen = chosen_token(token, host)
    from onsight.serving.app import make_app
    from onsight.serving.metrics import Metrics
    from onsight.serving.models import Models
    from onsight.serving.service import Service

    metrics = Metrics()
    metrics.models = models = Models(runs, shadow, metrics.batch.observe)
    with bound(host, port) as listening:
        access = announced(listening, host, names, chosen, announce)
        asyncio.run(Service(make_app(models, access, metrics), models).run_on(listening))


def announced(
    listening: socket.socket, host: str, names: Sequence[str], token: str | None, announce: Callable[[str, bool], None]
) -> Access:
    """Announce the address of a listening socket, and return who may use it. The arguments are those of `serve`."""
    from onsight.serving.guard import Access

    port = listening.getsockname()[1]
    address = f"http://{'127.0.0.1' if is_wildcard(host) else bracketed(host)}:{port}/"
    shown = token is not None and "ONSIGHT_TOKEN" not in os.environ
    announce(address + (f"?token={token}" if shown else ""), shown)
    return Access(token, known_hosts(host, port, names), is_wildcard(host), port)


def require_packages(command: str) -> None:
    """Raise SpecError if a package that the server of a command needs is missing."""
    missing = [name for name in ("starlette", "uvicorn", "httptools", "prometheus_client") if not find_spec(name)]
    if missing:
        raise SpecError(f"onsight {command} needs {', '.join(missing)}. Install: pip install 'onsight[serve]'")


def chosen_token(wanted: bool, host: str) -> str | None:
    """Return the token: that of ONSIGHT_TOKEN, or a new one; None if none is wanted."""
    if not wanted:
        if host not in LOOPBACK:
            raise SpecError(f"--no-token works on this machine only, but --host is {host}. Leave one of them out.")
        return None
    given = os.environ.get("ONSIGHT_TOKEN")
    if given is None:
        return secrets.token_urlsafe(24)
    if len(given) < SHORTEST_TOKEN or not all(letter.isalnum() or letter in "-_" for letter in given):
        raise SpecError(
            f"ONSIGHT_TOKEN has {len(given)} characters; expected at least {SHORTEST_TOKEN} letters, digits, - and _. "
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe(24))'"
        )
    return given


def is_wildcard(host: str) -> bool:
    """Return whether a host means all addresses of this machine."""
    return host in ("0.0.0.0", "::")


def bracketed(host: str) -> str:
    """Return a host as it is written in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def known_hosts(host: str, port: int, names: Sequence[str]) -> frozenset[str]:
    """Return the values of Host that name this server, in lower case."""
    own = [*names, bracketed(host)]
    if host in LOOPBACK or is_wildcard(host):
        own += map(bracketed, LOOPBACK)
    if is_wildcard(host):
        own.append(socket.gethostname())
    with_port = [f"{name}:{port}" for name in own]
    # Behind a proxy, or on port 80, the port is left out; on loopback it never is, and another server may have it.
    return frozenset(each.lower() for each in [*with_port, *names, *(own if port == 80 else [])])


def bound(host: str, port: int | None) -> socket.socket:
    """Return a listening socket.

    Raises:
        SpecError: the address or the port cannot be used.
    """
    if port is not None and not 0 <= port <= 65535:
        raise SpecError(f"--port {port} is not a port; expected 0 to 65535, 0 for any that is free.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for each in range(PORT, PORT + TRIED) if port is None else [port]:
        try:
            return socket.create_server((host, each), family=family, backlog=128)
        except OSError as error:
            if port is None and error.errno == errno.EADDRINUSE:
                continue
            why = error.strerror or error
            raise SpecError(f"The server cannot listen on {host}, port {each}: {why}. Choose another --port.") from None
    raise SpecError(f"The ports {PORT} to {PORT + TRIED - 1} are all in use. Choose one with --port.")
