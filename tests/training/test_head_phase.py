import keras
import numpy as np
import pytest

from onsight.core.backend import to_numpy
from onsight.data.batches import Examples
from onsight.models.registry import build_model
from onsight.spec import TrainSpec
from onsight.training.head_phase import HeadFit, featured, likeness_of
from onsight.training.network import build
from onsight.training.steps import make_optimizer

pytestmark = pytest.mark.backend
RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 3


def new_step():
    model = build_model("cnn", 22, 3)
    return HeadFit(model, make_optimizer("adamw", 1e-2, 1e-2))


@pytest.fixture
def examples():
    """Features that are in another order than their labels, as images of a data set may be."""
    width = build_model("cnn", 22, 3).get_layer("logits").kernel.shape[0]
    features = RNG.standard_normal((60, width)).astype(np.float32)
    features[:, :3] += 6 * np.eye(3, dtype=np.float32)[LABELS]
    order = RNG.permutation(60)
    return Examples(features[order], np.argsort(order), LABELS)


def test_only_the_head_is_fitted_and_its_arrays_are_those_of_the_whole_network(examples):
    step = new_step()
    before = {weight.path: to_numpy(weight) for weight in step.model.weights}
    head = step.fit(examples, 0, None)
    after = {weight.path: to_numpy(weight) for weight in step.model.weights}
    assert {path for path in before if not np.array_equal(before[path], after[path])} == {
        "logits/kernel",
        "logits/bias",
    }
    assert (step.logits(examples.images[examples.chosen]).argmax(axis=1) == LABELS).all()
    np.testing.assert_array_equal(after["logits/kernel"], head.kernel)
    answers = keras.Sequential([step.model.get_layer("logits")])(examples.images)
    np.testing.assert_allclose(step.logits(examples.images), np.asarray(answers), rtol=1e-4, atol=1e-4)
    other = new_step()
    other.restore(step.arrays())
    np.testing.assert_array_equal(other.logits(examples.images), step.logits(examples.images))
    with pytest.raises(NotImplementedError):
        step.train(examples.images, LABELS, 1e-2)


def test_the_fit_is_repeated_bit_for_bit(examples):
    """A process that resumed after the fit needs the out-of-fold logits again."""
    first, second = (new_step().fit(examples, 4, None) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_class_weights_reach_the_head(examples):
    """If only the first class has weight, it is the answer where the other classes are near."""
    step = new_step()
    step.fit(examples._replace(labels=RNG.permutation(LABELS)), 0, np.array([1, 1e-6, 1e-6], np.float32))
    assert (step.logits(examples.images).argmax(axis=1) == 0).mean() > 0.95


def test_likeness_is_learned_from_the_training_images(examples):
    def learned(features, weights="imagenet"):
        spec = TrainSpec(model="cnn", weights=weights, seed=0)
        return likeness_of(None, spec, None, features, None)

    assert learned(examples).prototypes.shape == (examples.images.shape[1], 15)
    assert learned(Examples(examples.images, examples.chosen[:19], LABELS[:19])) is None
    assert learned(examples, "none") is None


def test_likeness_without_known_features_computes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cache"))
    spec = TrainSpec(model="mlp", weights="imagenet", image_size=32, precision="float32", seed=0)
    training = Examples(RNG.integers(0, 256, (25, 32, 32, 3), np.uint8), np.arange(25), np.arange(25) % 3)
    model = build(spec, 3)
    done = []
    found = likeness_of(model, spec, training, None, lambda *state: done.append(state))
    assert found.prototypes.shape[0] == model.get_layer("logits").kernel.shape[0]
    assert done[-1] == (25, 25)


def test_features_replace_the_images_of_each_part(tmp_path, monkeypatch):
    """In bfloat16, too, features are those of the finished model, which computes in float32."""
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cache"))
    images = RNG.integers(0, 256, (9, 32, 32, 3), np.uint8)
    training = Examples(images, np.array([4, 2, 7]), np.array([0, 1, 1]))
    nothing = Examples(images, np.zeros(0, int), np.zeros(0, int))
    spec = TrainSpec(model="mlp", image_size=32, precision="bfloat16", seed=0)
    model = build(spec, 3)
    found, empty = featured(model, spec, (training, nothing), lambda *_: None)
    assert empty is nothing
    assert (found.chosen.tolist(), found.labels.tolist()) == ([0, 1, 2], [0, 1, 1])
    plain = build(spec.model_copy(update={"precision": "float32"}), 3)
    for mine, other in zip(plain.weights, model.weights, strict=True):
        mine.assign(to_numpy(other))
    body = keras.Model(plain.inputs[0], plain.get_layer("logits").input)
    np.testing.assert_allclose(found.images, body.predict_on_batch(images[[4, 2, 7]]), rtol=1e-4, atol=1e-5)
