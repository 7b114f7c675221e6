"""The registry of export formats: what each one is, who writes it, and what reads it.

A writer takes (folder of the model, path to write, precision, training pictures) and writes one file or folder: uint8
RGB (batch, H, W, 3) named `image` in, float32 probabilities (batch, classes) named `probabilities` out, with
normalisation, temperature and softmax inside. It need not be right: `exporting` compares with Keras and refuses.
A reader is a file of `readers/` that knows nothing of Onsight, so that it can be given away.
Listing the registry imports no Keras.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from onsight.core.errors import ExportError, SpecError, unknown_name
from onsight.core.files import write_atomic
from onsight.inference.parity import Precision
from onsight.models.registry import MODELS

if TYPE_CHECKING:
    import keras


READERS = Path(__file__).parent / "readers"


class Format(NamedTuple):
    """One format of the registry."""

    file: str  # what it is called in export/
    description: str
    writer: str  # "module:function" inside this package
    writes: dict[str, str]  # package that writing imports -> what to install for it
    reads: dict[str, str]  # likewise, reading
    opened: str = ""  # the file inside, where the format is a folder that is opened by one
    backend: str = ""  # the only Keras backend that can write it
    precisions: tuple[Precision, ...] = ("float32",)


EXPORT = "onsight[export]"
FORMATS: dict[str, Format] = {
    "litert": Format(
        "model.tflite",
        "LiteRT (TensorFlow Lite): phones, microcontrollers, Python without a framework",
        "formats:write_litert",
        {"ai_edge_litert": "ai-edge-litert"},
        {"ai_edge_litert": "ai-edge-litert"},
        precisions=("float32", "float16", "int8"),
    ),
    "onnx": Format(
        "model.onnx",
        "ONNX: ONNX Runtime, and most other runtimes",
        "formats:write_onnx",
        {"tf2onnx": EXPORT, "onnx": EXPORT},
        {"onnxruntime": EXPORT},
        backend="tensorflow",
    ),
    "saved_model": Format(
        "saved_model",
        "TensorFlow SavedModel: TensorFlow Serving",
        "formats:write_saved_model",
        {},
        {"tensorflow": "onsight[tensorflow]"},
        backend="tensorflow",
    ),
    "keras": Format(
        "model.keras",
        "Keras 3, of standard layers only: to go on training anywhere",
        "formats:write_keras",
        {},
        {"keras": "onsight[tensorflow] or onsight[jax]"},
    ),
    "openvino": Format(
        "openvino",
        "OpenVINO: Intel processors",
        "formats:write_openvino",
        {"openvino": EXPORT},
        {"openvino": EXPORT},
        opened="model.xml",
    ),
    "web": Format(
        "model.html",
        "a page for browsers that needs no network: pictures from disk, clipboard or camera",
        "write_web:write_web",
        {"ai_edge_litert": "ai-edge-litert"},
        {"ai_edge_litert": "ai-edge-litert"},
        precisions=("float32", "float16", "int8"),
    ),
}


def check_formats(names: list[str], precision: Precision) -> None:
    """Raise SpecError or ExportError where a format is unknown, cannot have the precision, or needs what is missing."""
    for name in names:
        if name not in FORMATS:
            raise SpecError(unknown_name("format", name, FORMATS))
        format_ = FORMATS[name]
        needed = format_.writes | format_.reads
        if precision != "float32" and precision in format_.precisions:
            needed = needed | {"ai_edge_quantizer": EXPORT}
        if missing := [package for package in needed if not find_spec(package)]:
            wanted = " ".join(sorted({f"'{needed[package]}'" for package in missing}))
            raise ExportError(f"{name} needs {', '.join(missing)}. Install: pip install {wanted}")
        if name == "web":
            from onsight.exporting.write_web import require_litert

            require_litert()
    if not any(precision in FORMATS[name].precisions for name in names):
        able = ", ".join(name for name, format_ in FORMATS.items() if precision in format_.precisions)
        raise SpecError(f"--precision {precision} is for: {able}; not for {', '.join(names)}.")


def file_name(name: str, precision: Precision) -> str:
    """Return what a format in a precision is called in export/: model.tflite, model-int8.tflite."""
    stem, dot, suffix = FORMATS[name].file.partition(".")
    return stem + ("" if precision == "float32" else f"-{precision}") + dot + suffix


def write(name: str, model_folder: Path, path: Path, precision: Precision, pictures: np.ndarray) -> None:
    """Write a format, in this process or, where its Keras backend is another one, in a process with that.

    Args:
        name: of `FORMATS`.
        model_folder: the run's.
        path: to write; nothing is there.
        precision: of the weights and, with int8, of what is computed.
        pictures: (n, H, W, 3) uint8 training pictures, for int8 to learn the ranges of values from.

    Raises:
        ExportError: something is not installed, or a converter failed.
    """
    from onsight.inference.litert import failures_named, quiet

    backend = FORMATS[name].backend
    if backend and os.environ.get("KERAS_BACKEND") != backend:
        write_elsewhere(name, model_folder, path, backend)
        return
    module, function = FORMATS[name].writer.split(":")
    with quiet(), failures_named(name):
        getattr(import_module(f".{module}", __package__), function)(model_folder, path, precision, pictures)


def write_elsewhere(name: str, model_folder: Path, path: Path, backend: str) -> None:
    """Write a format in a new process with another Keras backend.

    Raises:
        ExportError: that backend is not installed, or its process failed; the message ends with its last line.
    """
    if not find_spec(backend):
        raise ExportError(f"{name} is written by way of {backend}. Install: pip install 'onsight[{backend},export]'")
    words = [sys.executable, "-m", "onsight.exporting.formats", name, str(model_folder), str(path)]
    environment = os.environ | {"KERAS_BACKEND": backend} | own_network(model_folder)
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ExportError(f"{name} could not be written by way of {backend}: {last}")


def own_network(model_folder: Path) -> dict[str, str]:
    """Return the settings by which a new process finds the user's own network that this one has; else nothing."""
    from onsight.models.model_file import read_description

    entry = MODELS.get(read_description(model_folder).model)
    if entry is None or entry.build is None:
        return {}
    return {"ONSIGHT_IMPORT": entry.function.partition(":")[0], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def write_litert(model_folder: Path, path: Path, precision: Precision, pictures: np.ndarray) -> None:
    """Write a .tflite file: the run's own, or that one quantized."""
    content = litert_content(model_folder)
    if precision != "float32":
        content = quantized(content, precision, pictures)
    write_atomic(path, content)


def litert_content(model_folder: Path) -> bytes:
    """Return the run's verified .tflite file, or make one where training left none."""
    from onsight.inference.engines import read_litert
    from onsight.inference.litert import convert
    from onsight.models.model_file import load_model, read_description

    description = read_description(model_folder)
    return read_litert(model_folder, description) if description.litert_sha256 else convert(load_model(model_folder))


def quantized(content: bytes, precision: Precision, pictures: np.ndarray) -> bytes:
    """Return a float32 .tflite file as one with float16 weights, or as one of integers throughout but for softmax.

    Softmax stays in float32: as an int8 it would know 256 probabilities, none of them between 0 and 0.4 %.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe

    made = quantizer.Quantizer(content)
    with hushed_output():
        if precision == "int8":
            made.load_quantization_recipe(recipe.static_wi8_ai8())
            for operation in (qtyping.TFLOperationName.SOFTMAX, qtyping.TFLOperationName.OUTPUT):
                made.update_quantization_recipe(regex=".*", operation_name=operation, algorithm_key="no_quantize")
            result = made.quantize(value_ranges(made, pictures))
        else:
            made.update_quantization_recipe(
                regex=".*",
                operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
                op_config=qtyping.OpQuantizationConfig(
                    weight_tensor_config=qtyping.TensorQuantizationConfig(
                        num_bits=16, dtype=qtyping.TensorDataType.FLOAT
                    ),
                    compute_precision=qtyping.ComputePrecision.FLOAT,
                    explicit_dequantize=True,
                ),
                algorithm_key="float_casting",
            )
            result = made.quantize()
    return bytes(result.quantized_model)


def value_ranges(quantizer: Any, pictures: np.ndarray) -> dict[str, Any]:
    """Return the least and the greatest value of every tensor over all pictures: {name: {"min": …, "max": …}}.

    Left to itself the quantizer averages the ranges of the samples. Then the largest logits are cut off alike, the
    first class of them wins, and the last classes lose (`cnn` on CIFAR-10: 5.15 points of accuracy, truck alone 19.9).
    """
    step = max(1, 2**18 // pictures[0, :, :, 0].size)  # every tensor is kept meanwhile
    found: dict[str, Any] = {}
    for start in range(0, len(pictures), step):
        for name, seen in quantizer.calibrate({"serving_default": [{"image": pictures[start : start + step]}]}).items():
            known = found.setdefault(name, seen)
            found[name] = {
                "min": np.minimum(known["min"], seen["min"]),
                "max": np.maximum(known["max"], seen["max"]),
            }
    return found


def write_onnx(model_folder: Path, path: Path, precision: Precision, pictures: np.ndarray) -> None:
    """Write an ONNX file with tf2onnx."""
    from onsight.models.fold_batch_norm import fold_batch_norms
    from onsight.models.model_file import load_model

    write_atomic(path, to_onnx(*tensorflow_function(fold_batch_norms(load_model(model_folder)))))


def to_onnx(function: Any, signature: list[Any]) -> bytes:
    """Return a tf.function as an ONNX file."""
    import tf2onnx

    # Version 17 of the operations: every runtime of the last years has it, and it holds all that we need.
    made, _ = tf2onnx.convert.from_function(
        function, input_signature=signature, opset=17, custom_op_handlers={"Erfc": (complement_erf, [])}
    )
    content: bytes = made.SerializeToString()
    return content


def complement_erf(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Replace TensorFlow's Erfc, which gelu has and tf2onnx does not know, by 1 - Erf."""
    inputs, outputs = list(node.input), list(node.output)
    shapes, types = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    one = graph.make_const(f"{name}/one", np.ones((), np.float32)).output
    erf = graph.make_node("Erf", inputs, shapes=shapes, dtypes=types).output
    graph.make_node("Sub", [one[0], erf[0]], name=name, outputs=outputs, shapes=shapes, dtypes=types)


def write_saved_model(model_folder: Path, path: Path, precision: Precision, pictures: np.ndarray) -> None:
    """Write a TensorFlow SavedModel with the one signature serving_default."""
    import tensorflow as tf

    from onsight.models.model_file import load_model

    model = load_model(model_folder)
    holder = tf.Module()
    holder.weights = [weight.value for weight in model.weights]  # what is saved is what is held
    holder.answer, _ = tensorflow_function(model)
    tf.saved_model.save(holder, str(path), signatures={"serving_default": holder.answer.get_concrete_function()})


def tensorflow_function(model: keras.Model) -> tuple[Any, list[Any]]:
    """Return a tf.function of the model with named input and output, and its signature."""
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="image")]
    function = tf.function(lambda image: {"probabilities": model(image, training=False)}, input_signature=signature)
    return function, signature


