"""Kill commands at every change that they make to their folders, let them go on, and compare with an unbroken command.

    python tests/attack/attack_kills.py OUT [--verbs train export …] [--minutes 60] [--shard 0/2]

For each command, OUT has a file with one line per change: whether the command that follows the killed one ends in what
the unbroken one made. A second call goes on behind the last line. The program prints a table, and ends with 1 if
anything was lost. Trainings are compared bit for bit, on the backend that KERAS_BACKEND names. `--shard 0/9` kills at
every ninth change.

Each command is a fork of this process, which has imported TensorFlow or JAX and has computed nothing. A new interpreter
would take three times as long.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from attack.attack_files import read  # noqa: E402
from attack.kill_at import KILLED, killed_at  # noqa: E402
from attack.verbs import SHARD, VERBS, Around, Verb, campaign, interrupted, outcome, unbroken  # noqa: E402


def attack(name: str, file: Path, asked: argparse.Namespace) -> None:
    """Kill a verb at each of its changes that has no line in the file yet."""
    shard, shards = asked.shard
    done = {row["point"] for row in read(file)}
    with tempfile.TemporaryDirectory() as place:
        base, expected, said = unbroken(VERBS[name], Path(place), killer(0))
        points = int(said.splitlines()[-1])
        with file.open("a") as lines:
            for point in range(1 + shard, points + 1, shards):
                if point in done or time.monotonic() > asked.until:
                    continue
                if result := killed(VERBS[name], base, point, expected):
                    lines.write(json.dumps({"point": point, "points": points, **result}) + "\n")
                    lines.flush()


def killer(point: int) -> Callable[[Path], Around]:
    """Return what makes a command be killed at a change of its folder."""
    return lambda folder: lambda command: killed_at(point, str(folder), command)


def killed(verb: Verb, base: Path, point: int, expected: dict[str, str]) -> dict[str, Any] | None:
    """Kill the verb in a copy of the folder, run what a user would, and compare.

    Return None if the verb ended before: it makes a change more or less, as ticks of its history come.
    """
    folder, code, said = interrupted(verb, base, killer(point))
    if code == 0:
        return None
    if code != KILLED:
        return {"outcome": "not killed", "what": said[-500:]}
    return outcome(verb, folder, expected)


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
    campaign(__doc__, attack, table, shard=SHARD)
