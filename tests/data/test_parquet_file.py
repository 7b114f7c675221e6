import json

import pytest

from onsight.core.errors import DataError, ImageError, SpecError
from onsight.data import parquet_file
from onsight.data.reading import AUTOMATIC, Reading

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

NAMES = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}


def write(file, names=None, row_group_size=2, **columns):
    table = arrow.table(columns)
    if names:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": names}})})
    parquet.write_table(table, file, row_group_size=row_group_size)
    return file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train-00000.parquet"


def as_hugging_face(*contents):
    return [{"bytes": content, "path": f"{number}.jpg"} for number, content in enumerate(contents)]


def test_a_file_as_hugging_face_writes_it(path):
    write(path, NAMES, image=as_hugging_face(b"a", b"b", b"c"), label=[0, 1, 0])
    found = list(parquet_file.listed(path, AUTOMATIC))
    assert [(each.name, each.label) for each in found] == [
        ("00000000", "cat"), ("00000001", "dog"), ("00000002", "cat"),
    ]  # fmt: skip
    assert [parquet_file.read(str(path), *each.place) for each in found] == [b"a", b"b", b"c"]
    with open(path, "rb") as file:
        assert list(parquet_file.stream(file, path.name)) == [
            ("00000000", b"a"), ("00000001", b"b"), ("00000002", b"c"),
        ]  # fmt: skip


def test_bytes_and_text(path):
    write(path, jpg=[b"a", b"b"], category=["cat", " dog "], other=[1.5, 2.5])
    found = list(parquet_file.listed(path, AUTOMATIC))
    assert [(each.label, parquet_file.read(str(path), *each.place)) for each in found] == [("cat", b"a"), ("dog", b"b")]


def test_numbers_without_names_are_their_own(path):
    write(path, image=[b"a", b"b"], label=[3, -1])
    assert [(each.label, bool(each.problem)) for each in parquet_file.listed(path, AUTOMATIC)] == [
        ("3", False),
        (None, True),
    ]


def test_labels_that_are_no_class_say_so(path):
    write(path, NAMES, image=[b"a"] * 3, label=[-1, 2, None])
    problems = [each.problem for each in parquet_file.listed(path, AUTOMATIC)]
    assert problems == [f"has the label '{value}', which is no class" for value in (-1, 2, None)]


def test_columns_are_chosen_by_flags(path):
    write(path, photo=[b"a", b"b"], image=[b"c", b"d"], fine=["x", "y"], label=["m", "n"])
    reading = Reading(path_column="photo", label_column="fine")
    assert [each.label for each in parquet_file.listed(path, reading)] == ["x", "y"]
    assert parquet_file.read(str(path), 0, 1, "photo") == b"b"
    assert parquet_file.read(str(path), 0, 1) == b"d"  # "image" before others
    with pytest.raises(DataError, match="No column of images 'picture'"):
        list(parquet_file.listed(path, Reading(path_column="picture")))
    with pytest.raises(DataError, match=r"No column 'lable'.*Did you mean 'label'"):
        list(parquet_file.listed(path, Reading(label_column="lable")))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a.jpg"], "label": ["cat"]}, "no column of images.*its columns are path, label"),
        ({"image": [b"a"], "photo": [1]}, "labels are missing among image, photo: .*--label-column"),
        ({"image": [b"a"], "class": [1], "target": [2]}, "labels could be in class or target"),
        ({"left": [b"a"], "right": [b"b"], "label": [1]}, "could be in left or right: .*--path-column"),
    ],
)
def test_what_could_be_meant_in_two_ways_is_asked(path, columns, message):
    with pytest.raises(DataError, match=message):
        list(parquet_file.listed(write(path, **columns), AUTOMATIC))


def test_rows_without_bytes_are_broken_images(path):
    write(path, NAMES, image=[{"bytes": None, "path": "far.jpg"}, {"bytes": b"b", "path": None}], label=[0, 1])
    with pytest.raises(ImageError, match=r"no bytes, only the path 'far\.jpg'"):
        parquet_file.read(str(path), 0, 0)
    with open(path, "rb") as file:
        (_, first), (_, second) = parquet_file.stream(file, path.name)
    assert isinstance(first, ImageError)
    assert second == b"b"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet" * 100, b"PAR1" + b"\xff" * 64 + b"PAR1"])
def test_a_damaged_file_is_an_error(path, content):
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a complete Parquet file"):
        list(parquet_file.listed(path, AUTOMATIC))


def test_a_file_written_anew_is_read_anew(path):
    write(path, image=[b"a"], label=[0])
    assert parquet_file.read(str(path), 0, 0) == b"a"
    write(path, image=[b"z"], label=[0])
    assert parquet_file.read(str(path), 0, 0) == b"z"
    with pytest.raises(ImageError, match="has changed"):
        parquet_file.read(str(path), 0, 5)


def test_a_missing_pyarrow_is_named(path, monkeypatch):
    write(path, image=[b"a"], label=[0])
    monkeypatch.setattr(parquet_file, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"needs pyarrow. pip install 'onsight\[remote\]'"):
        list(parquet_file.listed(path, AUTOMATIC))
