"""A run is not tested on what its initial weights or its teacher have seen, nor validated on what they learned."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

import onsight
from onsight.core.errors import DataError
from onsight.core.progress import Reporter
from onsight.reporting.verdict import verdict
from onsight.runs.run import UNCALIBRATED
from onsight.runs.seen import FILE, read_seen
from onsight.training.train import shared_split_seed

pytestmark = pytest.mark.usefixtures("only_training")

QUIET = Reporter()


def spec(data, **fields):
    return onsight.TrainSpec(**{"data": str(data), "model": "mlp", "epochs": 1, "batch_size": 8, **fields})


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A folder of 90 images in three classes."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("noise") / "noise"
    for number in range(90):
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def first(tmp_path_factory, noise):
    """A run with a split of its own. Tests only read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONSIGHT_RUNS", str(tmp_path_factory.mktemp("runs")))
        return onsight.train(spec(noise, validation=0.2, split_seed=3), reporter=QUIET)


def after(run, data, **fields):
    return onsight.train(spec(data, weights=str(run.folder), freeze="none", **fields), reporter=QUIET)


def test_the_same_images_are_in_the_same_parts_whatever_the_seed(noise, first):
    run = after(first, noise, seed=1)
    assert run.dataset["split"] == first.dataset["split"]
    assert (run.spec["split_seed"], run.spec["validation"]) == (3, 0.2)
    assert run.record["reasons"]["split_seed"] == "that of the run whose weights training starts from"
    assert "warnings" not in run.record
    assert read_seen(run).again
    assert run.record["weights"]["seen_sha256"]


def test_other_images_are_split_as_usual_and_by_the_same_seed(photos, first):
    run = after(first, photos)
    assert (run.spec["split_seed"], run.spec["validation"]) == (3, 0.15)
    assert not read_seen(run).again


def test_in_another_split_the_overlap_is_left_out_and_the_verdict_says_how_much(noise, first):
    run = after(first, noise, split_seed=8)
    old, new = first.dataset["split"], run.dataset["split"]
    assert {*new["test"]} & {*old["train"], *old["validation"]} == set()
    assert {*new["validation"]} & {*old["train"]} == set()
    assert {*new["validation"]} <= {*old["validation"], *old["test"]}
    alone = onsight.train(spec(noise, split_seed=8, validation=0.2), reporter=QUIET).dataset["split"]
    gone = {part: len({*alone[part]} - {*new[part]}) for part in ("test", "validation")}
    assert all(gone.values())
    rest = f" left out, because {first.name}, or a run before it, has seen them."
    expected = [f"{number} {part} image{'s' * (number > 1)}{rest}" for part, number in gone.items()]
    assert run.record["warnings"] == expected
    assert {*expected} <= {*verdict(run)}


def test_nothing_left_is_refused(noise, first, tmp_path):
    for number, part in enumerate(("train", "test")):
        for name in first.dataset["split"]["train"][number::2]:
            target = tmp_path / "parts" / part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(noise / name, target)
    with pytest.raises(DataError, match=r"No test image is left, because .* all of these: \d+ test images"):
        after(first, tmp_path / "parts")


def test_weights_that_held_nothing_out_leave_no_validation_images(photos):
    data = photos.parent / "parts"
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))):
        target = data / ("test" if number % 4 == 0 else "train") / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    everything = onsight.train(spec(data, validation=0.0), reporter=QUIET)
    with pytest.raises(DataError, match=r"No validation image is left, .* or hold none out: --validation 0\.$"):
        after(everything, data)
    run = after(everything, data, validation=0.0)
    assert run.dataset["split"] == everything.dataset["split"]
    assert f"The probabilities are {UNCALIBRATED}." in verdict(run)


def test_several_seeds_share_the_split_of_the_weights(noise, first):
    assert shared_split_seed(spec(noise, weights=str(first.folder), seed=7)) == 3
    assert shared_split_seed(spec(noise, weights=str(first.folder), split_seed=5)) == 5
    assert shared_split_seed(spec(noise, seed=7)) == 7


def test_weights_without_a_record_are_used_with_a_warning(photos, noise, first, tmp_path):
    old = onsight.Run(shutil.copytree(first.folder, tmp_path / "old"))
    (old.folder / FILE).unlink()
    run = after(old, photos)
    assert run.record["unknown_ancestors"] == ["old"]
    (text,) = run.record["warnings"]
    assert text.startswith("Nothing records which images 'old' was trained on.")
    assert text in verdict(run)
    assert "warnings" not in after(old, noise).record  # its own images are there, so they are known


def test_a_head_on_layers_that_learned_from_its_images_has_no_held_out_answers(noise, first, photos):
    """Its folds would be right for images that the layers below it know by heart."""
    said = []

    class Notes(Reporter):
        def note(self, label, text):
            said.extend([text] if label == "head" else [])

    known, new = (
        onsight.train(spec(data, weights=str(first.folder), freeze="all"), reporter=Notes()) for data in (noise, photos)
    )
    assert "out_of_fold_accuracy" not in known.history()[-1]
    assert "out_of_fold_accuracy" in new.history()[-1]
    trained = len(new.dataset["split"]["train"])
    (fitted,) = said
    assert re.fullmatch(rf"C [\d.]+; [\d.]+ % of {trained} training images are right out of fold", fitted)
