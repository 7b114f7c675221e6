"""The command line, called in this process: a whole session, and its messages about wrong input."""

import csv
import json
import subprocess
import sys

import pytest
from PIL import Image

from onsight.data.load import load_dataset
from onsight.models.registry import MODELS
from onsight.spec import PRESETS, TrainSpec


@pytest.mark.backend
def test_train_evaluate_predict_report_runs(onsight, tmp_path):
    words = "train toy --model cnn --epochs 12 --batch-size 32 --optimizer adam --learning-rate 0.002"
    code, out, err = onsight(*words.split())
    assert code == 0, err
    run = out.strip()
    assert run == "runs/toy-cnn-0001"
    assert "epoch 12/12" in err
    chosen = err.split("epoch  1/12")[0].replace("--batch-size", "").replace("ghost_batch_size", "")
    assert "batch_size" not in chosen  # no reason: the user set it
    assert "schedule" in err
    assert f"Next: onsight evaluate {run}" in err

    code, out, err = onsight("evaluate", "runs/latest")
    assert code == 0, err
    assert "of 60 test images are classified correctly (95 %:" in out
    assert "report.html" in out
    code, out, _ = onsight("evaluate", run, "--format", "json", "--quiet")
    assert json.loads(out)["n"] == 60
    code, out, _ = onsight("evaluate", run, "--robustness", "--quick", "--quiet")
    assert code == 0
    assert "Under corruptions (CIFAR-10-C style, 60 images)" in out
    assert (tmp_path / run / "evaluations/test/robustness.json").exists()

    toy = load_dataset("toy")
    red = next(i for i, label in enumerate(toy.labels) if toy.classes[label] == "red" and toy.parts[i] == "test")
    Image.fromarray(toy.images[red]).save(tmp_path / "=red.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    code, out, err = onsight("predict", "runs/latest", tmp_path / "=red.png", tmp_path / "bad.png", "--top", 2)
    assert code == 0
    assert "% red" in out.splitlines()[0]
    assert "unreadable: " in out.splitlines()[1]
    assert "1 of 2 images could not be read" in err
    code, out, _ = onsight("predict", run, "=red.png", "bad.png", "--format", "json", "--top", 3)
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0]["top"][0]["label"] == "red"
    assert len(rows[0]["top"]) == 3
    assert rows[1]["top"] == []
    assert rows[1]["error"]
    code, out, _ = onsight("predict", run, "=red.png", "bad.png", "--format", "csv", "--top", 1)
    rows = list(csv.reader(out.splitlines()))
    assert rows[0] == ["path", "label1", "probability1", "unsure", "error", "reason", "distance"]
    assert rows[1][:2] == ["'=red.png", "red"]  # quoted, so that no spreadsheet runs it as a formula
    assert rows[1][3:] == ["false", "", "", ""]
    assert rows[2][4]
    assert onsight("predict", run, "bad.png")[0] == 2

    code, out, _ = onsight("runs")
    assert "toy-cnn-0001" in out
    assert "12/12" in out
    code, out, _ = onsight("report", run)
    assert out.strip() == "runs/toy-cnn-0001/report.html"
    code, out, err = onsight("train", "--resume", run, "--epochs", 13)
    assert code == 0, err
    assert "13/13" in onsight("runs")[1]


def test_commands_that_list(onsight):
    for verb, names in (("models", MODELS), ("presets", PRESETS), ("datasets", ["cifar10", "cifar100", "digits"])):
        code, out, _ = onsight(verb)
        assert code == 0
        assert all(name in out for name in names)
    assert "No runs in runs" in onsight("runs")[1]
    assert "Freed" in onsight("clear-cache")[1]


def test_datasets_fetches_one_data_set(onsight):
    code, out, _ = onsight("datasets", "toy", "--quiet")
    assert (code, out.strip()) == (0, f"{load_dataset('toy').provenance}: 240 images in 3 classes")
    code, _, said = onsight("datasets", "cifar", "--quiet")
    assert code == 2
    assert "Did you mean 'cifar10'?" in said


def test_models_shows_the_layers_of_one_model(onsight):
    code, out, _ = onsight("models", "cnn", "--classes", 3)
    assert code == 0
    assert "the tutorials' small CNN" in out
    assert "Three times 3x3 valid convolution" in out  # from its docstring
    lines = out.splitlines()
    assert next(line.split() for line in lines if line.startswith("conv2 ")) == [
        "conv2", "Conv2D", "13", "x", "13", "x", "64", "18,496", "3,115,008",
    ]  # fmt: skip
    assert next(line.split() for line in lines if line.startswith("total ")) == ["total", "160,195", "5,138,176"]
    assert "159,747 parameters are trained" in lines[-1]
    code, _, err = onsight("models", "cnn", "--image-size", 16)
    assert code == 2
    assert "22 to 256 px" in err
    assert "Did you mean 'cnn'" in onsight("models", "cn")[2]


