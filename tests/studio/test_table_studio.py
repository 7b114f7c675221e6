"""The table of the runs, without a server."""

import asyncio
import json
import shutil

import pytest

from onsight.serving.refusals import Refused
from onsight.studio import table as module
from onsight.studio.table import Table


def names(table):
    return {row["name"] for row in table.read()}


def test_one_damaged_run_does_not_hide_the_others(make_runs, tmp_path):
    runs = make_runs(tmp_path / "runs")
    table = Table(runs)
    assert names(table) == {"first", "second", "dead"}
    spec = json.loads((runs / "dead" / "spec.json").read_text())
    for content in (
        "",
        "[]",
        "{",
        json.dumps({"spec": 1}),
        json.dumps(spec | {"teacher": 1}),
        json.dumps({"schema": 99}),
    ):
        (runs / "dead" / "spec.json").write_text(content)
        assert names(table) == {"first", "second"}, content
    (runs / "dead" / "spec.json").write_text(json.dumps(spec))
    (runs / "second" / "dataset.json").unlink()
    assert names(table) == {"first", "dead"}
    (runs / "first" / "evaluations" / "test" / "metrics.json").write_text("{")
    assert {row["name"]: row["damaged"] for row in table.read()} == {"first": True, "dead": False}


def test_a_row_is_read_again_only_if_its_files_change(make_runs, tmp_path, monkeypatch):
    runs = make_runs(tmp_path / "runs")
    table = Table(runs)
    before = {row["name"]: row["done"] for row in table.read()}
    read = []
    monkeypatch.setattr(module, "row", lambda run: read.append(run.name) or {"name": run.name, "created": ""})
    table.read()
    assert (read, before["dead"]) == ([], 3)
    (runs / "dead" / "history.jsonl").write_text("")
    table.read()
    assert read == ["dead"]


def test_a_folder_that_does_not_exist_yet_has_no_runs(tmp_path):
    table = Table(tmp_path / "runs")
    assert asyncio.run(table.rows()) == []
    with pytest.raises(Refused, match="no such run"):
        asyncio.run(table.run("../runs"))


def test_a_deleted_run_is_gone(make_runs, tmp_path):
    table = Table(make_runs(tmp_path / "runs"))
    assert "first" in names(table)
    shutil.rmtree(tmp_path / "runs" / "first")
    assert "first" not in names(table)
