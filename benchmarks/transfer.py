"""Measure the benefit of pretrained weights: the figures for benchmarks/README.md, as JSON lines.

    python benchmarks/transfer.py source five_to_five hymenoptera --data FOLDER --out FOLDER --run RUN

The --data folder holds `cifar10-folders/` (from benchmarks/make_jpeg_copy.py) and `hymenoptera/`. Each part can be run
alone, but `five_to_five` needs the results of `source`, and `hymenoptera` needs a run on CIFAR-10 (--run). Nothing is
downloaded.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np

SOURCE = ("airplane", "bird", "deer", "frog", "ship")
TARGET = ("automobile", "cat", "dog", "horse", "truck")
# The same network from scratch: Adam, 300 steps with batches of 20.
SCRATCH = {"model": "cnn_compact", "weights": "none", "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 20,
           "epochs": 60, "schedule": "cosine", "augmentation": "flip_shift"}  # fmt: skip


def link(source: Path, target: Path, classes: tuple[str, ...], start: int, count: int) -> None:
    """Fill `target` with some classes and images of `source`, by hard links if possible, otherwise by copies."""
    for name in classes:
        (target / name).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / name).iterdir())[start : start + count]:
            if not (target / name / path.name).exists():
                try:
                    os.link(path, target / name / path.name)
                except OSError:
                    shutil.copy(path, target / name / path.name)


def train(out: Path, **fields):
    """Train; return the run and the CPU seconds from the creation of the model to the end of the last epoch."""
    import onsight
    from onsight.core.progress import Reporter

    class Clock(Reporter):
        started = ended = 0.0

        def note(self, label, text):
            if label == "run":
                self.started = time.process_time()

        def epoch(self, row):
            self.ended = time.process_time()

    clock = Clock()
    run = onsight.train(onsight.TrainSpec(**fields), reporter=clock)
    return run, clock.ended - clock.started


def score(run, folder: Path) -> tuple[int, int]:
    """Return how many of a folder's test images the run classifies correctly, and how many there are."""
    import onsight
    from onsight.data.pixel_cache import load_pixels
    from onsight.inference.predict import probabilities

    dataset = onsight.load_dataset(folder)
    index = np.flatnonzero(dataset.parts == "test")
    pixels = load_pixels(dataset, run.spec["image_size"])
    found = probabilities(run.load_model().predict_on_batch, pixels.images, index, 256).argmax(axis=1)
    return int((found == dataset.labels[index]).sum()), len(index)


def log(out: Path, row: dict) -> None:
    print(json.dumps(row), flush=True)
    with open(out / "transfer.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")


def source(args) -> None:
    folder = args.out / "source"
    link(args.data / "cifar10-folders" / "train", folder, SOURCE, 0, args.images)
    run, seconds = train(args.out, data=str(folder), model="cnn_compact", weights="none", epochs=args.epochs, seed=0)
    (args.out / "source.txt").write_text(str(run.folder))
    log(args.out, {"what": "source", "validation": run.model_epoch()["val_accuracy"], "cpu_seconds": seconds})


def five_to_five(args) -> None:
    from onsight.metrics.intervals import between_seeds

    folder = args.out / "target"
    link(args.data / "cifar10-folders" / "train", folder / "train", TARGET, 0, 80)
    link(args.data / "cifar10-folders" / "test", folder / "test", TARGET, 0, 400)
    backbone = (args.out / "source.txt").read_text()
    shares = {"scratch": [], "transfer": [], "head": []}
    usual = {"data": str(folder), "shots": 20, "validation": 0.25, "split_seed": 0}
    for seed in range(args.seeds):
        for name, recipe in (
            ("scratch", SCRATCH),
            ("transfer", {"weights": backbone}),
            ("head", {"weights": backbone, "freeze": "all"}),
        )[: 2 if args.quick else 3]:
            run, seconds = train(args.out, **usual, **recipe, seed=seed)
            right, n = score(run, folder)
            shares[name].append(right / n)
            log(args.out, {"what": name, "seed": seed, "right": right, "n": n, "cpu_seconds": seconds})
    for name in ("transfer",) if args.quick else ("transfer", "head"):
        gain = between_seeds(shares["scratch"], shares[name])
        means = {each: 100 * float(np.mean(values)) for each, values in shares.items() if values}
        interval = [100 * gain.low, 100 * gain.high]
        log(args.out, {"what": f"{name} - scratch", "points": 100 * gain.value, "interval": interval, "means": means})


def hymenoptera(args) -> None:
    """Compare training from scratch and pretrained weights at 96 px, scored on the folder's own test images."""
    from onsight.metrics.intervals import wilson

    usual = {"data": str(args.data / "hymenoptera"), "image_size": 96}
    recipes = {
        "scratch": {**SCRATCH, "epochs": args.photo_epochs, "batch_size": 32},
        "transfer": {"weights": str(args.run)},
        "head": {"weights": str(args.run), "freeze": "all"},
    }
    for seed in range(args.photo_seeds):
        for name, recipe in recipes.items():
            run, seconds = train(args.out, **usual, **recipe, seed=seed)
            right, n = score(run, args.data / "hymenoptera")
            interval = [100 * value for value in wilson(right, n)]
            log(args.out, {"what": f"hymenoptera {name}", "seed": seed, "right": right, "n": n,
                           "interval": interval, "cpu_seconds": seconds})  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=["source", "five_to_five", "hymenoptera"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="a finished run on CIFAR-10, for hymenoptera")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds for five_to_five")
    parser.add_argument("--quick", action="store_true", help="five_to_five without training the head alone")
    parser.add_argument("--images", type=int, default=1500, help="number of images per source class")
    parser.add_argument("--epochs", type=int, default=6, help="number of epochs for source")
    parser.add_argument("--photo-epochs", type=int, default=30, help="number of epochs for hymenoptera from scratch")
    parser.add_argument("--photo-seeds", type=int, default=3, help="number of seeds for hymenoptera")
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    os.environ["ONSIGHT_CACHE"] = str(arguments.out / "cache")
    os.environ["ONSIGHT_RUNS"] = str(arguments.out / "runs")
    from onsight.training import finish

    finish.add_litert = lambda folder, images: "skipped: not part of this measurement"
    for part in arguments.parts:
        globals()[part](arguments)
