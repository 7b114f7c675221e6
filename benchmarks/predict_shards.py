"""Answers for a million small JPEG in a thousand tar shards, on two Ray nodes of one core, one of which is killed.

    python benchmarks/predict_shards.py RUN FOLDER --shards 1000

RUN was trained on CIFAR-10, whose files ONSIGHT_DATA names. FOLDER is new or holds the shards of an earlier call. The
program checks that every image has one answer, in the order of the shards, and that memory stays flat.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

import onsight
from onsight.inference.parts import predict_parts

PER_SHARD = 1000  # images
QUALITY = 90


def write_shards(folder: Path, shards: int) -> None:
    dataset = onsight.load_dataset("cifar10")
    files = []
    for image in dataset.images:
        content = io.BytesIO()
        Image.fromarray(image).save(content, "JPEG", quality=QUALITY)
        files.append(content.getvalue())
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        path = folder / f"cifar-{shard:04}.tar"
        if path.exists():
            continue
        with tarfile.open(path.with_suffix(".partial"), "w") as tar:
            for place in range(PER_SHARD):
                number = shard * PER_SHARD + place
                index = number % len(files)
                label = dataset.classes[dataset.labels[index]].encode()
                for ending, content in (("jpg", files[index]), ("cls", label)):
                    info = tarfile.TarInfo(f"{number:08}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        os.replace(path.with_suffix(".partial"), path)


def resident(pid: int) -> int:
    """Return the memory of a process that is its own, in bytes: without what it shares with others."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def workers() -> list[int]:
    """Return the processes that answer."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::call" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


class Watch(onsight.Reporter):
    """Kills a node when a quarter is done, and notes the memory of this process and the workers."""

    def __init__(self, kill) -> None:
        self.kill, self.killed, self.ended = kill, None, threading.Event()
        self.memory: list[tuple[float, int, int]] = []
        self.done: list[tuple[float, int]] = []

    def work(self, what: str, done: int, total: int | None) -> None:
        self.done.append((time.monotonic(), done))
        if self.killed is None and total and done >= total // 4:
            self.killed = time.monotonic()
            threading.Thread(target=self.kill).start()

    def look(self) -> None:
        while not self.ended.wait(1):
            largest = max(map(resident, workers()), default=0)
            self.memory.append((time.monotonic(), resident(os.getpid()), largest))


def half(memory: list[int]) -> tuple[float, float]:
    """Return the largest value in each half, in MB."""
    middle = len(memory) // 2
    return tuple(max(some, default=0) / 1e6 for some in (memory[:middle], memory[middle:]))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("run")
    words.add_argument("folder", type=Path)
    words.add_argument("--shards", type=int, default=1000)
    asked = words.parse_args()
    shards = asked.folder / "shards"
    write_shards(shards, asked.shards)
    images = asked.shards * PER_SHARD
    bytes_per_image = sum(path.stat().st_size for path in shards.glob("*.tar")) / images
    print(f"{images:,} images in {asked.shards:,} shards, {bytes_per_image:,.0f} bytes of tar per image")

    from ray.cluster_utils import Cluster

    cluster = Cluster()
    cluster.add_node(num_cpus=0, object_store_memory=80 << 20, include_dashboard=False)
    _, second = (cluster.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(2))
    os.environ["RAY_ADDRESS"] = cluster.address
    answers = asked.folder / "answers"
    shutil.rmtree(answers, ignore_errors=True)
    watch = Watch(lambda: cluster.remove_node(second, allow_graceful=False))
    looking = threading.Thread(target=watch.look)
    looking.start()
    started = time.monotonic()
    try:
        made = predict_parts(asked.run, str(shards / "*.tar"), answers, on="ray", reporter=watch)
    finally:
        watch.ended.set()
        looking.join()
        cluster.shutdown()
    seconds = time.monotonic() - started
    report(watch, made, answers, images, seconds)
    cache(asked.folder, shards)


def report(watch: Watch, made, answers: Path, images: int, seconds: float) -> None:
    """Print what was measured, and check the names."""
    number = 0
    for path in sorted(answers.glob("part-*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                assert row["path"] == f"cifar-{number // PER_SHARD:04}.tar/{number:08}.jpg", (row["path"], number)
                number += 1
    assert number == images == made.answered, (number, images, made)
    print(f"every image once and in order: {number:,}; {seconds:,.0f} s in all")
    for name, times in (("two nodes", (watch.done[0][0], watch.killed)), ("one node", (watch.killed + 15, None))):
        inside = [(at, done) for at, done in watch.done if times[0] <= at <= (times[1] or at)]
        if len(inside) > 3:
            (first, begun), (last, ended) = inside[0], inside[-1]
            print(f"{name}: {(ended - begun) * PER_SHARD / (last - first):,.0f} images/s ({ended - begun} shards)")
    for name, column in (("this process", 1), ("the largest worker", 2)):
        before, after = half([each[column] for each in watch.memory])
        print(f"memory of {name}: at most {before:,.0f} MB in the first half, {after:,.0f} MB in the second")


def cache(folder: Path, shards: Path) -> None:
    """Print what listing and decoding the first shards into the cache takes."""
    os.environ["ONSIGHT_CACHE"] = str(folder / "cache")
    shutil.rmtree(folder / "cache", ignore_errors=True)
    started = time.monotonic()
    dataset = onsight.load_dataset(shards / "cifar-00{00..19}.tar")
    listed = time.monotonic()
    onsight.load_pixels(dataset, 32)
    read = time.monotonic()
    size = sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())
    n = len(dataset)
    print(f"{n:,} images listed in {listed - started:.1f} s, decoded to 32 px in {read - listed:.1f} s: ", end="")
    print(f"{n / (listed - started):,.0f} and {n / (read - listed):,.0f} images/s, {size / n:,.0f} bytes of cache each")
    assert np.load(next((folder / "cache").rglob("images.npy")), mmap_mode="r").shape == (n, 32, 32, 3)


if __name__ == "__main__":
    main()
