"""The writer of OpenVINO models: model.xml and model.bin, converted from the .tflite file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from onsight.exporting.formats import FORMATS
from onsight.exporting.judge import Precision
from onsight.exporting.write_litert import litert_content


def write_openvino(model_folder: Path, path: Path, precision: Precision, images: np.ndarray) -> None:
    """Write OpenVINO's model.xml and model.bin, converted from the .tflite file."""
    import openvino

    made = to_openvino(litert_content(model_folder))
    for result in made.get_results():
        if result.output(0).get_partial_shape().rank.get_length() == 1:  # distances; here are probabilities only
            made.remove_result(result)
    made.inputs[0].get_tensor().set_names({"image"})
    made.outputs[0].get_tensor().set_names({"probabilities"})
    path.mkdir()
    openvino.save_model(made, str(path / FORMATS["openvino"].opened), compress_to_fp16=False)


def to_openvino(content: bytes) -> Any:
    """Return the content of a .tflite file as an OpenVINO model.

    This does not use `openvino.convert_model`, which reports its use over the network.
    """
    import openvino

    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "model.tflite"  # OpenVINO recognises the format by the suffix
        source.write_bytes(content)
        made = openvino.Core().read_model(source)
    pool_first(made)
    return made


def pool_first(model: Any) -> None:
    """Insert a maximum with the smallest float32 after each max-pooling that no convolution or ReLU follows, in place.

    The maximum changes no value. It works around a fault of OpenVINO 2026.4's CPU plugin, which computes convolution,
    max-pooling and activation in another order, with the pooling last. That is right for activations that never
    decrease, and wrong for silu, gelu, hard silu and mish. The plugin does not move a pooling past a maximum.
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
