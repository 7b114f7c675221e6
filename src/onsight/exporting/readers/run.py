"""Run one exported file on images in a process that does not import Onsight, and measure its speed and memory.

    python run.py READER FILE IMAGES.npy FOLDER THREADS BATCHES

THREADS is the number of threads, 0 for the default. BATCHES are batch sizes, such as 1,7,32. For each size N,
FOLDER/answers-N.npy is written, and FOLDER/distances-N.npy if the model has the output `distance`; with "-" as FOLDER,
nothing is. Standard output gets one line of JSON.
"""

import json
import os
import runpy
import sys
import time

import numpy as np

LATENCIES = 200  # single images that are timed, at most
SECONDS = 2  # the longest duration of a measurement


def main() -> None:
    """Run as the module docstring describes."""
    reader, path, images, folder, threads, sizes = sys.argv[1:]
    images = np.load(images, mmap_mode="r", allow_pickle=False)
    answer = runpy.run_path(reader)["open_model"](path, threads=int(threads) or None)
    answer(np.ascontiguousarray(images[:1]))
    found: dict[str, float | None] = {"first_answer_at": time.time()}

    latencies: list[float] = []
    image, batch = (np.ascontiguousarray(images[:size]) for size in (1, 32))
    began = time.perf_counter()
    while len(latencies) < LATENCIES and time.perf_counter() - began < SECONDS:
        started = time.perf_counter()
        answer(image)
        latencies.append(time.perf_counter() - started)
    found["latency_ms"] = float(np.median(latencies) * 1e3)
    found["latency_p95_ms"] = float(np.quantile(latencies, 0.95) * 1e3)
    answer(batch)
    rounds, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < SECONDS / 2:
        answer(batch)
        rounds += 1
    found["images_per_second"] = rounds * len(batch) / spent
    found["peak_mb"] = peak_memory()

    batches = [int(size) for size in sizes.split(",")]
    for size in batches if folder != "-" else ():
        # The last batch may be smaller: every size must work. Only the largest batch size runs on all images.
        count = len(images) if size == max(batches) else min(len(images), 32 * size)
        answers = [answer(np.ascontiguousarray(images[i : min(i + size, count)])) for i in range(0, count, size)]
        if isinstance(answers[0], tuple):  # probabilities and distances
            distances = np.concatenate([each[1] for each in answers])
            np.save(os.path.join(folder, f"distances-{size}.npy"), distances)
            answers = [each[0] for each in answers]
        np.save(os.path.join(folder, f"answers-{size}.npy"), np.concatenate(answers))
    sys.stdout.write(json.dumps(found) + "\n")


def peak_memory() -> float | None:
    """Return the peak resident memory in MB, or None if the system does not report it.

    `getrusage` would include the memory of the process that started this one.
    """
    try:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None


if __name__ == "__main__":
    main()
