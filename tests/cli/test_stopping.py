"""Ctrl-C outside of training, with real processes and signals."""

import os
import signal
import subprocess
import sys
import threading

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
    "predict": "The answers above are complete; a file for --out was not written, and copies in --sort-into stay. To "
    "start again: onsight predict runs/latest 'a b.jpg'",
    "runs": "To start again: onsight runs",
}


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
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    guard = threading.Timer(60, process.kill)
    guard.daemon = True
    guard.start()
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
