"""Requests that are not answered: one exception, which the guard turns into a JSON error with a stable code."""

from __future__ import annotations


class Refused(Exception):
    """A request is refused.

    Attributes:
        status: the HTTP status.
        code: a stable name for programs.
        message: a sentence for people, without paths or texts of libraries.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


def busy() -> Refused:
    """Return the refusal of a request that finds the queue full."""
    return Refused(429, "busy", "Too many images are waiting. Try again in a second.", {"Retry-After": "1"})


def bad(message: str) -> Refused:
    """Return the refusal of a request that is not what was expected."""
    return Refused(400, "bad_request", message)


def unknown(message: str) -> Refused:
    """Return the refusal of a request for something that does not exist."""
    return Refused(404, "not_found", message)
