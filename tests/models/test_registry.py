import importlib
import inspect
import json
import re

import numpy as np
import pytest

from onsight.core.backend import dtype_policy, to_numpy
from onsight.core.errors import SpecError
from onsight.models.fold_batch_norm import consumers
from onsight.models.registry import MODELS, build_model, classifier, layer_table, prepare_model
from onsight.testing import check_model

PRETRAINED = [name for name, entry in MODELS.items() if entry.function.startswith("pretrained:")]  # test_pretrained.py


# These networks contain every kind of layer; for the others, the same contract test is marked slow.
FAST = ["mlp", "cnn", "cnn_dropout", "cnn_compact", "whitened", "mobilenet_cifar"]


@pytest.mark.backend
@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name not in PRETRAINED],
)
def test_contract(name):
    check_model(name, max(25, MODELS[name].smallest))  # an odd size cannot be halved evenly


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name not in PRETRAINED],
)
def test_no_layer_has_an_empty_output_with_the_smallest_images(name):
    size = MODELS[name].smallest
    model = build_model(name, size, 2)
    assert model.name == name
    assert model.input_shape == (None, size, size, 3)
    assert model.output_shape == (None, 2)
    assert all(0 not in layer.output.shape for layer in model.layers)
    json.dumps(layer_table(model))


@pytest.mark.backend
def test_the_classifier_divides_by_the_temperature():
    model = build_model("cnn_compact", 24, 3)
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)
    logits = model.predict_on_batch(images)
    probabilities = classifier(model, temperature=2.0).predict_on_batch(images)
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4)


def test_the_tutorial_cnn_has_the_161098_parameters_of_the_tutorials():
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


def test_multiply_adds_equal_those_counted_by_hand():
    rows = {row["name"]: row["multiply_adds"] for row in layer_table(build_model("cnn", 32, 10))}
    assert {name: count for name, count in rows.items() if count} == {
        "conv1": 30 * 30 * 27 * 32,
        "conv2": 13 * 13 * 9 * 32 * 64,
        "conv3": 4 * 4 * 9 * 64 * 128,
        "dense": 512 * 128,
        "logits": 128 * 10,
    }
    # By hand: the stem, then 6, 1 + 5 and 1 + 5 convolutions of 3x3; those that halve the image cost half.
    assert sum(row["multiply_adds"] for row in layer_table(build_model("resnet20", 32, 10))) == 40_551_040


def test_multiply_adds_of_depthwise_and_separable_convolutions():
    import keras

    inputs = keras.Input((8, 8, 4))
    x = keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(inputs)
    outputs = keras.layers.SeparableConv2D(16, 3, strides=2, padding="same")(x)
    rows = layer_table(keras.Model(inputs, outputs))
    assert [row["multiply_adds"] for row in rows] == [0, 8 * 8 * 9 * 4 * 2, 4 * 4 * (9 * 8 + 8 * 16)]


@pytest.mark.parametrize(
    ("name", "parameters", "published"),
    [
        ("resnet20", 269_722, "0.27M"),  # He et al. 2015, table 6, with option A shortcuts
        ("resnet32", 464_154, "0.46M"),
        ("resnet56", 853_018, "0.85M"),
        ("wide_resnet16_4", 2_748_890, "2.7M"),  # Zagoruyko and Komodakis 2016
        ("inception_cifar", 1_649_402, "1.6M"),  # Zhang et al. 2017, table 1, has the exact number
        ("mobilenet_cifar", 3_217_226, "3.2M"),  # kuangliu/pytorch-cifar
    ],
)
def test_networks_have_the_published_parameters(name, parameters, published):
    model = build_model(name, 32, 10)
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert trainable == parameters
    assert f"{trainable / 1e6:.2f}".startswith(published.removesuffix("M"))


def test_mobilenet_has_the_layers_and_parameters_of_the_paper():
    model = build_model("mobilenet_cifar", 32, 1000)
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert f"{trainable / 1e6:.1f}" == "4.2"  # Howard et al. 2017, table 8: MobileNet 1.0, 1,000 classes
    assert sum("Conv2D" in type(layer).__name__ for layer in model.layers) == 27  # 28 layers with the dense one


