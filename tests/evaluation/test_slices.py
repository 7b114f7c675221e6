"""Slices are counted correctly and sorted worst first, and small slices do not come first by chance."""

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from onsight.core.errors import DataError
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.evaluation import slices
from onsight.metrics.intervals import holm

pytestmark = pytest.mark.usefixtures("only_training")


def test_counts_and_intervals():
    right = np.array([True, False, True, True, False, False])
    found = slices.measure(right, {"class": list("aabbcc"), "same": ["x"] * 6, "some": ["u", "u", "v", "", "", ""]})
    rows = {(row["by"], row["value"]): row for row in found["slices"]}
    assert set(rows) == {("class", "a"), ("class", "b"), ("class", "c"), ("some", "u"), ("some", "v")}
    assert (rows["class", "a"]["n"], rows["class", "a"]["correct"], rows["class", "a"]["accuracy"]) == (2, 1, 0.5)
    assert (rows["some", "v"]["n"], rows["some", "v"]["correct"]) == (1, 1)
    low, high = rows["class", "b"]["low"], rows["class", "b"]["high"]
    assert low == pytest.approx(0.025**0.5)  # Clopper's and Pearson's lower bound if both of two are right
    assert high == pytest.approx(1.0)
    assert found["slices"][0]["value"] == "c"
    assert not any(row["worse"] for row in found["slices"])  # two images prove nothing


def test_a_slice_is_compared_by_fishers_exact_test():
    right = np.array([40, 55, 20, 9]), np.array([50, 60, 40, 9])
    others = np.array([400, 385, 420, 431]), np.array([450, 440, 460, 491])
    p = [
        stats.fisher_exact([[k, n - k], [x, m - x]], alternative="less").pvalue
        for k, n, x, m in zip(*right, *others, strict=True)
    ]
    assert slices.worse_than_rest(*right, *others).tolist() == [each < 0.05 for each in holm(p)]


def test_a_slice_of_a_hundred_images_that_is_ten_points_low_is_often_found():
    """Of 1,000 images with 90 % right, in ten slices of a column and five of another; two intervals found 18 %."""
    rng = np.random.default_rng(0)
    columns = {"site": np.repeat([str(i) for i in range(10)], 100), "light": np.tile([str(i) for i in range(5)], 200)}
    found = false = 0
    for _ in range(200):
        right = rng.random(1000) < np.where(columns["site"] == "3", 0.8, 0.9)
        worse = {(row["by"], row["value"]) for row in slices.measure(right, columns)["slices"] if row["worse"]}
        found += ("site", "3") in worse
        false += bool(worse - {("site", "3")})
    assert found > 80
    assert false <= 10


def test_a_large_bad_slice_comes_before_a_tiny_worse_one():
    values = ["large"] * 1000 + ["tiny"] * 3 + ["fine"] * 4000
    right = np.r_[np.arange(1000) < 600, np.zeros(3, bool), np.arange(4000) < 3600]
    found = slices.measure(right, {"site": values})["slices"]
    assert [row["value"] for row in found] == ["large", "tiny", "fine"]
    assert found[0]["worse"]
    assert not found[2]["worse"]


@pytest.mark.parametrize("accuracy", [0.9, *(pytest.param(each, marks=pytest.mark.slow) for each in (0.5, 0.99))])
def test_slices_of_equal_accuracy_are_not_called_worse(accuracy):
    """In 200 trials with 100 slices of 1 to 50 images and equal true accuracy, at most 5 % may call a slice worse."""
    rng = np.random.default_rng(0)
    values = np.repeat([str(i) for i in range(100)], np.arange(100) % 50 + 1)
    false_alarms = sum(
        any(row["worse"] for row in slices.measure(rng.random(len(values)) < accuracy, {"x": values})["slices"])
        for _ in range(200)
    )
    assert false_alarms <= 10


