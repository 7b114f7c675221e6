"""The registry of export formats: what each format is, and which code writes and reads it.

A writer takes (folder of the model, path to write, precision, training images) and writes one file or folder. Its input
`image` is uint8 RGB (batch, H, W, 3), and its output `probabilities` is float32 (batch, classes). Normalisation,
temperature and softmax are part of the model. A writer need not check its result: `export` compares the answers with
Keras' and rejects a file that differs, where the system can run it. A reader is a file in `readers/` that does not
import Onsight, so that it can be shipped with the exported file. Listing the registry does not import Keras.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from onsight.core.errors import ExportError, SpecError, unknown_name
from onsight.exporting.judge import Precision
from onsight.models.registry import MODELS

READERS = Path(__file__).parent / "readers"


class Format(NamedTuple):
    """One format of the registry."""

    file: str  # its name in export/
    description: str
    writer: str  # "module:function" inside this package
    writes: dict[str, str]  # package that writing imports -> what to install to get it
    reads: dict[str, str]  # the same for reading
    opened: str = ""  # if the format is a folder that is opened by a file in it, the name of that file
    backend: str = ""  # the only Keras backend that can write it
    precisions: tuple[Precision, ...] = ("float32",)  # the first is written where another one is asked for
    batches: tuple[int, ...] = (1, 7, 32)  # the batch sizes that a file is tested with
    asked: int = 0  # validation images that a file is tested with, where its runtime is too slow for all; 0: all
    macos: bool = False  # whether only macOS can run it; elsewhere it is written, but not tested

    @property
    def runs_here(self) -> bool:
        """Whether this system can run such a file."""
        return sys.platform == "darwin" or not self.macos


EXPORT = "onsight[export]"
FORMATS: dict[str, Format] = {
    "litert": Format(
        "model.tflite",
        "LiteRT (TensorFlow Lite): phones, Python without a framework; int8 also for microcontrollers",
        "write_litert:write_litert",
        {"ai_edge_litert": "ai-edge-litert"},
        {"ai_edge_litert": "ai-edge-litert"},
        precisions=("float32", "float16", "int8"),
    ),
    "onnx": Format(
        "model.onnx",
        "ONNX: ONNX Runtime, and most other runtimes",
        "write_onnx:write_onnx",
        {"tf2onnx": EXPORT, "onnx": EXPORT},
        {"onnxruntime": EXPORT},
        backend="tensorflow",
    ),
    "saved_model": Format(
        "saved_model",
        "TensorFlow SavedModel: TensorFlow Serving",
        "write_saved_model:write_saved_model",
        {},
        {"tensorflow": "onsight[tensorflow]"},
        backend="tensorflow",
    ),
    "keras": Format(
        "model.keras",
        "Keras 3, with standard layers only: to continue training anywhere",
        "write_keras:write_keras",
        {},
        {"keras": "onsight[tensorflow] or onsight[jax]"},
    ),
    "openvino": Format(
        "openvino",
        "OpenVINO: Intel processors",
        "write_openvino:write_openvino",
        {"openvino": EXPORT},
        {"openvino": EXPORT},
        opened="model.xml",
    ),
    "web": Format(
        "model.html",
        "a web page that works offline: classifies images from disk, clipboard or camera",
        "write_web:write_web",
        {"ai_edge_litert": "ai-edge-litert"},
        {"ai_edge_litert": "ai-edge-litert"},
        precisions=("float32", "float16", "int8"),
    ),
    "coreml": Format(
        "model.mlpackage",
        "Core ML: apps on iPhone, iPad and Mac",
        "write_coreml:write_coreml",
        {"coremltools": "coremltools>=9"},
        {"coremltools": "coremltools>=9"},
        backend="tensorflow",
        batches=(1,),
        asked=192,
        macos=True,
    ),
    "c": Format(
        "classifier",
        "C++ for microcontrollers, with TensorFlow Lite Micro: the model as an array, and an Arduino sketch",
        "write_c:write_c",
        {"ai_edge_litert": "ai-edge-litert", "ai_edge_quantizer": EXPORT, "tflite_micro": EXPORT},
        {"tflite_micro": EXPORT},
        opened="model.cc",
        precisions=("int8",),
        batches=(1,),
        asked=192,
    ),
}


def check_formats(names: list[str], precision: Precision) -> None:
    """Raise an error if `names` cannot be exported.

    Raises:
        SpecError: a format is unknown, or none of the formats has the precision.
        ExportError: a package that a format needs is not installed.
    """
    for name in names:
        if name not in FORMATS:
            raise SpecError(unknown_name("format", name, FORMATS))
        format_ = FORMATS[name]
        needed = format_.writes | format_.reads
        if format_.backend:
            needed = needed | {format_.backend: f"onsight[{format_.backend}]"}
        if precision != "float32" and precision in format_.precisions:
            needed = needed | {"ai_edge_quantizer": EXPORT}
        if missing := [package for package in needed if not find_spec(package)]:
            wanted = " ".join(sorted({f"'{needed[package]}'" for package in missing}))
            raise ExportError(f"{name} needs {', '.join(missing)}. Install: pip install {wanted}")
        if name == "web":
            from onsight.exporting.write_web import require_litert

            require_litert()
    if precision != "float32" and not any(precision in FORMATS[name].precisions for name in names):
        supported = ", ".join(name for name, format_ in FORMATS.items() if precision in format_.precisions)
        raise SpecError(f"--precision {precision} is for {supported}, not for {', '.join(names)}.")


def precision_of(name: str, asked: Precision) -> Precision:
    """Return the precision that a format is written in where `asked` was asked for."""
    precisions = FORMATS[name].precisions
    return asked if asked in precisions else precisions[0]


def file_name(name: str, precision: Precision) -> str:
    """Return the file name of a format and precision in export/, such as model.tflite or model-int8.tflite."""
    stem, dot, suffix = FORMATS[name].file.partition(".")
    return stem + ("" if precision == FORMATS[name].precisions[0] else f"-{precision}") + dot + suffix


def write(name: str, model_folder: Path, path: Path, precision: Precision, images: np.ndarray) -> None:
    """Write a format. If it needs another Keras backend than this process has, write it in a new process.

    Args:
        name: the format, a key of `FORMATS`.
        model_folder: the model folder of the run.
        path: the file or folder to write. It must not exist yet.
        precision: the precision of the weights and, with int8, of the computation.
        images: (n, H, W, 3) uint8 training images, from which int8 takes the ranges of its values.

    Raises:
        ExportError: a converter failed.
    """
    from onsight.core.silence import without_logs
    from onsight.models.litert_file import failures_named

    backend = FORMATS[name].backend
    if backend and os.environ.get("KERAS_BACKEND") != backend:
        write_elsewhere(name, model_folder, path, backend)
        return
    module, function = FORMATS[name].writer.split(":")
    with without_logs(), failures_named(name):
        getattr(import_module(f".{module}", __package__), function)(model_folder, path, precision, images)


def write_elsewhere(name: str, model_folder: Path, path: Path, backend: str) -> None:
    """Write a format in a new process with another Keras backend.

    Raises:
        ExportError: the process failed. The message ends with its last line.
    """
    words = [sys.executable, "-m", "onsight.exporting.formats", name, str(model_folder), str(path)]
    environment = os.environ | {"KERAS_BACKEND": backend} | own_network(model_folder)
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ExportError(f"{name} could not be written with {backend}: {last}")


def own_network(model_folder: Path) -> dict[str, str]:
    """Return the environment variables by which a new process finds the run's custom network; empty if it has none."""
    from onsight.models.model_file import read_description

    entry = MODELS.get(read_description(model_folder).model)
    if entry is None or entry.build is None:
        return {}
    return {"ONSIGHT_IMPORT": entry.function.partition(":")[0], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def main() -> None:
    """Write one format. This runs in the process that `write_elsewhere` starts."""
    from onsight.core.backend import use_backend
    from onsight.core.silence import without_logs
    from onsight.models.custom import import_own

    import_own()
    name, model_folder, path = sys.argv[1:]
    use_backend()
    with without_logs():
        module, function = FORMATS[name].writer.split(":")
        no_images = np.zeros((0, 1, 1, 3), np.uint8)
        getattr(import_module(f".{module}", "onsight.exporting"), function)(
            Path(model_folder), Path(path), "float32", no_images
        )


if __name__ == "__main__":
    main()
