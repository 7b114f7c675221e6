"""Memory: limits for children that read what strangers made, a budget for large images, and libraries given back."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LARGE = 64 << 20  # bytes; smaller things are not counted
BUDGET = 1 << 30  # bytes of large things at the same time
# A mapping in /proc/self/smaps of a file (its inode is not 0), not for writing, of which no page was ever changed.
UNCHANGED = re.compile(r"^(\w+)-(\w+) r-[x-]p \w+ \S+ [1-9].*\n(?:[A-Z].*\n)*?Anonymous: +0 kB$", re.MULTILINE)
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


def release_libraries() -> None:
    """Give back the pages of libraries, on Linux. What is needed again comes back from their files by itself.

    A library needs most of its code and constants only while it is loaded. A server would keep them in memory for
    weeks: 9 of LiteRT's 12 MB, for example.
    """
    try:
        mappings = Path("/proc/self/smaps").read_text()
    except OSError:  # not Linux, or not allowed
        return
    import ctypes
    from mmap import MADV_DONTNEED

    advise = ctypes.CDLL(None).madvise
    for start, end in UNCHANGED.findall(mappings):
        first = int(start, 16)
        advise(ctypes.c_void_p(first), ctypes.c_size_t(int(end, 16) - first), MADV_DONTNEED)
