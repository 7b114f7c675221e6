"""`onsight predict`: which run answers, and where the answers go."""

import csv
import json
import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
from PIL import Image

from onsight.data.load import load_dataset
from onsight.inference import sources
from trees import draw, write_shards


@pytest.fixture
def predict(monkeypatch, onsight, toy_run):
    """Return a function that runs `onsight predict` and returns (exit code, standard output, standard error)."""
    monkeypatch.setenv("ONSIGHT_RUNS", str(toy_run.folder.parent))
    return partial(onsight, "predict")


@pytest.fixture
def images(tmp_path):
    """Return a folder with 36 toy images and one file that is no image."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number, image in enumerate(load_dataset("toy").images[:36]):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    (folder / "bad.png").write_bytes(b"nothing")
    return folder


def test_an_image_in_place_of_a_run_is_answered_by_the_latest_run(predict, images, toy_run):
    expected = predict(toy_run.folder, images / "00.png")[1]
    for word in (images / "00.png", f"{images}/0[0].png"):
        code, out, err = predict(word)
        assert code == 0, err
        assert out == expected
        assert err == f"onsight: answering with the latest run, {toy_run.folder}.\n"
    assert len(predict(images, images / "00.png")[1].splitlines()) == 38  # a folder and a file
    assert predict("latest", images / "00.png")[2] == ""
    assert predict(toy_run.name, images / "00.png")[2] == ""


def test_answers_that_are_not_calibrated_say_so(predict, images, toy_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(toy_run.folder, run)
    for name, change in (("spec.json", ("spec", "validation", 0.0)), ("dataset.json", ("counts", "validation", {}))):
        record = json.loads((run / name).read_text())
        outer, inner, value = change
        record[outer][inner] = value
        (run / name).write_text(json.dumps(record))
    code, out, err = predict(run, images / "00.png")
    assert code == 0
    assert err == "onsight: the probabilities are not calibrated: no validation images.\n"
    assert "calibrated" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.jpg"], "No image was given"),
        (["nowhere.jpg", "00.png"], "There is no run at nowhere.jpg"),
        (["latest"], "No image was given"),
        (["."], "No image was given"),  # a folder of runs
        (["in/*.gif", "in/00.png"], "There is no run at in/*.gif"),
    ],
)
def test_words_that_name_no_image(predict, images, toy_run, monkeypatch, tmp_path, words, message):
    if words == ["."]:
        monkeypatch.chdir(toy_run.folder.parent)
    code, out, err = predict(*words)
    assert (code, out) == (2, "")
    assert message in err


def test_an_image_from_standard_input(images, toy_run):
    def piped(content, *words):
        command = [sys.executable, "-m", "onsight", "predict", *words, "--format", "csv"]
        return subprocess.run(command, input=content, capture_output=True, check=False)

    done = piped((images / "00.png").read_bytes(), str(toy_run.folder), "-")
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader(done.stdout.decode().splitlines())
    assert row["path"] == "standard input"
    done = piped(b"", str(toy_run.folder), "-", "--tpo", "3")
    assert done.returncode == 2
    assert b"Unknown option: --tpo" in done.stderr


def test_standard_input_is_not_read_without_limit(monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr("sys.stdin", open("/dev/zero"))  # noqa: SIM115
    ((_, found),) = sources.expand(["-"])
    assert "more than 1 MiB" in str(found)
    sys.stdin.close()


def test_heat_maps_of_the_first_32_of_more_images(predict, images, tmp_path):
    code, out, err = predict("latest", images, "--explain", tmp_path / "maps.png", "--engine", "litert")
    assert code == 0, err
    assert len(out.splitlines()) == 37
    assert f"{tmp_path / 'maps.png'} shows the heat maps of the first 32 images (occlusion)." in err
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_answers_in_a_file(predict, images, tmp_path):
    expected = predict("latest", images, "--format", "csv")[1]
    (tmp_path / "answers.csv").write_text("old")
    code, out, err = predict("latest", images, "--format", "csv", "--out", tmp_path / "answers.csv")
    assert (code, out) == (0, "")
    assert (tmp_path / "answers.csv").read_text() == expected
    assert len(list(csv.reader(expected.splitlines()))) == 38
    assert "answers.csv holds the answers for 37 images." in err
    assert sorted(os.listdir(tmp_path)) == ["answers.csv", "in"]
    assert "there is no folder" in predict("latest", images, "--out", tmp_path / "no" / "x.csv")[2]


def test_a_file_is_not_replaced_by_some_of_the_answers(predict, images, tmp_path):
    (tmp_path / "answers.csv").write_text("old")
    code, _, err = predict("latest", images, tmp_path / "nowhere.png", "--out", tmp_path / "answers.csv")
    assert code == 2
    assert "There is no image at" in err
    assert (tmp_path / "answers.csv").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["answers.csv", "in"]


def test_images_are_sorted_into_folders(predict, images, tmp_path):
    code, out, err = predict("latest", images, "--sort-into", tmp_path / "sorted")
    assert code == 0, err
    placed = {path.name: path.parent.name for path in (tmp_path / "sorted").glob("*/*")}
    assert placed == {
        os.path.basename(line.split()[0]): line.split()[2] for line in out.splitlines() if "unreadable" not in line
    }
    assert len(placed) == 36
    assert f"copied 36 images into {tmp_path / 'sorted'}: " in err
    assert len(os.listdir(images)) == 37
    code, out, err = predict("latest", images, "--sort-into", tmp_path / "sorted")
    assert (code, out) == (2, "")
    assert "exists and is not an empty folder" in err
    assert "lies in" in predict("latest", images, "--sort-into", images / "sorted")[2]


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path / "shards", 2, 6)


def test_shards_are_classified_in_their_order(predict, shards):
    code, out, err = predict(shards)  # without a run: shards are images
    assert code == 0, err
    expected = [f"photos-00{shard}.tar/0{shard}00{number}.jpg" for shard in range(2) for number in range(6)]
    assert [line.split()[0] for line in out.splitlines()] == expected
    assert predict("latest", f"{shards}/photos-{{000..001}}.tar")[1] == out
    assert len(predict(shards / "photos-001.tar")[1].splitlines()) == 6
    code, _, err = predict("latest", shards / "photos-{001..002}.tar")
    assert (code, "There is no shard at" in err) == (2, True)


def test_answers_in_part_files(predict, shards, tmp_path):
    out = f"{tmp_path / 'answers'}/"
    code, said, err = predict("latest", shards, "--out", out)
    assert (code, said) == (0, ""), err
    assert "holds the answers in 2 part files: 12 images now." in err
    expected = predict("latest", shards, "--format", "csv")[1].splitlines()
    parts = [path.read_text().splitlines() for path in sorted((tmp_path / "answers").glob("part-*.csv"))]
    assert [parts[0][0], *parts[0][1:], *parts[1][1:]] == expected
    (tmp_path / "answers" / "part-000001.csv").unlink()
    assert "6 images now, 1 part before." in predict("latest", shards, "--out", tmp_path / "answers")[2]


def test_what_part_files_do_not_go_with(predict, shards, tmp_path):
    out = f"{tmp_path / 'answers'}/"
    for words, message in (
        (["--out", out, "--format", "table"], "Part files are CSV, JSON lines or Parquet"),
        (["--out", out, "--explain", tmp_path / "a.png"], "Part files are CSV"),
        (["--format", "parquet"], "--format parquet is for part files: add --out answers/"),
        (["--on", "ray", "--out", tmp_path / "a.csv"], "--on is for part files"),
        (["--explain", tmp_path / "a.png"], "--explain is for images that are files on this machine"),
        (["--sort-into", tmp_path / "sorted"], "--sort-into is for images that are files"),
    ):
        code, _, err = predict("latest", shards, *words)
        assert code == 2
        assert message in err
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.jpg").write_bytes(b"nothing")
    assert "None of 1 image could be read" in predict("latest", tmp_path / "in", "--out", out)[2]


def test_images_at_an_address(predict, shards):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for number in range(3):
        memory.pipe_file(f"/b/{number}.jpg", draw(number, number))
    memory.pipe_file("/s/a.tar", (shards / "photos-000.tar").read_bytes())
    code, out, err = predict("memory://b/")
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()] == [f"memory://b/{number}.jpg" for number in range(3)]
    assert len(predict("memory://s")[1].splitlines()) == 6
    assert "There is nothing at 'memory://no'" in predict("memory://no")[2]
    memory.store.clear()
