import warnings
from dataclasses import replace

import numpy as np
import pytest

from onsight.core.errors import DataError, SpecError
from onsight.data.dataset import Dataset
from onsight.data.load import load_dataset
from onsight.data.split import few_shots, membership, recorded_parts, split, splitmix64, uniform


def dataset(labels, parts=""):
    labels = np.asarray(labels, dtype=np.int64)
    parts = np.broadcast_to(np.asarray(parts, dtype="<U10"), labels.shape)
    names = tuple(f"{index}.jpg" for index in range(len(labels)))
    classes = tuple(f"class {index}" for index in range(labels.max() + 1))
    return Dataset("photos", classes, names, labels, parts, "folder photos", "0" * 64)


def contents(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def counts(parts):
    names, numbers = np.unique(parts, return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


def test_uniform_is_splitmix64():
    # The first outputs of Vigna's splitmix64.c, started at 0 and at 1234567.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        states = np.array([0, 1234567], dtype=np.uint64)
        assert splitmix64(states).tolist() == [0xE220A8397B1DCDAF, 6457827717110365317]
        u = uniform(contents(100_000), seed=-1)
    assert 0 <= u.min() < 0.001
    assert 0.999 < u.max() < 1
    assert abs(u.mean() - 0.5) < 0.004  # 4 standard deviations of 0.29 / sqrt(100,000)


def test_consecutive_hashes_are_spread_evenly():
    u = uniform(np.arange(100_000, dtype=np.uint64), seed=0)
    bins = np.bincount((u * 10).astype(int))
    assert np.all(abs(bins - 10_000) < 4 * 95)  # binomial: sqrt(100,000 * 0.1 * 0.9) = 95


@pytest.mark.parametrize(("validation", "test"), [(0.15, 0.15), (0.1, 0.2), (0, 0.15), (0.2, 0)])
def test_each_class_has_about_the_requested_shares(validation, test):
    labels = np.arange(30_000) % 3
    parts = split(dataset(labels), contents(30_000), validation=validation, test=test)
    for label in range(3):
        mine = parts[labels == label]
        for name, share in {"validation": validation, "test": test, "train": 1 - validation - test}.items():
            spread = np.sqrt(10_000 * share * (1 - share))
            assert abs(np.count_nonzero(mine == name) - 10_000 * share) <= 4 * spread


def test_given_parts_stay_and_validation_comes_from_training():
    given = np.array(["train"] * 9000 + ["test"] * 1000)
    parts = split(dataset(np.arange(10_000) % 2, given), contents(10_000), validation=0.1)
    assert np.all(parts[9000:] == "test")
    assert "test" not in parts[:9000]
    assert abs(np.count_nonzero(parts == "validation") - 900) < 4 * np.sqrt(9000 * 0.09)


def test_with_validation_given_the_test_comes_from_training():
    given = np.array(["train"] * 900 + ["validation"] * 100)
    parts = split(dataset(np.arange(1000) % 2, given), contents(1000), validation=0.15)
    assert np.all(parts[900:] == "validation")
    assert counts(parts[:900]).keys() == {"train", "test"}


def test_with_all_parts_given_nothing_changes():
    given = np.array(["train", "validation", "test"] * 10)
    assert np.array_equal(split(dataset([0, 0, 0, 1, 1, 1] * 5, given), contents(30), validation=0.5), given)


def test_without_validation_all_training_images_train():
    given = np.array(["train"] * 50 + ["test"] * 50)
    assert np.array_equal(split(dataset(np.arange(100) % 2, given), contents(100), validation=0), given)


def test_the_order_of_the_images_does_not_matter():
    labels, hashes = np.arange(500) % 5, contents(500)
    order = np.random.default_rng(1).permutation(500)
    parts = split(dataset(labels), hashes, validation=0.15)
    assert np.array_equal(split(dataset(labels[order]), hashes[order], validation=0.15), parts[order])


def test_added_images_do_not_move_existing_ones():
    labels, hashes = np.arange(1100) % 4, contents(1100)
    before = split(dataset(labels[:1000]), hashes[:1000], validation=0.15)
    after = split(dataset(labels), hashes, validation=0.15)
    assert np.array_equal(after[:1000], before)


def test_another_seed_gives_another_split():
    labels, hashes = np.arange(1000) % 4, contents(1000)
    first, second = (split(dataset(labels), hashes, validation=0.15, seed=seed) for seed in (0, 1))
    # Two independent splits agree on 0.7**2 + 2 * 0.15**2 = 53.5 % of the images.
    assert abs(np.mean(first == second) - 0.535) < 4 * np.sqrt(0.535 * 0.465 / 1000)


def test_identical_images_stay_together_even_under_two_labels():
    hashes = np.repeat(contents(300), 3)
    labels = np.arange(900) % 2  # the last 100 images have copies under both labels
    labels[:600] = np.repeat(np.arange(200) % 2, 3)
    parts = split(dataset(labels), hashes, validation=0.15)
    assert len(np.unique(parts)) == 3
    for copies in parts.reshape(300, 3):
        assert len(set(copies)) == 1


@pytest.mark.parametrize("seed", range(30))
def test_small_classes_have_an_image_in_every_part(seed):
    sizes = [3, 4, 5, 6, 200]
    labels = np.repeat(np.arange(5), sizes)
    parts = split(dataset(labels), contents(sum(sizes), seed), validation=0.15, seed=seed)
    for label in range(5):
        assert set(parts[labels == label]) == {"train", "validation", "test"}


def test_the_image_with_the_lowest_number_fills_an_empty_part():
    hashes = contents(2000)
    u = uniform(hashes, 0)
    training = hashes[u >= 0.3][:4]  # the thresholds would send all four to training
    other = hashes[-1000:]
    parts = split(dataset([0] * 4 + [1] * 1000), np.concatenate([training, other]), validation=0.15)[:4]
    order = uniform(training, 0).argsort()
    assert parts[order].tolist() == ["test", "validation", "train", "train"]


def test_a_class_that_is_too_small_is_named_with_its_count():
    labels = [0] * 100 + [1] * 5
    hashes = np.concatenate([contents(100), np.repeat(contents(2, seed=1), [4, 1])])
    with pytest.raises(DataError, match=r"'class 1' has 2 distinct images.*at least 3.*--allow-tiny"):
        split(dataset(labels), hashes, validation=0.15)
    parts = split(dataset(labels), hashes, validation=0.15, allow_tiny=True)
    assert set(parts[100:]) == {"train"}
    assert set(parts[:100]) == {"train", "validation", "test"}


@pytest.mark.parametrize(("others", "words"), [(1, "1 more class has"), (3, "3 more classes have")])
def test_the_number_of_other_classes_that_are_too_small_is_given(others, words):
    labels = [0] * 100 + list(range(1, others + 2))
    with pytest.raises(DataError, match=rf"has 1 distinct image, too few to split \({words} the same problem\):"):
        split(dataset(labels), contents(len(labels)), validation=0.15)


def test_two_images_are_enough_if_one_part_is_split_off():
    given = ["train"] * 52 + ["test"] * 2
    parts = split(dataset([0] * 50 + [1] * 2 + [0, 1], given), contents(54), validation=0.15)
    assert set(parts[50:52]) == {"train", "validation"}
    with pytest.raises(DataError, match="at least 2"):
        split(dataset([0] * 51 + [1] + [0, 1], given), contents(54), validation=0.15)


def test_a_class_whose_images_are_all_in_another_class_is_an_error():
    hashes = contents(1000)
    training = hashes[uniform(hashes, 0) >= 0.3][:4]
    labels = [0] * 4 + [1] * 1004
    with pytest.raises(DataError, match="'class 0' cannot be split"):
        split(dataset(labels), np.concatenate([training, training, hashes]), validation=0.15)


def test_a_set_without_training_images_is_an_error():
    with pytest.raises(DataError, match="no training images: its only parts are test"):
        split(dataset([0, 1], "test"), contents(2), validation=0.15)


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.15), (0.85, 0.15), (1, 0), (0.1, float("nan"))])
def test_impossible_shares_are_refused(validation, test):
    with pytest.raises(SpecError, match="must be shares"):
        split(dataset([0, 1] * 50), contents(100), validation=validation, test=test)


