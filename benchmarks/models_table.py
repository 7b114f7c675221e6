#!/usr/bin/env python3
"""Write docs/models.md: what each network of the registry costs, and what it reached where it was trained.

    python benchmarks/models_table.py [RUN_OR_FOLDER ...]

Each argument is a run or a folder of runs. A network's accuracy and training time are those of its evaluated run on
CIFAR-10 among them that is best on validation images; a network without one is counted and timed with its first
weights and a little noise, with which it computes the same. Nothing is trained here. An int8 file is made with ranges
learnt from noise: only its size is of interest. About 20 seconds a network.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np

from onsight.core.backend import environment, use_backend
from onsight.core.errors import ExportError, OnsightError
from onsight.exporting.write_litert import quantized
from onsight.inference.engines import LitertEngine
from onsight.inference.litert import convert, failures_named
from onsight.models.model_file import load_model, read_description, save_model
from onsight.models.registry import MODELS, build_model, classifier, layer_table
from onsight.runs.run import Run, list_runs

SIZE, PHOTO_SIZE, CLASSES = 32, 96, 10  # PHOTO_SIZE: of networks that are meant for more than that
# Test accuracy on the official images, in per cent, of networks whose paper has it: He et al. 2015, table 6;
# Zagoruyko and Komodakis 2016, table 6; Zhang et al. 2017, table 1, with crops and weight decay.
PAPERS = {"resnet20": 91.25, "resnet32": 92.49, "resnet56": 93.03, "wide_resnet16_4": 94.98, "inception_cifar": 89.05}
COPY = 3.5  # points that the JPEG copy is harder by: the fastest published recipe loses so many on it
REACH = 1.0  # points that a network may then be below its paper, and is within its reach
OUT = Path(__file__).resolve().parents[1] / "docs" / "models.md"

OWN = """
## Your own

A function of yours becomes a network like these. In `nets.py`:

```python
import onsight


@onsight.model("mine", description="one convolution, to begin with")
def mine(image_size, num_classes):
    import keras  # here: training has chosen the backend by now
    from keras import layers

    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")  # RGB as it comes
    x = layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(inputs)
    x = layers.Conv2D(32, 3, strides=2, activation="relu", name="conv")(x)  # a name= for every layer
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(num_classes, dtype="float32", name="logits")(x))
```

`onsight.testing.check_model("mine")` tests what training, files and exports rely on: put it into your own tests. In
Python, `import nets` before `onsight.train(onsight.TrainSpec(data="photos/", model="mine"))`; on the command line:

```
ONSIGHT_IMPORT=nets onsight train photos/ --model mine
```

