#!/usr/bin/env python3
"""Write docs/models.md: the cost of each network in the registry, and the accuracy of those that were trained.

    python benchmarks/models_table.py

A network's accuracy and training time are those of its row in records.json, which `python benchmarks/reproduce.py`
measures. Networks are counted and timed with initial weights plus a little noise, which takes the same computation as
trained ones. Nothing is trained here. The int8 files are quantized with ranges measured on noise, because only their
size matters. This takes about 20 seconds per network.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np

from onsight.core.backend import environment, use_backend
from onsight.core.errors import ExportError
from onsight.exporting.quantize import quantized
from onsight.inference.engines import LitertEngine
from onsight.models.litert_file import convert, failures_named
from onsight.models.model_file import read_description, save_model
from onsight.models.registry import MODELS, build_model, classifier, layer_table
from reproduce import ROWS, read_records

SIZE, PHOTO_SIZE, CLASSES = 32, 96, 10  # PHOTO_SIZE is for networks with a larger default size
# Test accuracy on the official images in per cent, if the network's paper reports it: He et al. 2015, table 6;
# Zagoruyko and Komodakis 2016, table 6; Zhang et al. 2017, table 1, with crops and weight decay.
PAPERS = {"resnet20": 91.25, "resnet32": 92.49, "resnet56": 93.03, "wide_resnet16_4": 94.98, "inception_cifar": 89.05}
REACH = 1.0  # points that a network may be below its paper and still count as within reach
OUT = Path(__file__).resolve().parents[1] / "docs" / "models.md"

OWN = """
## Your own network

Register a function to use your own network like the ones above. In `nets.py`:

```python
import onsight


@onsight.model("mine", description="one convolution, to start with")
def mine(image_size, num_classes):
    import keras  # imported here, after training has chosen the backend
    from keras import layers

    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")  # RGB, not normalised
    x = layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(inputs)
    x = layers.Conv2D(32, 3, strides=2, activation="relu", name="conv")(x)  # every layer needs a name
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(num_classes, dtype="float32", name="logits")(x))
```

`onsight.testing.check_model("mine")` tests what training, files and exports rely on; call it in your own tests. In
Python, `import nets` before `onsight.train(onsight.TrainSpec(data="photos/", model="mine"))`. On the command line:

```
ONSIGHT_IMPORT=nets onsight train photos/ --model mine
```