def test_a_test_share_that_is_not_needed_is_ignored():
    given = ["train"] * 90 + ["test"] * 10
    parts = split(dataset([0, 1] * 50, given), contents(100), validation=0.9)
    assert counts(parts)["validation"] > 60


def test_hashes_of_another_data_set_are_refused():
    with pytest.raises(ValueError, match="expected uint64"):
        split(dataset([0, 1] * 50), contents(99), validation=0.15)


def test_ten_thousand_small_classes_are_split_quickly():
    labels = np.repeat(np.arange(10_000), 5)
    parts = split(dataset(labels), contents(50_000), validation=0.15)
    table = np.zeros((10_000, 3), dtype=int)
    for column, name in enumerate(("train", "validation", "test")):
        table[:, column] = np.bincount(labels[parts == name], minlength=10_000)
    assert table.min() >= 1


def test_the_data_set_is_not_changed():
    given = dataset(np.arange(100) % 2)
    before = replace(given, parts=given.parts.copy())
    split(given, contents(100), validation=0.15)
    assert np.array_equal(given.parts, before.parts)


def test_the_record_of_a_run_restores_the_same_parts():
    toy = load_dataset("toy")
    hashes = np.arange(len(toy), dtype=np.uint64)
    parts = split(toy, hashes, validation=0.2)
    record = {"classes": list(toy.classes), **membership(toy, hashes, parts)}
    assert record["counts"]["test"] == {"blue": 20, "green": 20, "red": 20}
    assert np.array_equal(recorded_parts(record, toy, hashes, ("train", "validation", "test")), parts)
    only_test = recorded_parts(record, toy, hashes, ["test"])
    assert set(only_test) == {"", "test"}

    more = replace(toy, names=("new", *toy.names), labels=np.r_[0, toy.labels], parts=np.r_[["train"], toy.parts])
    assert np.array_equal(
        recorded_parts(record, more, np.r_[np.uint64(99), hashes], ("train", "validation", "test"))[1:], parts
    )

    changed = hashes.copy()
    changed[np.flatnonzero(parts == "validation")[0]] = 12345
    with pytest.raises(DataError, match="validation images in toy are no longer what they were"):
        recorded_parts(record, toy, changed, ("train", "validation"))
    recorded_parts(record, toy, changed, ["test"])  # validation is not needed
    keep = np.arange(len(toy)) != np.flatnonzero(parts == "train")[0]
    fewer = replace(toy, names=tuple(np.array(toy.names)[keep]), labels=toy.labels[keep], parts=toy.parts[keep])
    with pytest.raises(DataError, match=r"toy lacks 1 train image of the run \(the first is 'toy#\d+'\)"):
        recorded_parts(record, fewer, hashes[keep], ["train"])
    with pytest.raises(DataError, match="The run has the classes"):
        recorded_parts(record | {"classes": ["a"]}, toy, hashes, ["test"])


def test_few_shots_keep_that_many_of_each_class_and_smaller_counts_are_subsets():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [50, 30, 3])
    hashes = rng.integers(0, 2**63, 83).astype(np.uint64)
    parts = np.where(rng.random(83) < 0.8, "train", "validation").astype("<U10")
    parts[-3:] = "train"
    kept = {}
    for shots in (2, 10):
        left_out = few_shots(labels, hashes, parts, shots, seed=1)
        assert (parts[left_out] == "train").all()
        kept[shots] = set(np.setdiff1d(np.flatnonzero(parts == "train"), left_out).tolist())
        assert np.bincount(labels[list(kept[shots])]).tolist() == [min(shots, 50), min(shots, 30), min(shots, 3)]
    assert kept[2] < kept[10]
    other = set(few_shots(labels, hashes, parts, 2, seed=2).tolist())
    assert other != set(few_shots(labels, hashes, parts, 2, seed=1).tolist())
