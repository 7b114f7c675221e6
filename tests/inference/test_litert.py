import hashlib
import shutil

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edits import edit_model
from onsight.core.errors import ExportError
from onsight.exporting.quantize import quantized
from onsight.inference import litert
from onsight.inference.engines import LitertEngine
from onsight.inference.litert import add_litert
from onsight.inference.parity import edge_images
from onsight.models import litert_file
from onsight.models.litert_file import convert, fix_batch
from onsight.models.model_file import read_description, save_model
from onsight.models.registry import MODELS, build_model, classifier

pytestmark = pytest.mark.backend
ALLOWED = {
    "CAST", "MUL", "ADD", "CONV_2D", "MAX_POOL_2D", "FULLY_CONNECTED", "SOFTMAX", "RESHAPE", "SHAPE", "STRIDED_SLICE",
    "PACK", "MEAN", "LOGISTIC", "REDUCE_MAX", "PAD", "TRANSPOSE", "DELEGATE", "CONCATENATION", "DEPTHWISE_CONV_2D",
    "GELU", "NEG", "SUB", "RSQRT", "SQUARED_DIFFERENCE",
    "ABS", "DIV", "EXP", "LESS", "SELECT", "SELECT_V2", "SUM",  # of GELU, converted by JAX
}  # fmt: skip


@pytest.fixture
def folder(toy_run, tmp_path):
    """A copy of the trained model's folder without its .tflite file, as `save_model` writes it."""
    copy = tmp_path / "model"
    shutil.copytree(toy_run.model_folder, copy)
    (copy / "model.tflite").unlink()
    edit_model(copy, litert_sha256=None)
    return copy


def test_training_writes_a_verified_file(toy_run):
    content = (toy_run.model_folder / "model.tflite").read_bytes()
    assert read_description(toy_run.model_folder).litert_sha256 == hashlib.sha256(content).hexdigest()


FAST = ["cnn", "cnn_compact", "whitened"]


# onsight.testing compares the answers of every file with those of Keras. This test also checks the content of the file.
@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in MODELS
        if "pretrained" not in MODELS[name].function
    ],
)
def test_every_network_answers_as_keras_does_at_any_batch_size(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = build_model(name, 32, 3)
    save_model(tmp_path, model, ("a", "b", "c"))
    answering = classifier(model, 1.7)
    content = convert(answering)
    interpreter = Interpreter(model_content=content)
    names = {operation["op_name"] for operation in interpreter._get_ops_details()}
    assert names <= ALLOWED  # no operation needs TensorFlow or broadcasts an unknown batch
    (given,) = interpreter.get_input_details()
    assert given["shape_signature"].tolist() == [-1, 32, 32, 3]
    images = np.concatenate([edge_images(32)] * 3)
    expected = np.asarray(answering.predict_on_batch(images))
    assert convert(answering) == content  # the same bytes each time: a resumed training must equal an uninterrupted one
    engine = LitertEngine(content, read_description(tmp_path))
    for count in (1, 7, 36, 2):
        np.testing.assert_allclose(engine.probabilities(images[:count]), expected[:count], atol=1e-5)


class Halves(keras.layers.Layer):
    """Computes 5 features of the upper and of the lower half of each image, as of two images."""

    def call(self, image):
        halves = keras.ops.reshape(keras.ops.cast(image, "float32") / 255, (-1, 384))
        kernel = np.random.default_rng(0).normal(0, 0.05, (384, 5)).astype("float32")
        return keras.ops.reshape(keras.ops.matmul(halves, kernel), (-1, 10))


def test_only_the_batch_of_what_is_computed_becomes_free():
    """The number of classes is the batch size while converting, and a layer doubles the batch."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    logits = keras.layers.Dense(litert_file.BATCH, name="logits")(Halves()(image))
    model = classifier(keras.Model(image, logits))
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    interpreter = Interpreter(model_content=convert(model))
    (given,), (answered,) = interpreter.get_input_details(), interpreter.get_output_details()
    for size in (1, 2, 5):
        interpreter.resize_tensor_input(given["index"], (size, 16, 16, 3))
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], images[:size])
        interpreter.invoke()
        found = interpreter.get_tensor(answered["index"])
        np.testing.assert_allclose(found, np.asarray(model(images[:size])), atol=1e-6)


class Loop(keras.layers.Layer):
    """Halves each image until its largest value is below 1."""

    def call(self, image):
        x = keras.ops.cast(image, "float32")
        return keras.ops.while_loop(lambda x: keras.ops.max(x) > 1, lambda x: (x / 2,), (x,))[0]


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="the converter from JAX refuses loops itself")
def test_a_file_of_several_graphs_is_not_changed():
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    logits = keras.layers.Dense(3, name="logits")(keras.layers.Flatten()(Loop()(image)))
    with pytest.raises(ExportError, match=r"has 3 graphs, .* must have no loop"):
        convert(classifier(keras.Model(image, logits)))


def test_a_file_with_other_answers_is_not_kept(folder, monkeypatch):
    untrained, other = (convert(classifier(build_model("cnn", 32, classes), 1.0)) for classes in (3, 4))
    for content, why in (
        (untrained, "differ from Keras'"),
        (other, "model.json describes"),
        (b"nothing", "it does not begin as a .tflite file"),
    ):
        monkeypatch.setattr(litert, "convert", lambda model, outputs, content=content: content)
        assert why in add_litert(folder, edge_images(32))
        assert not (folder / "model.tflite").exists()
        assert read_description(folder).litert_sha256 is None


def test_a_file_without_softmax_is_not_kept(folder, monkeypatch):
    """Its likeliest classes are right, and its answers are close to those of a model with low confidence."""
    model = build_model("cnn", 32, 3)
    monkeypatch.setattr(litert, "convert", lambda _, outputs: convert(model, outputs))
    assert "are not probabilities" in add_litert(folder, edge_images(32))
    assert not (folder / "model.tflite").exists()


def test_a_failing_converter_does_not_fail_the_training(folder, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of\nluck")

    monkeypatch.setattr(litert_file, "from_tensorflow", fail)
    monkeypatch.setattr(litert_file, "from_jax", fail)
    assert "RuntimeError: out of" in add_litert(folder, edge_images(32))
    assert not (folder / "model.tflite").exists()


@pytest.mark.filterwarnings("ignore:Warning. Enabling .experimental_preserve_all_tensors")  # of the quantizer
def test_micro_fits_a_microcontroller():
    """`micro` takes less than 100 kB in int8. The web page needs the batch size fixed to 1."""
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    content = quantized(convert(classifier(build_model("micro", 32, 10))), "int8", images)
    assert len(content) < 100_000
    fixed = Interpreter(model_content=fix_batch(content))
    assert fixed.get_input_details()[0]["shape_signature"].tolist() == [1, 32, 32, 3]
