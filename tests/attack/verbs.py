"""The commands that an attack interrupts, what a user runs afterwards, and what has to come of it."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from attack.attack_files import read
from attack.beside import beside, labels_given
from onsight.core.files import sha256

TRAIN = ["train", "toy", "--model", "mlp", "--batch-size", "64", "--seed", "1", "--quiet"]
Around = Callable[[Callable[[], int]], int]  # gets a function that runs a command, and returns its exit code
CHANGING = {"evaluated_at", "created", "made", "seconds", "first_answer_seconds", "runs"}  # keys whose values differ


class Verb(NamedTuple):
    """A command that is killed.

    Attributes:
        before: commands that make what it needs.
        words: the command.
        again: what a user runs after the kill: the first of these commands that succeeds.
        made: returns what has to be the same in the end, by name.
    """

    before: list[list[str]]
    words: list[str]
    again: list[list[str]]
    made: Callable[[Path], dict[str, str]]


def weights(folder: Path) -> dict[str, str]:
    """Return the checksums of the weights of all finished runs, and their epochs. They have to be the same."""
    found = set()
    for file in (folder / "runs").glob("*/model/weights.safetensors"):
        rows = [json.loads(line) for line in (file.parents[1] / "history.jsonl").read_text().splitlines()]
        epochs = sorted({row["epoch"] for row in rows if row.get("event") == "epoch"})
        found.add(f"{sha256(file)} after the epochs {epochs}")
    return {"weights": ", ".join(sorted(found))}


def files_in(*patterns: str) -> Callable[[Path], dict[str, str]]:
    """Return a function that returns the checksums of files, of JSON without what differs each time."""

    def made(folder: Path) -> dict[str, str]:
        found = {}
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                name = str(path.relative_to(folder))
                found[name] = cleaned(json.loads(path.read_text())) if path.suffix == ".json" else sha256(path)
        return found

    return made


def cleaned(value: Any) -> str:
    """Return a JSON value as text, without times and latencies."""
    if isinstance(value, dict):
        kept = {key: cleaned(each) for key, each in value.items() if key not in CHANGING and "latency" not in key
                and "per_second" not in key and "peak" not in key}  # fmt: skip
        return json.dumps(kept, sort_keys=True)
    return json.dumps([cleaned(each) for each in value]) if isinstance(value, list) else json.dumps(value)


RUN = "runs/toy-mlp-0001"
TRAINED = [[*TRAIN, "--epochs", "1"]]
NEW = [*TRAIN, "--epochs", "2"]
LONGER = ["train", "--resume", RUN, "--epochs", "2", "--quiet"]
PRUNE = ["prune", RUN, "--sparsity", "0.5", "--epochs", "1", "--quiet"]
DISTILL = ["distill", RUN, "--model", "micro", "--batch-size", "64", "--epochs", "1", "--quiet"]
EMBED = ["embed", RUN, "photos", "--quiet"]
SORT = ["predict", RUN, "photos", "--sort-into", "sorted"]
SEARCH = ["--epochs", "2", "--trials", "2", "--search", "learning_rate=0.001..0.01", "--study", "study"]
TUNE = ["tune", *TRAIN[1:], *SEARCH]
CURVE = ["learning-curve", *TRAIN[1:], "--epochs", "1", "--sizes", "5", "10", "--seeds", "1", "--out", "curve"]
SIMILAR = ["similar", RUN, "photos/ant/1.png", "photos", "--quiet"]
DATASETS = ["datasets", "mnist", "--quiet"]
LABEL = ["label", RUN, "photos", "--quiet"]
COMPARE = ["compare", RUN, "runs/toy-mlp-0002"]
EVALUATED = [*TRAINED, [*TRAIN, "--epochs", "2"], *(["evaluate", run, "--quiet"] for run in COMPARE[1:])]
VERBS = {
    "train": Verb([], NEW, [["train", "--resume", "latest", "--quiet"], NEW], weights),
    "train longer": Verb(TRAINED, LONGER, [LONGER], weights),
    "evaluate": Verb(TRAINED, ["evaluate", RUN, "--quiet"], [["evaluate", RUN, "--quiet"]],
                     files_in(f"{RUN}/evaluations/test/metrics.json", f"{RUN}/evaluations/test/predictions.csv")),
    "export": Verb(TRAINED, ["export", RUN, "litert", "--quiet"], [["export", RUN, "litert", "--quiet"]],
                   files_in(f"{RUN}/export/*.tflite", f"{RUN}/export/contract.json")),
    "export int8": Verb(TRAINED, ["export", RUN, "litert", "c", "--precision", "int8", "--quiet"],
                        [["export", RUN, "litert", "c", "--precision", "int8", "--quiet"]],
                        files_in(f"{RUN}/export/*.tflite", f"{RUN}/export/classifier/model.*")),
    "tune": Verb([], TUNE, [["tune", "--resume", "study", "--quiet"], TUNE],
                 files_in("study/**/model/weights.safetensors")),
    "learning-curve": Verb([], CURVE, [CURVE], files_in("curve/curve.json")),
    "prune": Verb(TRAINED, PRUNE, [["train", "--resume", "latest", "--quiet"], PRUNE], weights),
    "distill": Verb(TRAINED, DISTILL, [["train", "--resume", "latest", "--quiet"], DISTILL], weights),
    "report": Verb(TRAINED, ["report", RUN], [["report", RUN]], files_in(f"{RUN}/MODEL_CARD.md")),
    "compare": Verb(EVALUATED, COMPARE, [COMPARE], files_in("compare.html")),
    "similar": Verb(TRAINED, SIMILAR, [SIMILAR], files_in("similar.html")),
    "predict": Verb(TRAINED, ["predict", RUN, "photos", "--out", "answers/"],
                    [["predict", RUN, "photos", "--out", "answers/"]], files_in("answers/part-*")),
    "predict into classes": Verb(TRAINED, SORT, [SORT], files_in("sorted/*/*")),
    "embed": Verb(TRAINED, EMBED, [EMBED], files_in("features.npz")),
    "datasets": Verb([], DATASETS, [DATASETS], files_in("cache/downloads/mnist/*.gz*")),
    "label": Verb(TRAINED, LABEL, [LABEL], labels_given),
    "check": Verb([], ["check", "photos", "--quiet"], [["check", "photos", "--quiet"]], files_in("nothing")),
    "clear-cache": Verb(TRAINED, ["clear-cache"], [["clear-cache"]], files_in("cache/pixels/*/*.npy")),
}  # fmt: skip


def import_all() -> None:
    """Import what commands import, so that their forks need not. Nothing is computed, so there are no threads yet."""
    for module in ("onsight.cli.app", "onsight.training.train", os.environ.get("KERAS_BACKEND", "tensorflow")):
        importlib.import_module(module)


def prepare(verb: Verb, folder: Path) -> None:
    """Make the folder in which the verb is run: photos, and what the commands before it make."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(12):
        path = folder / "photos" / ("ant" if number % 2 else "bee") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    for words in verb.before:
        code, said = run(folder, words)
        assert code == 0, said


