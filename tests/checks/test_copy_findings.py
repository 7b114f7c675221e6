import numpy as np
import pytest

from onsight.checks.copy_findings import copy_findings
from onsight.checks.measures import Facts
from onsight.checks.near_duplicates import Pairs
from onsight.data.dataset import Dataset
from onsight.data.load import load_dataset

PARTS = np.array(["train"] * 6 + ["test"] * 6)
LABELS = np.array([0, 0, 0, 1, 1, 1] * 2)


@pytest.fixture
def dataset():
    """Return 12 images: 6 of training and 6 of test, the first 3 of each of the first class."""
    known = vars(load_dataset("toy"))
    names = tuple(f"{part}/{number}.png" for number, part in enumerate(PARTS.tolist()))
    return Dataset(**{**known, "names": names, "labels": LABELS, "parts": PARTS})


def found(dataset, pairs=(), content=None, limit=0.9):
    """Return the findings by kind; `pairs` are (image, image, doubt), `content` maps an image to its original."""
    same = np.arange(12)
    for image, original in (content or {}).items():
        same[image] = original
    table = np.array([pair[:2] for pair in pairs], np.int64).reshape(-1, 2)
    score = np.linspace(0.98, 0.92, len(pairs), dtype=np.float32)
    doubt = np.array([pair[2] for pair in pairs], np.float32)
    near = Pairs(table[:, 0], table[:, 1], np.zeros(len(pairs), np.int64), score, doubt, limit)
    nothing = np.zeros(12, np.float32)
    facts = Facts(same, near, nothing, nothing, nothing, np.zeros((12, 2), np.int32), np.ones(12, np.uint8), {})
    return {each["kind"]: each for each in copy_findings(dataset, facts, np.ones(12, bool))}


def test_only_identical_copies_are_errors(dataset):
    kinds = found(dataset, [(1, 7, 0.0), (2, 4, 0.0)], {6: 0, 5: 2})
    assert {kind: each["severity"] for kind, each in kinds.items()} == {
        "leak": "error",
        "near leak": "warning",
        "two labels": "error",
        "near labels": "warning",
        "exact copy": "warning",
        "near copy": "warning",
    }
    assert [item["pictures"] for item in kinds["leak"]["items"]] == [["test/6.png", "train/0.png"]]
    assert [item["pictures"] for item in kinds["near leak"]["items"]] == [["test/7.png", "train/1.png"]]
    assert [item["pictures"] for item in kinds["two labels"]["items"]] == [["train/2.png", "train/5.png"]]
    assert [item["pictures"] for item in kinds["near labels"]["items"]] == [["train/2.png", "train/4.png"]]


def test_near_duplicates_say_how_sure_they_are_and_the_most_certain_come_first(dataset):
    leak = found(dataset, [(0, 6, 0.0), (1, 7, 0.05), (2, 8, 0.3)])["near leak"]
    assert leak["count"] == 3
    assert leak["text"].startswith("At least 2, possibly 3 of 6 test images (50.00%) have a near-duplicate")
    notes = [item["note"] for item in leak["items"]]
    assert [note.split("; ")[1] for note in notes] == [
        "very likely copies, 98.0% alike",
        "very likely copies, 95.0% alike",
        "possibly copies, 92.0% alike",
    ]


@pytest.mark.parametrize(("doubt", "words"), [(0.0, "At least "), (0.4, "Possibly ")])
def test_copies_of_one_kind(dataset, doubt, words):
    kinds = found(dataset, [(0, 9, doubt)])
    assert set(kinds) == {"near leak", "near labels", "near copy"}
    assert all(each["text"].startswith(words) for each in kinds.values())


def test_an_image_with_an_identical_copy_is_not_counted_as_a_near_leak_too(dataset):
    kinds = found(dataset, [(0, 1, 0.0)], {6: 0})
    assert kinds["leak"]["count"] == 1
    assert "near leak" not in kinds


@pytest.mark.parametrize(
    ("limit", "words"),
    [(0.93, None), (0.972, "only if it is at least 97.2% alike"), (0.9995, "only identical ones are reported")],
)
def test_the_text_says_how_alike_the_images_of_the_set_are(dataset, limit, words):
    alike = found(dataset, limit=limit).get("alike")
    assert (alike is None) == (words is None)
    if words:
        assert words in alike["text"]
        assert alike["severity"] == "note"
