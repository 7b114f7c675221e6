"""A CSV as people write it: other columns, delimiters and separators, and lines that cannot be used."""

import os

import pytest

from onsight.core.errors import DataError, ImageError
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.data.reading import Reading
from onsight.data.table import read_csv
from trees import make

FLAT = ("cat/1.jpg", "cat/2.JPEG", "dog/1.png")


@pytest.fixture
def photos(tmp_path):
    return tmp_path / "photos"


def write_csv(folder, text, encoding="utf-8"):
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_of_path_and_label(photos, encoding, end):
    make(photos, *FLAT)
    lines = ["path,label", "dog/1.png,dog", "", 'cat/1.jpg,"cat, tame"', f"{photos}/cat/2.JPEG, dog "]
    dataset = load_dataset(write_csv(photos, end.join(lines), encoding))
    assert dataset.name == "labels"
    assert dataset.classes == ("cat, tame", "dog")
    assert dataset.names == (f"{photos}/cat/2.JPEG", "cat/1.jpg", "dog/1.png")
    assert dataset.labels.tolist() == [1, 0, 1]
    assert dataset.parts.tolist() == ["", "", ""]
    assert dataset.provenance == "CSV labels (3 images)"
    assert [dataset.read(index) for index in range(3)] == [b"cat/2.JPEG", b"cat/1.jpg", b"dog/1.png"]


def test_a_csv_may_have_parts_and_other_columns(photos):
    make(photos, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    text = "id,Split,Label,Path\n7,train,a,1.jpg\n8,Test,a,2.jpg\n9,train,b,3.jpg\n9,test,b,4.jpg\n"
    dataset = read_csv(write_csv(photos, text))
    assert dataset.parts.tolist() == ["train", "test", "train", "test"]


def test_the_order_of_the_lines_does_not_matter(photos):
    make(photos, *FLAT)
    lines = [f"{name},{name[:3]}\n" for name in FLAT]
    first = read_csv(write_csv(photos, "path,label\n" + "".join(lines))).fingerprint
    assert read_csv(write_csv(photos, "path,label\n" + "".join(reversed(lines)))).fingerprint == first


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"labels\.csv, line 1: expected a column path \(or image, .*, found ''\. .*give it with --path-column"),
        ("path|label\ncat/1.jpg|cat", "line 1: expected a column path .*found 'path\\|label'"),
        ("path,kind\ncat/1.jpg,cat", "line 1: expected a column label .*found 'path,kind'.*--label-column"),
        ("image,file,label\ncat/1.jpg,1,cat", "line 1: the path could be in image or file: choose one with --path-c"),
        ("path,class,target\ncat/1.jpg,a,b", "line 1: the label could be in class or target: choose .*--label-column"),
        ("path,label\n", "names no images"),
        ("path,label,Label\ncat/1.jpg,cat,dog\n", "line 1: the column 'label' appears 2 times"),
        ("path,label\ncat/1.jpg,cat, tame\n", "line 2: 3 cells, expected 2"),
        ("path,label\n,cat\n", "line 2: the path is empty"),
        ("path,label\ncat\0,cat\n", "line 2"),
        ("path,label\ncat,cat\n", "line 2: 'cat' is not a file"),
        ("path,label,split\ncat/1.jpg,cat,\n", "line 2: the split is ''"),
        ("path,label\ncat/1.jpg,cat\ncat/2.JPEG,cat\n", "The CSV 'labels' has only one class"),
        ("path,label,split\ncat/1.jpg,a,train\ncat/2.JPEG,b,train\ndog/1.png,a,test", "test has no images of 'b'"),
        ('path,label\n"' + "x" * 200_000, "line .*field larger than field limit"),
    ],
)
def test_a_csv_that_cannot_be_read_says_why(photos, text, reason):
    make(photos, *FLAT)
    with pytest.raises(DataError, match=reason):
        read_csv(write_csv(photos, text))


