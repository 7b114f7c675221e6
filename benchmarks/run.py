#!/usr/bin/env python3
"""Measure Onsight against what it must reach, and write benchmarks/results.md.

    python benchmarks/run.py DATA [NAME ...]

DATA is a folder with cifar10-folders/ and cifar-10-batches-bin/ (make_jpeg_copy.py makes them). NAME is one or more
of the functions below; without one, all run, about ten minutes on two cores. Speeds are ratios of interleaved rounds:
machines are shared and noisy, and absolute figures hold for one machine at one moment.
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


# A process starts with the peak memory of the one that starts it, so a small one stands in between.
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
    """Run a command so often; return the medians of its seconds, its processor seconds, its peak memory in MB."""
    command = [sys.executable, "-c", WATCH, str(rounds), *words]
    done = subprocess.run(command, env=os.environ | environ, stdout=subprocess.PIPE, text=True, check=True)
    seconds, spent, peak = zip(*(map(float, line.split()) for line in done.stdout.splitlines()), strict=True)
    return statistics.median(seconds), statistics.median(spent), statistics.median(peak)


def help_time(data: Path) -> list[Row]:
    """`onsight --help`, cold processes; bytecode written by a run that does not count."""
    watched(*ONSIGHT, "--help", PYTHONDONTWRITEBYTECODE="")
    seconds, _, _ = watched(*ONSIGHT, "--help", rounds=15)
    return [("`onsight --help`", f"{seconds:.2f} s", "median of 15 processes")]


def first_start(data: Path) -> list[Row]:
    """Decode and cache 60,000 JPEG files, then start again; each in a new process."""
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
    """Peak resident memory of one epoch of `tutorial` on CIFAR-10, the whole process."""
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
    """Run a program that answers each line on its standard input with a round's images a second."""
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

        rate()  # compile
        try:
            yield rate
        finally:
            stdin.close()


def compared(what: str, ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> Row:
    """Return a row of the ratio of two speeds, measured in turn."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    ratios = [mine / other for mine, other in pairs]
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    figure = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
    return what, figure, f"{mine:,.0f} against {other:,.0f} images/s, {rounds} rounds"


def training_speed(data: Path, rounds: int = 5, count: int = 9_600) -> list[Row]:
    """One epoch over `count` images by plain Keras' fit and by our loop, in turn, batches of 64.

    Each in a process of its own, as its user would start it: Onsight asks TensorFlow for oneDNN's kernels and, where it
    pays, for bfloat16; the plain script takes what Keras and TensorFlow take by themselves, float32.
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

        rate()  # compile
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
            for what, augmentation in (("without augmentation", "none"), ("with its augmentation", "flip_rotate_zoom"))
        ]


@contextlib.contextmanager
def toy_cnn() -> Iterator[Any]:
    """Train `cnn` for a moment at 32 px, and give its run."""
    from onsight import TrainSpec, train
    from onsight.core.progress import Reporter

    with tempfile.TemporaryDirectory() as runs:
        os.environ["ONSIGHT_RUNS"] = runs
        yield train(TrainSpec(data="toy", model="cnn", image_size=32, epochs=1), reporter=Reporter())


def timed(work: Callable[[], object], count: int) -> Callable[[], float]:
    """Return a function that does `work` on `count` images and returns images a second."""

    def rate() -> float:
        started = time.perf_counter()
        work()
        return count / (time.perf_counter() - started)

    rate()  # compile
    return rate


