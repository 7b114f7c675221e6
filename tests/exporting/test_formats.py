import re
import subprocess
import sys

import numpy as np
import pytest

from onsight.exporting import write_openvino
from onsight.exporting.formats import FORMATS, READERS, file_name
from onsight.exporting.write_onnx import to_onnx
from onsight.exporting.write_openvino import to_openvino
from onsight.models.litert_file import convert


def test_listing_the_registry_imports_no_framework():
    code = (
        "import sys, onsight.exporting.formats, onsight.exporting.export; "
        "print([m for m in ('keras', 'tensorflow', 'jax', 'onnx', 'openvino', 'ai_edge_litert') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_file_names_are_unique():
    names = [file_name(name, precision) for name in FORMATS for precision in FORMATS[name].precisions]
    assert len(set(names)) == len(names)
    assert file_name("litert", "int8") == "model-int8.tflite"
    assert file_name("saved_model", "float32") == "saved_model"


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_has_a_reader_that_does_not_import_onsight(name):
    source = (READERS / f"read_{name}.py").read_text()
    assert re.search(r"def open_model\(\s*path", source)
    assert "import onsight" not in source
    assert "from onsight" not in source


def test_gelu_can_be_converted_to_onnx():
    """TensorFlow computes gelu with Erfc, which tf2onnx does not support."""
    import keras
    import onnxruntime
    import tensorflow as tf

    signature = [tf.TensorSpec((None,), tf.float32, name="x")]
    function = tf.function(lambda x: {"y": keras.activations.gelu(x)}, input_signature=signature)
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    session = onnxruntime.InferenceSession(to_onnx(function, signature).SerializeToString())
    np.testing.assert_allclose(session.run(["y"], {"x": x})[0], function(x)["y"], atol=1e-6)


def test_tf2onnx_still_lacks_erfc():
    """When this fails, tf2onnx converts gelu itself: remove `write_onnx.complement_erf`."""
    import keras
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec((None,), tf.float32, name="x")]
    function = tf.function(lambda x: {"y": keras.activations.gelu(x)}, input_signature=signature)
    made, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
    assert "Erfc" in {node.op_type for node in made.graph.node}  # ONNX has no such operator


def test_tensors_that_a_function_has_captured_are_constants_in_onnx():
    """A Normalization layer holds tensors, not variables. EfficientNetV2 and ConvNeXt begin with one."""
    import keras
    import onnxruntime
    import tensorflow as tf

    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Normalization(mean=[1, 2, 3], variance=[4, 5, 6])])
    signature = [tf.TensorSpec((None, 4, 4, 3), tf.float32, name="x")]
    function = tf.function(lambda x: {"y": model(x)}, input_signature=signature)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(to_onnx(function, signature).SerializeToString())
    np.testing.assert_allclose(session.run(["y"], {"x": x})[0], model(x), atol=1e-6)


def pooling_network(activation):
    """Return a network that pools before an activation."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    maps = layers.Conv2D(8, 3)(layers.Rescaling(1 / 32, offset=-4)(image))
    answer = layers.Activation(activation)(layers.MaxPooling2D()(maps))
    return keras.Model(image, layers.Dense(3, activation="softmax")(layers.Flatten()(answer)))


def openvino_difference(model):
    """Return the largest difference between a model's answers in OpenVINO and in Keras."""
    import openvino

    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    compiled = openvino.Core().compile_model(to_openvino(convert(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return abs(compiled(images)[0] - np.asarray(model(images))).max()


@pytest.mark.parametrize("activation", ["silu", "gelu", "hard_silu", "mish", "relu"])
def test_openvino_pools_before_the_activation(activation):
    """OpenVINO's CPU plugin pools the activations instead, which is wrong where an activation decreases."""
    assert openvino_difference(pooling_network(activation)) <= 1e-5


def test_openvino_still_pools_after_the_activation(monkeypatch):
    """When this fails, OpenVINO keeps the order: remove `write_openvino.pool_first`."""
    monkeypatch.setattr(write_openvino, "pool_first", lambda model: None)
    assert openvino_difference(pooling_network("silu")) > 1e-3