A run records the module of the function, and the error message names it if the function is missing. Onsight never
imports a module because a run names it: a run folder may come from anybody. Prediction and evaluation with LiteRT do
not need the function.
"""


def main() -> None:
    use_backend()
    measured = {ROWS[name].network: found for name, found in read_records().items() if ROWS[name].network}
    rows = []
    for name in MODELS:
        print(name, file=sys.stderr, flush=True)
        rows.append(costs(name) | {"record": measured.get(name)})
    OUT.write_text(page(rows))
    print(OUT)


def costs(name: str) -> dict[str, Any]:
    """Return the size, the parameters, the multiply-adds, the latency and the file sizes of a network."""
    size = SIZE if MODELS[name].default_size <= PHOTO_SIZE else PHOTO_SIZE
    network = build_model(name, size, CLASSES)
    noise = np.random.default_rng(0)
    for weight in network.trainable_weights:  # otherwise equal initial kernels would be stored only once
        weight.assign(weight + noise.normal(0, 1e-3, weight.shape))
    with tempfile.TemporaryDirectory() as scratch:
        save_model(Path(scratch), network, tuple(f"class {index}" for index in range(CLASSES)))
        description = read_description(Path(scratch))
    model = classifier(network)
    content = convert(model)
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
    }


def int8_bytes(name: str, content: bytes, images: np.ndarray) -> int | None:
    """Return the size of the int8 file in bytes, or None if the network cannot be quantized."""
    try:
        with failures_named(f"{name} as int8"):
            return len(quantized(content, "int8", images))
    except ExportError as error:
        print(error, file=sys.stderr)
        return None


def latency(engine: LitertEngine, images: np.ndarray) -> float:
    """Return the median milliseconds of one image on one thread, over at least 50 images and one second.

    This is CPU time: on one thread it equals wall time on an idle machine, and other programs do not change it.
    """
    engine.probabilities(images[:1], threads=1)
    taken: list[float] = []
    while len(taken) < 50 or sum(taken) < 1:
        started = time.process_time()
        engine.probabilities(images[len(taken) % 64][np.newaxis], threads=1)
        taken.append(time.process_time() - started)
    return 1000 * statistics.median(taken)


def page(rows: list[dict[str, Any]]) -> str:
    """Return the text of docs/models.md."""
    facts = environment()
    lines = [
        "# The networks",
        "",
        "Written by `python benchmarks/models_table.py`; `onsight models NAME` shows one network's layers.",
        f"All figures are for {CLASSES} classes. The column px is the side of the images in pixels. Parameters are all",
        "numbers in the weights file, including the statistics of batch norms. Multiply-adds are those of the",
        "kernels, per image. Latency is the CPU time of one image on one thread: the LiteRT file in float32 with",
        "folded batch norms, median of at least 50 images. int8 is the size of the file with integer weights and",
        "activations, with the size of the float32 file in parentheses.",
        "",
        f"Measured with Keras {facts['keras']} on {facts['backend']} {facts['backend_version']}; {facts['machine']}.",
        "",
        "| network | px | parameters | multiply-adds | latency | int8 (float32) | CIFAR-10 test | paper | training |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        small = f"{each['int8_bytes'] / 1e6:.2f} MB" if each["int8_bytes"] else "none"
        sizes = f"{small} ({each['float_bytes'] / 1e6:.2f})"
        accuracy, training = reached(each["record"]) if each["record"] else ("not trained here", "")
        paper = f"{PAPERS[each['name']]:.2f} %" if each["name"] in PAPERS else ""
        lines.append(
            f"| `{each['name']}` | {each['size']} | {each['parameters']:,} | {each['multiply_adds'] / 1e6:,.1f} M | "
            f"{each['latency']:.2f} ms | {sizes} | {accuracy} | {paper} | {training} |"
        )
    lines += ["", "What each one is good for:", ""]
    lines += [f"- `{each['name']}`: {MODELS[each['name']].description}" for each in rows]
    lines += ["", "Each accuracy is from one run on the official images, with its 95 % interval (Wilson). Minutes are"]
    lines += ["those of training, often beside other programs. `python benchmarks/reproduce.py ROW` measures a row"]
    lines += ["of [records.json](../benchmarks/records.json) again, which also names the machine of each one."]
    lines += ["Where training was in float32, the processor had no bfloat16 instructions, and half an hour is a few"]
    lines += ["epochs; [benchmarks/README.md](../benchmarks/README.md) says how many."]
    lines += against_papers(rows)
    lines += ["", "The pretrained networks were not trained on CIFAR-10. The weights of `efficientnet_lite0` come"]
    lines += ["with the install; [docs/decisions/transfer.md](decisions/transfer.md) has its accuracy on photos."]
    return "\n".join(lines) + "\n" + OWN


def against_papers(rows: list[dict[str, Any]]) -> list[str]:
    """Return lines on how far each network is from the accuracy of its paper."""
    lines = []
    for each in rows:
        record = each["record"]
        if record and each["name"] in PAPERS:
            short = PAPERS[each["name"]] - 100 * record["accuracy"]
            verdict = "within reach" if short <= REACH else f"out of reach in {record['minutes']:.0f} minutes"
            lines.append(f"- `{each['name']}`: {abs(short):.1f} points {'below' if short > 0 else 'above'}, {verdict}")
    heading = [
        "",
        "The papers' accuracies are those after hours of training on a GPU. A network is within reach of its",
        f"paper if it is at most {REACH:g} point below:",
        "",
    ]
    return [*heading, *lines]


def reached(record: dict[str, Any]) -> tuple[str, str]:
    """Return the test accuracy of a record with its interval, and how the network was trained."""
    low, high = record["interval"]
    accuracy = f"{100 * record['accuracy']:.2f} % ({100 * low:.2f} to {100 * high:.2f}, n = {record['n']:,})"
    return accuracy, f"`{record['command']}`, {record['minutes']:.0f} min in {record['precision']}"


if __name__ == "__main__":
    main()
