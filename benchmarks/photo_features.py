"""Measure how fast a folder of photos becomes features, against the limits of decoding and of the network.

    python benchmarks/photo_features.py FOLDER [--count 20000] [--rounds 2]

FOLDER holds photos, for example of a public data set. The program makes --count different JPEG files with a shorter
side of 300 px out of them (quality 90, about 30 kB each), in a temporary folder. Then it measures in turn:

- decoding: libjpeg-turbo, called by Pillow, decodes the files at full size on one thread per core. Nothing is scaled.
- network: LiteRT runs EfficientNet-Lite0 at 224 px, without its head, on one thread per core, on images in memory.
- onsight: a new process with an empty cache reads the folder, decodes, scales, caches, builds the network, computes the
  features and writes them, as the first `onsight train FOLDER` does.

It prints images per second, and the rate of Onsight as a share of the slower limit. The limits are measured before and
after each round, because other programs may use the machine.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, SIZE = 300, 224  # pixels: of the files, and of the network
MODEL = "efficientnet_lite0"
SAMPLE = 2_000  # images with which a limit is measured
OURS = f"""
import json, time
started = time.perf_counter()
import numpy as np
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.features.extract import published_extractor
dataset = load_dataset("photos")
pixels = load_pixels(dataset, {SIZE})
decoded = time.perf_counter()
features = published_extractor("{MODEL}", {SIZE})(pixels.images, np.arange(len(dataset)), lambda *_: None)
print(json.dumps({{"n": len(features), "decoding": decoded - started, "all": time.perf_counter() - started}}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        files = make_photos(asked.folder, Path(place) / "photos", asked.count)
        network = network_limit(files)
        limits = {"decoding": lambda: rate(decode_only, files[:SAMPLE]), "network": network}
        found: dict[str, list[float]] = {"decoding": [], "network": [], "onsight": []}
        for number in range(asked.rounds + 1):
            for name, measure in limits.items():
                found[name].append(measure())
            if number < asked.rounds:
                found["onsight"].append(onsight(Path(place), asked.count))
    for name, rates in found.items():
        print(f"{name:9} {statistics.mean(rates):7,.0f} images per second   ({', '.join(f'{x:,.0f}' for x in rates)})")
    for number, ours in enumerate(found["onsight"]):
        slower = min(statistics.mean(found[name][number : number + 2]) for name in limits)
        print(f"round {number + 1}: {ours / slower:.2f} of the slower limit")


def make_photos(source: Path, target: Path, count: int) -> list[Path]:
    """Write `count` JPEG files made of the photos in `source`, a different cut of a photo each time it is used."""
    photos = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    files = [target / f"class{number % 2}" / f"{number:05}.jpg" for number in range(count)]
    for folder in {path.parent for path in files}:
        folder.mkdir(parents=True)
    cuts = np.random.default_rng(0).uniform(0.85, 1, count)

    def make(number: int) -> None:
        with Image.open(photos[number % len(photos)]) as opened:
            image = opened.convert("RGB")
        width, height = (round(side * cuts[number]) for side in image.size)
        scale = SIDE / min(width, height)
        size = max(SIDE, round(width * scale)), max(SIDE, round(height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS, (0, 0, width, height))
        content = io.BytesIO()
        image.save(content, "JPEG", quality=90)
        files[number].write_bytes(content.getvalue())

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(make, range(count)))
    size = statistics.mean(path.stat().st_size for path in files)
    print(f"{count:,} files, {size / 1e3:.0f} kB on average, of {len(photos):,} photos", flush=True)
    return files


def decode_only(path: Path) -> None:
    """Decode a JPEG file at its full size."""
    Image.open(io.BytesIO(path.read_bytes())).load()


def rate(work: Callable[[Path], None], files: list[Path]) -> float:
    """Return how many files per second are worked on, on one thread per core."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        started = time.perf_counter()
        list(threads.map(work, files))
        return len(files) / (time.perf_counter() - started)


def network_limit(files: list[Path]) -> Callable[[], float]:
    """Return a function that measures the images per second of the network alone."""
    from ai_edge_litert.interpreter import Interpreter

    from onsight.features.extract import published_extractor
    from onsight.imaging import decode
    from onsight.models.litert_file import convert

    content = convert(published_extractor(MODEL, SIZE).body, ["features"])
    images = np.stack([decode.load(path.read_bytes(), SIZE) for path in files[:64]])

    def worker() -> Callable[[int], None]:
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
        index = interpreter.get_input_details()[0]["index"]

        def work(count: int) -> None:
            for number in range(count):
                interpreter.set_tensor(index, images[number % len(images)][None])
                interpreter.invoke()

        work(2)
        return work

    workers = [worker() for _ in range(os.cpu_count() or 1)]

    def measure() -> float:
        count = SAMPLE // len(workers)
        with ThreadPoolExecutor(len(workers)) as threads:
            started = time.perf_counter()
            list(threads.map(lambda work: work(count), workers))
            return count * len(workers) / (time.perf_counter() - started)

    return measure


def onsight(place: Path, count: int) -> float:
    """Return the images per second of Onsight, in a new process with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        environ = os.environ | {"ONSIGHT_CACHE": cache}
        done = subprocess.run([sys.executable, "-c", OURS], cwd=place, env=environ, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"onsight: decoding {found['decoding']:.1f} s, all {found['all']:.1f} s for {found['n']:,} images", flush=True
    )
    return count / found["all"]


if __name__ == "__main__":
    main()
