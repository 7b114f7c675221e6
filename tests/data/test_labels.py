"""labels.csv: what is written, how it is read, and how it changes a data set."""

import os
import pickle
import shutil

import numpy as np
import pytest

from onsight.core.errors import DataError
from onsight.data.labels import (
    COLUMNS,
    NONE,
    Row,
    added_images,
    append_rows,
    needless_copies,
    read_answers,
)
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.data.reading import LabelsFile, Reading


def row(path, label, previous="", who="Ann"):
    return Row(str(path), label, previous, who, "2026-11-28T10:00:00+00:00")


def labelled(data, *rows, **reading):
    append_rows(data.parent / "labels.csv", rows)
    return load_dataset(str(data), reading=Reading(labels=LabelsFile(data.parent / "labels.csv"), **reading))


def label_of(dataset, name):
    return dataset.classes[dataset.labels[dataset.names.index(name)]]


def test_lines_are_only_added_and_read_back(tmp_path):
    path = tmp_path / "labels.csv"
    hostile = ('=cmd|"x"', "'quoted", "a,b", "+1", "größe.jpg", "a\u2028b\x1cc")
    for each in hostile:
        before = path.read_bytes() if path.exists() else b""
        append_rows(path, [row(each, each, each)])
        assert path.read_bytes().startswith(before)
    text = path.read_text()
    assert text.splitlines()[0] == ",".join(COLUMNS)
    assert "\"'=cmd" in text  # no spreadsheet runs it
    found, incomplete = read_answers(path.read_bytes(), "labels.csv")
    assert [*found] == [*hostile]
    assert [people["Ann"].label for people in found.values()] == [*hostile]
    assert incomplete == 0


@pytest.mark.parametrize("cut", [1, 5, 30, 45])
def test_a_line_that_a_crash_has_cut_costs_only_itself(tmp_path, cut):
    path = tmp_path / "labels.csv"
    append_rows(path, [row("a.jpg", "cat"), row("b.jpg", "cat")])
    path.write_bytes(path.read_bytes()[:-cut])
    append_rows(path, [row("c.jpg", "dog")])
    found, incomplete = read_answers(path.read_bytes(), "labels.csv")
    assert {"a.jpg", "c.jpg"} <= {*found}
    assert incomplete == ("b.jpg" not in found)


def test_lines_that_are_not_csv_cost_only_themselves(tmp_path):
    path = tmp_path / "labels.csv"
    append_rows(path, [row("a.jpg", "cat")])
    path.write_bytes(path.read_bytes() + b'"' + b"x" * 200_000 + b"\na\rb,c\n\n" + b"\xff\n")
    append_rows(path, [row("c.jpg", "dog")])
    found, incomplete = read_answers(path.read_bytes().replace(b"\n", b"\r\n"), "labels.csv")
    assert [*found] == ["a.jpg", "c.jpg"]
    assert incomplete == 3


def test_a_correction_counts_more_than_the_folder(photos):
    before = load_dataset(str(photos))
    after = labelled(photos, row("red/1.jpg", "blue", "red"), row("red/2.jpg", "red", "red"))
    assert label_of(after, "red/1.jpg") == "blue"
    assert label_of(after, "red/2.jpg") == "red"
    assert after.names == before.names
    assert after.fingerprint != before.fingerprint
    assert after.relabelled.corrected == ("red/1.jpg",)
    assert after.notes[-1] == "labels of labels.csv: 1 image corrected"
    assert after.provenance.endswith(", with labels.csv: 1 image corrected")


def test_the_last_line_of_a_person_counts_and_answers_can_be_taken_back(photos):
    after = labelled(
        photos,
        row("red/1.jpg", "blue"), row("red/1.jpg", "green"),
        row("red/2.jpg", "blue"), row("red/2.jpg", ""),
        row("red/3.jpg", "blue"), row("red/3.jpg", "blue", who="Bob"), row("red/3.jpg", "", who="Bob"),
    )  # fmt: skip
    assert [label_of(after, f"red/{i}.jpg") for i in (1, 2, 3)] == ["green", "red", "blue"]
    assert after.relabelled.conflicts == ()


def test_conflicts_between_people_are_listed(photos):
    after = labelled(photos, row("red/1.jpg", "blue"), row("red/1.jpg", "green", who="Bob"))
    assert label_of(after, "red/1.jpg") == "green"
    assert after.relabelled.conflicts == ("'red/1.jpg' (Ann: blue, Bob: green)",)
    assert "people disagree in labels.csv, and the last answer counts" in after.notes[-1]
    again = labelled(photos, row("red/1.jpg", "blue", who="Bob"))
    assert again.relabelled.conflicts == ()


