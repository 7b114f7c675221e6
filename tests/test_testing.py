import keras
import numpy as np
import pytest
from keras import layers, ops

import onsight
from onsight.core.errors import SpecError
from onsight.models.layers import BatchNormalization
from onsight.models.registry import MODELS
from onsight.testing import age_batch_norms, check_model, require_same


class AcrossTheBatch(layers.Layer):
    """Breaks the contract: the output for an image depends on the other images in the batch."""

    def call(self, x):
        return x - ops.mean(x, axis=0, keepdims=True)


def network(image_size, num_classes, between):
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    x = layers.Conv2D(4, 3, strides=2, use_bias=False, name="conv")(layers.Rescaling(1 / 255, name="scale")(inputs))
    x = layers.ReLU(name="relu")(BatchNormalization(name="norm")(x))
    x = between(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(inputs, layers.Dense(num_classes, dtype="float32", name="logits")(x))


@pytest.fixture
def register():
    before = dict(MODELS)
    yield lambda between: onsight.model("mine")(lambda size, classes: network(size, classes, between))
    MODELS.clear()
    MODELS.update(before)


def test_a_network_that_keeps_the_contract_passes(register):
    register(lambda x: x)
    onsight.testing.check_model("mine", 24)
    check_model("mine", num_classes=2)


def test_logits_must_be_float32_in_bfloat16_training(register):
    @onsight.model("mine", largest=28)
    def mine(image_size, num_classes):
        whole = network(image_size, num_classes, lambda x: x)
        return keras.Model(whole.input, layers.Dense(num_classes, name="logits")(whole.layers[-2].output))

    with pytest.raises(SpecError, match="mine has bfloat16 logits"):
        check_model("mine")


def test_unknown_names_and_sizes_raise_the_errors_of_the_registry(register):
    with pytest.raises(SpecError, match="No model 'yours'"):
        check_model("yours")
    with pytest.raises(SpecError, match="cnn takes images of 22 to 256 px"):
        check_model("cnn", 300)


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (AcrossTheBatch(name="across"), "mine with other images in the batch gives other probabilities"),
        (layers.Rescaling(np.inf, name="much"), "NaN or infinite"),
    ],
)
def test_a_network_that_breaks_the_contract_is_refused(register, between, message):
    register(lambda x: type(between).from_config(between.get_config())(x))
    with pytest.raises(SpecError, match=message):
        check_model("mine", 24)


def test_aged_batch_norms_change_the_outputs():
    model = network(24, 3, lambda x: x)
    images = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), np.uint8)
    before = np.asarray(model.predict_on_batch(images))
    age_batch_norms(model)
    assert np.abs(np.asarray(model.predict_on_batch(images)) - before).max() > 1e-3


def test_differences_beyond_the_tolerance_raise_an_error():
    require_same("mine", "x", np.array([[0.5, 0.5]]), np.array([[0.500001, 0.499999]]))
    with pytest.raises(SpecError, match=r"mine loaded gives other probabilities: they differ by 0\.001, .* 0\.0001"):
        require_same("mine", "loaded", np.array([[0.501, 0.499]]), np.array([[0.5, 0.5]]))
    with pytest.raises(SpecError, match="nan"):
        require_same("mine", "loaded", np.array([[np.nan, 0.5]]), np.array([[0.5, 0.5]]))
