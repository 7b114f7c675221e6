import io
import json

import numpy as np
import pytest
from PIL import Image

from onsight.data.load import load_dataset
from onsight.evaluation import thumbnails


def test_each_cell_keeps_the_images_most_worth_seeing():
    labels = np.repeat([0, 0, 1], 40)
    predicted = np.repeat([0, 1, 1], 40)
    confidence = np.tile(np.linspace(0.5, 0.99, 40), 3)
    kept, side = thumbnails.choose(labels, predicted, confidence, 160)
    assert side == 96
    assert len(kept) == 90
    assert kept[:30].tolist() == list(range(30))  # right: the least confident
    assert kept[30:60].tolist() == list(range(79, 49, -1))  # wrong: the most confident


@pytest.mark.parametrize(
    ("classes", "n", "size", "side"),
    [(10, 10_000, 32, 32), (2, 500, 24, 32), (2, 500, 160, 96), (100, 10_000, 160, 32), (1000, 50_000, 224, 32)],
)
def test_thumbnails_stay_within_the_limits(classes, n, size, side):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    predicted = np.where(rng.random(n) < 0.5, labels, rng.integers(0, classes, n))
    kept, chosen = thumbnails.choose(labels, predicted, rng.random(n), size)
    assert chosen == side
    assert len(kept) * side**2 <= thumbnails.ROOM
    assert len(set(kept.tolist())) == len(kept)
    assert np.bincount(labels[kept] * classes + predicted[kept]).max() <= 30
    if classes == 1000:
        assert (labels[kept] != predicted[kept]).all()  # no room for right answers


def test_each_tile_is_at_the_position_in_the_index(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (50, 3), np.uint8)
    images = np.broadcast_to(colours[:, None, None], (50, 64, 64, 3))
    index = np.arange(10, 50)
    labels, scores = rng.integers(0, 3, 40), rng.dirichlet(np.ones(3), 40)
    thumbnails.write_thumbnails(
        tmp_path, lambda i, side: images[i, :side, :side], 64, index, labels, scores, [f"{i}.png" for i in index]
    )
    found = json.loads((tmp_path / "thumbnails.json").read_text())
    sheet = np.asarray(Image.open(io.BytesIO((tmp_path / "thumbnails.jpg").read_bytes())))
    side, columns = found["side"], found["columns"]
    assert side == 64
    assert len(found["samples"]) == 32
    for place, (path, label, predicted, probability) in enumerate(
        zip(found["path"], found["label"], found["predicted"], found["probability"], strict=True)
    ):
        at = int(path.removesuffix(".png"))
        y, x = divmod(place, columns)
        middle = sheet[y * side + side // 2, x * side + side // 2].astype(int)
        assert np.abs(middle - colours[at]).max() < 6
        assert label == labels[at - 10]
        assert predicted == scores[at - 10].argmax()
        assert probability == pytest.approx(scores[at - 10].max(), abs=1e-4)


def test_thumbnails_of_noise_stay_small(tmp_path):
    rng = np.random.default_rng(0)
    labels, scores = np.arange(4000) % 10, rng.dirichlet(np.ones(10), 4000)
    images = rng.integers(0, 256, (4000, 32, 32, 3), np.uint8)
    thumbnails.write_thumbnails(
        tmp_path, lambda i, _: images[i], 32, np.arange(4000), labels, scores, [str(i) for i in range(4000)]
    )
    assert (tmp_path / "thumbnails.jpg").stat().st_size <= thumbnails.BYTES


def test_thumbnails_come_from_the_files_and_from_the_input_of_the_network_if_a_file_is_gone(draw_photos):
    photos = draw_photos(size=(160, 120))
    dataset = load_dataset(str(photos))
    small = np.zeros((len(dataset), 32, 32, 3), np.uint8)
    assert thumbnails.largest_side(dataset, small) == 120
    drawn = thumbnails.original(dataset, small, "cut", 3, 96)
    assert drawn.shape == (96, 96, 3)
    assert drawn.std(axis=(0, 1)).min() > 5  # the noise of the file, which 32 px would have averaged out
    whole = thumbnails.original(dataset, small, "pad", 3, 96)
    assert (whole[:12] == 128).all()  # 160 x 120 in a square leaves an eighth above and below
    assert (whole[12:84] != 128).any(axis=(1, 2)).all()
    (photos / dataset.names[3]).unlink()
    np.testing.assert_array_equal(thumbnails.original(dataset, small, "cut", 3, 96), 0)


def test_thumbnails_of_a_named_data_set_are_its_arrays():
    dataset = load_dataset("digits")
    images = np.full((len(dataset), 32, 32, 3), 7, np.uint8)
    assert thumbnails.largest_side(dataset, images) == 32
    np.testing.assert_array_equal(thumbnails.original(dataset, images, "cut", 0, 32), 7)
