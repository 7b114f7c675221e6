import numpy as np
import pytest
from threadpoolctl import threadpool_info

from onsight.data.batches import (
    Examples,
    ahead,
    answered_at_once,
    full_batches,
    plan_epoch,
    shrink,
    steps_per_epoch,
    training_batches,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
INDEX = np.arange(5, 48)
LABELS = np.arange(43)


def batches(epoch=0, start=0, augmentation="flip_shift", batch_size=8):
    examples = Examples(IMAGES, INDEX, LABELS)
    return list(training_batches(examples, plan_epoch(examples, augmentation, 7, epoch), batch_size, start))


def test_an_epoch_shows_each_image_at_most_once_with_its_label():
    seen = batches(augmentation="none")
    assert len(seen) == steps_per_epoch(43, 8) == 5
    labels = np.concatenate([labels for _, labels in seen])
    assert len(set(labels.tolist())) == 40
    for images, labels in seen:
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        assert np.array_equal(images, IMAGES[INDEX[labels]])


def test_starting_in_the_middle_yields_the_rest_of_the_epoch():
    whole, rest = batches(epoch=3), batches(epoch=3, start=2)
    assert len(rest) == 3
    for (images, labels), (same_images, same_labels) in zip(whole[2:], rest, strict=True):
        assert np.array_equal(images, same_images)
        assert np.array_equal(labels, same_labels)


def test_epochs_differ_in_order():
    assert not np.array_equal(batches(epoch=0)[0][1], batches(epoch=1)[0][1])


def test_a_set_smaller_than_a_batch_makes_one_batch():
    assert [len(labels) for _, labels in batches(batch_size=64)] == [43]


def test_full_batches_keep_order_and_shape():
    parts = list(full_batches(IMAGES, INDEX, 20))
    assert [count for _, count in parts] == [20, 20, 3]
    assert {batch.shape for batch, _ in parts} == {(20, 8, 8, 3)}
    assert np.array_equal(np.concatenate([batch[:count] for batch, count in parts]), IMAGES[INDEX])


def test_large_images_are_answered_in_smaller_batches():
    assert [answered_at_once(size) for size in (8, 32, 64, 96, 224, 1024)] == [256, 256, 256, 113, 20, 1]


def test_a_shrunk_pixel_is_the_mean_of_its_area():
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    fine = images.repeat(3, axis=1).repeat(3, axis=2)  # side 96: 4 x 4 pixels per pixel of side 24, 6 x 6 of side 16
    for side in (24, 16):
        each = 96 // side
        means = fine.reshape(5, side, each, side, each, 3).mean(axis=(2, 4))
        np.testing.assert_allclose(shrink(images, side), means, atol=0.51)
    np.testing.assert_array_equal(shrink(np.full((2, 50, 50, 3), 255, np.uint8), 37), 255)


def test_a_plan_with_a_side_makes_shrunk_batches():
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    examples = Examples(images, np.arange(8), np.zeros(8, int))
    plan = plan_epoch(examples, "none", 0, 0)
    ((large, _),), ((small, _),) = (
        list(training_batches(examples, each, 8)) for each in (plan, plan._replace(side=12))
    )
    np.testing.assert_array_equal(small, shrink(large, 12))


def test_matrix_products_use_one_thread_while_batches_are_made_ahead():
    def threads():
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    before = threads()
    with_one = [threads() for _ in ahead(iter(batches(batch_size=16)))]
    assert with_one == [{1}] * 2
    assert threads() == before


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_every_batch(processes):
    examples = Examples(IMAGES, INDEX, LABELS)
    plan = plan_epoch(examples, "flip_shift", 7, 0)
    shares = [
        list(training_batches(examples, plan.share(rank, processes, 8), 8 // processes, start=1))
        for rank in range(processes)
    ]
    whole = batches(start=1)
    assert [len(share) for share in shares] == [len(whole)] * processes
    for step, (images, labels) in enumerate(whole):
        assert np.array_equal(np.concatenate([share[step][0] for share in shares]), images)
        assert np.array_equal(np.concatenate([share[step][1] for share in shares]), labels)