def test_help_names_every_setting(onsight):
    _, out, _ = onsight("train", "--help")
    elsewhere = {"data", "teacher", "sparsity", "channels"}  # data is an argument; distill and prune set the others
    for field in TrainSpec.model_fields:
        assert f"--{field.replace('_', '-')}" in out or field in elsewhere, field
    assert "--verbose" in out
    _, out, _ = onsight("--help")
    for verb in (
        "train",
        "evaluate",
        "predict",
        "models",
        "datasets",
        "presets",
        "runs",
        "demo",
        "report",
        "prune",
        "distill",
    ):
        assert verb in out


def test_the_help_of_distill_names_the_settings_that_it_takes(onsight, toy_run):
    _, out, _ = onsight("distill", "--help")
    for flag in ("--model", "--epochs", "--optimizer", "--image-size", "--seed", "--min-precision", "--verbose"):
        assert f"{flag} " in out, flag
    refused = ("shots", "validation", "split-seed", "allow-tiny", "keep-list", "data-dir", "weights",
               "freeze", "head-epochs", "early-size")  # fmt: skip
    for name in refused:
        assert f"--{name} " not in out, name
    code, _, err = onsight("distill", toy_run.folder, "--shots", 3, "--quiet")  # refused with the reason
    assert code == 2
    assert "A student takes shots from its teacher" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "nowhere/", "--quiet"], "No data set 'nowhere/'"),
        (["train", "nowhere/"], "No data set 'nowhere/'"),
        (["train", "toy", "--model", "resnet"], "No model 'resnet'. Known: mlp"),
        (["train", "toy", "--epochs", "0"], "epochs=0 cannot be used"),
        (["train", "toy", "--epochs", "many"], "many"),
        (["train", "toy", "--epoch", "1"], "--epochs"),
        (["distill", "nowhere", "--epoch", "1"], "--epochs"),
        (["train", "toy", "--image-size", "16", "--model", "cnn"], "22 to 256 px"),
        (["train", "--resume", "runs/latest"], "no unfinished run"),
        (["train", "--resume", "runs/latest", "--model", "cnn"], "keeps its own options"),
        (["train", "~nobody-of-that-name/photos"], "No data set '~nobody"),
        (["train", "x" * 300], "cannot be read or written: File name too long"),
        (["train", "toy", "--classes", "red,blu"], "No class 'blu'. Known: blue, green, red. Did you mean 'blue'?"),
        (["train", "toy", "--exclude", "red, blue"], "--exclude would leave only 'green'"),
        (["train", "toy", "--layout", "flat"], "--layout flat cannot be used: expected parts or classes"),
        (["train", "toy", "--freeze", "3x"], "--freeze 3x cannot be used: expected all, none or a whole number"),
        (["check", "toy", "--layout", "parts"], "--layout is for folders and zips"),
        (["check", "toy", "--exclude", "gren"], "Did you mean 'green'?"),
        (["check", "toy", "--label-column", "x"], "--path-column and --label-column are for CSVs"),
        (["check", "toy", "--keep-list", "nowhere/keep.txt"], "there is no folder 'nowhere'"),
        (["evaluate", "nowhere"], "no run at nowhere"),
        (["evaluate", "nowhere", "--quick"], "it needs --robustness"),
        (["train", "toy", "--min-precision", "1.5"], "min_precision=1.5 cannot be used"),
        (["predict", "latest"], "No image was given"),
        (["predict", "latest", "x.jpg"], "no finished run"),
        (["predict", "latest", "x.jpg", "--top", "0"], "--top 0"),
        (["fly"], "fly"),
    ],
)
def test_a_users_mistake_gives_one_message_and_exit_code_2(onsight, words, message):
    code, out, err = onsight(*words)
    assert code == 2
    assert message in err
    assert out == ""
    assert "Traceback" not in err


def test_a_bug_shows_its_traceback(onsight, monkeypatch):
    monkeypatch.setattr("onsight.runs.run.list_runs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        onsight("runs")


def test_a_closed_pipe_is_not_an_error():
    command = f"{sys.executable} -m onsight presets | head -n 0"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_ctrl_c_outside_training(onsight, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("onsight.runs.run.list_runs", stop)
    assert onsight("runs")[0] == 130


def test_a_file_name_in_an_error_cannot_control_the_terminal(onsight):
    code, _, err = onsight("predict", "evil\x1b[31m", "x.jpg")
    assert code == 2
    assert "\x1b" not in err


def test_a_full_disk_outside_training(onsight, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "runs")

    monkeypatch.setattr("onsight.runs.run.list_runs", full)
    code, _, err = onsight("runs")
    assert code == 1
    assert "The disk is full: runs" in err


def test_embed_and_similar(onsight, toy_run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    query = str(next(iter(sorted((photos / "red").iterdir()))))
    code, out, _ = onsight("embed", str(toy_run.folder), str(photos), "--out", "f.npz")
    assert (code, out.splitlines()[-1].startswith("f.npz: 72 images, ")) == (0, True)
    code, out, _ = onsight("similar", str(toy_run.folder), query, str(photos), "--top", "2")
    assert code == 0
    assert len(out.splitlines()) == 4
    assert (tmp_path / "similar.html").is_file()
    code, _, told = onsight("similar", str(toy_run.folder), query)
    assert code == 2
    assert "the folder to search" in told
