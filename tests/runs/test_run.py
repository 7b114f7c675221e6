import json
import multiprocessing
import os
import shutil

import numpy as np
import pytest

from edits import metrics_of
from onsight.core.errors import RunError
from onsight.core.files import read_lines, write_json
from onsight.runs.run import Run, damaged_runs, list_runs, open_run, read_evaluations

DATASET = {"name": "photos", "classes": ["a", "b"], "counts": {}, "split": {}}


def create(name="photos-cnn"):
    return Run.create(name, {"spec": {"data": "photos", "model": "cnn", "epochs": 2}}, DATASET)


def finish(run):
    run.model_folder.mkdir()
    return run


def test_runs_are_numbered_and_listed_in_order():
    made = [create().name, create("../my photos & more").name, create("").name]
    assert made == ["photos-cnn-0001", "my-photos-more-0002", "run-0003"]
    (made_elsewhere := create().folder.parent / "not-a-run").mkdir()
    assert made_elsewhere.exists()
    assert [run.name for run in list_runs()] == [*made, "photos-cnn-0004"]


def test_latest_is_the_newest_run():
    finish(create())
    create()
    last = finish(create())
    unfinished = create()
    assert open_run("latest").name == last.name
    assert open_run("runs/latest").name == last.name
    assert open_run("latest", finished=False).name == unfinished.name
    assert open_run(last.name).name == last.name
    assert open_run(last.folder).name == last.name


def test_a_clock_that_was_set_back_does_not_change_which_run_is_the_newest():
    old, new, renamed = create(), create(), create()
    for run, created in ((old, "2026-03-01"), (new, "2026-01-01"), (renamed, "2026-02-01")):
        (run.folder / "spec.json").write_text(json.dumps(run.record | {"created": created}))
    renamed.folder.rename(renamed.folder.parent / "the good one")
    assert [run.name for run in list_runs()] == [old.name, "the good one", new.name]


def test_a_damaged_run_is_told_and_hides_no_other():
    made = [create() for _ in range(5)]
    (made[0].folder / "spec.json").write_text("{")
    (made[1].folder / "dataset.json").write_text("[" * 100_000)
    (made[2].folder / "dataset.json").unlink()
    os.mkfifo(made[2].folder / "dataset.json")
    (made[3].folder / "dataset.json").unlink()
    (made[3].folder / "dataset.json").symlink_to("/dev/zero")
    damaged = damaged_runs()
    assert {*damaged} == {run.folder for run in made[:4]}
    assert "nested too deeply" in damaged[made[1].folder]
    assert "not a regular file" in damaged[made[2].folder]
    assert "not a regular file" in damaged[made[3].folder]
    assert open_run("latest", finished=None).name == made[4].name


def test_a_missing_run():
    with pytest.raises(RunError, match=r"no finished run in runs\. Train one"):
        open_run("latest")
    with pytest.raises(RunError, match="no run at nowhere"):
        open_run("nowhere")
    with pytest.raises(RunError, match=r"is not a run: it has no spec\.json"):
        Run(".")


def test_an_unfinished_run_says_how_to_continue():
    run = create()
    with pytest.raises(RunError, match=f"--resume {run.folder}"):
        run.load_model()


def test_a_newer_schema_is_refused():
    run = create()
    (run.folder / "spec.json").write_text(json.dumps(run.record | {"schema": 99}))
    with pytest.raises(RunError, match="newer Onsight"):
        Run(run.folder)


def test_a_damaged_record_is_named():
    run = create()
    (run.folder / "dataset.json").write_text("{")
    with pytest.raises(RunError, match=r"dataset\.json is damaged"):
        _ = Run(run.folder).classes


def test_a_spec_that_names_no_data_is_damaged():
    run = create()
    write_json(run.folder / "spec.json", {**run.record, "spec": {"model": "cnn"}})
    with pytest.raises(RunError, match=r"spec\.json is damaged: 'spec\.data' is missing"):
        Run(run.folder)


def test_scores_of_other_numbers_of_classes_are_damaged():
    run = create()
    metrics = metrics_of(np.array([0, 1]), np.eye(2, dtype=np.float32), ["a", "b"])
    path = run.evaluation_folder() / "metrics.json"
    path.parent.mkdir(parents=True)
    for matrix, why in (([[1, 0], [0]], "'confusion.1.' has 1 values"), ([[2]], "different numbers of classes")):
        path.write_text(json.dumps(metrics | {"confusion": matrix}))
        with pytest.raises(RunError, match=why):
            read_evaluations(run)


def test_a_run_can_be_moved(tmp_path):
    run = create()
    run.append_history({"event": "epoch", "epoch": 1})
    moved = shutil.move(run.folder, tmp_path / "elsewhere")
    assert Run(moved).history() == [{"event": "epoch", "epoch": 1}]
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "elsewhere").iterdir())


def test_history_survives_a_torn_line():
    run = create()
    run.append_history({"event": "epoch", "epoch": 1})
    run.append_history({"event": "tick"})
    with open(run.folder / "history.jsonl", "a") as file:
        file.write('{"event": "epo')
    assert len(read_lines(run.folder / "history.jsonl")) == 2
    assert len(run.history()) == 1


def hold(folder, ready, release):
    with Run(folder).locked():
        ready.set()
        release.wait(20)


def test_two_trainings_cannot_use_one_folder():
    run = create()
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(run.folder, ready, release))
    other.start()
    assert ready.wait(20)
    with pytest.raises(RunError, match="Another process is training"), run.locked():
        pass
    other.kill()  # the operating system releases the lock
    other.join()
    with run.locked():
        pass


@pytest.mark.parametrize("content", ["{}", "[]", "nonsense", '{"schema": "x", "spec": {}}', '{"spec": 3}'])
def test_one_bad_folder_does_not_hide_the_others(content):
    good = finish(create())
    bad = finish(create())
    (bad.folder / "spec.json").write_text(content)
    with pytest.raises(RunError, match=r"spec\.json"):
        Run(bad.folder)
    assert [run.name for run in list_runs()] == [good.name]
    assert open_run("latest").name == good.name


def test_the_epoch_of_the_model():
    run = create()
    for epoch, loss in enumerate((3.0, 1.0, 2.0), start=1):
        run.append_history({"event": "epoch", "epoch": epoch, "val_loss": loss})
    assert run.model_epoch()["epoch"] == 3
    run.spec["patience"] = 2
    assert run.model_epoch()["epoch"] == 2


def test_a_run_that_is_renamed_while_it_trains_says_so(tmp_path):
    run = Run.create("x", {"spec": {"data": "photos", "model": "cnn"}}, DATASET, tmp_path / "before")

    def train():
        with run.locked():
            run.folder.rename(tmp_path / "after")
            run.append_history({"event": "epoch"})

    with pytest.raises(RunError, match=r"before was renamed, moved or removed while it was training.*--resume"):
        train()
    with pytest.raises(FileNotFoundError), Run(tmp_path / "after").locked():
        raise FileNotFoundError("something else")
