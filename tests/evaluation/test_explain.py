"""Heat maps match their papers on both backends, and occlusion finds what an answer depends on."""

import json

import numpy as np
import pytest

import onsight
from edits import edit_model
from onsight.core.backend import to_numpy
from onsight.core.errors import ImageError, SpecError
from onsight.evaluation import explain
from onsight.imaging import decode
from onsight.inference import heat_maps

pytestmark = pytest.mark.backend


def corner(images):
    """Return the brightness of the top left quarter as the probability of class 1."""
    bright = images[:, :16, :16].mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - bright, bright], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def resnet():
    from onsight.core.backend import use_backend

    use_backend()
    import keras

    from onsight.models.registry import build_model, classifier

    keras.utils.set_random_seed(0)
    return classifier(build_model("resnet20", 32, 10), temperature=1.7)


def test_grad_cam_equals_cam_if_the_head_is_pooling_and_one_dense_layer(resnet):
    import keras

    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)  # more than one batch
    classes = np.arange(70) % 10
    maps = heat_maps.grad_cam(resnet, images, classes)
    layer = resnet.get_layer("block3_3_relu")
    features = np.asarray(keras.Model(resnet.input, layer.output).predict_on_batch(images))  # (n, 8, 8, 64)
    weights = to_numpy(resnet.get_layer("logits").kernel)  # (64, 10)
    cam = np.maximum(np.einsum("nhwk,kn->nhw", features, weights[:, classes]), 0)
    assert heat_maps.map_layer(resnet) == "block3_3_relu"
    assert maps.shape == (70, 8, 8)
    assert maps.max() > 0
    assert np.abs(maps * 64 - cam).max() < 1e-5 * cam.max()


def test_map_layer_of_each_network():
    from onsight.models.registry import build_model

    found = {name: heat_maps.map_layer(build_model(name, 32, 3)) for name in ("mlp", "cnn", "cnn_dropout", "resnet20")}
    assert found == {"mlp": None, "cnn": None, "cnn_dropout": "dropout3", "resnet20": "block3_3_relu"}
    assert heat_maps.map_layer(build_model("cnn", 64, 3)) == "pool3"  # 6 x 6; at 32 px, 2 x 2 is too small
    assert heat_maps.map_layer(build_model("cnn_compact", 32, 3)) == "relu3b"
    with pytest.raises(ValueError, match="use occlusion"):
        heat_maps.grad_cam(build_model("mlp", 32, 3), np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1, int))


def test_the_heat_lies_on_the_coloured_shape(toy_run):
    """In the toy images, the colour of the shape is the class."""
    from onsight.data.load import load_dataset
    from onsight.data.pixel_cache import load_pixels

    toy, model = load_dataset("toy"), toy_run.load_model()
    images = np.asarray(load_pixels(toy, model.input_shape[1]).images[180:])
    inside = (images.max(axis=3).astype(int) - images.min(axis=3)) > 60  # the background is grey, the shape coloured
    maps, method = heat_maps.heat_maps(images, toy.labels[180:], model.predict_on_batch, model)
    assert method == "occlusion"  # at 24 px, the last map of the small cnn is 1 x 1
    on, off = (np.average(maps, weights=where) for where in (inside, ~inside))
    assert on > 3 * off


@pytest.mark.parametrize("grid", [4, 8])
def test_occlusion_finds_what_the_answer_depends_on(grid):
    images = np.full((3, 32, 32, 3), 40, np.uint8)
    images[:, :16, :16] = 250
    calls = []

    def answer(some):
        calls.append(len(some))
        return corner(some)

    maps = heat_maps.occlusion(answer, images, np.array([1, 1, 0]), grid)
    assert maps.shape == (3, 32, 32)
    assert len(calls) == 1  # three images fit into one batch
    assert maps[0, :12, :12].min() > 0.05
    assert maps[0, 28:, 28:].max() == 0
    assert maps[2].max() == 0  # covering the bright corner only supports class 0
    np.testing.assert_array_equal(maps[0], maps[1])


def test_occlusion_of_one_patch_is_the_difference_of_two_answers():
    image = np.random.default_rng(0).integers(0, 256, (1, 12, 20, 3), np.uint8)
    covered = np.broadcast_to(np.rint(image.mean(axis=(1, 2), keepdims=True)).astype(np.uint8), image.shape)
    loss = (corner(image) - corner(covered))[0, 1]
    maps = heat_maps.occlusion(corner, image, np.array([1]), grid=1)
    np.testing.assert_allclose(maps, np.full((1, 12, 20), max(0.0, loss)), atol=1e-7)


@pytest.mark.parametrize(("length", "grid"), [(32, 8), (8, 8), (5, 8), (224, 7)])
def test_patches_cover_every_pixel(length, grid):
    assert heat_maps._patches(length, grid).any(axis=0).all()