def test_another_encoding_is_named(photos):
    make(photos, *FLAT)
    with pytest.raises(DataError, match=r"labels\.csv is not UTF-8 .*save it as 'CSV UTF-8'"):
        read_csv(write_csv(photos, "path,label\ncat/1.jpg,café\n", "latin-1"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [("Image Path", "Category"), ("FILE", "Class"), ("file_name", "target")])
def test_usual_delimiters_and_columns_are_recognised(photos, delimiter, header):
    make(photos, *FLAT)
    rows = [header, *((name, name[:3]) for name in FLAT)]
    dataset = read_csv(write_csv(photos, "\r\n".join(delimiter.join(row) for row in rows), "utf-8-sig"))
    assert dataset.names == FLAT
    assert dataset.classes == ("cat", "dog")


def test_the_usual_names_win_over_their_synonyms(photos):
    make(photos, *FLAT)
    rows = [f"{name},{index},{name[:3]},{index % 2}" for index, name in enumerate(FLAT)]
    dataset = read_csv(write_csv(photos, "\n".join(["path,file,label,class", *rows])))
    assert (dataset.names, dataset.classes) == (FLAT, ("cat", "dog"))


def test_other_columns_are_named_by_the_user(photos):
    make(photos, *FLAT)
    path = write_csv(photos, "\n".join(["img;kind;label", *(f"{name};{name[:3]};x" for name in FLAT)]))
    dataset = load_dataset(path, reading=Reading(path_column="IMG", label_column="kind"))
    assert (dataset.names, dataset.classes) == (FLAT, ("cat", "dog"))
    with pytest.raises(DataError, match=r"line 1: No column 'imgs'. Known: img, kind, label. Did you mean 'img'"):
        read_csv(path, reading=Reading(path_column="imgs"))
    with pytest.raises(DataError, match="'img' cannot hold both"):
        read_csv(path, reading=Reading(path_column="img", label_column="img"))


@pytest.mark.parametrize("column", ["split", "Part", "subset", "set"])
def test_parts_are_written_in_many_ways(photos, column):
    make(photos, *FLAT, "dog/2.png", "dog/3.png", "cat/3.jpg")
    names = (*FLAT, "dog/2.png", "dog/3.png", "cat/3.jpg")
    cells = ("Training", "dev_set", "train", "validation", "TEST", "testset")
    rows = [f"{name},{name[:3]},{cell}" for name, cell in zip(names, cells, strict=True)]
    dataset = read_csv(write_csv(photos, "\n".join([f"path,label,{column}", *rows])))
    found = dict(zip(dataset.names, dataset.parts.tolist(), strict=True))
    assert [found[name] for name in names] == ["train", "validation", "train", "validation", "test", "test"]


def test_a_column_called_part_that_names_none_is_not_used(photos):
    make(photos, *FLAT)
    text = "\n".join(["path,label,part", *(f"{name},{name[:3]},wheel" for name in FLAT)])
    dataset = read_csv(write_csv(photos, text))
    assert set(dataset.parts.tolist()) == {""}
    assert dataset.notes == ("the column 'part' names no parts (train, test), so it is not used",)


def test_separators_of_windows_are_understood(photos):
    make(photos, *FLAT)
    text = "path,label\n" + "".join(f"{name},{name[:3]}\n" for name in FLAT).replace("/", "\\")
    dataset = read_csv(write_csv(photos, text))
    assert dataset.names == FLAT
    assert dataset.read(0) == b"cat/1.jpg"


@pytest.mark.skipif(os.name == "nt", reason="a backslash separates folders there")
def test_a_file_whose_name_has_a_backslash_is_found(photos):
    make(photos, *FLAT, "dog\\9.png")
    rows = [*FLAT, "dog\\9.png"]
    dataset = read_csv(write_csv(photos, "path,label\n" + "".join(f"{name},{name[:3]}\n" for name in rows)))
    assert "dog\\9.png" in dataset.names


BAD_LINES = [
    ("cat/2.JPEG", "1 cell, expected 3"),
    ("cat/2.JPEG, ,train", "the label is empty"),
    (",cat,train", "the path is empty"),
    ("cat,cat,train", "'cat' is not a file"),
    ("c\0at,cat,train", "cannot be a path"),
    ("./cat/1.jpg,dog,train", "'./cat/1.jpg' was already named in line 2"),
    ("cat/2.JPEG,cat,fold1", "the split is 'fold1', expected a name of a part (train: train, training"),
]
GOOD_LINES = ["path,label,split", "cat/1.jpg,cat,train", "dog/1.png,dog,train"]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_line_that_cannot_be_used_is_skipped_with_its_reason(photos, line, reason):
    make(photos, *FLAT)
    dataset = read_csv(write_csv(photos, "\n".join([*GOOD_LINES, line])))
    assert dataset.names == ("cat/1.jpg", "dog/1.png")
    assert list(dataset.unusable) == ["labels.csv, line 4"]
    assert reason in dataset.unusable["labels.csv, line 4"]


def test_a_file_that_is_gone_is_an_unreadable_image_of_its_class(photos):
    make(photos, *FLAT)
    dataset = read_csv(write_csv(photos, "\n".join([*GOOD_LINES, "bird/1.jpg,bird,train"])))
    assert dataset.classes == ("bird", "cat", "dog")
    assert dataset.names[0] == "bird/1.jpg"
    with pytest.raises(ImageError, match="No such file"):
        dataset.read(0)


def test_all_problems_are_listed_when_there_are_too_many(photos):
    make(photos, *FLAT)
    path = write_csv(photos, "\n".join([*GOOD_LINES, "bird/1.jpg,bird,train", *(line for line, _ in BAD_LINES[:4])]))
    with pytest.raises(DataError, match=r"(?s)^5 of 7 images of labels\.csv cannot be read, .*at least 3") as caught:
        read_csv(path)
    assert "labels.csv, line 5: 1 cell, expected 3" in str(caught.value)
    assert "labels.csv, line 4: 'bird/1.jpg' cannot be opened" in str(caught.value)
    assert str(caught.value).endswith(
        "Paths are relative to the CSV's folder, or absolute. Repair or remove these lines."
    )
    assert len(read_csv(path, complete=False).unusable) == 4  # check shows all of them


def test_unusable_lines_and_unreadable_images_share_one_limit(photos):
    make(photos, *FLAT)  # none of these files is an image
    path = write_csv(photos, "\n".join([*GOOD_LINES, *(line for line, _ in BAD_LINES[:2])]))
    with pytest.raises(DataError, match=r"(?s)^4 of 4 images of labels cannot be read.*labels.csv, line 5: the label"):
        load_pixels(read_csv(path), 8)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_is_not_read(photos):
    make(photos, *FLAT)
    os.mkfifo(photos / "pipe.jpg")
    dataset = read_csv(write_csv(photos, "\n".join([*GOOD_LINES, "pipe.jpg,cat,train"])))
    assert dataset.unusable == {"labels.csv, line 4": "'pipe.jpg' is not a file"}
