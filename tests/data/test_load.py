import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onsight.core.errors import DataError, SpecError
from onsight.data.dataset import check_classes, fingerprint
from onsight.data.load import DATASETS, load_dataset
from onsight.data.mnist_svhn_stl10 import LAYOUTS

NEEDS_FILES = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"} | {name: name for name in LAYOUTS}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ONSIGHT_DATA", raising=False)


@pytest.fixture(params=DATASETS)
def dataset(request):
    """Load each data set in the registry; skip a download that is not in the folder that ONSIGHT_TEST_DATA names."""
    folder = NEEDS_FILES.get(request.param)
    place = os.environ.get("ONSIGHT_TEST_DATA")
    if folder and not (place and (Path(place) / folder).is_dir()):
        pytest.skip(f"needs {folder} in the folder that ONSIGHT_TEST_DATA names")
    return load_dataset(request.param, Path(place) if place else None)


def test_every_named_data_set_keeps_the_contract(dataset):
    count = len(dataset)
    assert dataset.name in DATASETS
    assert f"{count:,}" in DATASETS[dataset.name].description
    assert dataset.images.shape == (count, *dataset.images.shape[1:3], 3)
    assert dataset.images.dtype == np.uint8
    assert dataset.images.flags.c_contiguous
    assert dataset.labels.shape == dataset.parts.shape == (count,)
    assert dataset.labels.dtype == np.int64
    assert set(dataset.labels.tolist()) == set(range(len(dataset.classes)))
    assert set(dataset.parts.tolist()) in ({""}, {"train", "test"})
    assert len(set(dataset.names)) == count
    assert dataset.provenance
    assert "\n" not in dataset.provenance
    assert re.fullmatch("[0-9a-f]{64}", dataset.fingerprint)
    assert len(repr(dataset)) < 120
    check_classes(dataset.classes, "it")


def test_loading_again_returns_the_same_fingerprint_and_pixels(dataset):
    place = os.environ.get("ONSIGHT_TEST_DATA")
    again = load_dataset(dataset.name, Path(place) if place else None)
    assert again.fingerprint == dataset.fingerprint
    assert np.array_equal(again.images, dataset.images)


def test_digits_are_those_of_scikit_learn():
    digits = load_dataset("digits")
    # The first scan of the data set is a 0, and its first row is 0 0 5 13 9 1 0 0 of 16.
    assert digits.classes[digits.labels[0]] == "0"
    assert digits.images[0, 0, :, 1].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert digits.images.max() == 255
    assert re.fullmatch(r"digits of scikit-learn \d+\.\d+\.\d+", digits.provenance)


def test_toy_images_have_an_obvious_answer():
    toy = load_dataset("toy")
    assert np.count_nonzero(toy.parts == "train") == 180
    brightest = toy.images.astype(int).reshape(len(toy), -1, 3).sum(axis=1).argmax(axis=1)
    assert [("red", "green", "blue")[channel] for channel in brightest] == [toy.classes[label] for label in toy.labels]
    assert len({image.tobytes() for image in toy.images}) == 240


def test_repr_is_compact():
    assert repr(load_dataset("toy")) == "Dataset('toy', 240 images, 3 classes, test 60, train 180)"


def test_the_error_for_an_unknown_name_lists_the_known_ones():
    with pytest.raises(SpecError) as caught:
        load_dataset("cifar")
    assert str(caught.value) == (
        "No data set 'cifar'. Known: cifar10, cifar100, mnist, fashion_mnist, svhn, stl10, digits, toy. "
        "Did you mean 'cifar10'? "
        "Or give the path of a folder, a .zip, a .csv, .tar or .parquet: there is nothing at 'cifar'."
    )


def test_a_folder_with_the_name_of_a_known_data_set_is_loaded_by_its_path(tmp_path, monkeypatch):
    for name in ("cat", "dog"):
        (tmp_path / "toy" / name).mkdir(parents=True)
        (tmp_path / "toy" / name / "1.jpg").touch()
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset("toy")) == 240
    assert len(load_dataset("./toy")) == 2
    assert len(load_dataset(Path("toy"))) == 2
    assert len(load_dataset(Path("toy").absolute())) == 2
    monkeypatch.chdir("/")
    assert len(load_dataset(Path("toy"))) == 240


def test_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "photos.rar"
    path.touch()
    with pytest.raises(DataError, match=r"photos\.rar' cannot be read: expected a folder, \.zip, \.csv, \.tar or"):
        load_dataset(path)


def test_reading_a_file_of_a_data_set_of_arrays_is_a_value_error():
    with pytest.raises(ValueError, match="holds arrays, not files"):
        load_dataset("toy").read(0)


def test_a_data_set_can_be_sent_to_another_process():
    toy = load_dataset("toy")
    assert pickle.loads(pickle.dumps(toy)).fingerprint == toy.fingerprint


def test_the_fingerprint_depends_on_everything():
    labels, parts = np.array([0, 1]), np.array(["train", "test"])
    variants = [
        (("a", "b"), labels, parts, ["x", "y"]),
        (("a", "c"), labels, parts, ["x", "y"]),
        (("a", "b"), labels[::-1], parts, ["x", "y"]),
        (("a", "b"), labels, parts[::-1], ["x", "y"]),
        (("a", "b"), labels, parts, ["y", "x"]),
        (("a", "b"), labels, parts, ["xy", ""]),
        (('a", "b',), labels, parts, ["x", "y"]),
    ]
    assert len({fingerprint(*variant) for variant in variants}) == len(variants)


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ([], "no classes: a classifier needs at least two"),
        (["cat"], "only one class, 'cat'"),
        ([f"{index}" for index in range(10_001)], "10,001 classes: at most 10,000"),
        (["cat", "d" * 129], "the class 'dddd.*1 to 128 printable characters"),
        (["cat", "do\ng"], r"the class 'do\\ng'"),
        (["cat", "\u202egod"], r"the class '\\u202egod'"),
        (["cat", " "], "the class ' '"),
    ],
)
def test_unusable_class_names_are_refused(classes, reason):
    with pytest.raises(DataError, match=f"The folder 'photos' has .*{reason}"):
        check_classes(classes, "The folder 'photos'")


def test_the_registry_is_read_without_heavy_imports():
    code = (
        "import sys, onsight.data.load, onsight.data.cifar, onsight.data.mnist_svhn_stl10, onsight.data.download;"
        "import onsight.data.split;"
        "print([name for name in ('keras', 'tensorflow', 'jax', 'sklearn', 'scipy', 'PIL') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
