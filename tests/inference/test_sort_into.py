import os

import pytest

from onsight.core.errors import SpecError
from onsight.inference.predict import Prediction
from onsight.inference.sort_into import Sorter, folder_names


def answer(path, label, reason=None):
    return Prediction(str(path), ((label, 0.9),), None, reason)


@pytest.fixture
def images(tmp_path):
    """Return a folder with two files of the same name, and others."""
    for name in ("a/cat.jpg", "b/cat.jpg", "b/cat-2.jpg", "b/dog.jpg", "b/bad.jpg"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "in"


def test_images_are_copied_by_class(images, tmp_path):
    os.utime(images / "a/cat.jpg", (1e9, 1e9))
    given = [answer(images / "b/cat-2.jpg", "cat"), answer(images / "a/cat.jpg", "cat"),
             answer(images / "b/cat.jpg", "cat"), answer(images / "b/dog.jpg", "a/dog", "close"),
             answer(images / "b/dog.jpg", "a/dog"), Prediction(str(images / "b/bad.jpg"), (), "no image")]  # fmt: skip
    sorter = Sorter(tmp_path / "out" / "deep", [str(images)])
    assert list(sorter.copied(given, ["cat", "a/dog"])) == given
    copies = {str(path.relative_to(sorter.folder)): path.read_text() for path in sorter.folder.rglob("*.*")}
    assert copies == {
        "cat/cat.jpg": "a/cat.jpg",
        "cat/cat-2.jpg": "b/cat-2.jpg",
        "cat/cat-3.jpg": "b/cat.jpg",
        "unsure/dog.jpg": "b/dog.jpg",
        "a_dog/dog.jpg": "b/dog.jpg",
    }
    assert sorter.counts == {"cat": 3, "unsure": 1, "a_dog": 1}
    assert (sorter.folder / "cat/cat.jpg").stat().st_mtime == 1e9
    assert len(list(images.rglob("*.jpg"))) == 5  # nothing was moved


def test_the_folder_appears_when_all_images_are_copied(images, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    left = tmp_path / ".out.partial" / "copies" / "bird"  # a killed command has left it
    left.mkdir(parents=True)
    (left / "old.jpg").touch()
    given = [answer(images / "a/cat.jpg", "cat"), answer(images / "b/dog.jpg", "dog")]
    stopped = Sorter(out, [str(images)]).copied(given, ["cat", "dog"])
    next(stopped)
    assert not list(out.iterdir())
    with pytest.raises(SpecError, match=r"Another process is sorting images into .*out\."):
        next(Sorter(out, [str(images)]).copied(given, ["cat", "dog"]))
    stopped.close()
    gone = [*given, answer(images / "gone.jpg", "cat")]
    with pytest.raises(FileNotFoundError):
        list(Sorter(out, [str(images)]).copied(gone, ["cat", "dog"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    list(Sorter(out, [str(images)]).copied(given, ["cat", "dog"]))
    assert sorted(path.name for path in out.iterdir()) == ["cat", "dog"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_folders_that_cannot_take_copies(images, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for folder in (tmp_path / "full", tmp_path / "full" / "x"):
        with pytest.raises(SpecError, match="exists and is not an empty folder"):
            Sorter(folder, [str(images)])
    (tmp_path / "link").symlink_to(images)
    monkeypatch.chdir(images)
    for folder, word in (("out", "."), ("out", str(images)), ("a/out", "../in"), (tmp_path / "link" / "out", "."),
                         ("a/out", f"{images}/**/*.jpg")):  # fmt: skip
        with pytest.raises(SpecError, match="whose images are classified"):
            Sorter(type(tmp_path)(folder), [word])
    with pytest.raises(SpecError, match="standard input"):
        Sorter(tmp_path / "out", ["-"])
    assert not (images / "out").exists()
    for word in ("a/*.jpg", "a/cat.jpg", "b"):
        Sorter(images / "out", [word])


def test_names_of_folders_are_valid_and_different():
    hostile = ["..", ".hidden", "a/../../b", "x" * 300, "con.txt", "end. ", "new\nline", "", "UNSURE", "é"]
    names = folder_names(hostile)
    assert len({name.casefold() for name in names.values()} | {"unsure"}) == len(hostile) + 1
    for name in names.values():
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name) <= 110
        assert name.isprintable()
        assert name == name.rstrip(". ")
    assert names["é"] == "é"
