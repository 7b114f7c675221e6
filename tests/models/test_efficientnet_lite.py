import keras
import numpy as np
import pytest

from onsight.features.published_weights import PUBLISHED
from onsight.models.efficientnet_lite import scaled
from onsight.models.fold_batch_norm import fold_batch_norms
from onsight.models.registry import build_model, classifier, layer_table

# name: (layers, parameters without the head, channels of the last stage with a stride)
LITES = {
    "efficientnet_lite0": (144, 3_413_024, 192),
    "efficientnet_lite1": (189, 4_189_344, 192),
    "efficientnet_lite2": (189, 4_869_168, 208),
}


@pytest.fixture(scope="module", params=LITES)
def lite(request):
    return build_model(request.param, 32, 4)


def test_layers_and_parameters_are_those_of_the_published_networks(lite):
    layers, parameters, _ = LITES[lite.name]
    assert len(lite.layers) == layers
    assert lite.count_params() == parameters + 4 * (1280 + 1)


@pytest.mark.backend
def test_contract(lite):
    assert (lite.input.dtype, lite.input_shape, lite.output_shape) == ("uint8", (None, 32, 32, 3), (None, 4))
    assert (lite.layers[-1].name, lite.output.dtype) == ("logits", "float32")
    # No name depends on what was built before.
    paths, again = [weight.path for weight in lite.weights], build_model(lite.name, 32, 4)
    assert paths == [weight.path for weight in again.weights]
    assert [layer.name for layer in lite.layers] == [layer.name for layer in again.layers]
    assert len(set(paths)) == len(paths)
    rows = layer_table(lite)
    assert sum(row["parameters"] for row in rows) == lite.count_params()
    weighted = [row for row in rows if "Conv" in row["type"] or row["type"] == "Dense"]
    assert all(row["multiply_adds"] > 0 for row in weighted)


def test_fine_tuning_begins_with_the_first_layer_of_the_last_stage_that_has_a_stride(lite):
    """The layer expands the channels of the stage before it, and its block has a stride of 2."""
    layer = lite.layers[PUBLISHED[lite.name].frozen]
    block, _, rest = layer.name.partition("_")
    assert rest == "expand_conv"
    depthwise, project = (lite.get_layer(f"{block}_{part}_conv") for part in ("depthwise", "project"))
    assert tuple(depthwise.strides) == (2, 2)
    assert project.filters == LITES[lite.name][2] == scaled(192, {192: 1.0, 208: 1.1}[project.filters])
    later = lite.layers[lite.layers.index(project) :]
    assert not any(tuple(getattr(each, "strides", (1, 1))) == (2, 2) for each in later)
    if lite.name == "efficientnet_lite0":
        assert layer.name == "block11_expand_conv"


def test_multiply_adds_equal_those_of_the_reference():
    """TensorFlow's reference states 407 and 631 million for Lite0 and Lite1 at their image sizes."""
    for name, size, expected in (("efficientnet_lite0", 224, 407e6), ("efficientnet_lite1", 240, 631e6)):
        total = sum(row["multiply_adds"] for row in layer_table(build_model(name, size, 1000)))
        assert total == pytest.approx(expected, rel=0.06)


def test_channels_are_rounded_to_multiples_of_eight_and_lose_a_tenth_at_most():
    assert [scaled(channels, 1.1) for channels in (16, 24, 40, 80, 112, 192, 320)] == [16, 24, 48, 88, 120, 208, 352]
    assert [scaled(channels, 1.0) for channels in (16, 320)] == [16, 320]
    assert scaled(8, 0.1) == 8
    assert scaled(12, 1.0) == 16
    assert scaled(19, 1.0) == 24  # 16 would be less than 90 %


@pytest.mark.backend
def test_images_are_normalised_as_in_training_and_batch_norms_fold():
    model = build_model("efficientnet_lite0", 32, 3)
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    normalised = keras.Model(model.inputs[0], model.get_layer("normalise").output).predict_on_batch(images)
    np.testing.assert_allclose(normalised, (images.astype("float32") - 127) / 128, atol=1e-6)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)  # otherwise features would be nearly equal; it amplifies rounding errors
    model.get_layer("logits").kernel.assign(np.random.default_rng(1).standard_normal((1280, 3)) / 30)
    answers = classifier(model).predict_on_batch(images)
    assert np.ptp(answers, axis=0).max() > 1e-2
    np.testing.assert_allclose(fold_batch_norms(classifier(model)).predict_on_batch(images), answers, atol=2e-3)
