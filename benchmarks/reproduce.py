#!/usr/bin/env python3
"""Measure accuracies on CIFAR-10 again, and write them: python benchmarks/reproduce.py ROW [ROW ...]

    python benchmarks/reproduce.py default micro       # trains and evaluates; takes the minutes that the table says
    python benchmarks/reproduce.py resnet20            # the same for a network of docs/models.md
    python benchmarks/reproduce.py default --run RUN   # evaluates a run that the row's own command has trained
    python benchmarks/reproduce.py --table             # only writes the table and the plot from records.json

Only the official images count: `make cifar10` brings them. Each row is one line of records.json, with its command, its
machine and its date. The README's table, docs/accuracy.png and the accuracies in docs/models.md
(`python benchmarks/models_table.py`) are made from these lines; `tests/test_docs.py` checks that they agree.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from onsight.core.text import percent
from onsight.runs.run import Run, open_run

HERE = Path(__file__).resolve().parent
RECORDS, README = HERE / "records.json", HERE.parent / "README.md"
BEGIN, END = "<!-- table: benchmarks/reproduce.py -->\n", "<!-- end of table -->\n"
PLOT = HERE.parent / "docs" / "accuracy.png"
NEAR = 0.13, 0.046  # powers of ten of minutes, and accuracy, within which names would overlap
OFFICIAL = "official CIFAR-10 (checksums match)"


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        what: what is trained, in a few words.
        command: the command after the program; RUN stands for the run of the row `teacher`.
        teacher: the row whose run the command begins with.
        int8: whether the exported int8 file is measured, too.
        corrupted: whether corrupted images are answered, too: the mean accuracy over all corruptions.
        program: "onsight", or "python" for a script that prints its seconds, and then its accuracy.
        interpreter: the variable that names the Python which has what the script needs, if it is not this one.
        precision: in which a script trains.
        network: what is trained, for docs/models.md; None: not one of Onsight's networks, or another row's.
        in_readme: whether the row is in the README's table, and not only in docs/models.md.
    """

    what: str
    command: str
    teacher: str | None = None
    int8: bool = False
    corrupted: bool = False
    program: str = "onsight"
    interpreter: str = ""
    precision: str = "float32"
    network: str | None = None
    in_readme: bool = True


def of_network(name: str, minutes: int, settings: str = "") -> Row:
    """Return the row of a network that is only in docs/models.md: what `minutes` minutes give."""
    command = f"train --model {name} --time-budget {minutes}m{settings}"
    return Row("", command, network=name, in_readme=False)


LARGE = " --batch-size 500 --learning-rate 0.12"  # networks with wide kernels (docs/decisions/training.md)
SHORT = " --preset quick"  # made for few epochs, which half an hour in float32 is (README.md)
ROWS = {
    "default": Row("the default: `cnn_compact`, 17 epochs", "train", network="cnn_compact", corrupted=True),
    "fast": Row("`whitened`, the recipe of the records, 8 epochs", "train --preset fast", network="whitened"),
    "fast-all": Row("the same on all 50,000 images, as records are made", "train --preset fast --validation 0"),
    "best": Row(
        "the most accurate: `whitened_wide`, 24 epochs, all 50,000 images",
        "train --preset best --validation 0",
        network="whitened_wide",
    ),
    "quick": Row("2 epochs: what `make demo` does", "train --preset quick"),
    "robust": Row("blurred and noisy images too, 24 epochs", "train --preset robust", corrupted=True),
    "tutorial": Row(
        "`cnn`, the 161,098 parameters of the tutorials, and Adam", "train --preset tutorial", network="cnn"
    ),
    "ann": Row("the ANN of the tutorials", "train --preset tutorial --model mlp --augmentation none", network="mlp"),
    "micro": Row(
        "for microcontrollers", "distill RUN --model micro --epochs 60", "default", int8=True, network="micro"
    ),
    "pruned": Row(
        "half of the default's channels: 23 % of its file, 64 % of its latency",
        "prune RUN --channels 0.5 --epochs 40 --learning-rate 0.06",
        "default",
    ),
    "sparse": Row("four fifths of the default's weights are zero", "prune RUN --sparsity 0.8 --epochs 5", "default"),
    "plain-keras": Row("the plain Keras script of most tutorials", "benchmarks/plain_keras.py", program="python"),
    "published": Row(
        "the recipe of the records in PyTorch, 8 epochs, all 50,000 images",
        "benchmarks/published_recipe.py",
        program="python",
        interpreter="ONSIGHT_TORCH",
        precision="bfloat16",
    ),
    "cnn_dropout": of_network("cnn_dropout", 10),
    "resnet20": of_network("resnet20", 20),
    "resnet32": of_network("resnet32", 30),
    "resnet56": of_network("resnet56", 30, SHORT),
    "wide_resnet16_4": of_network("wide_resnet16_4", 30, SHORT),
    "vgg11": of_network("vgg11", 15, LARGE),
    "vgg16": of_network("vgg16", 25, LARGE),
    "inception_cifar": of_network("inception_cifar", 30, SHORT),
    "mobilenet_cifar": of_network("mobilenet_cifar", 15, LARGE),
    "convnext_cifar": of_network("convnext_cifar", 30),
}