def test_brightness_is_divided_into_fifths():
    levels = np.repeat(np.arange(0, 250, 10), 4)
    images = np.broadcast_to(levels[:, None, None, None], (100, 8, 8, 3)).astype(np.uint8)
    found = slices.brightness(images, np.arange(100))
    assert found[:4] == ["darkest fifth"] * 4
    assert found[-1] == "brightest fifth"
    assert {name: found.count(name) for name in slices.FIFTHS} == dict.fromkeys(slices.FIFTHS, 20)
    grey = np.full((10, 8, 8, 3), 7, np.uint8)
    assert len(set(slices.brightness(grey, np.arange(10)))) == 1


def test_files_are_described_by_size_and_type(tmp_path):
    for label, sides in (("cat", (20, 64)), ("dog", (65, 3000))):
        (tmp_path / label).mkdir()
        for side, suffix in zip(sides, ("jpg", "png"), strict=True):
            Image.new("L", (side, side + 5)).save(tmp_path / label / f"{side}.{suffix}")
    (tmp_path / "cat" / "broken.jpeg").write_bytes(b"no image")
    dataset = load_dataset(tmp_path)
    index = np.arange(len(dataset))
    columns = slices.describe(
        dataset, index, [dataset.classes[i] for i in dataset.labels], load_pixels(dataset, 8, pass_over_all=True)
    )
    by_name = dict(zip(dataset.names, zip(columns["original size"], columns["file type"], strict=True), strict=True))
    assert by_name == {
        "cat/20.jpg": ("up to 32 px", "JPEG"),
        "cat/64.png": ("33 to 64 px", "PNG"),
        "cat/broken.jpeg": ("", "JPEG"),
        "dog/65.jpg": ("65 to 128 px", "JPEG"),
        "dog/3000.png": ("over 2048 px", "PNG"),
    }
    toy = load_dataset("toy")
    assert set(slices.describe(toy, index, list("abcde"), load_pixels(toy, 16))) == {"class", "brightness"}


def test_read_columns_of_a_user(tmp_path):
    names = ["cat/1.jpg", "cat/2.jpg", str(tmp_path / "x" / "3.jpg"), "dog/4.jpg"]
    path = tmp_path / "mine.csv"
    path.write_text("\ufeffcamera,path,Note\nnikon,./cat/1.jpg,a\n sony ,cat\\2.jpg,\n\nsony,x/3.jpg,b\n", "utf-8")
    assert slices.read_columns(path, names) == {"camera": ["nikon", "sony", "sony", ""], "Note": ["a", "", "b", ""]}


def test_many_numbers_are_divided_into_fifths_and_many_texts_refused(tmp_path):
    path, names = tmp_path / "mine.csv", [f"{i}.jpg" for i in range(300)]
    path.write_text("path,age\n" + "".join(f"{i}.jpg,{i}\n" for i in range(300)))
    found = slices.read_columns(path, names)["age"]
    assert list(dict.fromkeys(found)) == ["0 to 59", "60 to 119", "120 to 179", "180 to 239", "240 to 299"]
    path.write_text("path,who\n" + "".join(f"{i}.jpg,person {i}\n" for i in range(300)))
    with pytest.raises(DataError, match="'who' has 300 distinct texts, too many to slice by; expected at most 200"):
        slices.read_columns(path, names)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected a column 'path'"),
        (b"path\n1.jpg\n", "one or more columns"),
        (b"path,a,A\n", "each name once"),
        (b"path,a\n1.jpg\n", "row 2 has 1 cell; expected 2"),
        (
            b"path,a\nother.jpg,1\n",
            r"names none of the images \(1\)\. Its first path is 'other\.jpg', but the first image is '1\.jpg'",
        ),
        (b"path,\xff\n", "UTF-8"),
        (b'path,a\n"1.jpg,1\n', "cannot be read as a CSV"),
    ],
)
def test_an_invalid_csv_is_refused(tmp_path, content, words):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        slices.read_columns(path, ["1.jpg"])
    with pytest.raises(DataError, match="No such file"):
        slices.read_columns(tmp_path / "absent.csv", ["1.jpg"])
