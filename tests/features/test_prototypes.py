import shutil

import keras
import numpy as np
import pytest

from onsight.core.backend import to_numpy
from onsight.features.initial_weights import find_start, load
from onsight.features.prototypes import FOLDS, LEAST, MOST, OWN, SHORTEST, distance, learn_likeness, unit
from onsight.models.layers import SHORTEST as LEAST_LENGTH
from onsight.models.layers import PrototypeDistance
from onsight.models.model_file import Likeness, load_model, read_description, save_model
from onsight.models.registry import build_model


def photos(count, seed, width=32, kinds=6):
    """Return features (n, width) float32 of images of a few kinds, of different lengths."""
    rng = np.random.default_rng(seed)
    kind = np.random.default_rng(99).random((kinds, width)) ** 4  # as after ReLU: no number is negative
    features = kind[rng.integers(0, kinds, count)] + 0.15 * rng.random((count, width))
    return (features * rng.uniform(0.5, 2, (count, 1))).astype(np.float32)


def odd(width=32):
    return np.stack([np.zeros(width), np.full(width, 1e-6), np.eye(width)[0]]).astype(np.float32)


@pytest.mark.parametrize("count", [150, 1500])
def test_about_nineteen_of_twenty_new_images_like_the_training_images_are_within_the_threshold(count):
    found = learn_likeness(photos(count, 0))
    assert found.prototypes.shape == (32, min(MOST, count // 4))
    np.testing.assert_allclose(np.linalg.norm(found.prototypes, axis=0), 1, atol=1e-5)
    within = distance(unit(photos(4000, 1)), found.prototypes) <= found.threshold
    assert abs(within.mean() - OWN) < (0.03 if count < 1000 else 0.015)


def test_images_of_another_kind_are_beyond_the_threshold():
    found = learn_likeness(photos(300, 0))
    others = np.random.default_rng(5).random((500, 32)) ** 4
    assert (distance(unit(others), found.prototypes) > found.threshold).mean() > 0.99
    assert (distance(unit(-photos(50, 1)), found.prototypes) > 1).all()


def test_the_threshold_does_not_come_from_images_that_the_prototypes_have_seen():
    """On noise, each image is far from all others, and a prototype is near the images that it was made of."""
    noise = np.random.default_rng(0).standard_normal((80, 400)).astype(np.float32)
    found = learn_likeness(noise)
    own = np.quantile(distance(unit(noise), found.prototypes), OWN)
    assert found.threshold > own + 0.05
    new = distance(unit(np.random.default_rng(1).standard_normal((2000, 400))), found.prototypes)
    assert (new <= found.threshold).mean() == pytest.approx(OWN, abs=0.06)


def test_of_few_images_nothing_is_said():
    assert learn_likeness(photos(LEAST - 1, 0)) is None
    found = learn_likeness(photos(LEAST, 0))
    assert found.prototypes.shape == (32, LEAST // 4)
    assert len(unit(photos(LEAST, 0))) * (FOLDS - 1) // FOLDS // 4 > 0  # each fold leaves images for a prototype


def test_the_same_images_and_seed_give_the_same_prototypes():
    first, again, other = (learn_likeness(photos(200, 0), seed) for seed in (2**40, 2**40, 1))
    np.testing.assert_array_equal(first.prototypes, again.prototypes)
    assert first.threshold == again.threshold != other.threshold


def test_features_without_a_direction_are_far_from_everything_and_no_error():
    """The features of a plain grey image are almost zero."""
    found = learn_likeness(photos(300, 0))
    away = distance(unit(odd()), found.prototypes)
    np.testing.assert_allclose(away[:2], 1, atol=0.02)
    assert (away[:2] > found.threshold).all()
    among = learn_likeness(np.concatenate([photos(60, 0), np.zeros((20, 32), np.float32)]))
    assert np.isfinite(among.prototypes).all()
    assert 0 < among.threshold <= 1
    nothing = learn_likeness(np.zeros((30, 32), np.float32))
    assert np.isfinite(nothing.prototypes).all()


@pytest.mark.backend
def test_the_layer_computes_the_same_distance():
    assert SHORTEST == LEAST_LENGTH
    found = learn_likeness(photos(300, 0))
    layer = PrototypeDistance(found.prototypes.shape[1], name="distance")
    layer.build((None, 32))
    layer.prototypes.assign(found.prototypes)
    features = np.concatenate([photos(50, 1), -photos(5, 2), odd()])
    expected = distance(unit(features), found.prototypes)
    np.testing.assert_allclose(to_numpy(layer(features)), expected, atol=1e-5)
    assert layer.trainable_weights == []
    assert PrototypeDistance.from_config(layer.get_config()).count == layer.count


@pytest.fixture
def likeness():
    rng = np.random.default_rng(3)
    width = build_model("cnn_compact", 32, 3).get_layer("logits").kernel.shape[0]
    return Likeness(np.ascontiguousarray(unit(rng.standard_normal((7, width))).T.astype(np.float32)), 0.25)


@pytest.mark.backend
def test_a_saved_model_keeps_its_prototypes(likeness, tmp_path):
    model = build_model("cnn_compact", 32, 3)
    save_model(tmp_path, model, ("a", "b", "c"), 1.5, likeness=likeness)
    description = read_description(tmp_path)
    assert (description.prototypes, description.distance_threshold) == (7, 0.25)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    found, away = (np.asarray(each) for each in load_model(tmp_path, distance=True).predict_on_batch(images))
    assert (found.shape, away.shape) == ((5, 3), (5,))
    body = keras.Model(model.inputs[0], model.get_layer("logits").input)
    features = np.asarray(body.predict_on_batch(images))
    np.testing.assert_allclose(away, distance(unit(features), likeness.prototypes), atol=1e-5)
    plain = load_model(tmp_path)
    assert plain.output_shape == (None, 3)
    np.testing.assert_allclose(plain.predict_on_batch(images), found, atol=1e-6)
    save_model(tmp_path, model, ("a", "b", "c"))
    assert read_description(tmp_path).prototypes == 0
    assert load_model(tmp_path, distance=True).output_shape == (None, 3)


@pytest.mark.backend
def test_training_can_start_from_a_run_with_prototypes(toy_run, tmp_path):
    run = shutil.copytree(toy_run.folder, tmp_path / "run")
    trained = build_model("cnn", 32, 3)
    load(trained, str(toy_run.folder))
    width = trained.get_layer("logits").kernel.shape[0]
    prototypes = np.ones((width, 5), np.float32) / np.sqrt(width)
    save_model(run / "model", trained, toy_run.classes, likeness=Likeness(prototypes.astype(np.float32), 0.5))
    start = find_start(str(run), None)
    for source in (start.weights, str(run / "model" / "weights.safetensors")):
        model = build_model("cnn", 32, 7)
        load(model, source)
        for mine, theirs in zip(model.weights[:-2], trained.weights[:-2], strict=True):
            np.testing.assert_array_equal(to_numpy(mine), to_numpy(theirs))
