import json

import numpy as np
import pytest

from onsight.backend import to_numpy
from onsight.errors import SpecError
from onsight.models import MODELS, build_model, classifier, layer_table, prepare_model

pytestmark = pytest.mark.backend
PRETRAINED = [name for name, entry in MODELS.items() if entry.function.startswith("pretrained:")]  # test_pretrained.py


@pytest.mark.parametrize("name", [name for name in MODELS if name not in PRETRAINED])
@pytest.mark.parametrize(("size", "classes"), [("smallest", 2), (32, 10), (45, 3)])
def test_contract(name, size, classes):
    size = MODELS[name].smallest if size == "smallest" else size
    model = build_model(name, size, classes)
    assert model.name == name
    assert model.input_shape == (None, size, size, 3)
    assert model.input.dtype == "uint8"
    assert model.layers[-1].name == "logits"
    assert model.output_shape == (None, classes)
    pictures = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    logits = model.predict_on_batch(pictures)
    assert logits.dtype == np.float32
    probabilities = classifier(model, temperature=2.0).predict_on_batch(pictures)
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
    # A file's table of weights must be the same in every process.
    assert [w.path for w in model.weights] == [w.path for w in build_model(name, size, classes).weights]
    assert len({w.path for w in model.weights}) == len(model.weights)
    json.dumps(layer_table(model))


def test_the_tutorial_cnn_is_the_161098_parameter_table():
    rows = layer_table(build_model("cnn", 32, 10))
    assert [(row["type"], row["output_shape"], row["parameters"]) for row in rows] == [
        ("InputLayer", [32, 32, 3], 0),
        ("Rescaling", [32, 32, 3], 0),
        ("Conv2D", [30, 30, 32], 896),
        ("BatchNormalization", [30, 30, 32], 128),
        ("MaxPooling2D", [15, 15, 32], 0),
        ("Conv2D", [13, 13, 64], 18_496),
        ("BatchNormalization", [13, 13, 64], 256),
        ("MaxPooling2D", [6, 6, 64], 0),
        ("Conv2D", [4, 4, 128], 73_856),
        ("BatchNormalization", [4, 4, 128], 512),
        ("MaxPooling2D", [2, 2, 128], 0),
        ("Flatten", [512], 0),
        ("Dense", [128], 65_664),
        ("Dropout", [128], 0),
        ("Dense", [10], 1_290),
    ]
    assert build_model("cnn", 32, 10).count_params() == 161_098


def test_multiply_adds_are_those_counted_by_hand():
    rows = {row["name"]: row["multiply_adds"] for row in layer_table(build_model("cnn", 32, 10))}
    assert {name: count for name, count in rows.items() if count} == {
        "conv1": 30 * 30 * 27 * 32,
        "conv2": 13 * 13 * 9 * 32 * 64,
        "conv3": 4 * 4 * 9 * 64 * 128,
        "dense": 512 * 128,
        "logits": 128 * 10,
    }
    # By hand: the stem, then 6, 1 + 5 and 1 + 5 convolutions of 3x3, those that halve the picture at half the cost.
    assert sum(row["multiply_adds"] for row in layer_table(build_model("resnet20", 32, 10))) == 40_551_040


def test_multiply_adds_of_depthwise_and_separable_convolutions():
    import keras

    inputs = keras.Input((8, 8, 4))
    x = keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(inputs)
    outputs = keras.layers.SeparableConv2D(16, 3, strides=2, padding="same")(x)
    rows = layer_table(keras.Model(inputs, outputs))
    assert [row["multiply_adds"] for row in rows] == [0, 8 * 8 * 9 * 4 * 2, 4 * 4 * (9 * 8 + 8 * 16)]


def test_resnet20_has_the_papers_parameters():
    model = build_model("resnet20", 32, 10)
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert trainable == 269_722  # "0.27M" in He et al. 2015, table 6, with option A shortcuts
    assert sum(layer.__class__.__name__ == "Conv2D" for layer in model.layers) == 19


def test_resnet20s_shortcut_takes_every_other_pixel_and_adds_zeros():
    import keras

    model = build_model("resnet20", 32, 10)
    before = model.get_layer("block1_3_relu").output
    after = model.get_layer("block2_1_skip_turn_back").output
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    x, y = keras.Model(model.input, [before, after]).predict_on_batch(pictures)
    expected = np.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (8, 8)))
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_errors_say_what_would_fit():
    with pytest.raises(SpecError, match="Did you mean 'cnn'"):
        build_model("cn", 32, 10)
    with pytest.raises(SpecError, match="cnn takes pictures of 22 to 256 px, and image_size is 21"):
        build_model("cnn", 21, 10)
    with pytest.raises(SpecError, match="at least two classes"):
        build_model("cnn", 32, 1)


def test_whitened_has_the_papers_parameters():
    model = build_model("whitened", 32, 10)
    weights = sum(int(np.prod(w.shape)) for w in model.trainable_weights) + 2 * 2 * 3 * 24
    assert weights == 1_971_640  # "1.97M" in Jordan 2024, which counts the whitening too
    assert [layer.output.shape[1] for layer in model.layers if layer.name.startswith("pool")][:3] == [15, 7, 3]


def test_whitening_makes_the_patches_uncorrelated():
    import keras

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 20, 20, 3))
    images[..., 1:] = (images[..., 1:] + images[..., :1]) // 2  # correlated channels
    images = images.astype(np.uint8)
    model = build_model("whitened", 20, 4)
    prepare_model(model, images, rng.permutation(400))
    layer = model.get_layer("whitening")
    assert [w.path for w in layer.trainable_weights] == ["whitening/bias"]
    outputs = keras.Model(model.input, layer.output).predict_on_batch(images)[..., :12].reshape(-1, 12)
    spread = np.diag(outputs.T @ outputs / len(outputs))
    assert spread.min() > 0.98
    assert np.abs(outputs.T @ outputs / len(outputs) - np.diag(spread)).max() < 0.01
    np.testing.assert_allclose(to_numpy(layer.kernel)[..., 12:], -to_numpy(layer.kernel)[..., :12])


def test_a_dirac_kernel_passes_its_inputs_on():
    from onsight.models.whitened import dirac

    kernel = to_numpy(dirac((3, 3, 4, 6)))
    np.testing.assert_array_equal(kernel[1, 1, :, :4], np.eye(4))
    assert np.count_nonzero(kernel[..., :4]) == 4
    assert np.abs(kernel[..., 4:]).max() <= 1 / 6
    assert np.abs(kernel[..., 4:]).max() > 0.1
    assert dirac((3, 3, 6, 4)).shape == (3, 3, 6, 4)


def test_networks_without_preparation_are_left_alone():
    model = build_model("mlp", 8, 2)
    before = [to_numpy(weight) for weight in model.weights]
    prepare_model(model, np.zeros((4, 8, 8, 3), np.uint8), np.arange(4))
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, to_numpy(weight))
