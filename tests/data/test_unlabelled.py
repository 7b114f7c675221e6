import zipfile

import numpy as np
import pytest
from PIL import Image

from onsight.core.errors import DataError, SpecError
from onsight.data.load import load_dataset
from onsight.data.unlabelled import load_every_image


@pytest.fixture
def draw(tmp_path):
    """Return a function that draws images at paths below a new folder."""

    def draw(*names):
        for number, name in enumerate(names):
            path = tmp_path / "mine" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((9, 9, 3), 20 * number, np.uint8)).save(path)
        return tmp_path / "mine"

    return draw


def test_an_image_beside_the_class_folders_has_no_label(draw):
    found = load_every_image(draw("cat/1.png", "dog/1.png", "dog/old/2.png", "loose.png"))
    assert found.names == ("cat/1.png", "dog/1.png", "dog/old/2.png", "loose.png")
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 1, 1, -1]
    assert found.notes == ()
    assert found.read(3).startswith(b"\x89PNG")


def test_parts_are_known_and_names_begin_in_the_folder_that_was_given(draw):
    found = load_every_image(draw("all/train/cat/1.png", "all/train/dog/1.png", "all/test/cat/2.png"))
    assert found.names == ("all/test/cat/2.png", "all/train/cat/1.png", "all/train/dog/1.png")
    assert found.parts.tolist() == ["test", "train", "train"]
    assert found.labels.tolist() == [0, 0, 1]
    assert found.read(0)


@pytest.mark.parametrize(
    ("names", "why"), [(("1.png", "2.png"), "holds its images directly"), (("cat/1.png",), "only one class, 'cat'")]
)
def test_without_two_class_folders_a_note_says_why_there_are_no_labels(names, why, draw):
    folder = draw(*names)
    with pytest.raises(DataError, match=why):
        load_dataset(folder)
    found = load_every_image(folder)
    assert (found.names, found.classes, set(found.labels.tolist())) == (names, (), {-1})
    (note,) = found.notes
    assert note.startswith("no image has a label: ")
    assert why in note


def test_a_zip_is_read_like_a_folder(draw, tmp_path):
    folder = draw("cat/1.png", "dog/1.png", "loose.png")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as file:
        for path in sorted(folder.rglob("*.png")):
            file.write(path, path.relative_to(folder))
    found, expected = load_every_image(tmp_path / "mine.zip"), load_every_image(folder)
    assert found.names == expected.names
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.read(2) == expected.read(2)


def test_the_fingerprint_changes_with_an_image_that_has_no_label(draw):
    before = load_every_image(draw("cat/1.png", "dog/1.png")).fingerprint
    assert load_every_image(draw("cat/1.png", "dog/1.png", "loose.png")).fingerprint != before


def test_what_holds_no_images_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        load_every_image(tmp_path / "empty")
    with pytest.raises(SpecError, match="there is nothing at"):
        load_every_image(tmp_path / "nowhere")


def test_other_data_is_loaded_as_always():
    assert load_every_image("toy").fingerprint == load_dataset("toy").fingerprint
