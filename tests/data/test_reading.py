"""Which classes are used, and the lists that name them."""

import numpy as np
import pytest

from onsight.core.errors import DataError
from onsight.data.load import load_dataset
from onsight.data.reading import Reading, exclude_flag, listed, names_in

CLASSES = ("bird", "café", "cat", "dog")


@pytest.mark.parametrize(
    ("classes", "exclude", "stay"),
    [
        ((), (), CLASSES),
        (("dog", "cat"), (), ("cat", "dog")),
        ((), ("cat",), ("bird", "café", "dog")),
        (("dog", "cat", "bird"), ("bird",), ("cat", "dog")),
        ((), ("cafe\u0301", "dog"), ("bird", "cat")),  # é as macOS writes it
    ],
)
def test_classes_are_chosen_by_name(classes, exclude, stay):
    assert Reading(classes=classes, exclude=exclude).chosen(CLASSES, "The folder 'photos'") == stay


@pytest.mark.parametrize(
    ("classes", "exclude", "reason"),
    [
        (("cats", "dog"), (), "^The folder 'photos': No class 'cats'. Known: bird, .*Did you mean 'cat'"),
        ((), ("dgo",), "Did you mean 'dog'"),
        (("cat",), (), "--classes would leave only 'cat': a classifier needs at least two"),
        ((), CLASSES, "--exclude would leave no class"),
        (("cat", "dog"), ("dog",), "--classes and --exclude would leave only 'cat'"),
    ],
)
def test_a_choice_that_cannot_be_is_an_error(classes, exclude, reason):
    with pytest.raises(DataError, match=reason):
        Reading(classes=classes, exclude=exclude).chosen(CLASSES, "The folder 'photos'")


def test_a_list_of_names_survives_writing_and_reading():
    names = ("cat, tame", 'say "hi"', "sea lion", "dog")
    assert names_in(listed(names)) == names
    assert names_in(" a , b,,") == ("a", "b")
    assert names_in("") == ()
    assert exclude_flag(["a"]) == "--exclude a"


@pytest.fixture
def photos(tmp_path):
    for part in ("train", "test"):
        for name in ("bird", "cat", "dog"):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            if (part, name) != ("test", "bird"):
                (tmp_path / "photos" / part / name / "1.jpg").write_bytes(b"x")
    return tmp_path / "photos"


def test_classes_are_left_out_of_every_part_alike(photos):
    with pytest.raises(DataError, match=r"has 1 empty class folder, 'test/bird'.*: --exclude bird$"):
        load_dataset(photos)
    dataset = load_dataset(photos, reading=Reading(exclude=("bird",)))
    assert dataset.classes == ("cat", "dog")
    assert dataset.names == ("test/cat/1.jpg", "test/dog/1.jpg", "train/cat/1.jpg", "train/dog/1.jpg")
    assert dataset.labels.tolist() == [0, 1, 0, 1]
    assert dataset.left_out == {"train/bird/1.jpg"}
    assert dataset.provenance == "folder photos (4 images, 2 of its 3 classes)"
    (photos / "train" / "bird" / "1.jpg").unlink()
    (photos / "train" / "bird").rmdir()
    (photos / "test" / "bird").rmdir()
    assert load_dataset(photos).fingerprint == dataset.fingerprint  # as if the class had never been there


def test_a_named_data_set_is_restricted_too():
    whole = load_dataset("digits")
    some = load_dataset("digits", reading=Reading(classes=("7", "1")))
    assert some.classes == ("1", "7")
    old = np.isin(whole.labels, (1, 7))
    assert np.array_equal(some.images, whole.images[old])
    assert np.array_equal(np.array(some.classes)[some.labels], np.array(whole.classes)[whole.labels[old]])
    assert some.names == tuple(np.array(whole.names)[old])
    assert some.left_out == {*whole.names} - {*some.names}
    assert some.fingerprint != whole.fingerprint
    assert some.provenance.endswith("2 of its 10 classes")