def write_keras(model_folder: Path, path: Path, precision: Precision, pictures: np.ndarray) -> None:
    """Write a .keras file that needs nothing but Keras: our layers become Keras' own, which compute the same."""
    import keras

    from onsight.core.backend import to_numpy
    from onsight.models.fold_batch_norm import plain_config
    from onsight.models.layers import standard
    from onsight.models.model_file import load_model

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        return standard(layer).from_config(plain_config(layer))

    model = load_model(model_folder)
    plain = keras.models.clone_model(model, clone_function=copy)
    plain.set_weights([to_numpy(weight) for weight in model.weights])
    plain.save(path)


def write_openvino(model_folder: Path, path: Path, precision: Precision, pictures: np.ndarray) -> None:
    """Write OpenVINO's model.xml and model.bin, read from the .tflite file."""
    import openvino

    made = to_openvino(litert_content(model_folder))
    made.inputs[0].get_tensor().set_names({"image"})
    made.outputs[0].get_tensor().set_names({"probabilities"})
    path.mkdir()
    openvino.save_model(made, str(path / FORMATS["openvino"].opened), compress_to_fp16=False)


def to_openvino(content: bytes) -> Any:
    """Return a .tflite file's model as OpenVINO's.

    Not by `openvino.convert_model`: that one reports its use over the network.
    """
    import openvino

    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "model.tflite"  # it knows the format by the name
        source.write_bytes(content)
        made = openvino.Core().read_model(source)
    pool_first(made)
    return made


