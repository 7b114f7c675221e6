import keras
import numpy as np
import pytest
from keras import layers

from onsight.core.backend import to_numpy
from onsight.models.fold_batch_norm import fold_batch_norms
from onsight.models.layers import BatchNormalization
from onsight.models.registry import build_model

pytestmark = pytest.mark.backend
RNG = np.random.default_rng(0)


def stir(model, low=0.5):
    """Set statistics and scales of every batch norm as training would."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(RNG.normal(0, 0.3, shape))
            layer.moving_variance.assign(RNG.uniform(0.5, 2, shape))
            if layer.scale:
                scales = RNG.uniform(low, 1.5, shape)
                scales[0] = low  # so that one is negative whenever `low` is
                layer.gamma.assign(scales)
            if layer.center:
                layer.beta.assign(RNG.normal(0, 0.3, shape))
    return model


def norms(model):
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def same(model, folded):
    images = RNG.integers(0, 256, (5, *model.input_shape[1:]), dtype=np.uint8)
    expected = np.asarray(model.predict_on_batch(images))
    np.testing.assert_allclose(np.asarray(folded.predict_on_batch(images)), expected, atol=1e-5, rtol=1e-5)


# The contract test in test_registry.py checks for every network that folding keeps its outputs.
@pytest.mark.parametrize("name", ["cnn", "cnn_compact", "whitened", "mobilenet_cifar"])
def test_all_batch_norms_of_a_network_are_folded(name):
    model = stir(build_model(name, 32, 3))
    before = [to_numpy(weight) for weight in model.weights]
    folded = fold_batch_norms(model)
    assert norms(folded) == []
    same(model, folded)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, to_numpy(new))


def test_a_batch_norm_after_a_sum_stays():
    folded = fold_batch_norms(build_model("wide_resnet16_4", 16, 3))
    behind = [folded.get_layer(name).input._keras_history.operation for name in norms(folded)]
    assert len(behind) == 6
    assert {type(layer).__name__ for layer in behind} == {"Add"}


@pytest.mark.parametrize(("multiplier", "bias"), [(1, False), (2, True)])
def test_a_batch_norm_after_a_depthwise_convolution_is_folded_into_it(multiplier, bias):
    image = keras.Input((8, 8, 3), dtype="uint8")
    x = layers.DepthwiseConv2D(3, depth_multiplier=multiplier, use_bias=bias)(layers.Rescaling(1 / 255)(image))
    model = stir(keras.Model(image, layers.ReLU()(BatchNormalization(name="norm")(x))), low=-1.5)
    folded = fold_batch_norms(model)
    assert norms(folded) == []
    same(model, folded)


def network(*between, scale=True, center=True):
    image = keras.Input((8, 8, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(4, 3, activation="relu", name="before")(x)
    x = BatchNormalization(name="norm", scale=scale, center=center)(x)
    for layer in between:
        x = layer(x)
    return keras.Model(image, x)


def test_the_layers_between_decide_whether_a_batch_norm_is_folded():
    pooled = (layers.MaxPooling2D(), layers.Conv2D(2, 2, padding="valid"), layers.Flatten(), layers.Dense(2))
    cases = {
        "pool": (pooled, 0.5, []),
        "a negative scale and a maximum": (pooled, -1.5, ["norm"]),
        "a negative scale alone": ((layers.Dropout(0.5), layers.Flatten(), layers.Dense(2)), -1.5, []),
        "padded with zeros": ((layers.Conv2D(2, 3, padding="same"), layers.GlobalAveragePooling2D()), 0.5, ["norm"]),
        "an activation": ((layers.ReLU(), layers.Flatten(), layers.Dense(2)), 0.5, ["norm"]),
    }
    for between, low, left in cases.values():
        model = stir(network(*between), low)
        folded = fold_batch_norms(model)
        assert norms(folded) == left
        same(model, folded)
    model = stir(network(layers.Flatten(), layers.Dense(2, use_bias=False), scale=False, center=False))
    assert norms(fold_batch_norms(model)) == []
    same(model, fold_batch_norms(model))


def test_a_batch_norm_on_one_branch_of_a_sum_stays():
    image = keras.Input((8, 8, 3), dtype="uint8")
    x = layers.Conv2D(4, 3, padding="same")(layers.Rescaling(1 / 255)(image))
    y = BatchNormalization(name="norm")(x)
    model = stir(keras.Model(image, layers.GlobalAveragePooling2D()(layers.Add()([x, y]))))
    folded = fold_batch_norms(model)
    assert norms(folded) == ["norm"]
    same(model, folded)