def main() -> None:
    """Measure rows, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], metavar="ROW")
    parser.add_argument("--run", help="a run that the row's command has trained")
    parser.add_argument("--table", action="store_true", help="only write the table")
    asked = parser.parse_args()
    if not asked.rows and not asked.table:
        parser.error(f"name a row: {', '.join(ROWS)}")
    for name in asked.rows:
        records = read_records()
        if ROWS[name].program == "python":
            records[name] = measure_script(name)
        else:
            records[name] = measure(name, open_run(asked.run) if asked.run else trained(name, records))
        ordered = {each: records[each] for each in ROWS if each in records}
        RECORDS.write_text(json.dumps(ordered, indent=1) + "\n")
    text, shown = README.read_text(), in_readme(read_records())
    before, rest = text.split(BEGIN)
    README.write_text(before + BEGIN + table(shown) + END + rest.split(END)[1])
    plot(shown)


def read_records() -> dict[str, dict[str, Any]]:
    """Return what was measured, by row."""
    return json.loads(RECORDS.read_text()) if RECORDS.is_file() else {}


def in_readme(records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the records of the rows in the README's table."""
    return {name: found for name, found in records.items() if ROWS[name].in_readme}


def onsight(*words: str) -> str:
    """Run a command and return the last line that it prints."""
    done = subprocess.run([sys.executable, "-m", "onsight", *words], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def trained(name: str, records: dict[str, dict[str, Any]]) -> Run:
    """Train a row's network, and first its teacher if that has no run here, and return the run."""
    row, words = ROWS[name], ROWS[name].command.split()
    if row.teacher:
        known = Path(os.environ.get("ONSIGHT_RUNS", "runs")) / records.get(row.teacher, {}).get("run", "?")
        teacher = known if (known / "model").is_dir() else trained(row.teacher, records).folder
        words = [str(teacher) if word == "RUN" else word for word in words]
    else:
        words.insert(1, "cifar10")
    return open_run(onsight(*words, "--quiet"))


def measure(name: str, run: Run) -> dict[str, Any]:
    """Evaluate a run with test-time augmentation, export it if the row asks, and return the record."""
    more = ["--robustness"] if ROWS[name].corrupted else []
    onsight("evaluate", str(run.folder), "--tta", "--quiet", *more)
    metrics = json.loads((run.evaluation_folder() / "metrics.json").read_text())
    if metrics["provenance"] != OFFICIAL:
        sys.exit(f"The images are a '{metrics['provenance']}'; expected '{OFFICIAL}'. Bring them: make cifar10")
    views = metrics["tta"]
    record = {
        "command": ROWS[name].command,
        "run": run.name,
        "accuracy": metrics["accuracy"],
        "interval": metrics["accuracy_interval"],
        "views": views["accuracy"],
        "views_interval": views["accuracy_interval"],
        "n": metrics["n"],
        "ece": metrics["ece"],
        "parameters": json.loads((run.model_folder / "model.json").read_text())["parameters"],
        "minutes": sum(row["seconds"] for row in run.history()) / 60,
        "precision": run.spec["precision"],
        "machine": run.record.get("environment", {}).get("machine"),
        "date": date.today().isoformat(),
    }
    if ROWS[name].int8:
        record |= measured_int8(run)
    if ROWS[name].corrupted:
        record["corrupted"] = json.loads((run.evaluation_folder() / "robustness.json").read_text())["mean"]
    return record


def measure_script(name: str) -> dict[str, Any]:
    """Run a row's script on the official images, and return the record."""
    from onsight.core.backend import environment
    from onsight.core.files import cache_folder
    from onsight.data.load import load_dataset
    from onsight.metrics.intervals import share_interval

    place = Path(os.environ.get("ONSIGHT_DATA") or cache_folder() / "downloads")
    folder = place / "cifar-10-batches-bin"
    if not folder.is_dir() or load_dataset("cifar10", place).provenance != OFFICIAL:
        sys.exit(f"There is no official CIFAR-10 in {folder}. Name the folder above it in ONSIGHT_DATA.")
    row = ROWS[name]
    if row.interpreter and row.interpreter not in os.environ:
        sys.exit(f"Name a Python that has what {row.command} needs in {row.interpreter}.")
    words = [os.environ.get(row.interpreter, sys.executable), str(HERE.parent / row.command), str(folder)]
    said = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.strip().splitlines()
    seconds, shares = float(said[-2].split()[0]), re.findall(r"(?:accuracy|views) (\S+?)(?:,|$)", said[-1])
    scores: dict[str, Any] = {}
    for key, share in zip((("accuracy", "interval"), ("views", "views_interval")), map(float, shares), strict=False):
        scores |= {key[0]: share, key[1]: share_interval(round(share * 10_000), 10_000)}
    return {
        "command": row.command,
        **scores,
        "n": 10_000,
        "minutes": seconds / 60,
        "precision": row.precision,
        "machine": environment()["machine"],
        "date": date.today().isoformat(),
    }


def measured_int8(run: Run) -> dict[str, Any]:
    """Export a run as int8 and return the file's size and its accuracy on the test images."""
    from onsight.inference.engines import LitertEngine
    from onsight.metrics.intervals import share_interval
    from onsight.models.model_file import read_description
    from onsight.runs.images import load_images

    onsight("export", str(run.folder), "litert", "--precision", "int8", "--quiet")
    (file,) = run.export_folder.glob("*int8*.tflite")
    dataset, pixels = load_images(run)
    test = dataset.parts == "test"
    engine = LitertEngine(file.read_bytes(), read_description(run.model_folder))
    right = int((engine.probabilities(pixels.images[test]).argmax(axis=1) == dataset.labels[test]).sum())
    low, high = share_interval(right, int(test.sum()))
    return {"int8": right / int(test.sum()), "int8_interval": [low, high], "int8_bytes": file.stat().st_size}


def table(records: dict[str, dict[str, Any]]) -> str:
    """Return the table of the README."""
    lines = ["| command | what | accuracy | with `--tta` | minutes |", "|---|---|---|---|---|"]
    for name, found in records.items():
        what = ROWS[name].what
        if "int8" in found:
            what += f"; as int8, {found['int8_bytes'] / 1000:.0f} kB: {percent(found['int8'])}"
        if "corrupted" in found:
            what += f"; corrupted images: {percent(found['corrupted'])}"
        cells = (
            f"`{ROWS[name].program} {found['command']}`", what,
            f"{percent(found['accuracy'])} ({bounds(found['interval'])})",
            percent(found["views"]) if "views" in found else "", f"{found['minutes']:.1f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(records: dict[str, dict[str, Any]]) -> None:
    """Draw accuracy against minutes of training, a teacher's included, with 95 % intervals, in docs/accuracy.png."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    own = {name: each["minutes"] for name, each in records.items()}
    records = {name: each | {"minutes": own[name] + own.get(ROWS[name].teacher, 0)} for name, each in records.items()}
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    shown = {"with --tta": ("views", "o", "#1f6f8b"), "one view": ("accuracy", "s", "#99582a")}
    for label, (key, marker, color) in shown.items():
        found = [each for each in records.values() if key in each]
        shares = [each[key] for each in found]
        ends = [each["views_interval" if key == "views" else "interval"] for each in found]
        below, above = ([abs(share - end[i]) for share, end in zip(shares, ends, strict=True)] for i in (0, 1))
        minutes = [each["minutes"] for each in found]
        axes.errorbar(minutes, shares, [below, above], fmt=marker, color=color, capsize=2, markersize=5, label=label)
    for name, each in records.items():
        place, side = beside(each, records)
        point = each["minutes"], each["accuracy"]
        axes.annotate(name, point, textcoords="offset points", xytext=place, ha=side, fontsize=9)
    axes.set(
        xscale="log", xlabel="minutes of training on two cores", ylabel="accuracy on CIFAR-10's 10,000 test images"
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter(lambda share, position: f"{share:.0%}")
    axes.margins(x=0.12)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(PLOT, dpi=110)


def beside(record: dict[str, Any], records: dict[str, dict[str, Any]]) -> tuple[tuple[int, int], str]:
    """Return where the name of a point stands, in points from it, and how it is aligned: not on a neighbour's name."""
    minutes, accuracy = record["minutes"], record["accuracy"]
    near = [each for each in records.values()
            if each["minutes"] != minutes and abs(math.log10(each["minutes"] / minutes)) < NEAR[0]
            and abs(each["accuracy"] - accuracy) < NEAR[1]]  # fmt: skip
    before, after = any(each["minutes"] < minutes for each in near), any(each["minutes"] > minutes for each in near)
    if before and after:  # below, if all neighbours stand higher
        return (0, -20 if accuracy < min(each["accuracy"] for each in near) else 17), "center"
    return ((-7, -11), "right") if after else ((7, -11), "left")


def bounds(ends: list[float]) -> str:
    """Return an interval as it stands in the table.

    >>> bounds([0.876, 0.8889])
    '87.6 to 88.9'
    """
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


if __name__ == "__main__":
    main()
