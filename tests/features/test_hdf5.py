import contextlib
import os
import shutil

import h5py
import numpy as np
import pytest

from onsight.core.errors import ModelFileError
from onsight.features import hdf5
from onsight.features.hdf5 import read_h5, read_here

SHAPES = [(3, 3, 3, 4), (4,), (4, 2)]
TOP = [(2, 1000), (1000,)]


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype("float32") for shape in SHAPES]


def write(path, arrays, top=(), below="", pieces=1):
    """Write a file as Keras does: layers in order, some without weights, and names that contain slashes."""
    with h5py.File(path, "w") as file:
        root = file.create_group(below) if below else file
        layers = {"image": [], "conv": arrays[:2], "dense": arrays[2:], "top": list(top)}
        for piece, names in enumerate(np.array_split([name.encode() for name in layers], pieces)):
            root.attrs["layer_names" if pieces == 1 else f"layer_names{piece}"] = names
        for name, values in layers.items():
            group = root.create_group(name)
            names = [f"{name}/weight{i}:0".encode() for i in range(len(values))]
            group.attrs["weight_names"] = names
            for each, value in zip(names, values, strict=True):
                group.create_dataset(each, data=value)
    return path


@pytest.mark.parametrize("below", ["", "model_weights"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_file_in_keras_layout_is_read(tmp_path, arrays, below, pieces):
    found = read_h5(write(tmp_path / "a.h5", arrays, below=below, pieces=pieces), SHAPES)
    for value, expected in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_axes_of_length_1_do_not_count(tmp_path, arrays):
    (first, *others), path = SHAPES, write(tmp_path / "a.h5", arrays)
    found = read_h5(path, [(*first, 1), *others])[0]
    np.testing.assert_array_equal(found, arrays[0][..., None])
    with pytest.raises(ModelFileError, match="the network has float32"):
        read_h5(path, [(first[0] * first[1], *first[2:]), *others])


def test_the_expected_top_is_skipped_and_any_other_is_refused(tmp_path, arrays):
    top = [np.ones(shape, "float32") for shape in TOP]
    assert len(read_h5(write(tmp_path / "top.h5", arrays, top), SHAPES, TOP)) == 3
    with pytest.raises(ModelFileError, match="holds 5 arrays or more, but the network has 3"):
        read_h5(tmp_path / "top.h5", SHAPES)
    with pytest.raises(ModelFileError, match=r"is float32 \(2, 1000\), but the network has float32 \(3, 1000\)"):
        read_h5(tmp_path / "top.h5", SHAPES, [(3, 1000), (1000,)])


def soft(file, arrays):
    del file["conv/conv/weight0:0"]
    file["conv/conv/weight0:0"] = h5py.SoftLink("/dense/dense/weight0:0")


def soft_group(file, arrays):
    file.move("conv", "other")
    file["conv"] = h5py.SoftLink("/other")


def external_link(file, arrays):
    del file["conv/conv/weight0:0"]
    file["conv/conv/weight0:0"] = h5py.ExternalLink("other.h5", "/secret")


def external_storage(file, arrays):
    del file["conv/conv/weight1:0"]
    file.create_dataset("conv/conv/weight1:0", (4,), "<f4", external=[("/etc/passwd", 0, 16)])


def virtual(file, arrays):
    del file["conv/conv/weight1:0"]
    layout = h5py.VirtualLayout((4,), "<f4")
    layout[:] = h5py.VirtualSource("other.h5", "secret", (4,))
    file.create_virtual_dataset("conv/conv/weight1:0", layout)


def chunked(file, arrays):
    del file["conv/conv/weight1:0"]
    file.create_dataset("conv/conv/weight1:0", (4,), "<f4", chunks=(4,), compression="gzip")


def huge(file, arrays):
    del file["conv/conv/weight1:0"]
    file.create_dataset("conv/conv/weight1:0", (2**40,), "<f4")  # never written: the file stays small


def doubles(file, arrays):
    del file["conv/conv/weight1:0"]
    file["conv/conv/weight1:0"] = np.zeros(4)


def text(file, arrays):
    del file["conv/conv/weight1:0"]
    file["conv/conv/weight1:0"] = np.array([b"a"] * 4, dtype=h5py.string_dtype())


def not_a_number(file, arrays):
    file["conv/conv/weight1:0"][2] = np.nan


def upwards(file, arrays):
    file["conv"].attrs["weight_names"] = [b"../dense/dense/weight0:0", b"conv/weight1:0"]


def absent(file, arrays):
    file["conv"].attrs["weight_names"] = [b"conv/nothing", b"conv/weight1:0"]


def group_for_data(file, arrays):
    file["conv"].attrs["weight_names"] = [b"conv", b"conv/weight1:0"]


def names_of_numbers(file, arrays):
    file.attrs["layer_names"] = np.arange(4)


def endless_names(file, arrays):
    file.attrs["layer_names"] = np.array([b"x"] * 2_001)


def names_of_any_length(file, arrays):
    file.attrs["layer_names"] = np.array(["x" * 100_000] * 4, dtype=h5py.string_dtype())


def long_names(file, arrays):
    file.attrs["layer_names"] = np.array([b"x" * 513] * 4)


def names_in_many_pieces(file, arrays):
    del file.attrs["layer_names"]
    for piece in range(3):
        file.attrs[f"layer_names{piece}"] = np.array([b"x"] * 1000)


def one_layer_again_and_again(file, arrays):
    file.attrs["layer_names"] = np.array([b"conv"] * 2000)


def no_names(file, arrays):
    del file.attrs["layer_names"]


def fewer(file, arrays):
    file.attrs["layer_names"] = [b"conv"]


def other_order(file, arrays):
    file.attrs["layer_names"] = [b"dense", b"conv"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (soft, "is a soft or external link"),
        (soft_group, "is a soft or external link"),
        (external_link, "is a soft or external link"),
        (external_storage, "is stored in another file"),
        (virtual, "virtual, chunked or filtered"),
        (chunked, "virtual, chunked or filtered"),
        (huge, r"is float32 \(1099511627776,\), but the network has float32 \(4,\)"),
        (doubles, "is float64"),
        (text, r"is object|is \|"),
        (not_a_number, "NaN or infinity"),
        (upwards, "is not valid"),
        (absent, "is missing"),
        (group_for_data, "is not a data set"),
        (names_of_numbers, "is not a list of names"),
        (endless_names, "a list of names was expected"),
        (names_of_any_length, "holds more than 2,000 names, or one of more than 512 characters"),
        (long_names, "is not a list of names"),
        (names_in_many_pieces, "holds more than 2,000 names"),
        (one_layer_again_and_again, "holds 4 arrays or more, but the network has 3"),
        (no_names, "names no layers with weights"),
        (fewer, "holds 2 arrays, but the network has 3"),
        (other_order, "but the network has float32"),
    ],
)
def test_a_file_that_differs_from_what_is_expected_is_refused(tmp_path, arrays, change, reason):
    path = write(tmp_path / "a.h5", arrays)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.zeros((4,), "<f4")
    with h5py.File(path, "r+") as file:
        change(file, arrays)
    with pytest.raises(ModelFileError, match=reason) as error:
        read_here(path, SHAPES)
    assert str(path) in str(error.value)


def test_the_error_for_a_damaged_file_names_it(tmp_path, arrays):
    content = write(tmp_path / "a.h5", arrays).read_bytes()
    rng = np.random.default_rng(0)
    damaged = tmp_path / "b.h5"
    for length in (0, 10, 700, len(content) - 100):
        damaged.write_bytes(content[:length])
        with pytest.raises(ModelFileError, match=r"b\.h5"):
            read_here(damaged, SHAPES)
    for _ in range(300):  # a flipped byte never matters to the shapes, or the file is refused
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= int(rng.integers(1, 256))
        damaged.write_bytes(flipped)
        with contextlib.suppress(ModelFileError):
            assert [value.shape for value in read_here(damaged, SHAPES)] == SHAPES
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_here(tmp_path / "absent.h5", SHAPES)


def test_a_child_process_reads_and_its_refusal_is_passed_on(tmp_path, arrays):
    with pytest.raises(ModelFileError, match=r"b\.h5 cannot be read as HDF5"):
        read_h5(tmp_path / "b.h5", SHAPES)
    found = read_h5(write(tmp_path / "ä b.h5", arrays), SHAPES)
    assert [value.dtype for value in found] == ["float32"] * 3


def test_a_file_that_is_read_for_ever_is_refused(tmp_path, arrays, monkeypatch):
    """A FIFO stands for the files on which the HDF5 library loops: it is read for ever, too."""
    path = tmp_path / "a.h5"
    os.mkfifo(path)
    monkeypatch.setattr(hdf5, "SECONDS", 2)
    with pytest.raises(ModelFileError, match="within 2 s: it is damaged"):
        read_h5(path, SHAPES)


def test_a_reader_that_is_killed_is_an_error(tmp_path, arrays, monkeypatch):
    path = write(tmp_path / "a.h5", arrays)
    monkeypatch.setattr(hdf5.sys, "executable", shutil.which("false"))
    with pytest.raises(ModelFileError, match="stopped the process that read it"):
        read_h5(path, SHAPES)
