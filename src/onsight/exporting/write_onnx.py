"""The writer of ONNX files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from onsight.core.files import write_atomic
from onsight.exporting.judge import Precision
from onsight.exporting.write_litert import run_name
from onsight.exporting.write_saved_model import tensorflow_function
from onsight.models.model_file import ModelDescription


def write_onnx(model_folder: Path, path: Path, precision: Precision, images: np.ndarray) -> None:
    """Write an ONNX file with tf2onnx. Its metadata holds what `contract.json` says about the answers."""
    from onsight.models.fold_batch_norm import fold_batch_norms
    from onsight.models.model_file import load_model, read_description

    made = to_onnx(*tensorflow_function(fold_batch_norms(load_model(model_folder, distance=True))))
    add_metadata(made, read_description(model_folder), run_name(model_folder))
    write_atomic(path, made.SerializeToString())


def add_metadata(made: Any, description: ModelDescription, name: str) -> None:
    """Name the graph after the run and the first axis of its input and outputs `batch`, and add metadata, in place."""
    from onnx import helper

    made.graph.name = name
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    facts = {
        "labels": json.dumps(description.classes, ensure_ascii=False),
        "geometry": description.geometry,
        "threshold": description.threshold,
        "distance_threshold": description.distance_threshold,
        "weights_sha256": description.weights_sha256,
    }
    helper.set_model_props(made, {key: str(value) for key, value in facts.items() if value is not None})


def to_onnx(function: Any, signature: list[Any]) -> Any:
    """Return the ONNX model of a tf.function. What the function has captured becomes constants of the file.

    tf2onnx makes constants of variables, and inputs of other tensors, such as the mean of a Normalization layer.
    """
    import tf2onnx
    from onnx import numpy_helper

    # Version 17 of the operation set: every runtime of recent years supports it, and it has all operations we need.
    made, _ = tf2onnx.convert.from_function(
        function, input_signature=signature, opset=17, custom_op_handlers={"Erfc": (complement_erf, [])}
    )
    captured = {inside.name: outside for outside, inside in function.get_concrete_function().graph.captures}
    used = {name for node in made.graph.node for name in node.input}
    for value in [each for each in made.graph.input if each.name in captured]:
        made.graph.input.remove(value)
        if value.name in used:  # onnxruntime warns of others
            made.graph.initializer.append(numpy_helper.from_array(captured[value.name].numpy(), value.name))
    return made


def complement_erf(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Replace TensorFlow's Erfc, which gelu uses and tf2onnx does not support, by 1 - Erf."""
    inputs, outputs = list(node.input), list(node.output)
    shapes, types = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    one = graph.make_const(f"{name}/one", np.ones((), np.float32)).output
    erf = graph.make_node("Erf", inputs, shapes=shapes, dtypes=types).output
    graph.make_node("Sub", [one[0], erf[0]], name=name, outputs=outputs, shapes=shapes, dtypes=types)
