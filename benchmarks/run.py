#!/usr/bin/env python3
"""Measure the speed and memory of Onsight, and write benchmarks/results.md.

    python benchmarks/run.py DATA [NAME ...]

DATA is a folder with cifar10-folders/ and cifar-10-batches-bin/ (make_jpeg_copy.py makes them). NAME is one or more of
the functions in BENCHMARKS; the default is all of them, about ten minutes on two cores. Speeds are compared as ratios
of interleaved rounds, because machines are shared and noisy: absolute figures hold for one machine at one moment.
"""

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
HERE = Path(__file__).resolve().parent
ONSIGHT = [sys.executable, "-m", "onsight"]
Row = tuple[str, str, str]  # what, figure, how


# A process inherits the peak memory of its parent, so a small process starts the measured one.
WATCH = """
import os, subprocess, sys, time
for _ in range(int(sys.argv[1])):
    started = time.perf_counter()
    process = subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, sys.argv[2:]
    print(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
"""


def watched(*words: str, rounds: int = 1, **environ: str) -> tuple[float, float, float]:
    """Run a command `rounds` times; return the medians of its seconds, CPU seconds and peak memory in MB."""
    command = [sys.executable, "-c", WATCH, str(rounds), *words]
    done = subprocess.run(command, env=os.environ | environ, stdout=subprocess.PIPE, text=True, check=True)
    seconds, spent, peak = zip(*(map(float, line.split()) for line in done.stdout.splitlines()), strict=True)
    return statistics.median(seconds), statistics.median(spent), statistics.median(peak)


def help_time(data: Path) -> list[Row]:
    """Time `onsight --help` in new processes, after one process that writes the bytecode and is not timed."""
    watched(*ONSIGHT, "--help", PYTHONDONTWRITEBYTECODE="")
    seconds, _, _ = watched(*ONSIGHT, "--help", rounds=15)
    return [("`onsight --help`", f"{seconds:.2f} s", "median of 15 processes")]


def first_start(data: Path) -> list[Row]:
    """Time the decoding and caching of 60,000 JPEG files, then later starts with the cache, each in a new process."""
    code = (
        "import sys, time; from onsight.data.load import load_dataset; "
        "from onsight.data.pixel_cache import load_pixels; "
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
    """Measure the peak resident memory of the whole process for one epoch of `tutorial` on CIFAR-10."""
    with tempfile.TemporaryDirectory() as runs:
        seconds, _, peak = watched(
            *ONSIGHT, "train", "cifar10", "--preset", "tutorial", "--epochs", "1", "--quiet",
            ONSIGHT_DATA=str(data), ONSIGHT_RUNS=runs, KERAS_BACKEND="tensorflow",
        )  # fmt: skip
    return [("peak memory, training on CIFAR-10", f"{peak:,.0f} MB", f"ru_maxrss of one epoch, {seconds:.0f} s, n = 1")]


PLAIN = """
import sys, time
import plain_keras
data, count = sys.argv[1], int(sys.argv[2])
images, labels = plain_keras.read(plain_keras.Path(data) / "cifar-10-batches-bin", ["data_batch_1.bin"])
images, labels = images[:count], labels[:count]
model = plain_keras.build()
model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
for _ in sys.stdin:
    started = time.perf_counter()
    model.fit(images, labels, epochs=1, batch_size=64, verbose=0)
    print(count / (time.perf_counter() - started), flush=True)
"""


@contextlib.contextmanager
def contender(*words: str) -> Iterator[Callable[[], float]]:
    """Run a program that prints a round's images per second for each line on its standard input."""
    pipe = subprocess.PIPE
    environ = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=HERE, env=environ) as child:
        assert child.stdin
        assert child.stdout
        stdin, stdout = child.stdin, child.stdout

        def rate() -> float:
            stdin.write("\n")
            stdin.flush()
            return float(stdout.readline())

        rate()  # the first round compiles
        try:
            yield rate
        finally:
            stdin.close()


