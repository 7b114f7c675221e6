import keras
import numpy as np
import pytest

import onsight
from onsight.data.batches import Examples, feature_batches, plan_epoch, training_batches
from onsight.features import extract as features
from onsight.features.extract import load_features
from onsight.models.registry import MODELS, build_model

pytestmark = pytest.mark.backend


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (150, 24, 24, 3), np.uint8)


@pytest.fixture(autouse=True)
def _new_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cache"))


def test_features_are_the_inputs_of_the_head_for_images_and_their_mirror_images(images):
    model = build_model("cnn_compact", 24, 3)
    chosen = np.arange(5, 140)
    reports = []
    found = load_features(model, images, chosen, mirrored=True, progress=lambda *facts: reports.append(facts))
    assert found.shape == (135, 2, 128)
    assert reports == [(64, 135), (128, 135), (135, 135)]
    body = keras.Model(model.inputs[0], model.get_layer("logits").input)
    expected = body.predict_on_batch(images[chosen])
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[:, 1], body.predict_on_batch(images[chosen, :, ::-1]), rtol=1e-4, atol=1e-5)
    assert load_features(model, images, chosen, mirrored=False, progress=print).shape == (135, 1, 128)


def test_features_are_computed_once_for_the_same_weights_and_images(images, monkeypatch):
    calls = []
    compute = features.compute_features
    monkeypatch.setattr(features, "compute_features", lambda *args: (calls.append(1), compute(*args)))
    keras.utils.set_random_seed(0)
    model = build_model("mlp", 24, 3)

    def ask(model, images, chosen):
        load_features(model, images, chosen, mirrored=False, progress=lambda *_: None)
        return len(calls)

    assert ask(model, images, np.arange(10)) == 1
    keras.utils.set_random_seed(0)
    assert ask(build_model("mlp", 24, 7), images, np.arange(10)) == 1  # another head on the same layers
    assert ask(model, images, np.arange(9)) == 2
    changed = images.copy()
    changed[3, 0, 0, 0] ^= 1
    assert ask(model, changed, np.arange(10)) == 3
    bias = model.get_layer("dense1").bias
    bias.assign(bias + 1e-3)
    assert ask(model, images, np.arange(10)) == 4


def test_features_of_an_edited_custom_network_are_computed_again(images):
    def network(activation):
        def mine(image_size, num_classes):
            inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
            x = keras.layers.Rescaling(1 / 255, name="normalise")(inputs)
            x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
            x = keras.layers.Activation(activation, name="bend")(x)
            return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="logits")(x))

        onsight.model("mine")(mine)
        return load_features(build_model("mine", 24, 3), images, np.arange(9), mirrored=False, progress=print)

    try:
        assert network("relu").min() > 0.4
        assert network("tanh").max() < 0.5
    finally:
        del MODELS["mine"]


def test_an_interrupted_computation_leaves_no_file_behind(images, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_features(build_model("mlp", 24, 3), images, np.arange(10), mirrored=False, progress=stop)
    assert [path.suffix for path in (tmp_path / "cache" / "features").iterdir()] == [".lock"]


def test_feature_batches_have_the_order_of_the_image_batches(images):
    """The features here are the first pixel of each image and of its mirror image."""
    sides = np.stack([images[:, 0, 0], images[:, 0, -1]], axis=1).astype(np.float32)  # (n, 2, 3)
    index, labels = np.arange(20, 80), np.arange(60)
    for epoch in (0, 1):
        plan = plan_epoch(Examples(images, index, labels), "flip", 3, epoch)
        mine = list(feature_batches(Examples(sides, index, labels), plan, 16, start=1))
        assert len(mine) == 2
        theirs = training_batches(Examples(images, index, labels), plan, 16, start=1)
        for (found, own), (batch, expected) in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(found, batch[:, 0, 0].astype(np.float32))
            np.testing.assert_array_equal(own, expected)
    plain = list(feature_batches(Examples(sides[:, :1], index, labels), plan, 16))
    assert plain[0][0].shape == (16, 3)
