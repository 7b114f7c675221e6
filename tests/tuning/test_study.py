"""Processes that share a study. The trainings are drawn (`fake_study`), so that these tests take seconds."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest

import fake_study
from onsight.core.errors import RunError, SpecError
from onsight.tuning import study as studies
from onsight.tuning.study import read_record, seed_of

HERE = Path(fake_study.__file__)


def process(folder, trials, seconds):
    return subprocess.Popen([sys.executable, str(HERE), str(folder), str(trials), str(seconds)])


def entries(journal):
    return [entry.training for entry in journal.read()]


def check_whole(journal, trials):
    """Assert that nothing was lost or done twice."""
    found = entries(journal)
    assert {each.state for each in found} == {"done"}
    assert max(Counter((each.trial, each.rung) for each in found).values()) == 1
    assert {each.trial for each in found} == {*range(trials + 1)}
    proposed = [json.dumps(entry.params) for entry in journal.read() if entry.training.rung == 0]
    assert len({*proposed}) == trials
    for each in found:
        assert (journal.run_folder(each) / "validation_right.npy").exists()


@pytest.mark.slow
def test_two_processes_at_once_lose_nothing_and_propose_nothing_twice(tmp_path):
    journal = fake_study.make_study(tmp_path / "study")
    both = [process(journal.folder, 15, 0.02) for _ in range(2)]
    assert [each.wait(120) for each in both] == [0, 0]
    check_whole(journal, 15)
    assert (journal.folder / "tune.html").exists()


def test_a_study_that_is_killed_again_and_again_ends_whole(tmp_path):
    journal = fake_study.make_study(tmp_path / "study")
    killed = 0
    for number in range(4):
        each = process(journal.folder, 12, 0.05)
        before = len(entries(journal))
        while each.poll() is None and len(entries(journal)) < before + 2:
            time.sleep(0.02)
        time.sleep(0.01 * number)
        killed += each.poll() is None
        each.kill()
        each.wait()
    assert killed >= 3
    fake_study.search(journal, 12)
    check_whole(journal, 12)


def test_a_training_whose_lock_is_held_is_left_to_its_process(tmp_path):
    journal = fake_study.make_study(tmp_path / "study")
    with journal.opened() as study:
        mine = journal.begin(study, 0, 2)
    with journal.opened() as study:
        assert journal.take_over(study) is None
    mine.lock.release()  # as the operating system does when a process is killed
    with journal.opened() as study:
        taken = journal.take_over(study)
    assert taken.training == mine.training
    taken.lock.release()


def test_a_result_that_a_killed_process_had_half_recorded_is_recorded(tmp_path, monkeypatch):
    """Optuna warned that the result had been reported already; warnings are errors here."""
    journal = fake_study.make_study(tmp_path / "study")
    with journal.opened() as study:
        claim = journal.begin(study, None, 0)

    def end(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", end)
        with pytest.raises(KeyboardInterrupt):
            journal.report(claim, 0.5, 1.0)
    assert [each.state for each in entries(journal)] == ["running"]
    journal.report(claim, 0.5, 1.0)
    claim.lock.release()
    assert [each.state for each in entries(journal)] == ["done"]


def test_a_line_that_a_crash_cut_off_is_removed(tmp_path):
    journal = fake_study.make_study(tmp_path / "study")
    fake_study.search(journal, 2)
    before = entries(journal)
    with open(journal.path, "a") as file:
        file.write('{"op_code": 4, "wor')
    assert entries(journal) == before
    fake_study.search(journal, 3)
    check_whole(journal, 3)


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_a_training_that_never_began_is_drawn_again_as_before(tmp_path, lines):
    whole, killed = (fake_study.make_study(tmp_path / name) for name in ("whole", "killed"))
    for journal in (whole, killed):
        fake_study.search(journal, 2)
    before = killed.path.read_bytes()
    with killed.opened() as study:
        killed.begin(study, None, 0).lock.release()
    asked = killed.path.read_bytes()[len(before) :].splitlines(keepends=True)
    first = next(i for i, line in enumerate(asked) if b'"op_code":4' in line)
    killed.path.write_bytes(before + b"".join(asked[: first + lines]))  # killed before it was marked
    for journal in (whole, killed):
        fake_study.search(journal, 4)
    check_whole(killed, 4)
    params = [[entry.params for entry in journal.read()] for journal in (whole, killed)]
    assert params[0] == params[1]


def test_the_sampler_is_seeded_by_the_number_of_trainings():
    assert seed_of(0, 1) != seed_of(0, 2) != seed_of(1, 2)
    assert seed_of(5, 3) == seed_of(5, 3)


def test_more_trials_are_added_to_a_finished_study(tmp_path):
    journal = fake_study.make_study(tmp_path / "study")
    assert len(fake_study.search(journal, 3).trials) == 4
    assert len(fake_study.search(journal, 6).trials) == 7
    check_whole(journal, 6)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "is not a study"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"schema": 1}', "is damaged"),
    ],
)
def test_a_folder_without_a_readable_study_is_refused(tmp_path, content, match):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(RunError, match=match):
        read_record(tmp_path)


def test_a_newer_study_is_refused(tmp_path):
    fake_study.make_study(tmp_path, schema=2)
    with pytest.raises(RunError, match="newer Onsight"):
        read_record(tmp_path)


def test_without_optuna_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SpecError, match=r"pip install 'onsight\[tune\]'"):
        studies.import_optuna()


def test_the_locks_work_on_this_system(tmp_path):
    journal = fake_study.make_study(tmp_path / "study")
    lock = journal.try_lock(3)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import fake_study, json, pathlib; "
        "from onsight.tuning.study import Journal; where = pathlib.Path(sys.argv[2]); "
        "journal = Journal(where, json.loads((where / 'study.json').read_text())); print(journal.try_lock(3))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(HERE.parent), str(journal.folder)], capture_output=True, text=True, check=True,
        env=os.environ,
    )  # fmt: skip
    assert found.stdout == "None\n"
    lock.release()
