import json
import struct

import numpy as np
import pytest

from onsight.core.errors import ModelFileError
from onsight.imaging.fit import GEOMETRIES
from onsight.models.model_file import load_model, read_description, save_model
from onsight.models.registry import build_model, classifier

pytestmark = pytest.mark.backend
CLASSES = ("cat", "dog", "<b>")


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path, build_model("cnn", 24, 3), CLASSES, temperature=1.5)
    return tmp_path


def edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite_weights(folder, tensors):
    """Write other tensors into the folder, with the right checksum."""
    import hashlib

    from safetensors.numpy import save

    content = save(tensors)
    (folder / "weights.safetensors").write_bytes(content)
    edit(folder, weights_sha256=hashlib.sha256(content).hexdigest())


def tensors(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "weights.safetensors")


def test_a_threshold_may_be_absent(folder, tmp_path):
    assert read_description(folder).threshold is None
    edit(folder, threshold=0.75)
    assert read_description(folder).threshold == 0.75


def test_round_trip(tmp_path):
    model = build_model("cnn", 24, 3)
    save_model(tmp_path, model, CLASSES, temperature=1.5)
    images = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), np.uint8)
    loaded = load_model(tmp_path)
    np.testing.assert_array_equal(loaded.predict_on_batch(images), classifier(model, 1.5).predict_on_batch(images))
    assert read_description(tmp_path).classes == list(CLASSES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]


def test_a_model_json_of_an_older_version_without_multiply_adds_loads(folder):
    rows = [row.copy() for row in read_description(folder).layers]
    assert sum(row.pop("multiply_adds") for row in rows) > 0
    edit(folder, layers=rows)
    assert load_model(folder).output_shape == (None, 3)
    edit(folder, layers=[rows[0] | {"multiply_adds": 1}, *rows[1:]])
    with pytest.raises(ModelFileError, match="describes layers that differ"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema 2, but this version of Onsight reads up to 1"),
        ({"extra": 1}, "extra"),
        ({"model": "evil"}, "The model 'evil' is unknown to this version of Onsight"),
        (
            {"model": "evil", "model_import": "os:system"},
            "function system of the module os, which has not been imported",
        ),
        ({"model": "../evil"}, "model: expected 1 to 64 letters"),
        ({"model_import": 5}, "model_import"),
        ({"image_size": 10**9}, "image_size"),
        ({"image_size": 10}, "22 to 256 px"),
        ({"image_size": 30}, "layers that differ"),
        ({"parameters": 5}, "layers that differ"),
        ({"image_size": "24"}, "image_size"),
        ({"classes": []}, "classes"),
        ({"classes": ["a", "a", "b"]}, "different from each other"),
        ({"classes": ["a", "b\x1b", "c"]}, "printable"),
        ({"classes": ["a", "b", "c" * 129]}, "classes"),
        ({"classes": ["a", "b"]}, "layers that differ"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": 1.1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"weights_sha256": "0" * 64}, "SHA-256"),
        ({"weights_sha256": "0" * 65}, "weights_sha256"),
        ({"litert_sha256": 5}, "litert_sha256"),
        ({"threshold": 1.5}, "threshold"),
        ({"image_size": True}, "image_size"),
        ({"geometry": "other"}, "geometry: expected 'centre square.*' or 'whole image.*', not 'other'"),
        ({"geometry": ["pad"]}, "geometry"),
        ({"prototypes": 1025, "distance_threshold": 0.5}, "prototypes: expected a whole number from 0 to 1024"),
        ({"prototypes": 3, "distance_threshold": 2.5}, "distance_threshold: expected a number from 0 to 2"),
        ({"prototypes": 3, "distance_threshold": 0.5}, "'distance/prototypes' is absent in the file"),
        ({"prototypes": 3}, "prototypes is 3 and distance_threshold is None, but a model has both or neither"),
        ({"distance_threshold": 0.5}, "prototypes is 0 and distance_threshold is 0.5, but a model has both or neither"),
        ({"layers": [1]}, "layers"),
        ({"schema": 0}, "schema"),
        ({"schema": True}, "schema"),
    ],
)
def test_an_invalid_model_json_is_refused(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(ModelFileError, match=message):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * (4 * 2**20 + 1)])
def test_a_model_json_that_onsight_did_not_write_is_refused(folder, content):
    (folder / "model.json").write_bytes(content)
    with pytest.raises(ModelFileError):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_the_error_names_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelFileError, match=name):
        load_model(folder)


def test_damaged_weights_are_refused(folder):
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged or replaced"):
        load_model(folder)
    path.write_bytes(content[:100])
    with pytest.raises(ModelFileError, match="has 100 bytes"):
        load_model(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(folder, value):
    found = tensors(folder)
    found["conv1/bias"][0] = value
    rewrite_weights(folder, found)
    with pytest.raises(ModelFileError, match="'conv1/bias' holds NaN or infinity"):
        load_model(folder)


def test_weights_with_other_names_shapes_or_dtypes_are_refused(folder):
    found = tensors(folder)
    for name, changed in {
        "renamed": {("other" if key == "conv1/bias" else key): value for key, value in found.items()},
        "reshaped": found | {"conv1/bias": found["conv1/bias"].reshape(2, 16)},
        "retyped": found | {"conv1/bias": found["conv1/bias"].astype(np.int32)},
    }.items():
        rewrite_weights(folder, changed)
        with pytest.raises(ModelFileError, match="does not hold this network's weights"):
            load_model(folder)
        assert name


def test_a_header_that_claims_too_much_memory_is_refused(folder):
    import hashlib

    path = folder / "weights.safetensors"
    size = path.stat().st_size
    content = struct.pack("<Q", 2**62) + b"{" * (size - 8)
    path.write_bytes(content)
    edit(folder, weights_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ModelFileError, match="not a safetensors file"):
        load_model(folder)


def test_model_json_names_the_fit_and_files_without_it_are_cut(folder):
    assert read_description(folder).fit == "cut"
    edit(folder, geometry=GEOMETRIES["pad"])
    assert read_description(folder).fit == "pad"
    assert load_model(folder).output_shape == (None, 3)
    content = json.loads((folder / "model.json").read_text())
    del content["geometry"]
    (folder / "model.json").write_text(json.dumps(content))
    assert read_description(folder).fit == "cut"
