"""Reading the body of a request: its kind, its size, its time, and the memory that all bodies together may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from onsight.serving.refusals import Refused, bad, busy

MOST = 16 << 20  # bytes of one body
ALL = 128 << 20  # bytes of all bodies that are in memory
PATIENCE = 10.0  # seconds for a body


class Bodies:
    """The bodies in memory.

    Attributes:
        held: their bytes.
    """

    def __init__(self) -> None:
        self.held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body of a request. Its bytes count until the block ends.

        Raises:
            Refused: it is too long (before it is read, if its length is known), too slow, or memory is short.
        """
        declared = request.headers.get("content-length", "0")
        if not is_number(declared):
            raise bad("The header Content-Length is not a number.")
        taken = 0
        parts = []
        try:
            taken = self._grown(int(declared))
            try:
                async with asyncio.timeout(PATIENCE):
                    size = 0
                    async for part in request.stream():
                        size += len(part)
                        if size > taken:
                            self.held -= taken
                            taken = 0
                            taken = self._grown(size)
                        parts.append(part)
            except TimeoutError:
                raise Refused(408, "body_too_slow", f"The body took longer than {PATIENCE:g} s.") from None
            except ClientDisconnect:
                raise bad("The client has gone.") from None
            yield b"".join(parts)
        finally:
            self.held -= taken

    def _grown(self, size: int) -> int:
        """Return `size` after counting it, or refuse it."""
        if size > MOST:
            raise Refused(413, "too_large", f"The body is larger than {MOST >> 20} MiB.")
        if self.held + size > ALL:
            raise busy()
        self.held += size
        return size


def kind_of(request: Request) -> str:
    """Return the media type of a body without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_number(text: str) -> bool:
    """Return whether a text of a stranger is a whole number, not a very long one: Python refuses to read those."""
    return text.isascii() and text.isdecimal() and len(text) <= 12