A run records where the function was, and says so where it is missing. It never imports it by itself: a run folder may
come from anybody. To predict and evaluate by LiteRT the function is not needed.
"""


def main() -> None:
    use_backend()
    best = best_runs(Path(word) for word in sys.argv[1:])
    rows = []
    for name in MODELS:
        print(name, file=sys.stderr, flush=True)
        rows.append(row(name, best.get(name)))
    OUT.write_text(page(rows))
    print(OUT)


def best_runs(places: Iterator[Path]) -> dict[str, Run]:
    """Return the evaluated run on CIFAR-10 of each network that has the most validation images right, and loads.

    Of those alone that held some out, unless none did.
    """
    found: dict[str, tuple[float, Run]] = {}
    for place in places:
        for run in [Run(place)] if (place / "spec.json").is_file() else list_runs(place):
            if not run.is_trained or run.dataset["name"] != "cifar10" or not scores(run):
                continue
            name = str(run.spec["model"])
            judged = float((run.model_epoch() or {}).get("val_accuracy") or 0)
            if name in found and judged <= found[name][0]:
                continue
            try:
                load_model(run.model_folder)
            except OnsightError as error:
                print(f"passed over {run.folder}: {error}", file=sys.stderr)
            else:
                found[name] = judged, run
    return {name: run for name, (_, run) in found.items()}


def scores(run: Run) -> dict[str, Any]:
    path = run.evaluation_folder() / "metrics.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def row(name: str, run: Run | None) -> dict[str, Any]:
    """Measure one network, trained or new: it computes the same. At the size of its run, where it has one."""
    size = SIZE if MODELS[name].default_size <= PHOTO_SIZE else PHOTO_SIZE
    with tempfile.TemporaryDirectory() as scratch:
        if run:
            model, description = load_model(run.model_folder), read_description(run.model_folder)
        else:
            network = build_model(name, size, CLASSES)
            noise = np.random.default_rng(0)
            for weight in network.trainable_weights:  # else equal first kernels would be stored once
                weight.assign(weight + noise.normal(0, 1e-3, weight.shape))
            save_model(Path(scratch), network, tuple(f"class {index}" for index in range(CLASSES)))
            model, description = classifier(network), read_description(Path(scratch))
    content = convert(model)
    size = description.image_size
    images = np.random.default_rng(0).integers(0, 256, (64, size, size, 3), np.uint8)
    engine = LitertEngine(content, description)
    return {
        "name": name,
        "size": size,
        "parameters": description.parameters,
        "multiply_adds": sum(layer["multiply_adds"] for layer in layer_table(model)),
        "latency": latency(engine, images),
        "float_bytes": len(content),
        "int8_bytes": int8_bytes(name, content, images),
        "run": run,
    }


def int8_bytes(name: str, content: bytes, images: np.ndarray) -> int | None:
    """Return the size of the file in integers, or None where the quantizer knows no way."""
    try:
        with failures_named(f"{name} as int8"):
            return len(quantized(content, "int8", images))
    except ExportError as error:
        print(error, file=sys.stderr)
        return None


def latency(engine: LitertEngine, images: np.ndarray) -> float:
    """Return the median milliseconds of one image on one thread, over at least 50 and a second.

    Of processor time: on one thread that is what passes where nothing else runs, and other programs do not change it.
    """
    engine.probabilities(images[:1], threads=1)
    taken: list[float] = []
    while len(taken) < 50 or sum(taken) < 1:
        started = time.process_time()
        engine.probabilities(images[len(taken) % 64][np.newaxis], threads=1)
        taken.append(time.process_time() - started)
    return 1000 * statistics.median(taken)


def page(rows: list[dict[str, Any]]) -> str:
    """Return docs/models.md."""
    facts = environment()
    lines = [
        "# The networks",
        "",
        "Written by `python benchmarks/models_table.py RUNS`; `onsight models NAME` shows one network's layers.",
        f"All for {CLASSES} classes, and images of so many pixels a side as the second column says. Parameters are",
        "all that a file holds, also the statistics of batch norms; multiply-adds are those of the kernels, for one",
        "image. Latency: the LiteRT file, float32, batch norms folded, one image on one thread, processor time,",
        "median of at least 50. int8: the size of the file with integer weights and values, and of the float32 file",
        "beside it.",
        "",
        f"Measured with Keras {facts['keras']} on {facts['backend']} {facts['backend_version']}; {facts['machine']}.",
        "",
        "| network | px | parameters | multiply-adds | latency | int8 (float32) | CIFAR-10 test | paper | training |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        small = f"{each['int8_bytes'] / 1e6:.2f} MB" if each["int8_bytes"] else "none"
        sizes = f"{small} ({each['float_bytes'] / 1e6:.2f})"
        accuracy, training = reached(each["run"]) if each["run"] else ("not trained here", "")
        paper = f"{PAPERS[each['name']]:.2f} %" if each["name"] in PAPERS else ""
        lines.append(
            f"| `{each['name']}` | {each['size']} | {each['parameters']:,} | {each['multiply_adds'] / 1e6:,.1f} M | "
            f"{each['latency']:.2f} ms | {sizes} | {accuracy} | {paper} | {training} |"
        )
    lines += ["", "What each one is good for:", ""]
    lines += [f"- `{each['name']}`: {MODELS[each['name']].description}" for each in rows]
    used = sorted({(run.dataset["provenance"], run.record["environment"]["machine"]) for run in runs_of(rows)})
    if used:
        lines += ["", "Accuracies are of one run each, of several the one that is best on validation images, with"]
        lines += ["their 95 % intervals (Wilson), on:", ""]
        lines += [f"- {data}; {machine}" for data, machine in used]
        lines += ["", *against_papers(rows)]
    if any(each["size"] == PHOTO_SIZE and not each["run"] for each in rows):
        lines += ["", "The pretrained ones were not trained: ImageNet's weights, which they are for, could not be"]
        lines += ["fetched here, and from new weights they would need hours."]
    return "\n".join(lines) + "\n" + OWN


def against_papers(rows: list[dict[str, Any]]) -> list[str]:
    """Say which networks come within reach of their papers, and how far the others are."""
    lines = [
        "Papers' figures, where they have one, are of the official images, and of trainings of hours on a GPU. The",
        f"copy above costs the fastest published recipe {COPY} points. With those taken off the paper's figure:",
        "",
    ]
    for each in rows:
        if each["run"] and each["name"] in PAPERS:
            short = PAPERS[each["name"]] - COPY - 100 * scores(each["run"])["accuracy"]
            verdict = "within its reach" if short <= REACH else "out of its reach in this time"
            lines.append(f"- `{each['name']}`: {abs(short):.1f} points {'below' if short > 0 else 'above'}, {verdict}")
    return lines


def runs_of(rows: list[dict[str, Any]]) -> list[Run]:
    return [each["run"] for each in rows if each["run"]]


def reached(run: Run) -> tuple[str, str]:
    """Return what a run reached on the test images, and what it took."""
    metrics = scores(run)
    low, high = metrics["accuracy_interval"]
    history = run.history()
    seconds = sum(line.get("seconds") or 0 for line in history)
    spec, asked = run.spec, run.record["asked"]
    words = [
        *(["distilled"] if spec.get("teacher") else []),
        spec["preset"],
        f"{spec['optimizer']}, batches of {spec['batch_size']}",
        *(f"{field.replace('_', ' ')} {asked[field]}" for field in ("learning_rate", "augmentation") if field in asked),
        f"{len(history)} epochs, {seconds / 60:.0f} min in {spec['precision']}",
    ]
    recipe = ", ".join(words)
    return f"{100 * metrics['accuracy']:.2f} % ({100 * low:.2f} to {100 * high:.2f}, n = {metrics['n']:,})", recipe


if __name__ == "__main__":
    main()
