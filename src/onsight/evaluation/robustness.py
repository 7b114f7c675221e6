"""How much a classifier loses on corrupted images: accuracy by corruption and severity, their mean, the worst."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from onsight.core.progress import Reporter
from onsight.core.records import Robustness
from onsight.imaging.corrupt import SCORED, SEVERITIES, corrupt
from onsight.inference.engines import Answer

TITLE = "CIFAR-10-C style"
BLOCK = 512  # images of 32 px that are corrupted and answered at a time; fewer larger ones
QUICK_SHARE, QUICK_LEAST = 10, 100  # quick: every tenth image, but no fewer than so many


class Task(NamedTuple):
    """One block of images under one corruption."""

    name: str
    severity: int
    start: int


def measure(
    answer: Answer,
    images: np.ndarray,
    index: np.ndarray,
    labels: np.ndarray,
    *,
    quick: bool = False,
    seed: int = 0,
    show: Reporter | None = None,
    names: Sequence[str] = SCORED,
) -> Robustness:
    """Return what robustness.json holds: the accuracy of `answer` under each of `names`, at five severities.

    Images are corrupted on other threads while the network answers; the result depends on `seed` and the images
    alone. The mean is over names and severities, each counting the same, as in the published score.

    Args:
        answer: from uint8 (n, side, side, 3) to probabilities (n, classes), for any n.
        images: (all, side, side, 3) uint8, may be memory-mapped.
        index: (n,) which of them to take.
        labels: (n,) integers, of those.
        quick: a tenth of the images, drawn at random, at least 100.
        seed: of the corruptions and of that tenth.
        show: where progress goes.
        names: of CORRUPTIONS.
    """
    show = show or Reporter()
    if quick and len(index) > QUICK_LEAST:
        kept = max(len(index) // QUICK_SHARE, QUICK_LEAST)
        chosen = np.sort(np.random.default_rng(seed).permutation(len(index))[:kept])
        index, labels = index[chosen], labels[chosen]
    n, side = len(index), images.shape[1]
    block = max(1, BLOCK * 32**2 // side**2)
    starts = range(0, n, block)

    def count(batch: np.ndarray, start: int) -> int:
        return int((answer(batch).argmax(axis=1) == labels[start : start + block]).sum())

    def make(task: Task) -> np.ndarray:
        # From the task's own name and numbers, so that neither threads nor the choice of names change an image.
        rng = np.random.default_rng([seed, zlib.crc32(task.name.encode()), task.severity, task.start])
        return corrupt(images[index[task.start : task.start + block]], task.name, task.severity, rng)

    clean = sum(count(images[index[start : start + block]], start) for start in starts)
    tasks = [Task(name, severity, start) for name in names for severity in SEVERITIES for start in starts]
    correct = {(name, severity): 0 for name in names for severity in SEVERITIES}
    for done, (task, corrupted) in enumerate(_ahead(make, tasks), start=1):
        correct[task.name, task.severity] += count(corrupted, task.start)
        show.work("corrupting and answering", min(done * block, done * n // len(starts)), len(tasks) * n // len(starts))
    accuracies = {key: value / n for key, value in correct.items()}
    worst = min(accuracies, key=lambda key: accuracies[key])
    return {
        "title": TITLE,
        "n": n,
        "quick": quick,
        "seed": seed,
        "clean": clean / n,
        "mean": sum(correct.values()) / (n * len(correct)),
        "worst": (*worst, accuracies[worst]),
        "corruptions": {name: [accuracies[name, severity] for severity in SEVERITIES] for name in names},
        "notes": notes(side),
    }


def notes(side: int) -> list[str]:
    """Return what must be known to read the numbers, for images of this side in pixels."""
    found = [
        "Corrupted by Onsight with the parameters of CIFAR-10-C, not the published images: other random numbers, "
        "and a frost that is drawn instead of photographed."
    ]
    if side != 32:
        found.append(
            f"The parameters are meant for 32 px; what they give in pixels was taken {side / 32:g} times for {side} px."
        )
    return found


def _ahead(make: Callable[[Task], np.ndarray], tasks: Sequence[Task]) -> Iterator[tuple[Task, np.ndarray]]:
    """Yield each task with its images, in order; as many threads as cores work on the next ones."""
    waiting: deque[tuple[Task, Future[np.ndarray]]] = deque()
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as threads:
        try:
            for task in tasks:
                waiting.append((task, threads.submit(make, task)))
                if len(waiting) > workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
