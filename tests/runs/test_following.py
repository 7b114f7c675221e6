"""history.jsonl while it grows, and whether a training still writes it."""

import json
import os

import pytest

from onsight.core.errors import RunError
from onsight.runs import following
from onsight.runs.following import Place, news, state
from onsight.runs.run import Run

EPOCH = {"event": "epoch", "epoch": 1, "loss": 0.5}


@pytest.fixture
def run(tmp_path):
    return Run.create(
        "x", {"spec": {"data": "photos", "model": "cnn", "epochs": 2}}, {"name": "photos", "classes": ["a", "b"]}
    )


def long_ago(run):
    for path in run.folder.iterdir():
        os.utime(path, (1, 1))


def test_only_what_is_new_and_complete_is_read(run):
    path = run.folder / "history.jsonl"
    assert news(path, Place()) == (Place(), False, [], False)
    run.append_history(EPOCH)
    first = news(path, Place())
    assert (first.again, first.lines) == (True, [EPOCH])
    with open(path, "a") as file:
        file.write('{"event": "tick", "los')
    assert news(path, first.place) == (first.place, False, [], False)
    with open(path, "a") as file:
        file.write('s": NaN}\n[1]\nnot JSON\n')
    second = news(path, first.place)
    assert (second.again, second.lines) == (False, [{"event": "tick", "loss": None}])


def test_a_resumed_training_begins_again(run):
    path = run.folder / "history.jsonl"
    run.append_history(EPOCH)
    run.append_history(EPOCH | {"epoch": 2})
    place = news(path, Place()).place
    run.rewrite_history([EPOCH])
    assert news(path, place)[1:3] == (True, [EPOCH])
    path.unlink()
    assert news(path, place)[:3] == (Place(), True, [])


def test_a_long_history_is_read_in_pieces(run, monkeypatch):
    monkeypatch.setattr(following, "CHUNK", 100)
    lines = [EPOCH | {"epoch": number} for number in range(20)]
    run.rewrite_history(lines)
    place, found = Place(), []
    while (some := news(run.folder / "history.jsonl", place)).more:
        found, place = found + some.lines, some.place
    assert found + some.lines == lines
    (run.folder / "history.jsonl").write_text("x" * 250)  # no line at all: it does not stop there for ever
    place = news(run.folder / "history.jsonl", Place()).place
    assert place.offset == 100


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_is_not_waited_for(run):
    os.mkfifo(run.folder / "history.jsonl")
    assert news(run.folder / "history.jsonl", Place()).lines == []


def test_a_place_survives_as_text_and_nonsense_is_the_beginning():
    assert Place.parse(str(Place(255, 4096))) == Place(255, 4096)
    for text in ("", "-", "1", "1-", "../1-2", "1-2-3", "g-1", "1" * 99 + "-1", "1-\n"):
        assert Place.parse(text) == Place()


def test_a_run_that_nobody_trains_is_stopped(run):
    assert state(run) == "training"  # it has just been made
    long_ago(run)
    assert state(run) == "stopped"
    assert not (run.folder / ".lock").exists()  # looking leaves nothing behind
    with run.locked():
        long_ago(run)
        assert state(run) == "training"
        assert run.is_locked()
        with pytest.raises(RunError, match="Another process is training"), Run(run.folder).locked():
            pass
    assert state(run) == "stopped"
    run.append_history(json.loads("{}"))
    assert state(run) == "training"  # on another machine, whose lock is not seen here
    run.model_folder.mkdir()
    long_ago(run)
    assert state(run) == "trained"
