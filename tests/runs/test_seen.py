"""What a run and its ancestors have seen is recorded, and found again in other data."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from onsight.core.errors import RunError
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.data.split import membership
from onsight.runs.images import RunImages
from onsight.runs.run import Run
from onsight.runs.seen import FILE, read_seen, seen_before, seen_by, unknown_text, write_seen


def opened(folder):
    dataset = load_dataset(folder)
    return dataset, load_pixels(dataset, 16)


@pytest.fixture
def noise(tmp_path):
    """A folder of 40 images in two classes."""
    rng = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "noise" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return tmp_path / "noise"


def make(name, folder, *, weights="none", teacher=None, recorded=True):
    """Return a run without a model: half of the images trained it, a quarter judged it, a quarter tested it."""
    dataset, pixels = opened(folder)
    parts = np.array(["train", "validation", "train", "test"] * len(dataset))[: len(dataset)]
    spec = {"data": str(folder), "weights": str(weights), "teacher": teacher and str(teacher)}
    facts = {"name": name, "classes": list(dataset.classes), **membership(dataset, pixels.hashes, parts)}
    before = seen_before(spec, dataset, pixels)
    run = Run.create(name, {"spec": spec, "unknown_ancestors": list(before.unknown)}, facts)
    if recorded:
        write_seen(run, before.with_own(RunImages(dataset, pixels, parts)))
    return run


def part_of(noise, name, numbers):
    """Return a folder with copies of some images."""
    for number in numbers:
        target = noise.parent / name / "ab"[number % 2] / f"{name}{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(noise / "ab"[number % 2] / f"{number}.png", target)
    return noise.parent / name


def numbers_of(run):
    """Return the numbers of the images that trained or judged a run."""
    split = run.dataset["split"]
    return {int(re.sub(r"\D", "", name)) for part in ("train", "validation") for name in split[part]}


def test_what_a_run_has_seen_is_read_back_and_takes_eight_bytes_per_hash(noise):
    run = make("one", noise)
    seen = read_seen(run)
    dataset, pixels = opened(noise)
    assert pixels.among(seen.trained).sum() == 20
    assert pixels.among(seen.judged).sum() == 10
    assert (len(seen.before), seen.unknown) == (0, ())
    assert (run.folder / FILE).stat().st_size < 8 * 2 * 30 + 500  # a hash of the file and one of the pixels
    assert seen_by(run, dataset, pixels).ever.tolist() == seen.ever.tolist()


def test_it_is_found_again_under_other_names_through_three_generations(noise):
    first = make("first", part_of(noise, "a", range(20)))
    second = make("second", part_of(noise, "b", range(10, 30)), weights=first.folder)
    third = make("third", part_of(noise, "c", range(20, 40)), teacher=second.folder)
    learned = {name: numbers_of(run) for name, run in (("first", first), ("second", second), ("third", third))}
    shutil.rmtree(first.folder)  # nothing is forgotten with it
    dataset, pixels = opened(noise)
    seen = read_seen(Run(third.folder))
    for known, expected in (
        (seen.before, learned["first"] | learned["second"]),
        (seen.ever, learned["first"] | learned["second"] | learned["third"]),
    ):
        found = {dataset.names[index] for index in np.flatnonzero(pixels.among(known))}
        assert {int(name[2:-4]) for name in found} == expected
    assert seen.again
    assert not read_seen(second).unknown


def test_what_only_judged_is_told_from_what_was_learned(noise):
    seen = read_seen(make("one", noise)).passed_on()
    assert len(seen.trained_before) == 40
    assert len(seen.judged_before) == 20
    assert not len(seen.trained)
    assert not np.isin(seen.trained_before, seen.judged_before).any()


def test_a_run_of_an_earlier_version_is_found_in_its_own_data_and_unknown_in_others(noise):
    first = make("first", noise, recorded=False)
    second = make("second", noise, weights=first.folder, recorded=False)
    seen, (_, pixels) = seen_by(second, *opened(noise)), opened(noise)
    assert read_seen(second) is None
    assert pixels.among(seen.trained_before).sum() == 20
    assert (seen.again, seen.unknown) == (True, ())
    seen = seen_by(second, *opened(part_of(noise, "b", range(10))))
    assert (len(seen.ever), seen.unknown) == (0, (first.name, second.name))
    third = make("third", part_of(noise, "c", range(20)), weights=second.folder)
    assert read_seen(third).unknown == (first.name, second.name)
    assert f"which images '{first.name}', '{second.name}' were trained on" in unknown_text(read_seen(third).unknown)


def test_a_file_of_weights_belongs_to_the_run_that_it_lies_in(noise, tmp_path):
    run = make("first", noise)
    run.model_folder.mkdir()
    file = run.model_folder / "weights.safetensors"
    file.write_bytes(b"weights")
    shutil.copy(file, tmp_path / "elsewhere.safetensors")
    images = opened(noise)
    assert seen_before({"weights": str(file)}, *images).before.tolist() == read_seen(run).ever.tolist()
    elsewhere = seen_before({"weights": str(tmp_path / "elsewhere.safetensors")}, *images)
    assert (len(elsewhere.ever), elsewhere.unknown) == (0, ("elsewhere.safetensors",))
    for published in ("imagenet", "none", None, "efficientnet.pth"):
        assert seen_before({"weights": published}, *images).unknown == ()


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xff" * 200])
def test_a_damaged_record_is_an_error_not_an_empty_one(noise, content):
    run = make("first", noise)
    (run.folder / FILE).write_bytes(content)
    with pytest.raises(RunError, match=r"seen.safetensors is damaged: .* must not be tested on. Restore it"):
        read_seen(run)
