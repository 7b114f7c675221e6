"""Kill commands at every change that they make to their folders, let them go on, and compare with an unbroken command.

    python tests/attack/attack_kills.py OUT [--verbs train export …] [--minutes 60] [--shard 0/2]

For each command, OUT has a file with one line per change: whether the command that follows the killed one ends in what
the unbroken one made. A second call goes on behind the last line. The program prints a table, and ends with 1 if
anything was lost. Trainings are compared bit for bit, on the backend that KERAS_BACKEND names. `--shard 0/9` kills at
every ninth change.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from attack.attack_files import read  # noqa: E402
from onsight.core.files import sha256  # noqa: E402

KILL_AT = TESTS / "attack" / "kill_at.py"
KILLED = 137
TRAIN = ["train", "toy", "--model", "mlp", "--batch-size", "64", "--seed", "1", "--quiet"]
CHANGING = {"evaluated_at", "created", "made", "seconds", "first_answer_seconds"}  # keys whose values differ each time


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
VERBS = {
    "train": Verb([], NEW, [["train", "--resume", "latest", "--quiet"], NEW], weights),
    "train longer": Verb(TRAINED, LONGER, [LONGER], weights),
    "evaluate": Verb(TRAINED, ["evaluate", RUN, "--quiet"], [["evaluate", RUN, "--quiet"]],
                     files_in(f"{RUN}/evaluations/test/metrics.json", f"{RUN}/evaluations/test/predictions.csv")),
    "export": Verb(TRAINED, ["export", RUN, "litert", "--quiet"], [["export", RUN, "litert", "--quiet"]],
                   files_in(f"{RUN}/export/*.tflite", f"{RUN}/export/contract.json")),
    "report": Verb(TRAINED, ["report", RUN], [["report", RUN]], files_in(f"{RUN}/MODEL_CARD.md")),
    "predict": Verb(TRAINED, ["predict", RUN, "photos", "--out", "answers", "--quiet"],
                    [["predict", RUN, "photos", "--out", "answers", "--quiet"]], files_in("answers/*.jsonl")),
    "check": Verb([], ["check", "photos", "--quiet"], [["check", "photos", "--quiet"]], files_in("nothing")),
    "clear-cache": Verb(TRAINED, ["clear-cache"], [["clear-cache"]], files_in("cache/pixels/*/*.npy")),
}  # fmt: skip


def main() -> None:
    """Kill, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--verbs", nargs="*", choices=list(VERBS), default=list(VERBS))
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--shard", default="0/1")
    asked = parser.parse_args()
    shard, shards = map(int, asked.shard.split("/"))
    asked.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * asked.minutes
    for name in asked.verbs:
        if time.monotonic() < until:
            attack(name, asked.out, shard, shards, until)
    found = {name: rows for name in VERBS if (rows := read(asked.out / f"{name}.jsonl"))}
    sys.stdout.write(table(found))
    sys.exit(any(row["outcome"] != "same" for rows in found.values() for row in rows))


def attack(name: str, out: Path, shard: int, shards: int, until: float) -> None:
    """Kill a verb at each of its changes that has no line in OUT yet."""
    file = out / f"{name}.jsonl"
    done = {row["point"] for row in read(file)}
    with tempfile.TemporaryDirectory() as place:
        base, whole = Path(place) / "base", Path(place) / "whole"
        prepare(VERBS[name], base)
        shutil.copytree(base, whole)
        code, said = run(whole, 0, VERBS[name].words)
        assert code == 0, said
        expected, points = VERBS[name].made(whole), int(said.splitlines()[-1])
        with file.open("a") as lines:
            for point in range(1 + shard, points + 1, shards):
                if point in done or time.monotonic() > until:
                    continue
                outcome = killed(VERBS[name], base, Path(place) / "killed", point, expected)
                lines.write(json.dumps({"point": point, "points": points, **outcome}) + "\n")
                lines.flush()


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
        code, said = run(folder, 0, words)
        assert code == 0, said


def killed(verb: Verb, base: Path, folder: Path, point: int, expected: dict[str, str]) -> dict[str, Any]:
    """Kill the verb in a copy of the folder, run what a user would, and compare."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    code, said = run(folder, point, verb.words)
    if code != KILLED:
        return {"outcome": "not killed", "what": said[-500:]}
    for words in verb.again:
        code, said = run(folder, 0, words)
        if "Traceback" in said:
            return {"outcome": "traceback", "what": said[-2000:]}
        if code == 0:
            break
    try:
        found = verb.made(folder)
    except (OSError, ValueError) as error:
        return {"outcome": "lost", "what": f"{error}; {said[-500:]}"}
    if found != expected:
        return {"outcome": "different", "what": json.dumps({"found": found, "expected": expected})[:1000]}
    return {"outcome": "same"}


def run(folder: Path, point: int, words: list[str]) -> tuple[int, str]:
    """Run a command in a folder, killed at a change of it; return its exit code and what it said on standard error."""
    places = {"ONSIGHT_RUNS": "runs", "ONSIGHT_CACHE": "cache", "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, KILL_AT, str(point), folder, *words], cwd=folder, env=os.environ | places,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stderr.strip()


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return a Markdown table of results."""
    lines = [
        "| command | killed at | of its changes | the next command ends in the same | not |",
        "|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        same = sum(row["outcome"] == "same" for row in rows)
        lines.append(f"| {name} | {len(rows):,} | {rows[-1]['points']:,} | {same:,} | {len(rows) - same:,} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
