"""Memory: a limit for child processes that read what strangers made, and a budget for large images on many threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

LARGE = 64 << 20  # bytes; smaller things are not counted
BUDGET = 1 << 30  # bytes of large things at the same time
_free = threading.Condition()
_taken = [0]  # bytes


@contextmanager
def room(size: int) -> Iterator[None]:
    """Wait until `size` bytes fit into the budget of this process, and take them for a while.

    What is larger than the budget waits until it is alone.
    """
    if size < LARGE:
        yield
        return
    with _free:
        _free.wait_for(lambda: not _taken[0] or _taken[0] + size <= BUDGET)
        _taken[0] += size
    try:
        yield
    finally:
        with _free:
            _taken[0] -= size
            _free.notify_all()


def limit_memory(most: int) -> None:
    """Let the system refuse this process more private memory than `most` bytes, where it can; a lower limit stays."""
    try:
        import resource
    except ImportError:  # Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
