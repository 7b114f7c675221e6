"""How many cores there are, and reading of images on several threads when that is faster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

CHUNK = 64  # images per task
FEW = 4  # images per task of those that are waited for
AT_ONCE = 32  # images that are requested at the same time over a network
SLOW = 1e-3  # seconds per image above which threads are faster


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(read: Callable[[int], None], count: int, threads: int | None = None) -> Iterator[int]:
    """Call read(index) for each index below `count`; yield the number done so far at intervals.

    Large images are read on all cores, because Pillow releases the GIL while it decodes and resizes. Small images are
    read on this thread only, because handing the GIL back and forth takes longer than reading them (60,000 JPEG files
    of 32 px on two cores: 24 s on two threads, 13 s on one). `threads` asks for this many, whatever the images are.
    """
    probe = min(count, 16)
    started = time.perf_counter()
    for index in range(probe):
        read(index)
    slow = time.perf_counter() - started > SLOW * probe

    step = CHUNK if threads is None else FEW

    def chunk(start: int) -> int:
        stop = min(start + step, count)
        for index in range(start, stop):
            read(index)
        return stop

    yield probe
    starts = range(probe, count, step)
    number = threads or ((os.cpu_count() or 1) if slow else 1)
    if number == 1:
        yield from map(chunk, starts)
        return
    with ThreadPoolExecutor(number) as pool:
        yield from pool.map(chunk, starts)
