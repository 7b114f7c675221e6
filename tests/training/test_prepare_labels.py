"""A training with a labels.csv: what it is trained on, what stays the test, and how the run is opened later."""

import shutil

import numpy as np
import pytest
from PIL import Image

import onsight
from onsight.core.errors import DataError
from onsight.data.labels import Row, append_rows
from onsight.runs.images import open_images

pytestmark = pytest.mark.usefixtures("only_training")

QUIET = onsight.Reporter()


def trained(data, **settings):
    return onsight.train(
        onsight.TrainSpec(data=str(data), model="mlp", epochs=1, batch_size=8, seed=1, **settings), reporter=QUIET
    )


def say(path, **labels):
    append_rows(path, [Row(name, label, "", "Ann", "") for name, label in labels.items()])


def test_the_test_images_stay_and_new_ones_are_trained_on(draw_photos, tmp_path):
    photos = draw_photos(count=60)
    plain = trained(photos)
    split = plain.dataset["split"]
    test, learned = split["test"][0], split["train"][0]
    other = "red" if not test.startswith("red") else "blue"
    pool = tmp_path / "pool"
    pool.mkdir()
    rng = np.random.default_rng(9)
    for i in range(30):
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).save(pool / f"{i}.png")
    shutil.copy(photos / test, pool / "leak.jpg")  # a copy of a test image
    labels = tmp_path / "labels.csv"
    new = [str(pool / f"{i}.png") for i in range(30)]
    say(labels, **dict.fromkeys([*new, str(pool / "leak.jpg")], "red"), **{test: other, learned: "<none>"})
    run = trained(photos, labels=labels)
    assert run.dataset["split"]["test"] == split["test"]
    assert run.dataset["digests"]["test"] == plain.dataset["digests"]["test"]
    assert run.dataset["split"]["validation"] == split["validation"]
    assert run.dataset["split"]["train"] == [name for name in split["train"] if name != learned] + new
    record = run.dataset["labels"]
    assert (record["corrected"], record["left_out"], len(record["added"])) == ([test], [learned], 31)
    said = " ".join(run.record["warnings"])
    assert "1 added image left out as copies of other images of photos." in said
    assert "1 test label corrected. Compare the accuracy only with that of runs with the same corrections" in said
    images = open_images(run, ["test"])
    assert images.dataset.classes[images.dataset.labels[images.dataset.names.index(test)]] == other


def test_a_run_keeps_the_labels_that_it_was_trained_with(photos, tmp_path):
    labels = tmp_path / "labels.csv"
    say(labels, **{"red/1.jpg": "blue"})
    run = trained(photos, labels=labels)
    say(labels, **{"red/1.jpg": "green", "red/2.jpg": "green"})
    found = open_images(run, ["train", "test"]).dataset
    assert [found.classes[found.labels[found.names.index(f"red/{i}.jpg")]] for i in (1, 2)] == ["blue", "red"]
    assert onsight.evaluate(run, reporter=QUIET).metrics["n"] == len(run.dataset["split"]["test"])
    other = onsight.evaluate(run, data=str(photos / ".." / "photos"), reporter=QUIET)
    assert other.metrics["n"]
    labels.write_text(labels.read_text().replace("blue", "red"))
    with pytest.raises(DataError, match="no longer what they were when the run was made"):
        open_images(run, ["test"])
