"""Quantization of a .tflite file to float16 weights, or to int8 weights and activations.

An int8 file also runs on TensorFlow Lite Micro, the runtime of microcontrollers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onsight.core.silence import without_python_output
from onsight.exporting.judge import Precision
from onsight.models.litert_file import pack, parse


def quantized(content: bytes, precision: Precision, images: np.ndarray) -> bytes:
    """Return a float32 .tflite file with float16 weights, or with int8 weights and activations except for softmax.

    The int8 file takes uint8 images, as the float32 file does.

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
            result = made.quantize(value_ranges(made, images) | pixel_range(content))
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
    model = parse(bytes(result.quantized_model))
    if precision == "int8":
        take_bytes(model)
        take_maxima_of_integers(model)
    return pack_sharing_zero_points(model)


def distance_values(content: bytes) -> list[str]:
    """Return the names of the values in a .tflite file on which the output `distance` depends, but no other output."""
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


def pixel_range(content: bytes) -> dict[str, Any]:
    """Return the range of the images as float32 for `Quantizer.quantize`: all 256 values, whatever was calibrated with.

    So one step of int8 is one step of uint8, and no value of a pixel is rounded.
    """
    graph = parse(content).subgraphs[0]
    return {
        graph.tensors[int(operator.outputs[0])].name.decode(): {"min": np.float32(0), "max": np.float32(255)}
        for operator in graph.operators
        if graph.inputs[0] in operator.inputs
    }


def take_bytes(model: Any) -> None:
    """Let an int8 model read its uint8 images as quantized values of scale 1, without a cast to float32.

    TensorFlow Lite Micro has no cast from uint8.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    image = int(graph.inputs[0])
    graph.tensors[image].quantization = schema.QuantizationParametersT(scale=[1.0], zeroPoint=[0])
    for cast in operators_of(model, schema.BuiltinOperator.CAST):
        if cast.inputs[0] == image:
            bypass(graph, cast, image)


def take_maxima_of_integers(model: Any) -> None:
    """Let an int8 model take the largest of quantized values instead of the largest of their float32 values.

    The quantizer knows no maximum over an image. The results are the same, because both have the same scale.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    makers = {int(each.outputs[0]): each for each in operators_of(model, schema.BuiltinOperator.DEQUANTIZE)}
    readers = {int(each.inputs[0]): each for each in operators_of(model, schema.BuiltinOperator.QUANTIZE)}
    for maximum in operators_of(model, schema.BuiltinOperator.REDUCE_MAX):
        before, after = makers.get(int(maximum.inputs[0])), readers.get(int(maximum.outputs[0]))
        if before is None or after is None:
            continue
        small, result = int(before.inputs[0]), int(after.outputs[0])
        if facts(graph.tensors[small]) == facts(graph.tensors[result]):
            maximum.inputs, maximum.outputs = [small, *maximum.inputs[1:]], [result]
            graph.operators.remove(after)
            bypass(graph, before, small)


def facts(tensor: Any) -> tuple[list[float], list[int]]:
    """Return the scale and the zero point of a quantized value."""
    return list(tensor.quantization.scale), list(tensor.quantization.zeroPoint)


def operators_of(model: Any, kind: int) -> list[Any]:
    """Return the operators of a kind, a `BuiltinOperator`, in the order of execution."""
    return [each for each in model.subgraphs[0].operators if model.operatorCodes[each.opcodeIndex].builtinCode == kind]


def bypass(graph: Any, operator: Any, value: int) -> None:
    """Let what reads the output of an operator read `value` instead. Remove the operator."""
    for each in graph.operators:
        each.inputs = [value if index == operator.outputs[0] else index for index in each.inputs]
    graph.operators.remove(operator)


def pack_sharing_zero_points(model: Any) -> bytes:
    """Return the bytes of a .tflite file, in which equal lists of zero points are held once.

    The quantizer writes a list for each tensor, 8 bytes for each channel. Nearly all are zeros. In int8 they are a
    twelfth of `efficientnet_lite0`.
    """
    import flatbuffers

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        known: dict[bytes, int]

        def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802  (the name of the parent's)
            if x.dtype != np.int64:
                return int(super().CreateNumpyVector(x))
            if x.tobytes() not in self.known:
                self.known[x.tobytes()] = super().CreateNumpyVector(x)
            return self.known[x.tobytes()]

    builder = Builder(1024)
    builder.known = {}
    return pack(model, builder)


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