def unbroken(verb: Verb, place: Path, around: Callable[[Path], Around]) -> tuple[Path, dict[str, str], str]:
    """Prepare a verb in `place` and run it once without interruption.

    Args:
        verb: the verb.
        place: an empty folder.
        around: returns for a folder what runs the command in it, as in `run`.

    Returns:
        the folder in which the verb has not run yet, what the verb made, and what it said.
    """
    base, whole = place / "base", place / "whole"
    prepare(verb, base)
    shutil.copytree(base, whole)
    code, said = run(whole, verb.words, around(whole))
    assert code == 0, said
    return base, verb.made(whole), said


def interrupted(verb: Verb, base: Path, around: Callable[[Path], Around]) -> tuple[Path, int, str]:
    """Run a verb in a copy of its folder; return the copy, the exit code, and what it said on standard error."""
    folder = base.with_name("interrupted")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    return folder, *run(folder, verb.words, around(folder))


def outcome(verb: Verb, folder: Path, expected: dict[str, str]) -> dict[str, Any]:
    """Run what a user would run after an interruption, and compare what that ends in with the unbroken command."""
    said = ""
    for words in verb.again:
        code, said = run(folder, words)
        if "Traceback" in said:
            return {"outcome": "traceback", "what": said[-2000:]}
        if code == 0:
            break
    try:
        found = verb.made(folder)
    except (OSError, ValueError) as error:
        return {"outcome": "lost", "what": f"{error}; {said[-500:]}"}
    if found != expected:
        return {"outcome": "different", "what": differences(found, expected) + said[-500:]}
    return {"outcome": "same"}


