"""Images that a run has seen are not scored, and the accuracy without copies of them stands beside the other."""

import shutil

import numpy as np
import pytest
from PIL import Image

import onsight
from onsight.checks.measures import known_facts
from onsight.checks.near_duplicates import Pairs
from onsight.core.errors import DataError
from onsight.core.progress import Reporter
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.evaluation import held_out
from onsight.evaluation.evaluate import ALL_COPIED
from onsight.evaluation.held_out import copies_of_learned, images_to_score
from onsight.reporting.verdict import verdict
from onsight.runs.images import RunImages, open_images
from onsight.runs.run import Run
from onsight.runs.seen import FILE, unknown_text

pytestmark = pytest.mark.usefixtures("only_training")

QUIET = Reporter()


def saved(folder, numbers):
    """Save toy images under names of their own, one sub-folder per class."""
    toy = load_dataset("toy")
    for number in numbers:
        label = toy.classes[toy.labels[number]]
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(toy.images[number]).save(folder / label / f"mine{number}.png")
    return folder


def to_score(run, folder):
    dataset = load_dataset(folder)
    return images_to_score(run, str(folder), dataset, load_pixels(dataset, 24))


def test_known_images_are_left_out_of_other_data_and_the_verdict_says_so(toy_run, tmp_path):
    """They were saved from an array to files: neither their names nor their bytes are those of the training."""
    run = Run(shutil.copytree(toy_run.folder, tmp_path / "copy"))
    split = run.dataset["split"]
    trained = [int(name.partition("#")[2]) for name in split["train"][:7] + split["validation"][:2]]
    data = saved(tmp_path / "mine", [*trained, *range(180, 200)])  # the last are test images
    metrics = onsight.evaluate(run, data=data, reporter=QUIET).metrics
    sentence = f"9 images left out, because {run.name}, or a run before it, has seen them."
    assert metrics["n"] == 20
    assert metrics["notes"] == [sentence]
    name = next(path.name for path in run.evaluation_folder().parent.iterdir() if path.name.startswith("mine"))
    assert sentence in verdict(run, name)


def test_data_of_known_images_alone_is_refused(toy_run, tmp_path):
    trained = [int(name.partition("#")[2]) for name in toy_run.dataset["split"]["train"][:9]]
    with pytest.raises(DataError, match=r"No image is left to score, because .* has seen all of these: 9 images"):
        to_score(toy_run, saved(tmp_path / "mine", trained))


def test_a_run_of_an_earlier_version_says_what_is_unknown(toy_run, tmp_path):
    run = Run(shutil.copytree(toy_run.folder, tmp_path / "copy"))
    (run.folder / FILE).unlink()
    chosen = to_score(run, saved(tmp_path / "mine", range(5)))
    assert chosen.notes == [unknown_text(["copy"])]
    images = open_images(run, ())
    assert images_to_score(run, None, images.dataset, images.pixels).notes == []  # its own parts are recorded


def test_the_accuracy_without_identical_copies_stands_beside_the_other(tmp_path):
    data = tmp_path / "parts"
    saved(data / "train", range(60))
    saved(data / "test", range(100, 118))
    saved(data / "test", range(6))  # copies of training images
    spec = onsight.TrainSpec(data=str(data), model="mlp", epochs=1, batch_size=16)
    run = onsight.train(spec, reporter=QUIET)
    metrics = onsight.evaluate(run, reporter=QUIET).metrics
    other = metrics["without_copies"]
    assert (metrics["n"], other["n"], other["copies"], other["near"]) == (24, 18, 6, False)
    assert other["correct"] <= metrics["correct"]
    assert verdict(run)[1].startswith(
        "Without the 6 images that have an identical copy among those that the model was trained or judged on: "
    )
    for label in ("blue", "green", "red"):
        for path in (data / "test" / label).glob("mine1??.png"):
            path.unlink()
    again = onsight.train(spec, reporter=QUIET)
    metrics = onsight.evaluate(again, reporter=QUIET).metrics
    assert "without_copies" not in metrics
    assert ALL_COPIED in verdict(again)


def test_near_duplicates_that_check_has_found_count_too(toy_run, monkeypatch):
    """Those that are only possibly copies, too."""
    images = open_images(toy_run, ("test",))
    dataset, pixels, _ = images
    first, second = (images.dataset.names.index(toy_run.dataset["split"][part][0]) for part in ("train", "test"))
    pair = [np.array([value]) for value in (first, second, 0)]
    doubt = np.array([0.2], np.float32)
    pairs = Pairs(*pair, np.array([0.92], np.float32), doubt, 0.9)
    facts = vars(known_facts(dataset, pixels)) | {"pairs": pairs}
    index = images.readable("test")
    monkeypatch.setattr(held_out, "load_facts", lambda dataset: None)  # another test may have checked these images
    assert copies_of_learned(toy_run, images, index)[1] is False
    monkeypatch.setattr(held_out, "load_facts", lambda dataset: type(known_facts(dataset, pixels))(**facts))
    leaked, near = copies_of_learned(toy_run, RunImages(dataset, pixels, images.parts), index)
    assert near
    assert index[leaked].tolist() == [second]
