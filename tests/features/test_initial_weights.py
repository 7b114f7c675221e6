"""These tests make their own files of ImageNet weights from Keras' networks; the published ones are not downloaded."""

import hashlib
import json
import shutil
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import keras
import numpy as np
import pytest

from onsight.core.backend import to_numpy
from onsight.core.errors import DownloadError, ModelFileError, SpecError
from onsight.features.initial_weights import PUBLISHED, check_hash, check_layers, default_start, fetch, find_start, load
from onsight.models.model_file import read_description
from onsight.models.registry import MODELS, build_model
from onsight.training import initial_weights
from published import FAMILIES, publish


@pytest.fixture(scope="module")
def original():
    keras.utils.set_random_seed(3)
    return keras.applications.MobileNetV3Small(weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg")


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "keras" / "models"


@pytest.fixture
def server(monkeypatch):
    """Serve `content`, and record the paths of the requests in `asked`."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            self.server.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.asked, serving.content = [], b""
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        monkeypatch.setattr(initial_weights, "HOME", f"http://127.0.0.1:{serving.server_port}")
        yield serving
        serving.shutdown()


def same_features(model, original):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    features = keras.Model(model.inputs[0], model.get_layer("logits").input).predict_on_batch(images)
    expected = original.predict_on_batch(images.astype("float32"))
    np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())


def test_published_files_and_hashes_are_those_of_keras_applications():
    from keras.src.applications import (
        convnext,
        efficientnet_v2,
        inception_v3,
        mobilenet_v2,
        mobilenet_v3,
        resnet,
    )

    assert set(PUBLISHED) == {name for name, entry in MODELS.items() if entry.function.startswith("pretrained:")}
    url = {name: f"{initial_weights.HOME}/{each.file(224)}" for name, each in PUBLISHED.items()}
    assert url["mobilenetv2"] == (
        mobilenet_v2.BASE_WEIGHT_PATH + "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    )
    for size in ("small", "large"):
        kind = f"{size}_224_1.0_float"
        assert url[f"mobilenetv3_{size}"] == f"{mobilenet_v3.BASE_WEIGHT_PATH}weights_mobilenet_v3_{kind}_no_top_v2.h5"
        assert PUBLISHED[f"mobilenetv3_{size}"].hash == mobilenet_v3.WEIGHTS_HASHES[kind][1]
    for size in ("b0", "b1", "b2", "b3"):
        assert url[f"efficientnetv2_{size}"] == f"{efficientnet_v2.BASE_WEIGHTS_PATH}efficientnetv2-{size}_notop.h5"
        assert PUBLISHED[f"efficientnetv2_{size}"].hash == efficientnet_v2.WEIGHTS_HASHES[size][1]
    assert url["resnet50v2"] == f"{resnet.BASE_WEIGHTS_PATH}resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert PUBLISHED["resnet50v2"].hash == resnet.WEIGHTS_HASHES["resnet50v2"][1]
    assert url["inceptionv3"] == inception_v3.WEIGHTS_PATH_NO_TOP
    assert PUBLISHED["inceptionv3"].hash in Path(inception_v3.__file__).read_text()
    assert url["convnext_tiny"] == f"{convnext.BASE_WEIGHTS_PATH}convnext_tiny_notop.h5"
    assert PUBLISHED["convnext_tiny"].hash == convnext.WEIGHTS_HASHES["convnext_tiny"][1]


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
            np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
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


def test_imagenet_weights_are_downloaded_once_and_checked(original, keras_home, server, tmp_path, monkeypatch):
    content = publish(tmp_path / "any.h5", original).read_bytes()
    server.content = content
    entry = PUBLISHED["mobilenetv3_small"]._replace(hash=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(PUBLISHED, "mobilenetv3_small", entry)
    reports = []
    path = fetch("mobilenetv3_small", 32, lambda *facts: reports.append(facts))
    assert path == keras_home / "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"
    assert reports[-1] == (f"downloading {path.name}", len(content), len(content))
    assert set(server.asked) == {"/mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"}
    asked = len(server.asked)
    fetch("mobilenetv3_small", 224)
    assert len(server.asked) == asked
    model = build_model("mobilenetv3_small", 32, 2)
    load(model, "imagenet")
    same_features(model, original)
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(ModelFileError, match=r"has the MD5 .* was expected: it is damaged, or a different file"):
        load(model, "imagenet")
    path.unlink()
    server.content = b"something else"
    with pytest.raises(DownloadError, match=r"sent a file with another checksum: expected MD5"):
        fetch("mobilenetv3_small", 32)
    assert not path.exists()


def test_without_a_published_hash_the_hash_of_the_first_use_counts(keras_home, server):
    server.content = b"weights"
    path = fetch("mobilenetv2", 96)
    assert path.name == "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"
    assert PUBLISHED["mobilenetv2"].file(100).endswith("1.0_224_no_top.h5")  # there is none for that size
    fetch("mobilenetv2", 96)
    path.write_bytes(b"others")
    with pytest.raises(ModelFileError, match="has the SHA-256"):
        check_hash(path, "")


def test_the_error_without_network_says_which_file_to_put_where(keras_home, monkeypatch):
    monkeypatch.setattr(initial_weights, "HOME", "http://127.0.0.1:9")  # no server listens there
    with pytest.raises(DownloadError) as error:
        fetch("efficientnetv2_b0", 224)
    assert (
        f"Put efficientnetv2-b0_notop.h5 (from http://127.0.0.1:9/efficientnet_v2/efficientnetv2-b0_notop.h5) into "
        f"{keras_home} (or set KERAS_HOME)" in str(error.value)
    )
    start, why = default_start(224)
    assert start is None
    assert why.startswith("from scratch: Could not reach 127.0.0.1")


def test_photos_start_from_imagenet_weights_if_the_file_is_there(keras_home, monkeypatch):
    keras_home.mkdir(parents=True)
    (keras_home / "efficientnetv2-b0_notop.h5").write_bytes(b"it")
    entry = PUBLISHED["efficientnetv2_b0"]._replace(hash=hashlib.md5(b"it").hexdigest())
    monkeypatch.setitem(PUBLISHED, "efficientnetv2_b0", entry)
    start, why = default_start(224)
    assert (start.model, start.weights, start.frozen) == ("efficientnetv2_b0", "imagenet", 149)
    assert f"are in {keras_home}" in why


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
    description = json.loads((run / "model" / "model.json").read_text())
    (run / "model" / "model.json").write_text(json.dumps(description | {"layers": [{}]}))
    with pytest.raises(ModelFileError, match="has other layers than this version's cnn"):
        load(build_model("cnn", 32, 7), str(run))


def test_what_the_option_weights_accepts_and_refuses(toy_run, tmp_path):
    with pytest.raises(SpecError, match="is a cnn, but --model is mlp"):
        find_start(str(toy_run.folder), "mlp")
    with pytest.raises(SpecError, match="Keras publishes no ImageNet weights for cnn"):
        find_start("imagenet", "cnn")
    with pytest.raises(SpecError, match="expected imagenet, a finished run"):
        find_start("imagnet", None)
    (tmp_path / "mine.h5").write_bytes(b"")
    with pytest.raises(SpecError, match=r"mine\.h5 does not show to which network it belongs"):
        find_start(str(tmp_path / "mine.h5"), None)
    with pytest.raises(SpecError, match=r"cannot be used for cnn: \.h5 files are only read"):
        find_start(str(tmp_path / "mine.h5"), "cnn")
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
    ):
        (tmp_path / name).write_bytes(b"")
        assert find_start(str(tmp_path / name), None).model == model


def test_a_run_of_whole_frames_passes_its_fit_on(padded_run, toy_run):
    assert find_start(str(padded_run.folder), None).fit == "pad"
    assert find_start(str(toy_run.folder), None).fit == "cut"