@pytest.mark.parametrize(("name", "published", "layers"), [("vgg11", 9_231_114, 8), ("vgg16", 14_728_266, 13)])
def test_vgg_has_the_parameters_of_a_widespread_implementation(name, published, layers):
    """In kuangliu/pytorch-cifar the convolutions also have biases, which its batch norms cancel."""
    model = build_model(name, 32, 10)
    convolutions = [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]
    assert len(convolutions) == layers
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert trainable + sum(layer.filters for layer in convolutions) == published


def test_convnext_equals_atto_except_for_stem_and_layer_scales():
    model = build_model("convnext_cifar", 32, 1000)
    parameters = model.count_params() + (4 * 4 - 2 * 2) * 3 * 40  # patches of 4 x 4
    parameters += 2 * 40 + 2 * 80 + 6 * 160 + 2 * 320  # layer scales
    assert parameters == 3_695_520  # "3.7M", Atto in timm and in Woo et al. 2023


def test_a_convnext_block_adds_to_its_input():
    import keras

    model = build_model("convnext_cifar", 32, 10)
    model.get_layer("block1_1_project").kernel.assign(np.zeros((1, 1, 160, 40), np.float32))
    outputs = [model.get_layer(name).output for name in ("stem_norm", "block1_1_add")]
    before, after = keras.Model(model.input, outputs).predict_on_batch(np.full((1, 32, 32, 3), 9, np.uint8))
    np.testing.assert_array_equal(before, after)
    np.testing.assert_allclose(before.mean(axis=-1), 0, atol=1e-5)  # each pixel's channels, normalised


def test_nothing_changes_the_sum_of_a_wide_resnet():
    """Batch norm and ReLU are on the branches: if the branches are zero, a stage's output is its first shortcut."""
    import keras

    model = build_model("wide_resnet16_4", 16, 2)
    for index in (1, 2):
        layer = model.get_layer(f"block2_{index}_2_conv")
        layer.kernel.assign(np.zeros(layer.kernel.shape, np.float32))
    outputs = [model.get_layer(name).output for name in ("block2_1_skip", "block2_2_add")]
    skip, total = keras.Model(model.input, outputs).predict_on_batch(np.full((1, 16, 16, 3), 200, np.uint8))
    assert skip.shape == (1, 8, 8, 128)
    assert skip.min() < 0  # no activation on the way
    np.testing.assert_array_equal(skip, total)


def test_inception_modules_concatenate_their_branches():
    model = build_model("inception_cifar", 28, 10)
    shapes = [layer.output.shape[1:] for layer in model.layers if type(layer).__name__ == "Concatenate"]
    widths = [64, 80, 160, 160, 160, 160, 144, 240, 336, 336]
    assert shapes == [(28, 28, 64), (28, 28, 80), *[(14, 14, width) for width in widths[2:7]],
                      *[(7, 7, width) for width in widths[7:]]]  # fmt: skip


@pytest.mark.backend
def test_the_shortcut_of_resnet20_takes_every_other_pixel_and_pads_channels_with_zeros():
    import keras

    model = build_model("resnet20", 32, 10)
    before = model.get_layer("block1_3_relu").output
    after = model.get_layer("block2_1_skip_turn_back").output
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    x, y = keras.Model(model.input, [before, after]).predict_on_batch(images)
    expected = np.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (8, 8)))
    np.testing.assert_allclose(y, expected, atol=1e-6)


