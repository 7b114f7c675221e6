#!/usr/bin/env python3
"""Train on 20,000 images of 224 px within 3 GB of memory, and print the time and the peak memory.

    python benchmarks/large_images.py [--model cnn_compact --seconds 120] [--count 20000] [--batch-size 32]

The program draws the images into a temporary folder (JPEG, about 250 MB; the decoded cache next to it takes 3 GB of
disk), trains in a separate process, and samples the memory of that process four times per second.

Which memory counts: The 3 GB of decoded images are memory-mapped. Their pages belong to the kernel's page cache; the
kernel drops them when it needs memory, and reads them again later. The resident size would therefore only show how much
memory happened to be free. Private pages (RssAnon) and shared memory cannot be dropped, so they count. The pages of
programs and libraries (RssFile without the images) could be dropped, but then nothing would run well, so they count
too. The process runs under RLIMIT_DATA = 3 GB: the kernel refuses it any private memory beyond that.

The default network is a tiny one from this file, registered like a user's custom network. 20,000 images strain reading,
caching, splitting, batches, validation, calibration, the .tflite file and the report, not the network, and with the
tiny network a whole epoch takes a minute or two. With another --model, training can be stopped after --seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import onsight

SIDE, CLASSES = 224, 4
LIMIT = 3 * 10**9  # bytes


@onsight.model("strided", description="two strided convolutions: almost no computation", smallest=64)
def strided(image_size: int, num_classes: int) -> Any:
    """Return a network of two convolutions with strides 8 and 4, and a dense layer."""
    import keras
    from keras import layers

    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(inputs)
    x = layers.Conv2D(16, 8, strides=8, activation="relu", name="conv1")(x)
    x = layers.Conv2D(32, 4, strides=4, activation="relu", name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(num_classes, dtype="float32", name="logits")(x))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on many 224 px images within 3 GB.")
    parser.add_argument("--model", default="strided")
    parser.add_argument("--seconds", type=float, help="stop training after this many seconds")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=32)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        draw(Path(place) / "images", asked.count)
        print(f"drew {asked.count:,} images of {SIDE} px in {time.perf_counter() - started:.0f} s", flush=True)
        train(Path(place), asked)


def draw(folder: Path, count: int) -> None:
    """Write JPEG images of coarse noise; each class is brighter in a different quarter of the image."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"quarter{label}").mkdir(parents=True)
    for index in range(count):
        label = index % CLASSES
        coarse = rng.integers(0, 160, (14, 14, 3), np.uint8)
        row, column = divmod(label, 2)
        coarse[7 * row : 7 * row + 7, 7 * column : 7 * column + 7] += 90
        image = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        content = io.BytesIO()
        image.save(content, "JPEG", quality=70)
        (folder / f"quarter{label}" / f"{index:05d}.jpg").write_bytes(content.getvalue())


def train(place: Path, asked: argparse.Namespace) -> None:
    """Train in a process with limited memory, and print its peak memory for each phase."""
    words = f"train {place}/images --image-size {SIDE} --epochs 1 --validation 0.1 --quiet".split()
    words += ["--model", asked.model, "--batch-size", str(asked.batch_size)]
    environ = os.environ | {
        "ONSIGHT_CACHE": str(place / "cache"), "ONSIGHT_RUNS": str(place / "runs"), "ONSIGHT_IMPORT": __file__,
    }  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "onsight", *words], env=environ, stdout=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT)),
    )  # fmt: skip
    peaks: dict[str, dict[str, int]] = {}
    since: dict[str, float] = {}
    while process.poll() is None:
        phase = phase_of(place)
        since.setdefault(phase, time.perf_counter())
        if phase == "training" and asked.seconds and time.perf_counter() - since[phase] > asked.seconds:
            process.send_signal(signal.SIGTERM)
            asked.seconds = None  # a second signal would end it without saving
        for kind, size in memory(process.pid).items():
            peak = peaks.setdefault(phase, {})
            peak[kind] = max(peak.get(kind, 0), size)
        time.sleep(0.25)
    print(f"exit code {process.returncode} after {time.perf_counter() - started:.0f} s (143: stopped by --seconds)")
    for phase, peak in peaks.items():
        print(f"{phase:10} counted {peak['counted'] / 1e6:6,.0f} MB   private {peak['private'] / 1e6:6,.0f} MB   "
              f"resident mapped images {peak['mapped'] / 1e6:6,.0f} MB")  # fmt: skip
    most = max(peak["counted"] for peak in peaks.values())
    print(f"peak {most / 1e6:,.0f} MB of {LIMIT / 1e6:,.0f} MB; decoded images: "
          f"{asked.count * SIDE * SIDE * 3 / 1e6:,.0f} MB")  # fmt: skip
    if process.returncode not in (0, 143) or most > LIMIT:
        sys.exit(1)


def phase_of(place: Path) -> str:
    """Return the phase of the training, judged by the files in its folders; the first steps still count as reading."""
    for run in place.glob("runs/*"):
        history = run / "history.jsonl"
        if history.is_file():
            return "finishing" if '"event": "epoch"' in history.read_text("utf-8") else "training"
    return "reading"


def memory(pid: int) -> dict[str, int]:
    """Return resident bytes of a process: private, mapped (images), counted (all but images); {} if it has ended."""
    sizes = {"private": 0, "mapped": 0, "counted": 0}
    images = False
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps").read_text("utf-8", "replace").splitlines():
            name, *rest = line.split()
            if not name.endswith(":"):
                images = line.endswith("images.npy")
            elif name == "Rss:":
                sizes["mapped" if images else "counted"] += 1024 * int(rest[0])
            elif name == "Anonymous:" and not images:
                sizes["private"] += 1024 * int(rest[0])
        return sizes
    return {}


if __name__ == "__main__":
    main()
