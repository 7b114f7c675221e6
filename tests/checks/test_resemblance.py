import numpy as np

from onsight.checks import resemblance
from onsight.checks.resemblance import ODD, alike_pairs, directions, oddness


def features(number, seed=0, common=0.0, width=60):
    """Return features of different images; with `common`, all of them resemble each other."""
    rng = np.random.default_rng(seed)
    return (np.abs(rng.normal(0, 1, (number, width))) + common).astype(np.float32)


def pairs(found):
    return {*zip(found.first.tolist(), found.second.tolist(), strict=True)}


def test_images_of_one_scene_are_found_the_most_similar_first(monkeypatch):
    different = features(200) - 0.8
    again = different[[3, 70]] + np.random.default_rng(1).normal(0, [[0.05], [0.2]], (2, 60))
    every = directions(np.concatenate([different, again]).astype(np.float32))
    found = alike_pairs(every)
    assert [*zip(found.first.tolist(), found.second.tolist(), strict=True)] == [(3, 200), (70, 201)]
    np.testing.assert_allclose(found.cosine, [every[3] @ every[200], every[70] @ every[201]], atol=1e-5)
    monkeypatch.setattr(resemblance, "CHUNK", 64)
    assert pairs(alike_pairs(every)) == {(3, 200), (70, 201)}


def test_a_pair_that_is_no_nearer_than_a_third_image_is_not_found():
    different = features(200) - 0.8
    again = different[[3, 3]] + np.random.default_rng(1).normal(0, 0.2, (2, 60))
    assert not len(alike_pairs(directions(np.concatenate([different, again]).astype(np.float32))).first)


def test_where_all_images_are_alike_none_stands_out():
    alike = directions(features(300, common=3.0))
    cosines = alike @ alike.T - np.eye(300)
    assert (cosines >= 0.9).mean() > 0.9
    assert not len(alike_pairs(alike).first)


def test_few_images_have_few_pairs():
    assert not len(alike_pairs(directions(features(1))).first)
    assert pairs(alike_pairs(directions(features(1).repeat(2, axis=0)))) == {(0, 1)}


def test_foreign_images_are_odd_even_if_they_resemble_each_other(monkeypatch):
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (3, 60))
    labels = np.repeat([0, 1], 100)
    images = centres[labels] + rng.normal(0, 0.7, (200, 60))
    foreign = np.array([5, 6, 7, 150, 151])
    images[foreign] = centres[2] + rng.normal(0, 0.1, (5, 60))
    odd = oddness(directions(images.astype(np.float32)), labels)
    assert (odd[foreign] >= ODD).all()
    assert (np.delete(odd, foreign) >= ODD).sum() <= 2
    monkeypatch.setattr(resemblance, "CHUNK", 16)
    np.testing.assert_allclose(oddness(directions(images.astype(np.float32)), labels), odd, atol=1e-4)


def test_nothing_is_odd_in_a_small_class_or_among_equal_images():
    images = directions(features(60))
    assert not oddness(images, np.repeat(np.arange(4), 15)).any()
    equal = directions(features(1).repeat(30, axis=0))
    assert np.abs(oddness(equal, np.zeros(30, np.int64))).max() < 1


def test_a_plain_image_resembles_nothing():
    some = features(50)
    some[4] = 1e-6
    assert np.linalg.norm(directions(some)[4]) < 0.01
