import os
from importlib import util

import keras
import numpy as np
import pytest

import onsight
from onsight.core.errors import ExportError, TrainingError
from onsight.features import extract
from onsight.features.extract import Extractor, LitertExtractor
from onsight.models.litert_file import below_head
from onsight.models.registry import MODELS, build_model

pytestmark = pytest.mark.backend


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (150, 24, 24, 3), np.uint8)


@pytest.fixture(autouse=True)
def _new_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def without_litert(monkeypatch):
    """Hide LiteRT, so that Keras computes the features: no network has to be converted."""
    monkeypatch.setattr(extract, "find_spec", lambda name: None if name == "ai_edge_litert" else util.find_spec(name))


def quiet(done, total):
    """Ignore the progress."""


def counted(extractor):
    """Return a list that gets the number of images of each further computation."""
    found = []
    compute = extractor._compile()

    def count(images):
        found.append(len(images))
        return compute(images)

    extractor.compute = count
    return found


def expected(model, images):
    body = keras.Model(model.inputs[0], model.get_layer("logits").input)
    return np.asarray(body.predict_on_batch(images))


@pytest.mark.parametrize("by", ["litert", "keras"])
def test_features_are_the_inputs_of_the_head(images, by, request, monkeypatch):
    monkeypatch.setattr(extract, "SMALL", 0)  # otherwise Keras computes those of small images
    monkeypatch.setattr(extract, "PART", 70)
    if by == "keras":
        request.getfixturevalue("without_litert")
    elif os.environ["KERAS_BACKEND"] == "jax":
        pytest.importorskip("litert_converter")
    model = build_model("cnn_compact", 24, 3)
    chosen = np.arange(5, 140)
    reports = []
    extractor = Extractor(model)
    found = extractor(images, chosen, lambda *facts: reports.append(facts))
    assert (extractor.compute == extractor._by_keras) == (by == "keras")
    assert (found.shape, found.dtype, extractor.width) == ((135, 128), np.float32, 128)
    assert reports == [(70, 135), (135, 135)]
    np.testing.assert_allclose(found, expected(model, images[chosen]), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("without_litert")
def test_features_of_each_image_are_computed_once(images):
    keras.utils.set_random_seed(0)
    model = build_model("mlp", 24, 3)
    first = Extractor(model)
    computed = counted(first)
    some = first(images, np.arange(10), quiet)
    assert computed == [10]
    # In another process, for another head on the same layers, and in another order: all come from the cache.
    keras.utils.set_random_seed(0)
    again = Extractor(build_model("mlp", 24, 7))
    assert again.folder == first.folder
    again.compute = None
    shuffled = np.array([7, 2, 9, 2])
    again._compile = None  # nothing is computed
    np.testing.assert_array_equal(again(images, shuffled, quiet), some[shuffled])
    # Only new images are computed, and an image that is there twice is computed once.
    changed = images.copy()
    changed[3, 0, 0, 0] ^= 1
    changed[20] = changed[21]
    np.testing.assert_array_equal(first(changed, np.arange(10), quiet)[4], some[4])
    assert computed == [10, 1]
    first(changed, np.arange(18, 22), quiet)
    assert computed == [10, 1, 3]
    assert len(list(first.folder.glob("*.npz"))) == 3
    bias = model.get_layer("dense1").bias
    bias.assign(bias + 1e-3)
    other = Extractor(model)
    assert other.folder != first.folder
    assert not np.array_equal(other(images, np.arange(10), quiet), some)


@pytest.mark.usefixtures("without_litert")
def test_features_of_an_edited_custom_network_are_computed_again(images):
    def network(activation):
        def mine(image_size, num_classes):
            inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
            x = keras.layers.Rescaling(1 / 255, name="normalise")(inputs)
            x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
            x = keras.layers.Activation(activation, name="bend")(x)
            return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="logits")(x))

        onsight.model("mine")(mine)
        return Extractor(build_model("mine", 24, 3))(images, np.arange(9), quiet)

    try:
        assert network("relu").min() > 0.4
        assert network("tanh").max() < 0.5
    finally:
        del MODELS["mine"]


