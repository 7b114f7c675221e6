import os
import pickle

import numpy as np
import pytest

from onsight.core.errors import DataError, ImageError, SpecError
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.data.reading import Reading
from onsight.data.shards import braces, find_shards, images_of
from trees import draw, write_shards, write_tar

CLASSES = ("blue", "green", "red")


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "colours")


def test_a_folder_of_shards_is_a_data_set(folder):
    dataset = load_dataset(folder)
    assert (dataset.name, dataset.classes, len(dataset)) == ("colours", CLASSES, 60)
    assert dataset.names[0] == "photos-000.tar/00000.jpg"
    assert dataset.provenance == "tar colours (60 images)"
    pixels = load_pixels(pickle.loads(pickle.dumps(dataset)), 16)
    brightest = 2 - pixels.images.mean((1, 2)).argmax(1)
    assert np.array_equal(brightest, dataset.labels)  # blue is class 0 and channel 2


@pytest.mark.parametrize("pattern", ["photos-{000..001}.tar", "photos-00{0,1}.tar", "*-00[01].tar"])
def test_patterns_name_shards(folder, pattern):
    assert len(load_dataset(folder / pattern)) == 40
    assert [os.path.basename(each) for each in find_shards(folder / pattern)] == ["photos-000.tar", "photos-001.tar"]


def test_a_missing_shard_is_an_error(folder):
    for pattern in ("photos-{002..003}.tar", "other-*.tar", "photos.tar"):
        with pytest.raises(SpecError, match="There is no shard at"):
            load_dataset(folder / pattern)
    with pytest.raises(SpecError, match="must count up"):
        load_dataset(folder / "photos-{5..1}.tar")
    with pytest.raises(SpecError, match="more than 100,000 shards"):
        braces("{0..999}-{0..999}.tar")


def test_shards_name_the_parts(tmp_path):
    for part in ("train", "val", "test"):
        write_shards(tmp_path / "a" / part, 1, 6)
        os.rename(write_shards(tmp_path / "b", 1, 6) / "photos-000.tar", tmp_path / "b" / f"colours-{part}-000.tar")
    for folder in ("a", "b"):
        dataset = load_dataset(tmp_path / folder)
        assert {part: int((dataset.parts == part).sum()) for part in ("train", "validation", "test")} == {
            "train": 6, "validation": 6, "test": 6,
        }  # fmt: skip
    os.rename(tmp_path / "b" / "colours-val-000.tar", tmp_path / "b" / "extra.tar")
    with pytest.raises(DataError, match=r"'colours-train-000.tar' names the train part, but 'extra.tar' names none"):
        load_dataset(tmp_path / "b")


def test_tars_of_folders_are_read_like_a_zip(tmp_path):
    members = [(f"./photos/{label}/{i}.jpg", draw(0, i)) for label in ("cat", "dog") for i in range(3)]
    dataset = load_dataset(write_tar(tmp_path / "photos.tar", members))
    assert (dataset.classes, dataset.names[0], len(dataset)) == (("cat", "dog"), "cat/0.jpg", 6)
    assert dataset.read(0) == members[0][1]
    (tmp_path / "b").mkdir()
    for part in ("train", "test"):
        write_tar(tmp_path / "b" / f"{part}.tar", members)
    again = load_dataset(tmp_path / "b")
    assert (again.names[0], again.classes) == ("test/cat/0.jpg", ("cat", "dog"))
    assert set(again.parts.tolist()) == {"train", "test"}
    for name in ("1.tar", "2.tar"):
        write_tar(tmp_path / name, members)
    with pytest.raises(DataError, match="hold images of the same name, but no labels"):
        load_dataset(tmp_path / "{1,2}.tar")


def test_images_without_a_label_are_skipped_up_to_the_limit(tmp_path):
    members = [each for i in range(9) for each in ((f"{i}.jpg", b"x"), (f"{i}.cls", b"cat" if i % 2 else b"dog"))]
    dataset = load_dataset(write_tar(tmp_path / "a.tar", [*members, ("90.jpg", b"x")]))
    assert dataset.unusable == {"a.tar/90.jpg": "has no label beside it (cls, json, txt)"}
    with pytest.raises(DataError, match="4 of 13 images of a cannot be read"):
        load_dataset(write_tar(tmp_path / "a.tar", [*members, *((f"9{i}.jpg", b"x") for i in range(4))]))


def test_a_name_that_occurs_twice_is_an_error(tmp_path):
    members = [("1.jpg", b"x"), ("1.cls", b"a"), ("2.jpg", b"y"), ("2.cls", b"b"), ("1.jpg", b"z"), ("1.cls", b"a")]
    with pytest.raises(DataError, match=r"The tar 'a.tar' holds '1.jpg' twice"):
        load_dataset(write_tar(tmp_path / "a.tar", members))


def test_a_shard_that_changes_is_noticed(folder):
    before = load_dataset(folder)
    write_tar(folder / "photos-000.tar", [("1.jpg", b"other"), ("1.cls", b"red")])
    with pytest.raises(ImageError, match=r"photos-000\.tar has changed since it was listed"):
        before.read(0)
    assert before.read(59)
    assert load_dataset(folder).fingerprint != before.fingerprint


def test_both_kinds_of_shards_are_not_mixed(folder):
    (folder / "photos.parquet").touch()
    with pytest.raises(DataError, match="holds both tar and Parquet files"):
        load_dataset(folder)


def test_images_of_a_shard_come_in_its_order(folder):
    names = [name for name, _ in images_of(str(folder / "photos-001.tar"))]
    assert names == [f"photos-001.tar/01{number:03}.jpg" for number in range(20)]
    with pytest.raises(DataError, match=r"gone\.tar' cannot be read"):
        list(images_of(str(folder / "gone.tar")))


def test_columns_are_for_parquet_only(folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    rows = {"photo": [draw(i % 3, i) for i in range(6)], "colour": [i % 3 for i in range(6)]}
    parquet.write_table(arrow.table(rows), tmp_path / "test.parquet")
    dataset = load_dataset(tmp_path / "test.parquet", reading=Reading(path_column="photo", label_column="colour"))
    assert (dataset.classes, set(dataset.parts.tolist())) == (("0", "1", "2"), {"test"})
    assert dataset.read(4) == rows["photo"][4]
    assert not load_pixels(dataset, 16).broken
    with pytest.raises(SpecError, match="--path-column and --label-column are for CSVs and Parquet"):
        load_dataset(folder, reading=Reading(label_column="colour"))
    with pytest.raises(SpecError, match="--layout is for folders"):
        load_dataset(tmp_path / "test.parquet", reading=Reading(layout="parts"))