def predict_speed(data: Path, rounds: int = 5) -> list[Row]:
    """Answers of `cnn` by LiteRT and by Keras' own `model.predict`, in turn: from arrays, and from 10,000 JPEG files.

    The files are decoded by the same code for both, and for both that counts.
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
            compared("answers of `cnn` from arrays, against `model.predict`", *arrays, rounds),
            compared(f"answers of `cnn` from {len(files):,} JPEG files, against `model.predict`", *from_files, rounds),
        ]


def cold_predict(data: Path) -> list[Row]:
    """`onsight predict RUN one.jpg`, cold processes; bytecode written by one that does not count."""
    image = str(next((data / "cifar10-folders" / "test").glob("*/*.jpg")))
    with toy_cnn() as run:
        words = *ONSIGHT, "predict", str(run.folder), image
        watched(*words, PYTHONDONTWRITEBYTECODE="")
        seconds, spent, peak = watched(*words, rounds=15)
    how = f"median of 15 processes; {spent:.2f} s of processor time"
    return [("`onsight predict RUN one.jpg`", f"{seconds:.2f} s, {peak:.0f} MB", how)]


def micro_latency(data: Path, rounds: int = 60) -> list[Row]:
    """One image by `micro` as int8 and by MLPerf Tiny's ResNet-8, in turn, one thread, processor time.

    ONSIGHT_RESNET8 names the latter's int8 .tflite file. Weights do not matter: `micro` has random ones.
    """
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    from onsight.exporting.write_litert import quantized
    from onsight.inference.litert import convert
    from onsight.models.registry import build_model, classifier

    reference = os.environ.get("ONSIGHT_RESNET8")
    if not reference:
        print("micro_latency is left out: ONSIGHT_RESNET8 does not name a .tflite file")
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
    return [("`micro` as int8, time of one image against ResNet-8's", f"{ratio:.2f}x", how)]


def precisions() -> list[str]:
    """Return float32 and, where it is another, the precision that Onsight chooses on this processor."""
    from onsight.core.backend import choose_precision

    return sorted({"float32", choose_precision("tensorflow").value}, reverse=True)


def step_rate(
    model: str, batch_size: int, size: int = 32, optimizer: str = "sgd", precision: str = "float32"
) -> Callable[[], float]:
    """Return a function that trains on 2,048 random images and returns images a second."""
    import numpy as np

    from onsight.core.backend import dtype_policy
    from onsight.models.registry import build_model
    from onsight.training.steps import Loss, make_optimizer, make_step

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

    rate()  # compile
    return rate


def against_torch(data: Path, rounds: int = 5) -> list[Row]:
    """Our training steps and plain PyTorch's, in turn. ONSIGHT_TORCH names a Python that has torch."""
    python = os.environ.get("ONSIGHT_TORCH")
    if not python:
        print("against_torch is left out: ONSIGHT_TORCH does not name a Python that has torch")
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
    """Return those of one image's answer."""
    from onsight.models.registry import build_model, layer_table

    return sum(layer["multiply_adds"] for layer in layer_table(build_model(model, size, 10)))


def scaling(data: Path) -> list[Row]:
    """Images a second of a training step against image size and batch, and seconds of an epoch against its images."""
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
        how = f"{work:.2f}x the multiply-adds a pixel; batch 64, float32, one round each"
        rows.append((f"`{model}`, time a pixel at 96 px against 32 px", f"{growth:.2f}x", how))
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
        ("pixels an image, in 32 x 32", "ms an image, batch 64"),
        ("batch", "ms an image, 32 px"),
        ("images", "s an epoch"),
    )
    for axis, (x, y) in zip(axes, titles, strict=True):
        axis.set(xlabel=x, ylabel=y, ylim=(0, None))
        axis.legend()
    figure.savefig(HERE / "scaling.png", dpi=110)
    growth = seconds[-1] / seconds[0] / (counts[-1] / counts[0])
    return [*rows, ("an epoch of 50,000 images against ten of 5,000", f"{growth:.2f}x", "scaling.png")]


def check_time(data: Path) -> list[Row]:
    """`onsight check cifar10`, nothing in the cache, a new process."""
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as out:
        seconds, _, peak = watched(
            *ONSIGHT, "check", "cifar10", "--quiet", "--out", out, ONSIGHT_DATA=str(data), ONSIGHT_CACHE=cache
        )
    what = "`onsight check` on CIFAR-10's 60,000 images"
    return [(what, f"{seconds:.0f} s, {peak:,.0f} MB", "whole process, nothing cached, n = 1")]


def hash_scaling(data: Path) -> list[Row]:
    """Candidates among random hashes in 16 variants; one in a hundred is a copy with four bits flipped."""
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
        how = f"{found.mean():.1%} of copies proposed, n = 1"
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

    use_backend()  # as the commands do: Keras would not ask for oneDNN's kernels by itself
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
        "A ratio is the median of the rounds', with the least and the largest; the speeds are medians of their own.",
        "",
        "| what | figure | how |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    if not names:
        (HERE / "results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
