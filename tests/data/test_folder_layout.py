"""Folders as people have them: names of parts, needless levels, and layouts that could be meant in two ways."""

import zipfile

import pytest

from onsight.core.errors import DataError, SpecError
from onsight.data.folder_layout import part_of
from onsight.data.load import load_dataset
from onsight.data.reading import Reading

PAIR = ("cat/1.jpg", "dog/1.jpg")


@pytest.fixture(params=["folder", "zip"])
def load(request, tmp_path):
    """Return a function that writes files of these names into a folder or a zip, and lists them."""

    def load(*names, **reading):
        path = tmp_path / ("photos" if request.param == "folder" else "photos.zip")
        if request.param == "folder":
            for name in names:
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(name.encode())
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for name in names:
                    archive.writestr(name, name)
        return load_dataset(path, reading=Reading(**reading))

    return load


def within(*folders):
    return [f"{folder}/{name}" for folder in folders for name in PAIR]


def parts(dataset):
    return dict(zip(dataset.names, dataset.parts.tolist(), strict=True))


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("train", "train Training training_set train_set TRAIN-SET seg_train trainset train_images"),
        ("validation", "val valid validation Dev eval evaluation validation_set val_set seg_val valset"),
        ("test", "test testing TEST_SET seg_test testset Test-Data"),
        ("", "cat seg seg_pred tests trains pretrain set train1"),
    ],
)
def test_names_of_parts(part, names):
    assert {part_of(name) for name in names.split()} == {part}


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("Training", "VALID", "testing"), ("seg_train", "seg_val", "seg_test"), ("training_set", "dev", "test_set")],
)
def test_parts_are_recognised_by_their_names(load, train, validation, test):
    dataset = load(*within(train, validation, test))
    assert dataset.classes == ("cat", "dog")
    expected = {train: "train", validation: "validation", test: "test"}
    assert parts(dataset) == {f"{top}/{name}": part for top, part in expected.items() for name in PAIR}


@pytest.mark.parametrize(("one", "two", "part"), [("train", "training", "train"), ("val", "valid", "validation")])
def test_two_folders_for_one_part_are_refused(load, one, two, part):
    with pytest.raises(DataError, match=f"'{one}' and '{two}' both mean the {part} part"):
        load(*within(one, two, "test"))


