#!/usr/bin/env python3
"""Measure Onsight against what it must reach, and write benchmarks/results.md.

    python benchmarks/run.py DATA [NAME ...]

DATA is a folder with cifar10-folders/ and cifar-10-batches-bin/ (make_jpeg_copy.py makes them). NAME is one or more
of the functions below; without one, all run, about ten minutes on two cores. Speeds are ratios of interleaved rounds
in one process: machines are shared and noisy, and absolute figures hold for one machine at one moment.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
HERE = Path(__file__).resolve().parent
ONSIGHT = [sys.executable, "-m", "onsight"]
Row = tuple[str, str, str]  # what, figure, how


def child(*words: str, **environ: str) -> tuple[float, float]:
    """Run a command to its end; return its seconds and its peak memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(words, env=os.environ | environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{words} ended with {status}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def help_time(data: Path) -> list[Row]:
    """`onsight --help`, cold processes; bytecode written by a run that does not count."""
    child(*ONSIGHT, "--help", PYTHONDONTWRITEBYTECODE="")
    seconds = [child(*ONSIGHT, "--help")[0] for _ in range(15)]
    return [("`onsight --help`", f"{statistics.median(seconds):.2f} s", "median of 15 processes")]


def first_start(data: Path) -> list[Row]:
    """Decode and cache 60,000 JPEG files, then start again; each in a new process."""
    code = (
        "import sys, time; from onsight.datasets import load_dataset; from onsight.pixels import load_pixels; "
        "started = time.perf_counter(); pixels = load_pixels(load_dataset(sys.argv[1]), 32); "
        "print(time.perf_counter() - started, len(pixels.images), len(pixels.broken))"
    )
    with tempfile.TemporaryDirectory() as cache:
        times = []
        for _ in range(4):
            done = subprocess.run(
                [sys.executable, "-c", code, str(data / "cifar10-folders")],
                env=os.environ | {"ONSIGHT_CACHE": cache}, capture_output=True, text=True, check=True,
            )  # fmt: skip
            times.append(float(done.stdout.split()[0]))
    return [
        ("first start on 60,000 JPEG files", f"{times[0]:.1f} s", "n = 1, files in the page cache"),
        ("second start", f"{statistics.median(times[1:]):.2f} s", "median of 3 processes"),
    ]


def memory(data: Path) -> list[Row]:
    """Peak resident memory of one epoch of `tutorial` on CIFAR-10, the whole process."""
    with tempfile.TemporaryDirectory() as runs:
        seconds, peak = child(
            *ONSIGHT, "train", "cifar10", "--preset", "tutorial", "--epochs", "1", "--quiet",
            ONSIGHT_DATA=str(data), ONSIGHT_RUNS=runs, KERAS_BACKEND="tensorflow",
        )  # fmt: skip
    return [("peak memory, training on CIFAR-10", f"{peak:,.0f} MB", f"ru_maxrss of one epoch, {seconds:.0f} s, n = 1")]


def training_speed(data: Path, rounds: int = 5, count: int = 9_600) -> list[Row]:
    """One epoch over `count` pictures by plain Keras' fit and by our loop, in turn, float32, batches of 64."""
    sys.path.insert(0, str(HERE))
    import keras
    import numpy as np

    import plain_keras
    from onsight.datasets import load_dataset
    from onsight.fitting import Examples, Loop
    from onsight.progress import Reporter
    from onsight.runs import Run
    from onsight.spec import TrainSpec, resolve

    dataset = load_dataset("cifar10", data)
    assert dataset.images is not None
    images, one_hot = plain_keras.read(data / "cifar-10-batches-bin", ["data_batch_1.bin"])
    images, one_hot = images[:count], one_hot[:count]
    plain = plain_keras.build()
    plain.compile("adam", "categorical_crossentropy", metrics=["accuracy"])

    def ours(augmentation: str) -> Callable[[], None]:
        spec = TrainSpec(preset="tutorial", augmentation=augmentation, precision="float32", checkpoint_seconds=600)
        spec, _ = resolve(spec, pictures=50_000, given=("train", "test"), side=32, flips=True)
        record = {"spec": spec.model_dump(mode="json")}
        members = {"name": "cifar10", "classes": list(dataset.classes), "counts": {}, "split": {}}
        run = Run.create("speed", record, members)
        training = Examples(dataset.images, np.arange(count), dataset.labels[:count])
        none = Examples(dataset.images, np.arange(0), dataset.labels[:0])
        return Loop(run, spec, training, none, Reporter(), [], []).epoch

    with tempfile.TemporaryDirectory() as runs:
        os.environ["ONSIGHT_RUNS"] = runs
        contenders = {
            "plain": lambda: plain.fit(images, one_hot, epochs=1, batch_size=64, verbose=0),
            "ours": ours("none"),
            "ours, augmented": ours("flip_shift"),
        }
        for epoch in contenders.values():  # compile
            epoch()
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, epoch in contenders.items():
                started = time.perf_counter()
                epoch()
                seconds[name].append(time.perf_counter() - started)
    rows = []
    plain_rate = count / statistics.median(seconds["plain"])
    for name, what in (("ours", "without augmentation"), ("ours, augmented", "with flips and shifts")):
        ratios = [theirs / mine for theirs, mine in zip(seconds["plain"], seconds[name], strict=True)]
        figure = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        how = f"{count / statistics.median(seconds[name]):,.0f} against {plain_rate:,.0f} images/s, {rounds} rounds"
        rows.append((f"`tutorial` {what} against plain_keras.py", figure, f"{how}, Keras {keras.__version__}"))
    return rows


def predict_speed(data: Path, rounds: int = 3) -> list[Row]:
    """Answer for 10,000 JPEG files of 32 px with `cnn`, decoding included, the model loaded and compiled."""
    from onsight import TrainSpec, train
    from onsight.prediction import Predictor
    from onsight.progress import Reporter

    with tempfile.TemporaryDirectory() as runs:
        os.environ["ONSIGHT_RUNS"] = runs
        run = train(TrainSpec(data="toy", model="cnn", image_size=32, epochs=1), reporter=Reporter())
        predictor = Predictor(run)
        files = sorted((data / "cifar10-folders" / "test").glob("*/*.jpg"))
        list(predictor.stream(files[:512]))
        rates = []
        for _ in range(rounds):
            started = time.perf_counter()
            answers = list(predictor.stream(files))
            rates.append(len(answers) / (time.perf_counter() - started))
    return [("`predict`, cnn, 10,000 JPEG files", f"{statistics.median(rates):,.0f} a second", f"median of {rounds}")]


BENCHMARKS = [help_time, first_start, memory, training_speed, predict_speed]


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    data, names = Path(sys.argv[1]).resolve(), sys.argv[2:]
    from onsight.backend import environment

    rows: list[Row] = []
    for benchmark in BENCHMARKS:
        if not names or benchmark.__name__ in names:
            found = benchmark(data)
            rows += found
            for row in found:
                print(" | ".join(row), flush=True)
    facts = environment()
    lines = [
        "# Results",
        "",
        f"Written by `python benchmarks/run.py DATA {' '.join(names)}`.".replace(" `.", "`."),
        f"{facts['machine']}; Keras {facts['keras']} on {facts['backend']} {facts['backend_version']}, "
        f"Python {facts['python']}. Data: the JPEG copy of CIFAR-10.",
        "",
        "| what | figure | how |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    if not names:
        (HERE / "results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