def differences(found: dict[str, str], expected: dict[str, str]) -> str:
    """Return what is not the same: for each name what was found, then what was expected."""
    differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return json.dumps({name: [found.get(name), expected.get(name)] for name in differing})[:1000]


def campaign(
    description: str | None,
    attack: Callable[[str, Path, argparse.Namespace], None],
    table: Callable[[dict[str, list[dict[str, Any]]]], str],
    **options: dict[str, Any],
) -> NoReturn:
    """Attack the commands that the command line names, print a table, and end with 1 if anything was lost.

    Args:
        description: the help text.
        attack: attacks a verb and appends a line per attack to a file, unless `time.monotonic()` exceeds `until`.
        table: returns the table of all lines, by verb.
        options: further options, with the arguments of `add_argument`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--verbs", nargs="*", choices=list(VERBS), default=list(VERBS))
    parser.add_argument("--minutes", type=float, default=1e9)
    for name, about in options.items():
        parser.add_argument(f"--{name}", **about)
    asked = parser.parse_args()
    asked.until = time.monotonic() + 60 * asked.minutes
    asked.out.mkdir(parents=True, exist_ok=True)
    import_all()
    for name in asked.verbs:
        if time.monotonic() < asked.until:
            attack(name, asked.out / f"{name}.jsonl", asked)
    found = {name: rows for name in VERBS if (rows := read(asked.out / f"{name}.jsonl"))}
    sys.stdout.write(table(found))
    sys.exit(any(row["outcome"] != "same" for rows in found.values() for row in rows))


def shard_of(text: str) -> tuple[int, int]:
    """Return the number of a shard and of all shards: 0/2 is the first of two."""
    shard, shards = map(int, text.split("/"))
    return shard, shards


SHARD = {"type": shard_of, "default": (0, 1)}


def command(words: list[str]) -> int:
    """Run an onsight command in this process and return its exit code."""
    from onsight.__main__ import main

    with beside(words) as whole:
        sys.argv = ["onsight", *whole]
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def run(folder: Path, words: list[str], around: Around | None = None) -> tuple[int, str]:
    """Run a command in a folder, as a fork of this process.

    Args:
        folder: the working folder, in which the runs and the cache are, too.
        words: the command.
        around: is called in the fork with a function that runs the command, and returns the exit code.

    Returns:
        the exit code, and what the command said on standard error.
    """
    with tempfile.TemporaryFile() as said:
        process = os.fork()
        if not process:
            become(folder, words, around, said.fileno())
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        said.seek(0)
        return code, said.read().decode(errors="replace").strip()


def become(folder: Path, words: list[str], around: Around | None, said: int) -> NoReturn:
    """Be the command, and end."""
    code = 1
    try:
        signal.alarm(300)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(said, 2)
        os.chdir(folder)
        os.environ |= {"ONSIGHT_RUNS": "runs", "ONSIGHT_CACHE": "cache", "HOME": str(folder)}
        code = around(lambda: command(words)) if around else command(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
