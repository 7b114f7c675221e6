"""Answer for images with one exported file, in a process that knows nothing of Onsight, and measure it.

    python run.py READER FILE PICTURES.npy FOLDER THREADS

FOLDER gets answers-N.npy: of the images, asked in batches of N. Standard output gets one line of JSON.
"""

import json
import os
import runpy
import sys
import time

import numpy as np

BATCHES = (1, 7, 32)
LATENCIES = 200  # single images
SECONDS = 2  # that each measurement may take


def main() -> None:
    """Run as the docstring says."""
    reader, path, images, folder, threads = sys.argv[1:]
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

    for size in BATCHES if folder != "-" else ():
        # Whole batches, and what is left as it comes: every size must do. A thousand are enough for single ones.
        count = len(images) if size == BATCHES[-1] else min(len(images), 32 * size)
        answers = [answer(np.ascontiguousarray(images[i : min(i + size, count)])) for i in range(0, count, size)]
        np.save(os.path.join(folder, f"answers-{size}.npy"), np.concatenate(answers))
    sys.stdout.write(json.dumps(found) + "\n")


def peak_memory() -> float | None:
    """Return the peak of the resident memory in MB, or None where the system does not tell.

    Not `getrusage`: there a process begins with the memory of the one that started it.
    """
    try:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None


if __name__ == "__main__":
    main()