def compared(what: str, ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> Row:
    """Return a row with the ratio of two speeds, measured in turn."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    ratios = [mine / other for mine, other in pairs]
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    figure = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
    return what, figure, f"{mine:,.0f} against {other:,.0f} images/s, {rounds} rounds"


def training_speed(data: Path, rounds: int = 5, count: int = 9_600) -> list[Row]:
    """Time one epoch over `count` images in batches of 64, in turn with our loop and with plain Keras' fit.

    Each runs in its own process, as its user would start it. Onsight asks TensorFlow for oneDNN's kernels and, if it is
    faster, for bfloat16. The plain script uses the defaults of Keras and TensorFlow, which are float32.
    """
    import numpy as np

    from onsight.core.progress import Reporter
    from onsight.data.batches import Examples
    from onsight.data.load import load_dataset
    from onsight.runs.run import Run
    from onsight.spec import TrainSpec
    from onsight.training.loop import Loop
    from onsight.training.resolve import resolve

    dataset = load_dataset("cifar10", data)
    assert dataset.images is not None

    def ours(augmentation: str, precision: str) -> Callable[[], float]:
        spec = TrainSpec(preset="tutorial", augmentation=augmentation, precision=precision, checkpoint_seconds=600)
        spec, _ = resolve(spec, images=50_000, given=("train", "test"), side=32, flips=True)
        record = {"spec": spec.model_dump(mode="json")}
        members = {"name": "cifar10", "classes": list(dataset.classes), "counts": {}, "split": {}}
        run = Run.create("speed", record, members)
        training = Examples(dataset.images, np.arange(count), dataset.labels[:count])
        none = Examples(dataset.images, np.arange(0), dataset.labels[:0])
        loop = Loop(run, spec, training, none, Reporter(), [], [])

        def rate() -> float:
            started = time.perf_counter()
            loop.epoch()
            return count / (time.perf_counter() - started)

        rate()  # the first round compiles
        return rate

    with (
        tempfile.TemporaryDirectory() as runs,
        contender(sys.executable, "-c", PLAIN, str(data), str(count)) as plain,
    ):
        os.environ["ONSIGHT_RUNS"] = runs
        return [
            compared(
                f"`tutorial` {what}, {precision}, against plain_keras.py", ours(augmentation, precision), plain, rounds
            )
            for precision in precisions()
            for what, augmentation in (("without augmentation", "none"), ("with its augmentation", "flip_shift"))
        ]


@contextlib.contextmanager
def toy_cnn() -> Iterator[Any]:
    """Train `cnn` for one epoch on toy images of 32 px, and yield its run."""
    from onsight import TrainSpec, train
    from onsight.core.progress import Reporter

    with tempfile.TemporaryDirectory() as runs:
        os.environ["ONSIGHT_RUNS"] = runs
        yield train(TrainSpec(data="toy", model="cnn", image_size=32, epochs=1), reporter=Reporter())


def timed(work: Callable[[], object], count: int) -> Callable[[], float]:
    """Return a function that calls `work`, which handles `count` images, and returns images per second."""

    def rate() -> float:
        started = time.perf_counter()
        work()
        return count / (time.perf_counter() - started)

    rate()  # the first round compiles
    return rate


def predict_speed(data: Path, rounds: int = 5) -> list[Row]:
    """Time inference with `cnn` in turn by LiteRT and by Keras' `model.predict`, on arrays and on 10,000 JPEG files.

    Both decode the files with the same code, and the decoding is included in both times.
    """
    import numpy as np

    from onsight.imaging import decode
    from onsight.inference.predict import Predictor

    files = sorted((data / "cifar10-folders" / "test").glob("*/*.jpg"))
    images = np.random.default_rng(0).integers(0, 256, (10_000, 32, 32, 3), np.uint8)
    with toy_cnn() as run:
        predictor, model = Predictor(run), run.load_model()

        def plain() -> object:
            return model.predict(np.stack([decode.load(file, 32) for file in files]), batch_size=256, verbose=0)

        arrays = (
            timed(lambda: predictor.engine.probabilities(images), len(images)),
            timed(lambda: model.predict(images, batch_size=256, verbose=0), len(images)),
        )
        from_files = timed(lambda: list(predictor.stream(files)), len(files)), timed(plain, len(files))
        return [
            compared("inference with `cnn` on arrays, against `model.predict`", *arrays, rounds),
            compared(f"inference with `cnn` on {len(files):,} JPEGs, against `model.predict`", *from_files, rounds),
        ]


def cold_predict(data: Path) -> list[Row]:
    """Time `onsight predict RUN one.jpg` in new processes, after one that writes the bytecode and is not timed."""
    image = str(next((data / "cifar10-folders" / "test").glob("*/*.jpg")))
    with toy_cnn() as run:
        words = *ONSIGHT, "predict", str(run.folder), image
        watched(*words, PYTHONDONTWRITEBYTECODE="")
        seconds, spent, peak = watched(*words, rounds=15)
    how = f"median of 15 processes; {spent:.2f} s of CPU time"
    return [("`onsight predict RUN one.jpg`", f"{seconds:.2f} s, {peak:.0f} MB", how)]


def micro_latency(data: Path, rounds: int = 60) -> list[Row]:
    """Measure the CPU time of one image on one thread, in turn for `micro` as int8 and MLPerf Tiny's ResNet-8.

    ONSIGHT_RESNET8 names the int8 .tflite file of ResNet-8. `micro` has random weights, because they do not change the
    time.
    """
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    from onsight.exporting.quantize import quantized
    from onsight.models.litert_file import convert
    from onsight.models.registry import build_model, classifier

    reference = os.environ.get("ONSIGHT_RESNET8")
    if not reference:
        print("micro_latency is skipped: set ONSIGHT_RESNET8 to the .tflite file of ResNet-8")
        return []
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    ours = quantized(convert(classifier(build_model("micro", 32, 10))), "int8", images)
    spent: list[list[float]] = [[], []]
    interpreters = [
        Interpreter(model_content=content, num_threads=1) for content in (ours, Path(reference).read_bytes())
    ]
    for interpreter in interpreters:
        interpreter.allocate_tensors()
    for _ in range(rounds):
        for interpreter, times in zip(interpreters, spent, strict=True):
            interpreter.invoke()
            started = time.process_time()
            for _ in range(20):
                interpreter.invoke()
            times.append((time.process_time() - started) / 20 * 1e3)
    mine, theirs = (statistics.median(times) for times in spent)
    ratio = statistics.median(a / b for a, b in zip(*spent, strict=True))
    how = f"{mine:.3f} against {theirs:.3f} ms, one thread, {rounds} rounds, {len(ours):,} bytes"
    return [("`micro` as int8, latency against ResNet-8", f"{ratio:.2f}x", how)]


def precisions() -> list[str]:
    """Return float32 and, if it differs, the precision that Onsight chooses on this CPU."""
    from onsight.core.backend import choose_precision

    return sorted({"float32", choose_precision("tensorflow").value}, reverse=True)


def step_rate(
    model: str, batch_size: int, size: int = 32, optimizer: str = "sgd", precision: str = "float32"
) -> Callable[[], float]:
    """Return a function that trains on random images (2,048 at 32 px) and returns images per second."""
    import numpy as np

    from onsight.core.backend import dtype_policy
    from onsight.models.registry import build_model
    from onsight.training.losses import Loss
    from onsight.training.steps import make_optimizer, make_step

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2048, size, size, 3), np.uint8)
    labels = rng.integers(0, 10, 2048).astype(np.int32)
    with dtype_policy(precision):
        network = build_model(model, size, 10)
    step = make_step(network, make_optimizer(optimizer, 1e-3, 0.0), Loss())
    count = max(2, 2048 * 32**2 // size**2 // batch_size)

    def rate() -> float:
        started = time.perf_counter()
        for i in range(count):
            first = i * batch_size % (2048 - batch_size + 1)
            loss, _ = step.train(images[first : first + batch_size], labels[first : first + batch_size], 1e-3)
        float(loss)
        return count * batch_size / (time.perf_counter() - started)

    rate()  # the first round compiles
    return rate


def against_torch(data: Path, rounds: int = 5) -> list[Row]:
    """Time our training steps and those of plain PyTorch in turn. ONSIGHT_TORCH names a Python that has torch."""
    python = os.environ.get("ONSIGHT_TORCH")
    if not python:
        print("against_torch is skipped: set ONSIGHT_TORCH to a Python that has torch")
        return []
    rows = []
    for precision, (theirs, ours, batch_size) in itertools.product(
        precisions(), (("small", "cnn", 64), ("wide", "whitened", 256))
    ):
        with contender(python, str(HERE / "torch_step.py"), theirs, precision, str(batch_size)) as torch:
            what = f"training step of `{ours}`, batch {batch_size}, {precision}, against plain PyTorch"
            rows.append(compared(what, step_rate(ours, batch_size, precision=precision), torch, rounds))
    return rows


def multiply_adds(model: str, size: int) -> int:
    """Return the multiply-adds of inference on one image."""
    from onsight.models.registry import build_model, layer_table

    return sum(layer["multiply_adds"] for layer in layer_table(build_model(model, size, 10)))


def scaling(data: Path) -> list[Row]:
    """Measure how training time grows with image size, batch size and number of images, and plot it to scaling.png."""
    import matplotlib.pyplot as plt

    sizes, batches = (32, 48, 64, 96), (32, 64, 128, 256, 512)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    rows: list[Row] = []
    for model in ("cnn_compact", "whitened"):
        by_size = [1e3 / step_rate(model, 64, size)() for size in sizes]
        by_batch = [1e3 / step_rate(model, batch)() for batch in batches]
        axes[0].plot([size**2 / 1024 for size in sizes], by_size, "o-", label=model)
        axes[1].plot(batches, by_batch, "o-", label=model)
        pixels = (sizes[-1] / sizes[0]) ** 2
        growth = by_size[-1] / by_size[0] / pixels
        work = multiply_adds(model, sizes[-1]) / multiply_adds(model, sizes[0]) / pixels
        how = f"{work:.2f}x the multiply-adds per pixel; batch 64, float32, one round each"
        rows.append((f"`{model}`, time per pixel at 96 px against 32 px", f"{growth:.2f}x", how))
    import numpy as np

    from onsight.data.batches import Examples, plan_epoch, training_batches

    images = np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), np.uint8)
    rate = step_rate("cnn_compact", 128)
    seconds = []
    counts = (5_000, 10_000, 20_000, 50_000)
    for count in counts:
        started = time.perf_counter()
        examples = Examples(images, np.arange(count), np.zeros(count, int))
        made = training_batches(examples, plan_epoch(examples, "flip_shift", 0, 0), 128)
        seen = sum(len(labels) for _, labels in made)
        seconds.append(time.perf_counter() - started + seen / rate())
    axes[2].plot(counts, seconds, "o-", label="cnn_compact, batches and steps")
    titles = (
        ("pixels per image, in units of 32 x 32", "ms per image, batch size 64"),
        ("batch size", "ms per image, 32 px"),
        ("images", "s per epoch"),
    )
    for axis, (x, y) in zip(axes, titles, strict=True):
        axis.set(xlabel=x, ylabel=y, ylim=(0, None))
        axis.legend()
    figure.savefig(HERE / "scaling.png", dpi=110)
    growth = seconds[-1] / seconds[0] / (counts[-1] / counts[0])
    return [*rows, ("an epoch of 50,000 images against ten of 5,000", f"{growth:.2f}x", "scaling.png")]


def check_time(data: Path) -> list[Row]:
    """Measure `onsight check cifar10` in a new process with an empty cache."""
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as out:
        seconds, _, peak = watched(
            *ONSIGHT, "check", "cifar10", "--quiet", "--out", out, ONSIGHT_DATA=str(data), ONSIGHT_CACHE=cache
        )
    what = "`onsight check` on CIFAR-10's 60,000 images"
    return [(what, f"{seconds:.0f} s, {peak:,.0f} MB", "whole process, nothing cached, n = 1")]


def hash_scaling(data: Path) -> list[Row]:
    """Time the near-duplicate search over random hashes in 16 variants; 1 % are copies with four flipped bits."""
    import numpy as np

    from onsight.checks.near_duplicates import candidates

    rows = []
    for count in (10_000, 100_000, 1_000_000):
        rng = np.random.default_rng(0)
        codes = rng.integers(0, 2**63, count, np.uint64)
        copies = count // 100
        codes[:copies] = codes[-copies:]
        for _ in range(4):
            codes[:copies] ^= np.uint64(1) << rng.integers(0, 63, copies, np.uint64)
        queries = [codes, *(rng.permutation(codes) for _ in range(15))]
        found = np.zeros(copies, bool)
        started = time.perf_counter()
        for query, one, other in candidates(codes, queries):
            hit = (query == 0) & (one < copies) & (other == one + count - copies)
            found[one[hit]] = True
        seconds = time.perf_counter() - started
        how = f"{found.mean():.1%} of copies found, n = 1"
        rows.append((f"duplicates among {count:,} hashes", f"{seconds:.1f} s", how))
    return rows


BENCHMARKS = [
    help_time, first_start, memory, training_speed, against_torch, scaling, predict_speed, cold_predict,
    micro_latency, check_time, hash_scaling,
]  # fmt: skip


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    data, names = Path(sys.argv[1]).resolve(), sys.argv[2:]
    from onsight.core.backend import environment, use_backend

    use_backend()  # as the commands do: Keras alone would not ask for oneDNN's kernels
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
        "A ratio is the median over the rounds, with minimum and maximum. The speeds are medians as well.",
        "",
        "| what | figure | how |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    if not names:
        (HERE / "results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