@pytest.mark.parametrize(("name", "size"), [("resnet20", 32), ("resnet20", 30), ("wide_resnet16_4", 16)])
def test_a_halving_convolution_is_centred_on_the_pixels_of_its_shortcut(name, size):
    """A kernel that is zero except in the middle picks one pixel; with "same" padding it would pick the neighbour."""
    import keras

    model = build_model(name, size, 2)
    layer = model.get_layer("block2_1_1_conv")
    kernel = np.zeros(layer.kernel.shape, np.float32)
    kernel[1, 1, 0, 0] = 1
    layer.kernel.assign(kernel)
    source = model.get_layer("block2_1_0_relu" if name == "wide_resnet16_4" else "block1_3_relu").output
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    x, y = keras.Model(model.input, [source, layer.output]).predict_on_batch(images)
    np.testing.assert_allclose(y[..., 0], x[:, ::2, ::2, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["resnet20", "vgg11", "inception_cifar", "mobilenet_cifar"])
def test_a_batch_norm_follows_every_convolution_of_a_normed_network(name):
    assert MODELS[name].normed
    model = build_model(name, 32, 2)
    users = consumers(model)
    behind = {type(users[layer.name][0]).__name__ for layer in model.layers if "Conv2D" in type(layer).__name__}
    assert behind == {"BatchNormalization"}


def test_the_multiply_adds_in_docstrings_are_right():
    stated = {}
    for name, entry in MODELS.items():
        module, function = entry.function.split(":")
        text = inspect.getdoc(getattr(importlib.import_module(f"onsight.models.{module}"), function))
        if found := re.search(r"(\d+) million\s+multiply-adds at\s+32 px", text):
            stated[name] = int(found[1])
    assert stated.keys() >= {"vgg11", "vgg16", "convnext_cifar", "cnn_compact", "whitened_wide"}
    for name, millions in stated.items():
        assert round(sum(row["multiply_adds"] for row in layer_table(build_model(name, 32, 10))) / 1e6) == millions


def test_errors_say_what_was_expected():
    with pytest.raises(SpecError, match="Did you mean 'cnn'"):
        build_model("cn", 32, 10)
    with pytest.raises(SpecError, match="cnn takes images of 22 to 256 px, but image_size is 21"):
        build_model("cnn", 21, 10)
    with pytest.raises(SpecError, match="at least two classes"):
        build_model("cnn", 32, 1)


def test_whitened_has_the_parameters_of_the_paper():
    model = build_model("whitened", 32, 10)
    weights = sum(int(np.prod(w.shape)) for w in model.trainable_weights) + (2 * 2 * 3 + 1) * 24
    assert weights == 1_971_640  # "1.97M" in Jordan 2024, which includes the whitening layer
    assert [layer.output.shape[1] for layer in model.layers if layer.name.startswith("pool")][:3] == [15, 7, 3]


@pytest.mark.backend
def test_whitening_makes_the_patches_uncorrelated():
    import keras

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 20, 20, 3))
    images[..., 1:] = (images[..., 1:] + images[..., :1]) // 2  # correlated channels
    images = images.astype(np.uint8)
    model = build_model("whitened", 20, 4)
    prepare_model(model, images, rng.permutation(400))
    layer = model.get_layer("whitening")
    assert not layer.trainable_weights
    assert np.abs(to_numpy(layer.bias)).max() > 0.1  # drawn, and then left alone
    outputs = keras.Model(model.input, layer.output).predict_on_batch(images) - to_numpy(layer.bias)
    outputs = outputs[..., :12].reshape(-1, 12)
    spread = np.diag(outputs.T @ outputs / len(outputs))
    assert spread.min() > 0.98
    assert np.abs(outputs.T @ outputs / len(outputs) - np.diag(spread)).max() < 0.01
    np.testing.assert_allclose(to_numpy(layer.kernel)[..., 12:], -to_numpy(layer.kernel)[..., :12])


@pytest.mark.backend
@pytest.mark.parametrize("optimizer", ["muon", "muon_sgd"])
def test_whitened_trains_on_grey_images(optimizer):
    from onsight.training.steps import make_optimizer

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 32)
    dots = rng.integers(0, 256, (32, 8, 8, 1), np.uint8).repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3)
    with dtype_policy("bfloat16"):
        model = build_model("whitened", 32, 2)
    prepare_model(model, dots, np.arange(32))
    model.compile(make_optimizer(optimizer, 0.12, 0.0), "sparse_categorical_crossentropy")
    losses = [model.train_on_batch(dots[:8], labels[:8]) for _ in range(4)]
    assert np.isfinite(losses).all()
    assert max(np.abs(to_numpy(weight)).max() for weight in model.trainable_weights) < 10


@pytest.mark.backend
def test_a_dirac_kernel_copies_its_inputs():
    from onsight.models.whitened import dirac

    kernel = to_numpy(dirac((3, 3, 4, 6)))
    np.testing.assert_array_equal(kernel[1, 1, :, :4], np.eye(4))
    assert np.count_nonzero(kernel[..., :4]) == 4
    assert np.abs(kernel[..., 4:]).max() <= 1 / 6
    assert np.abs(kernel[..., 4:]).max() > 0.1
    assert dirac((3, 3, 6, 4)).shape == (3, 3, 6, 4)


def test_prepare_model_does_not_change_networks_without_preparation():
    model = build_model("mlp", 8, 2)
    before = [to_numpy(weight) for weight in model.weights]
    prepare_model(model, np.zeros((4, 8, 8, 3), np.uint8), np.arange(4))
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, to_numpy(weight))