def test_an_overlay_tints_the_highest_part_of_a_map_that_is_high_everywhere():
    heat = np.full((4, 4), 0.8)
    heat[0, 0] = 1
    image = np.full((32, 32, 3), 100, np.uint8)
    shown = heat_maps.overlay(image, heat, 64).astype(int)
    tinted = np.ptp(shown, axis=2) > 1
    assert tinted[:8, :8].all()
    assert tinted.mean() < 0.25
    np.testing.assert_array_equal(heat_maps.overlay(image, np.ones((4, 4)), 64), 100)


def test_an_overlay_keeps_the_image_and_adds_the_heat():
    image = np.full((32, 32, 3), 100, np.uint8)
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    shown = heat_maps.overlay(image, heat, 64).astype(int)
    assert shown.shape == (64, 64, 3)
    assert np.ptp(shown[40:, 40:], axis=2).max() <= 1  # cold: grey
    assert abs(shown[50, 50, 0] - 100) <= 1  # as light as the image
    assert np.ptp(shown[2, 2]) > 50  # hot: coloured
    assert shown[2, 2].mean() > shown[50, 50].mean()  # and lighter, which is visible without colour vision


def test_mistakes_are_written_with_labels_and_probabilities(tmp_path):
    from PIL import Image

    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    labels, scores = np.array([0, 1]), np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
    explain.explain_mistakes(tmp_path, images, labels, scores, ["a.png", "<b>.png"], corner)
    index = json.loads((tmp_path / "heatmaps" / "index.json").read_text())
    assert index["method"] == "occlusion"
    assert [(each["path"], each["label"], each["predicted"]) for each in index["mistakes"]] == [
        ("a.png", 0, 1),
        ("<b>.png", 1, 0),
    ]
    for each in index["mistakes"]:
        with Image.open(tmp_path / "heatmaps" / each["file"]) as image:
            assert image.size == (3 * explain.TILE, explain.TILE)
    explain.explain_mistakes(tmp_path, images[:0], labels[:0], scores[:0], [], corner)
    assert not list((tmp_path / "heatmaps").glob("*.jpg"))
    assert json.loads((tmp_path / "heatmaps" / "index.json").read_text())["mistakes"] == []


def test_predict_explains_the_given_images(toy_run, tmp_path, capsys):
    from PIL import Image

    from onsight.cli.predicting import predict

    for name, colour in (("red.png", (240, 20, 20)), ("$x$ blue.png", (20, 20, 240))):
        Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    predict(str(toy_run.folder), str(tmp_path / "red.png"), str(tmp_path / "$x$ blue.png"), explain=tmp_path / "o.png")
    assert "shows the heat maps (occlusion)" in capsys.readouterr().err
    with Image.open(tmp_path / "o.png") as image:
        assert image.width == 1280
    with pytest.raises(SpecError, match=r"written to a \.png or \.svg"):
        explain.explain(toy_run, [tmp_path / "red.png"], path=tmp_path / "o.gif")
    with pytest.raises(SpecError, match="32 images at most"):
        explain.explain(toy_run, [np.zeros((8, 8, 3), np.uint8)] * 33, path=tmp_path / "o.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        explain.explain(toy_run, [tmp_path / "broken.png"], path=tmp_path / "o.png")


def test_a_network_that_this_version_builds_differently_is_explained_by_occlusion(toy_run, tmp_path):
    import shutil

    copy = onsight.Run(shutil.copytree(toy_run.folder, tmp_path / "copy"))
    assert explain.keras_model(copy) is not None
    layers = json.loads((copy.model_folder / "model.json").read_text())["layers"]
    edit_model(copy.model_folder, layers=layers[:-1])
    assert explain.keras_model(onsight.Run(copy.folder)) is None


def test_predict_refuses_an_impossible_figure_before_it_predicts(toy_run, tmp_path, capsys):
    from PIL import Image

    from onsight.cli.predicting import predict

    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    with pytest.raises(SpecError, match=r"not to 'o\.gif'"):
        predict(str(toy_run.folder), str(tmp_path / "0.png"), explain=tmp_path / "o.gif")
    with pytest.raises(SpecError, match="leave one of them out"):
        predict(str(toy_run.folder), str(tmp_path / "0.png"), explain=tmp_path / "o.png", tta=True)
    assert not capsys.readouterr().out


def test_heat_maps_are_drawn_on_what_the_model_sees(padded_run, wide_photos):
    file = wide_photos / "red" / "0.png"
    for fit in ("cut", "pad"):
        names, (image,) = explain.read([file], 32, fit)
        assert names == ["0.png"]
        assert np.array_equal(image, decode.load(file, 32, fit))
    figure, _ = onsight.explain(padded_run, [file], engine="litert")
    _, image, _ = figure.axes[0].get_images()  # the legend, the image, the image under its heat map
    drawn = np.asarray(image.get_array())
    assert np.array_equal(drawn, explain.enlarge(decode.load(file, 32, "pad"), 224))