def test_a_level_that_repeats_the_part_is_passed_over(load):
    dataset = load(*within("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/seg_pred/7.jpg", "seg_pred/8.jpg")
    assert dataset.classes == ("cat", "dog")
    assert set(parts(dataset).items()) == {
        *((f"seg_train/seg_train/{name}", "train") for name in PAIR),
        *((f"seg_test/seg_test/{name}", "test") for name in PAIR),
    }
    assert dataset.notes == ("'seg_pred' (2 images) is ignored, because it has no class folders",)


@pytest.mark.parametrize("top", ["photos/", "archive/photos/", "Data Set/"])
def test_needless_levels_on_top_are_passed_over(load, top):
    assert parts(load(*(top + name for name in PAIR), f"{top}cover.jpg", "readme.txt")) == dict.fromkeys(PAIR, "")


def test_needless_levels_on_top_of_parts_are_passed_over(load):
    dataset = load(*(f"dataset/{name}" for name in within("train", "test")), "__MACOSX/dataset/1.jpg", ".hidden/1.jpg")
    assert parts(dataset) == {
        "test/cat/1.jpg": "test",
        "test/dog/1.jpg": "test",
        "train/cat/1.jpg": "train",
        "train/dog/1.jpg": "train",
    }
    assert dataset.read(0) in (b"test/cat/1.jpg", b"dataset/test/cat/1.jpg")


def test_a_part_alone_is_no_needless_level(load):
    assert set(parts(load(*within("train"))).values()) == {"train"}


def test_equal_folders_that_are_no_parts_are_not_guessed(load):
    with pytest.raises(DataError, match=r"^The (folder|zip) 'photos' can be read in two ways") as caught:
        load(*within("camera1", "camera2"))
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "--layout parts    the classes are 'cat', 'dog'; 'camera1', 'camera2' are no names of parts" in message
    assert "--layout classes  the classes are 'camera1', 'camera2'" in message


def test_the_user_chooses_a_layout(load):
    assert load(*within("camera1", "camera2"), layout="classes").classes == ("camera1", "camera2")
    pooled = load(*within("camera1", "camera2"), layout="parts")
    assert pooled.classes == ("cat", "dog")
    assert set(pooled.parts.tolist()) == {""}
    assert pooled.notes == (
        "'camera1', 'camera2' (4 images) are no names of parts, so their images are put together and split",
    )


def test_a_half_recognised_layout_is_not_guessed(load):
    with pytest.raises(DataError, match="two ways") as caught:
        load(*within("train", "test", "extra"))
    assert "'test' is the test part; 'train' is the train part; 'extra' joins the training images" in str(caught.value)
    assert "the classes are 'extra', 'test', 'train'" in str(caught.value)
    joined = load(*within("train", "test", "extra"), layout="parts")
    assert {name: part for name, part in parts(joined).items() if name.startswith("extra")} == {
        "extra/cat/1.jpg": "train",
        "extra/dog/1.jpg": "train",
    }
    assert load(*within("train", "test", "extra"), layout="classes").classes == ("extra", "test", "train")


def test_a_flat_part_next_to_a_folder_of_classes_is_not_guessed(load):
    with pytest.raises(
        DataError, match=r"'test' is the test part, but has no class folders; 'mine' joins the training"
    ):
        load(*within("mine"), "test/1.jpg")
    assert load(*within("mine"), "test/1.jpg", layout="classes").classes == ("mine", "test")


def test_a_class_called_train_with_folders_in_it_is_not_guessed(load):
    with pytest.raises(DataError, match=r"(?s)two ways.*the classes are 'car', 'train'"):
        load("train/steam/1.jpg", "train/diesel/1.jpg", "car/1.jpg")
    assert load("train/steam/1.jpg", "car/1.jpg", layout="classes").classes == ("car", "train")


def test_flat_folders_next_to_two_parts_are_ignored_with_a_note(load):
    dataset = load(*within("train", "test"), "more/1.jpg", "seg_pred/1.jpg", "notes/readme.txt")
    assert len(dataset) == 4
    assert dataset.notes == ("'more', 'seg_pred' (2 images) are ignored, because they have no class folders",)


@pytest.mark.parametrize("flat", ["seg_pred", "test1", "Predict", "unlabelled", "testing_new"])
def test_images_to_predict_next_to_one_part_are_ignored_with_a_note(load, flat):
    dataset = load(*within("train"), f"{flat}/1.jpg")
    assert set(dataset.parts.tolist()) == {"train"}
    assert dataset.notes == (f"'{flat}' (1 image) is ignored, because it has no class folders",)


@pytest.mark.parametrize("below", [("one/cat", "two/cat"), ("one/cat", "one/dog", "two/cat", "two/cow")])
def test_classes_with_different_or_few_folders_in_them_are_classes(load, below):
    assert load(*(f"{folder}/1.jpg" for folder in below)).classes == ("one", "two")


def test_folders_with_images_of_their_own_are_classes(load):
    assert load(*within("one", "two"), "one/1.jpg", "two/1.jpg").classes == ("one", "two")


@pytest.mark.parametrize("names", [["cat/1.jpg", "dog/1.jpg"], ["test/1.jpg", "train/1.jpg"]])
def test_parts_need_class_folders(load, names):
    with pytest.raises(DataError, match="there are no class folders in"):
        load(*names, layout="parts")


def test_a_layout_is_for_folders_and_columns_are_for_csvs(load, tmp_path):
    with pytest.raises(SpecError, match="--layout is for folders and zips, but 'toy' is a named data set"):
        load_dataset("toy", reading=Reading(layout="classes"))
    with pytest.raises(SpecError, match=r"are for CSVs and Parquet, but .* is neither"):
        load(*PAIR, path_column="img")
    (tmp_path / "labels.csv").write_text("path,label\n")
    with pytest.raises(SpecError, match=r"--layout is for folders and zips, but .*labels.csv' is a CSV"):
        load_dataset(tmp_path / "labels.csv", reading=Reading(layout="parts"))
