"""The settings of a training are shown in few lines, of which those that the data decided have a line and a reason."""

import numpy as np
import pytest

from onsight.core.backend import choose_backend
from onsight.core.progress import Reporter
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import Pixels
from onsight.runs.images import RunImages
from onsight.spec import TrainSpec
from onsight.training.prepare import FOLDED, choose, show_choices


class Notes(Reporter):
    """Keeps the notes by their labels."""

    def __init__(self, verbose=False):
        self.verbose, self.found = verbose, {}

    def note(self, label, text):
        self.found[label] = text


def shown(spec, verbose=False):
    """Return the notes on the settings of a training."""
    dataset, show = load_dataset(spec.data), Notes(verbose)
    chosen = choose(spec, dataset, np.ones(len(dataset), bool), choose_backend("tensorflow"), show)
    images, hashes = np.zeros((len(dataset), 1, 1, 3), np.uint8), np.zeros(len(dataset), np.uint64)
    pixels = Pixels(images, hashes, {}, np.zeros((len(dataset), 3), np.int32))
    show_choices(chosen, RunImages(dataset, pixels, np.full(len(dataset), "train")), show)
    return show.found, chosen


@pytest.mark.parametrize("data", ["toy", "photos"])
def test_usual_settings_are_folded_into_three_lines(photos, data):
    found, _ = shown(TrainSpec(data=data if data == "toy" else str(photos), precision="float32"))
    assert found["preset"].startswith("balanced: model cnn_compact, ")
    assert "augmentation flip_nudge" in found["preset"]
    assert found["training"] == "optimizer muon, learning_rate 0.09, schedule linear, label_smoothing 0.1"
    assert found["machine"].startswith("backend tensorflow")
    assert found["machine"].endswith("(the reasons: --verbose, or spec.json in the run)")
    decided = {"batch_size", "image_size", "epochs"} | ({"weights", "validation"} if data == "photos" else set())
    assert set(found) - {"split", *FOLDED} == decided


def test_settings_that_the_data_decided_have_a_line_with_the_reason(photos):
    found, _ = shown(TrainSpec(data=str(photos)))
    assert "ImageNet weights are for photos of 96 px or more" in found["weights"]
    assert "the images are enlarged from 30 px" in found["image_size"]
    assert "times as many as in preset balanced, for 50 training images" in found["epochs"]
    found, _ = shown(TrainSpec(data="digits"))
    assert "a mirrored digit is no longer that digit" in found["augmentation"]
    assert "weights none" in found["preset"]


def test_verbose_shows_every_reason():
    found, chosen = shown(TrainSpec(data="toy", epochs=3), verbose=True)
    assert set(found) == {"split", *chosen.reasons}
    for field, reason in chosen.reasons.items():
        assert found[field] == f"{getattr(chosen.spec, field)}  ({reason})"
    assert "epochs" not in found  # asked for
