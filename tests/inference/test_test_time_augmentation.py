import numpy as np

from onsight.inference.test_time_augmentation import SURE, with_views


def test_views_are_weighted_and_normalised():
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1).repeat(3, axis=3)
    seen = []

    def answer(images):
        seen.append(images[0, :, :, 0])
        corner = images[:, :1, 0, 0] / 40 + 0.1
        return np.concatenate([corner, 1 - corner], axis=1)

    found = with_views(answer)(image)
    plain = image[0, :, :, 0]
    assert len(seen) == 6
    assert np.array_equal(seen[0], plain)
    assert np.array_equal(seen[1], plain[:, ::-1])
    assert np.array_equal(seen[2][1:, 1:], plain[:-1, :-1])
    assert np.array_equal(seen[4][:-1, :-1], plain[1:, 1:])
    p = np.array([view[0, 0] / 40 + 0.1 for view in seen])
    logs = np.array([0.25, 0.25, 0.125, 0.125, 0.125, 0.125]) @ np.log(np.stack([p, 1 - p], axis=1))
    np.testing.assert_allclose(found[0], np.exp(logs) / np.exp(logs).sum(), rtol=1e-5)


def test_views_without_mirrors_keep_an_answer_of_full_confidence():
    def answer(images):
        return np.tile(np.array([[1, 0, 0]], np.float32), (len(images), 1))

    np.testing.assert_allclose(
        with_views(answer, flips=False)(np.zeros((5, 8, 8, 3), np.uint8)), answer(range(5)), atol=1e-7
    )


def test_only_images_without_a_sure_answer_are_viewed_again():
    asked = []

    def answer(images):
        asked.append(len(images))
        share = np.where(images[:, 0, 0, 0] > 100, SURE, SURE - 0.01)
        return np.stack([share, 1 - share], axis=1)

    images = np.zeros((5, 8, 8, 3), np.uint8)
    images[:3] = 200
    found = with_views(answer)(images)
    assert asked == [5, 2, 2, 2, 2, 2]
    np.testing.assert_allclose(found[:, 0], [SURE] * 3 + [SURE - 0.01] * 2)
    assert with_views(answer)(images[:0]).shape == (0, 2)
