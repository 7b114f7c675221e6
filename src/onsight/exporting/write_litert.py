"""The writer of .tflite files: the run's own in float32, or quantized to float16 or int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onsight.core.files import write_atomic
from onsight.core.silence import without_python_output
from onsight.exporting.judge import Precision


def write_litert(model_folder: Path, path: Path, precision: Precision, images: np.ndarray) -> None:
    """Write a .tflite file: the run's own in float32, or a quantized one."""
    content = litert_content(model_folder)
    if precision != "float32":
        content = quantized(content, precision, images)
    write_atomic(path, content)


def litert_content(model_folder: Path) -> bytes:
    """Return the content of the run's verified .tflite file. If training wrote none, convert the model."""
    from onsight.inference.engines import read_litert
    from onsight.models.litert_file import convert
    from onsight.models.model_file import load_model, read_description

    description = read_description(model_folder)
    if description.litert_sha256:
        return read_litert(model_folder, description)
    names = ("probabilities", "distance") if description.prototypes else ("probabilities",)
    return convert(load_model(model_folder, distance=True), names)


def quantized(content: bytes, precision: Precision, images: np.ndarray) -> bytes:
    """Return a float32 .tflite file with float16 weights, or with int8 weights and activations except for softmax.

    Softmax stays in float32. In int8 it would have only 256 different probabilities, none of them between 0 and 0.4 %.
    So does what follows the features up to the distance, with int8 prototypes. In int8 the distance would end at the
    largest one of the training images, which may be below the threshold.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe

    made = quantizer.Quantizer(content)
    with without_python_output():
        if precision == "int8":
            made.load_quantization_recipe(recipe.static_wi8_ai8())
            for operation in (qtyping.TFLOperationName.SOFTMAX, qtyping.TFLOperationName.OUTPUT):
                made.update_quantization_recipe(regex=".*", operation_name=operation, algorithm_key="no_quantize")
            if distance := distance_values(content):
                tail = f"^({'|'.join(distance)});?$"
                made.update_quantization_recipe(
                    regex=tail, operation_name=qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key="no_quantize"
                )
                made.add_weight_only_config(
                    regex=tail, operation_name=qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8
                )
            result = made.quantize(value_ranges(made, images))
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
    return shared_zero_points(bytes(result.quantized_model))


def distance_values(content: bytes) -> list[str]:
    """Return the names of the values in a .tflite file on which the output `distance` depends, but no other output."""
    from onsight.models.litert_file import parse

    graph = parse(content).subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]

    def needed(output: int) -> set[int]:
        found = {output}
        for operator in reversed(graph.operators):  # they are in the order of execution
            if found & set(operator.outputs):
                found |= set(operator.inputs)
        return found

    both = {names[output]: needed(output) for output in graph.outputs}
    alone = both.pop("distance", set()).difference(*both.values())
    return [names[index] for operator in graph.operators for index in operator.outputs if index in alone]


def shared_zero_points(content: bytes) -> bytes:
    """Return a .tflite file that holds equal lists of zero points once.

    The quantizer writes a list for each tensor, 8 bytes for each channel. Nearly all are zeros. In int8 they are a
    twelfth of `efficientnet_lite0`.
    """
    import flatbuffers

    from onsight.models.litert_file import pack, parse

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        known: dict[bytes, int]

        def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802  (the name of the parent's)
            if x.dtype != np.int64:
                return int(super().CreateNumpyVector(x))
            if x.tobytes() not in self.known:
                self.known[x.tobytes()] = super().CreateNumpyVector(x)
            return self.known[x.tobytes()]

    builder = Builder(len(content))
    builder.known = {}
    return pack(parse(content), builder)


def value_ranges(quantizer: Any, images: np.ndarray) -> dict[str, Any]:
    """Return the smallest and largest value of every tensor over all images: {name: {"min": …, "max": …}}.

    By default the quantizer averages the ranges of the samples. Then the largest logits are all clipped to the same
    value, the first of these classes wins, and the last classes lose. This cost `cnn` on CIFAR-10 5.15 points of
    accuracy, and its class truck 19.9.
    """
    step = max(1, 2**18 // images[0, :, :, 0].size)  # limits the memory: the quantizer keeps every tensor of a step
    found: dict[str, Any] = {}
    for start in range(0, len(images), step):
        for name, seen in quantizer.calibrate({"serving_default": [{"image": images[start : start + step]}]}).items():
            known = found.setdefault(name, seen)
            found[name] = {
                "min": np.minimum(known["min"], seen["min"]),
                "max": np.maximum(known["max"], seen["max"]),
            }
    return found
