"""Robustness: the accuracy of a classifier on corrupted images, by corruption and severity, their mean, the worst."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from onsight.core.evaluation_records import Robustness
from onsight.core.progress import Reporter
from onsight.imaging.corrupt import SCORED, SEVERITIES, corrupt
from onsight.inference.engines import Answer

TITLE = "CIFAR-10-C style"
BLOCK = 512  # images of 32 px that are corrupted and classified at a time; of larger images fewer
QUICK_SHARE, QUICK_LEAST = 10, 100  # quick: a tenth of the images, but at least 100


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
    """Return the content of robustness.json: the accuracy of `answer` under each of `names`, at five severities.

    Other threads corrupt images while the network classifies. The result depends only on `seed` and the images. The
    mean weights all names and severities equally, as the published score does.

    Args:
        answer: maps uint8 (n, side, side, 3) to probabilities (n, classes), for any n.
        images: (all, side, side, 3) uint8, may be memory-mapped.
        index: (n,) the indices of the images to measure on.
        labels: (n,) integers, the labels of these images.
        quick: measure on a tenth of them, drawn at random, but on at least 100.
        seed: the seed of the corruptions and of that random tenth.
        show: receives the progress.
        names: corruptions, keys of CORRUPTIONS.
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
        # Seeded by the task itself, so that neither the threads nor the choice of `names` change an image.
        rng = np.random.default_rng([seed, zlib.crc32(task.name.encode()), task.severity, task.start])
        return corrupt(images[index[task.start : task.start + block]], task.name, task.severity, rng)

    clean = sum(count(images[index[start : start + block]], start) for start in starts)
    tasks = [Task(name, severity, start) for name in names for severity in SEVERITIES for start in starts]
    correct = {(name, severity): 0 for name in names for severity in SEVERITIES}
    for done, (task, corrupted) in enumerate(_ahead(make, tasks), start=1):
        correct[task.name, task.severity] += count(corrupted, task.start)
        show.work("measuring robustness", min(done * block, done * n // len(starts)), len(tasks) * n // len(starts))
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
    """Return what a reader of the numbers must know. `side` is that of the images, in pixels."""
    found = [
        "These are not the published images of CIFAR-10-C: Onsight corrupted them with the same parameters, but with "
        "other random numbers and with frost that is drawn instead of photographed."
    ]
    if side != 32:
        found.append(
            f"The parameters are meant for images of 32 px. For {side} px, those in pixels were multiplied by "
            f"{side / 32:g}."
        )
    return found


def _ahead(make: Callable[[Task], np.ndarray], tasks: Sequence[Task]) -> Iterator[tuple[Task, np.ndarray]]:
    """Yield each task with its images, in order. Meanwhile one thread per core makes the images of the next tasks."""
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
