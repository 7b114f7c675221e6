import keras
import numpy as np
import pytest

from onsight.core.backend import to_numpy
from onsight.models.registry import MODELS, build_model, layer_table
from published import FAMILIES

QUICK = ("mobilenetv2", "mobilenetv3_small")
NAMES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FAMILIES]


def lively(family, size, images):
    """Return the family's network with batch norms adapted to `images`; new ones give almost equal features."""
    model = family(include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        elif type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.ones(layer.gamma.shape))
    model(images, training=True)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_features_equal_those_of_keras_applications_with_its_preprocessing(name):
    family, module, parameters = FAMILIES[name]
    size = MODELS[name].smallest
    images = np.random.default_rng(0).integers(0, 256, (6, size, size, 3), np.uint8)
    images //= np.arange(1, 7, dtype=np.uint8)[:, None, None, None]
    prepared = module.preprocess_input(images.astype("float32"))
    original = lively(family, size, prepared)
    model = build_model(name, size, 3)
    assert original.count_params() == parameters
    assert model.count_params() == parameters + 3 * (original.output_shape[1] + 1)
    for theirs, ours in zip(original.weights, model.weights[:-2], strict=True):
        ours.assign(to_numpy(theirs).reshape(ours.shape))
    expected = original.predict_on_batch(prepared)
    features = keras.Model(model.input, model.get_layer("logits").input).predict_on_batch(images)
    assert np.ptp(expected, axis=0).max() > 1e-2  # otherwise any features would be equal
    # Batch norms over six images amplify rounding errors; without preprocessing, features would differ far more.
    np.testing.assert_allclose(features, expected, atol=5e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    size = MODELS[name].smallest
    model = build_model(name, size, 4)
    assert (model.name, model.input.dtype, model.output_shape) == (name, "uint8", (None, 4))
    assert model.layers[-1].name == "logits"
    # No name depends on what was built before, and no nested model hides its layers.
    paths, again = [weight.path for weight in model.weights], build_model(name, size, 4)
    assert paths == [weight.path for weight in again.weights]
    assert [layer.name for layer in model.layers] == [layer.name for layer in again.layers]
    assert len(set(paths)) == len(paths)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    rows = layer_table(model)
    assert sum(row["parameters"] for row in rows) == model.count_params()
    # Every convolution and dense layer has multiply-adds.
    weighted = [row for row in rows if "Conv" in row["type"] or row["type"] == "Dense"]
    assert all(row["multiply_adds"] > 0 for row in weighted)


def test_multiply_adds_equal_those_of_the_paper():
    total = sum(row["multiply_adds"] for row in layer_table(build_model("mobilenetv2", 224, 1000)))
    assert total == pytest.approx(300e6, rel=0.01)  # "300M" in Sandler et al. 2018, table 4


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_tflite_file_gives_the_same_probabilities(name, tmp_path):
    """The parity check passes, and batch norms are folded, except those before padding or a branch."""
    from onsight.inference.litert import add_litert
    from onsight.models.fold_batch_norm import fold_batch_norms
    from onsight.models.model_file import load_model, save_model
    from onsight.models.registry import classifier

    family, module, _ = FAMILIES[name]
    size = max(64, MODELS[name].smallest)
    images = np.random.default_rng(0).integers(0, 256, (6, size, size, 3), np.uint8)
    images //= np.arange(1, 7, dtype=np.uint8)[:, None, None, None]
    original = lively(family, size, module.preprocess_input(images.astype("float32")))
    model = build_model(name, size, 3)
    for theirs, ours in zip(original.weights, model.weights[:-2], strict=True):
        ours.assign(to_numpy(theirs).reshape(ours.shape))
    save_model(tmp_path, model, ("a", "b", "c"))
    assert add_litert(tmp_path, images) is None
    assert (tmp_path / "model.tflite").stat().st_size < 1.1 * (tmp_path / "weights.safetensors").stat().st_size
    answers = load_model(tmp_path).predict_on_batch(images)
    assert np.ptp(answers, axis=0).max() > 1e-3
    np.testing.assert_allclose(fold_batch_norms(classifier(model)).predict_on_batch(images), answers, atol=1e-5)
