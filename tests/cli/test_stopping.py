"""Ctrl-C outside of training, with real processes and signals."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

if os.name == "nt":
    pytest.skip("Windows has no such signals", allow_module_level=True)

SLOW = """
import time

def {name}(*words, **more):
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("leaving", flush=True)
        time.sleep({after})

import {module} as patched
patched.{name} = {name}
"""
PLACES = {
    "check": ("onsight.checks.check", "check", ["check", "my photos"]),
    "evaluate": ("onsight.evaluation.evaluate", "evaluate", ["evaluate", "runs/latest"]),
    "export": ("onsight.exporting.export", "export", ["export", "runs/latest", "litert"]),
    "predict": ("onsight.inference.predict", "Predictor", ["predict", "runs/latest", "a b.jpg"]),
    "runs": ("onsight.runs.run", "list_runs", ["runs"]),
}
KEPT = {
    "check": "What was decoded stays in the cache, but nothing was written. To start again: onsight check 'my photos'",
    "evaluate": "Each file of the run is complete, the old one or the new; some may be missing. To start again: "
    "onsight evaluate runs/latest",
    "export": "Files of an earlier export are as they were, and nothing was added. To start again: onsight export "
    "runs/latest litert",
    "predict": "The answers above are complete; a file for --out and a folder for --sort-into were not written. To "
    "start again: onsight predict runs/latest 'a b.jpg'",
    "runs": "To start again: onsight runs",
}


def listening():
    """Handle signals as in a terminal; a child inherits those that are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def limit(process):
    """End a process that takes longer than a minute."""
    guard = threading.Timer(60, process.kill)
    guard.daemon = True
    guard.start()


def started(tmp_path, verb, after=0):
    """Return a process of a command whose work takes a minute, and another `after` seconds when it is stopped."""
    module, name, words = PLACES[verb]
    (tmp_path / "slow.py").write_text(SLOW.format(module=module, name=name, after=after))
    process = subprocess.Popen(
        [sys.executable, "-m", "onsight", *words],
        cwd=tmp_path,
        env=os.environ | {"ONSIGHT_IMPORT": "slow"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listening,
    )
    limit(process)
    assert process.stdout.readline() == "working\n", process.stderr.read()
    return process


@pytest.mark.parametrize("verb", list(PLACES))
def test_ctrl_c_prints_one_line(tmp_path, verb):
    process = started(tmp_path, verb)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert err == f"onsight: Stopped by Ctrl-C. {KEPT[verb]}\n"
    assert process.returncode == 130


def test_a_second_ctrl_c_ends_at_once_and_without_a_traceback(tmp_path):
    process = started(tmp_path, "check", after=50)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "leaving\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert err.strip() == f"onsight: Stopped by Ctrl-C. {KEPT['check']}"
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("numbers", "code", "said"),
    [
        pytest.param(
            [signal.SIGHUP],
            129,
            ["Stopped by SIGHUP at epoch", "Continue with: onsight train --resume runs/toy-mlp-0001"],
            marks=pytest.mark.slow,
        ),
        ([signal.SIGINT, signal.SIGINT, signal.SIGINT], 130, ["onsight: Stopped by Ctrl-C", "--resume"]),
    ],
)
def test_a_training_is_stopped_by_a_closed_terminal_and_by_three_ctrl_c(tmp_path, numbers, code, said):
    """However many signals come, and at whatever moment, there is no traceback, and the exit code is the first's."""
    words = "-m onsight train toy --model mlp --epochs 4000 --batch-size 32"
    process = subprocess.Popen(
        [sys.executable, *words.split()],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listening,
    )
    limit(process)
    assert any("epoch    3/4000" in line for line in process.stderr)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.01)
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == code
    assert "Traceback" not in err
    assert all(words in err for words in said)
    assert any((tmp_path / "runs/toy-mlp-0001/checkpoints").iterdir()) or len(numbers) > 1
