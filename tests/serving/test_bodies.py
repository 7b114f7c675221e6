import asyncio

import pytest
from starlette.requests import Request

from onsight.serving import bodies
from onsight.serving.bodies import Bodies
from onsight.serving.refusals import Refused


def request(parts, length=None):
    """Return a request whose body comes in parts; None is a client that says nothing more."""
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    left = list(parts)

    async def receive():
        part = left.pop(0)
        if part is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}, receive)


def read(store, *given, **more):
    async def main():
        async with store.read(request(*given, **more)) as body:
            return body, store.held

    return asyncio.run(main())


def test_bytes_count_while_the_body_is_used():
    store = Bodies()
    assert read(store, [b"abc", b"de"], length=5) == (b"abcde", 5)
    assert read(store, [b"abc", b"de"]) == (b"abcde", 5)  # chunked: the length is not known before
    assert store.held == 0


def test_what_is_too_long_too_slow_or_too_much_is_refused_and_counted_no_more(monkeypatch):
    monkeypatch.setattr(bodies, "MOST", 10)
    monkeypatch.setattr(bodies, "ALL", 15)
    monkeypatch.setattr(bodies, "PATIENCE", 0.05)
    store = Bodies()
    for given, length, status in (
        ([b""], 11, 413),
        ([b"x" * 6, b"x" * 6], None, 413),
        ([b"x", None], 5, 408),
        ([b""], "x", 400),
        ([b""], "9" * 5000, 400),
    ):
        with pytest.raises(Refused) as refused:
            read(store, given, length)
        assert refused.value.status == status
        assert store.held == 0
    store.held = 10
    with pytest.raises(Refused) as refused:
        read(store, [b"x" * 6], 6)
    assert (refused.value.status, refused.value.code) == (429, "busy")
    assert store.held == 10