def test_images_that_are_none_of_the_classes_are_left_out(photos):
    after = labelled(photos, row("red/1.jpg", NONE, "red"), row(photos.parent / "other.jpg", NONE))
    assert len(after) == 71
    assert "red/1.jpg" in after.left_out
    assert after.relabelled.left_out == ("red/1.jpg",)


def test_new_images_are_added_at_the_end_and_can_be_read_elsewhere(photos):
    pool = photos.parent / "pool"
    shutil.copytree(photos / "red", pool)
    after = labelled(photos, row(pool / "1.jpg", "red"), row("pool/2.jpg", "blue"), row(photos / "red/3.jpg", "green"))
    assert after.names[-2:] == (str(pool / "1.jpg"), str(pool / "2.jpg"))
    assert label_of(after, str(pool / "2.jpg")) == "blue"
    assert label_of(after, "red/3.jpg") == "green"  # not new: it is in the data set
    assert added_images(after).tolist() == [False] * 72 + [True] * 2
    assert pickle.loads(pickle.dumps(after)).read(73) == (pool / "2.jpg").read_bytes()
    assert after.read(0) == (photos / after.names[0]).read_bytes()


def test_added_copies_are_found_by_their_pixels(photos):
    from PIL import Image

    pool = photos.parent / "pool"
    pool.mkdir()
    shutil.copy(photos / "red" / "1.jpg", pool / "same.jpg")
    with Image.open(photos / "red" / "2.jpg") as image:
        image.save(pool / "saved.png")
    for name in ("new.png", "twice.png"):
        Image.fromarray(np.full((30, 40, 3), 77, np.uint8)).save(pool / name)
    (pool / "broken.png").write_bytes(b"nothing")
    names = ("same.jpg", "saved.png", "new.png", "twice.png", "broken.png")
    after = labelled(photos, *(row(pool / name, "red") for name in names))
    copies = needless_copies(after, load_pixels(after, 32))
    assert copies[-5:].tolist() == [True, True, False, True, False]
    assert not copies[:-5].any()


def test_a_zip_takes_new_images_and_a_named_set_only_corrections(photos):
    shutil.make_archive(str(photos), "zip", photos)
    shutil.copy(photos / "red" / "1.jpg", photos.parent / "new.jpg")
    zipped = labelled(photos.with_suffix(".zip"), row("red/1.jpg", "blue"), row("new.jpg", "red"))
    assert label_of(zipped, "red/1.jpg") == "blue"
    assert zipped.read(72) == (photos.parent / "new.jpg").read_bytes()
    path = photos.parent / "toy.csv"
    toy = load_dataset("toy")
    other = next(name for name in toy.classes if name != toy.classes[toy.labels[0]])
    append_rows(path, [row(toy.names[0], other), row(toy.names[1], NONE)])
    after = load_dataset("toy", reading=Reading(labels=LabelsFile(path)))
    assert label_of(after, toy.names[0]) == other
    assert len(after) == len(after.images) == len(toy) - 1
    append_rows(path, [row("new.jpg", other)])
    with pytest.raises(DataError, match="names 1 image that toy lacks"):
        load_dataset("toy", reading=Reading(labels=LabelsFile(path)))


def test_images_of_classes_that_were_left_out_stay_out(photos):
    after = labelled(photos, row("red/1.jpg", "green"), row("blue/1.jpg", "red"), exclude=("green",))
    assert "red/1.jpg" not in after.names
    assert label_of(after, "blue/1.jpg") == "red"
    assert len(after) == 47


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column path and no column label. Its first line must be path,label,previous,who,when"),
        (b"path,who\n", "has no column label"),
        (b"path,label\nred/1.jpg,rde\n", "line 2: No class 'rde'.*Did you mean 'red'.*has the label <none>"),
    ],
)
def test_unusable_files(photos, content, message):
    path = photos.parent / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset(str(photos), reading=Reading(labels=LabelsFile(path)))


def test_a_missing_file_names_the_command_that_writes_one(photos):
    with pytest.raises(DataError, match=r"cannot be read: No such file.*`onsight label` writes such a file"):
        load_dataset(str(photos), reading=Reading(labels=LabelsFile(photos / "none.csv")))


@pytest.mark.parametrize("name", ["passwd", "labels.txt"])
def test_a_file_that_is_not_called_csv_is_not_opened(photos, name, monkeypatch):
    monkeypatch.setattr("onsight.data.labels.read_regular", None)
    with pytest.raises(DataError, match=rf"{name}' are not in a \.csv file\..* path, label, previous, who, when"):
        load_dataset(str(photos), reading=Reading(labels=LabelsFile(photos / name)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_labels_csv(photos):
    os.mkfifo(photos.parent / "labels.csv")
    with pytest.raises(DataError, match="cannot be read: not a regular file"):
        load_dataset(str(photos), reading=Reading(labels=LabelsFile(photos.parent / "labels.csv")))
