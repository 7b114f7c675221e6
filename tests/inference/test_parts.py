"""Answers in part files: in the order of the images, each image once, whatever is stopped in between."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import onsight
from onsight.core.errors import DataError, SpecError
from onsight.core.progress import Reporter
from onsight.inference import parts
from onsight.inference.parts import predict_parts
from trees import draw, write_shards, write_tar

pytestmark = pytest.mark.backend


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path / "shards", 4, 12)


@pytest.fixture
def answers(tmp_path):
    return tmp_path / "answers"


def names(folder):
    """Return the names of the images in all part files, in their order."""
    return [
        row["path"]
        for path in sorted(folder.glob("part-*.csv"))
        for row in csv.DictReader(path.read_text().splitlines())
    ]


def expected(shards=4, count=12):
    return [f"photos-{shard:03}.tar/{shard:02}{number:03}.jpg" for shard in range(shards) for number in range(count)]


def write(run, images, folder, **options):
    return predict_parts(run, images, folder, reporter=Reporter(), **options)


def test_a_part_per_shard_in_the_order_of_the_images(toy_run, shards, answers):
    made = write(toy_run, shards, answers)
    assert (made.total, made.kept, made.answered, made.unreadable) == (4, 0, 48, 0)
    assert names(answers) == expected()
    alone = onsight.predict(toy_run, shards)
    rows = [row for path in sorted(answers.glob("*.csv")) for row in csv.DictReader(path.read_text().splitlines())]
    assert [row["label1"] for row in rows] == [each.label for each in alone]
    assert [float(row["probability1"]) for row in rows] == pytest.approx([each.probability for each in alone], abs=1e-5)


def test_the_same_call_makes_what_is_missing_only(toy_run, shards, answers):
    write(toy_run, shards, answers)
    (answers / "part-000002.csv").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in answers.glob("*.csv")}
    made = write(toy_run, shards, answers, batch_size=5)  # changes the speed only
    assert (made.kept, made.answered) == (3, 12)
    assert names(answers) == expected()
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in answers.glob("*.csv")}.items()


def test_images_that_are_files_share_parts(toy_run, tmp_path, answers, monkeypatch):
    monkeypatch.setattr(parts, "FILES", 5)
    (tmp_path / "in").mkdir()
    for number in range(12):
        (tmp_path / "in" / f"{number:02}.jpg").write_bytes(draw(number % 3, number))
    shard = write_tar(tmp_path / "one.tar", [("1.jpg", draw(0)), ("2.jpg", b"broken")])
    made = write(toy_run, [tmp_path / "in", shard, tmp_path / "in" / "00.jpg"], answers)
    assert (made.total, made.answered, made.unreadable) == (5, 14, 1)
    files = [str(tmp_path / "in" / f"{number:02}.jpg") for number in range(12)]
    assert names(answers) == [*files, "one.tar/1.jpg", "one.tar/2.jpg", files[0]]
    (tmp_path / "in" / "06.jpg").unlink()
    with pytest.raises(DataError, match=r"The images have changed since .* was begun: 5 parts then, 5 now, or other"):
        write(toy_run, [tmp_path / "in", shard, tmp_path / "in" / "00.jpg"], answers)


def test_every_format_has_the_same_answers(toy_run, shards, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for kind in ("csv", "json", "parquet"):
        write(toy_run, shards / "photos-000.tar", tmp_path / kind, format=kind, top=2)
    rows = list(csv.DictReader((tmp_path / "csv" / "part-000000.csv").read_text().splitlines()))
    lines = [json.loads(line) for line in (tmp_path / "json" / "part-000000.jsonl").read_text().splitlines()]
    table = parquet.read_table(tmp_path / "parquet" / "part-000000.parquet").to_pylist()
    assert [row["path"] for row in rows] == [line["path"] for line in lines] == [row["path"] for row in table]
    for row, line, other in zip(rows, lines, table, strict=True):
        assert row["label2"] == line["top"][1]["label"] == other["label2"]
        assert float(row["probability2"]) == pytest.approx(other["probability2"])
        assert (other["unsure"], other["error"]) == (False, None)


def test_a_damaged_shard_stops_no_other_and_is_tried_again(toy_run, shards, answers):
    whole = (shards / "photos-001.tar").read_bytes()
    (shards / "photos-001.tar").write_bytes(whole[:4000])
    with pytest.raises(DataError, match=r"1 part of 4 could not be made; .*tries them again.*\n.*photos-001"):
        write(toy_run, shards, answers)
    assert sorted(path.name for path in answers.glob("part*")) == [f"part-00000{number}.csv" for number in (0, 2, 3)]
    (shards / "photos-001.tar").write_bytes(whole)  # repaired
    assert write(toy_run, shards, answers).kept == 3
    assert names(answers) == expected()
    os.utime(shards / "photos-001.tar", (1, 1))
    with pytest.raises(DataError, match="The images have changed"):
        write(toy_run, shards, answers)
    with pytest.raises(SpecError, match="No format 'xml'"):
        write(toy_run, shards, answers, format="xml")


def test_other_settings_need_another_folder(toy_run, shards, answers, tmp_path):
    write(toy_run, shards, answers)
    with pytest.raises(SpecError, match="holds answers of another command: top differ"):
        write(toy_run, shards, answers, top=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(SpecError, match="holds something other than answers"):
        write(toy_run, shards, tmp_path / "mine")
    (answers / "plan.json").write_text("{")
    with pytest.raises(SpecError, match="is damaged"):
        write(toy_run, shards, answers)


def test_two_processes_do_not_share_a_folder(toy_run, shards, answers):
    from filelock import FileLock

    answers.mkdir()
    with FileLock(answers / parts.LOCK), pytest.raises(SpecError, match="Another process is writing"):
        write(toy_run, shards, answers)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_prediction_goes_on(toy_run, tmp_path, answers):
    shards = write_shards(tmp_path / "many", 12, 200)
    code = (
        "from onsight.inference.parts import predict_parts; from onsight.core.progress import Reporter; "
        f"predict_parts({str(toy_run.folder)!r}, {str(shards)!r}, {str(answers)!r}, reporter=Reporter())"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while len([*answers.glob("part-*.csv")]) < 3 and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    made = write(toy_run, shards, answers)
    assert made.kept >= 3
    assert names(answers) == expected(12, 200)