@pytest.mark.usefixtures("without_litert")
def test_an_interrupted_computation_keeps_what_it_has_computed(images, monkeypatch):
    monkeypatch.setattr(extract, "PART", 64)

    def stop(done, _):
        if done == 128:
            raise KeyboardInterrupt

    model = build_model("mlp", 24, 3)
    with pytest.raises(KeyboardInterrupt):
        Extractor(model)(images, np.arange(150), stop)
    extractor = Extractor(model)
    assert [path.suffix for path in extractor.folder.iterdir()] == [".npz"]
    computed = counted(extractor)
    np.testing.assert_allclose(extractor(images, np.arange(150), quiet), expected(model, images), rtol=1e-4, atol=1e-5)
    assert computed == [22]


@pytest.mark.usefixtures("without_litert")
@pytest.mark.parametrize("damage", ["cut", "empty", "other shape", "no keys"])
def test_a_damaged_file_of_the_cache_is_computed_again(images, damage):
    model = build_model("mlp", 24, 3)
    extractor = Extractor(model)
    before = extractor(images, np.arange(10), quiet)
    (file,) = extractor.folder.glob("*.npz")
    if damage in ("cut", "empty"):
        file.write_bytes(file.read_bytes()[: 300 * (damage == "cut")])
    else:
        with file.open("wb") as handle:
            keys = {} if damage == "no keys" else {"keys": np.zeros(10, np.uint64)}
            np.savez(handle, features=before[:, 1:], **keys)
    again = Extractor(model)
    computed = counted(again)
    np.testing.assert_array_equal(again(images, np.arange(10), quiet), before)
    assert computed == [10]


@pytest.mark.usefixtures("without_litert")
def test_a_full_disk_is_named(images, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extract, "write_atomic", full)
    with pytest.raises(
        TrainingError, match=r"disk of .* is full: the features of 10 images do not fit .*ONSIGHT_CACHE"
    ):
        Extractor(build_model("mlp", 24, 3))(images, np.arange(10), quiet)


def test_keras_computes_the_features_of_a_network_that_cannot_be_converted(images, monkeypatch):
    def fail(*_):
        raise ExportError("no")

    monkeypatch.setattr(extract, "convert", fail)
    model = build_model("mlp", 24, 3)
    extractor = Extractor(model)
    found = extractor(images, np.arange(70), quiet)
    assert extractor.compute == extractor._by_keras
    np.testing.assert_allclose(found, expected(model, images[:70]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("made", ["toy_run", "knowing_run"])
def test_the_tflite_file_of_a_run_gives_the_inputs_of_its_head(made, request):
    """Also where the features have two uses: for the head and for the distance."""
    run = request.getfixturevalue(made)
    if not (run.model_folder / "model.tflite").exists():
        pytest.skip("this backend has no converter here")
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), np.uint8)
    found = LitertExtractor((run.model_folder / "model.tflite").read_bytes(), 32, len(run.classes))
    features = found(images, np.arange(100), quiet)
    assert features.shape == (100, found.width)
    np.testing.assert_allclose(features, expected(run.load_model(), images), rtol=1e-3, atol=1e-4)
    again = LitertExtractor((run.model_folder / "model.tflite").read_bytes(), 32, len(run.classes))
    computed = counted(again)
    np.testing.assert_array_equal(again(images, np.arange(100), quiet), features)
    assert computed == []


def test_a_tflite_file_with_another_head_is_refused(toy_run):
    path = toy_run.model_folder / "model.tflite"
    if not path.exists():
        pytest.skip("this backend has no converter here")
    with pytest.raises(ExportError, match="no dense layer from features to classes"):
        below_head(path.read_bytes(), len(toy_run.classes) + 1)