def pool_first(model: Any) -> None:
    """Put a maximum with the least float32, which changes nothing, behind each max-pooling that no convolution or ReLU
    follows, in place.

    OpenVINO 2026.4's processor plugin computes convolution, max-pooling, activation in another order, the pooling last:
    right for activations that never fall, wrong for silu, gelu, hard silu, mish. It does not look past a maximum.
    """
    from openvino import opset8

    least = opset8.constant(np.finfo(np.float32).min, np.float32)
    for node in model.get_ops():
        if node.get_type_name() == "MaxPool":
            readers = node.output(0).get_target_inputs()
            if any(reader.get_node().get_type_name() not in ("Convolution", "Relu") for reader in readers):
                same = opset8.maximum(node.output(0), least)
                for reader in readers:
                    reader.replace_source_output(same.output(0))


@contextlib.contextmanager
def hushed_output() -> Iterator[None]:
    """Keep a library's progress bars and greetings off both outputs."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def main() -> None:
    """Write one format in this process: what `write_elsewhere` starts."""
    from onsight.core.backend import use_backend
    from onsight.inference.litert import quiet
    from onsight.models.custom import import_own

    import_own()
    name, model_folder, path = sys.argv[1:]
    use_backend()
    with quiet():
        module, function = FORMATS[name].writer.split(":")
        nothing = np.zeros((0, 1, 1, 3), np.uint8)
        getattr(import_module(f".{module}", "onsight.exporting"), function)(
            Path(model_folder), Path(path), "float32", nothing
        )


if __name__ == "__main__":
    main()
