"""Let the disk become full while commands write, give it room again, and compare with a command that had room.

    python tests/attack/attack_disk.py OUT [--verbs train export …] [--points 12] [--minutes 60]

For each command the bytes that it writes to its folder are counted once. Then the disk is full after a part of them:
`--points` parts, evenly spread. The command has to end with a sentence, and a user's next command, on a disk with
room, has to end in what the unbroken one made. A C compiler is needed. OUT, the table and the exit code are like
those of attack_kills.py.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from attack.attack_files import read  # noqa: E402
from attack.verbs import VERBS, Around, Verb, campaign, interrupted, outcome, unbroken  # noqa: E402

SOURCE = Path(__file__).with_name("full_disk.c")


def preloaded() -> int:
    """Run this program again with the layer that can fill the disk, and return its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "full_disk.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
        return subprocess.run([sys.executable, *sys.argv], env=os.environ | {"LD_PRELOAD": str(library)}).returncode


def attack(name: str, file: Path, asked: argparse.Namespace) -> None:
    """Fill the disk at each point of a verb that has no line in the file yet."""
    verb, points = VERBS[name], asked.points
    done = {row["point"] for row in read(file)}
    with tempfile.TemporaryDirectory() as place:
        base, expected, said = unbroken(verb, Path(place), with_room(-1))
        size = int(said.splitlines()[-1])
        with file.open("a") as lines:
            for point in range(points):
                if point in done or time.monotonic() > asked.until or not size:
                    continue
                room = size * point // points
                row = {"point": point, "room": room, "size": size}
                lines.write(json.dumps(row | filled(verb, base, room, expected)) + "\n")
                lines.flush()


def with_room(room: int) -> Callable[[Path], Around]:
    """Return what lets a command write so many bytes to its folder, and says how many it wrote; -1: without a limit."""

    def around(folder: Path, command: Callable[[], int]) -> int:
        layer = ctypes.CDLL(None)
        layer.bytes_written.restype = ctypes.c_long
        layer.room_below(os.fsencode(folder), ctypes.c_long(room))
        code = command()
        sys.stderr.write(f"{layer.bytes_written()}\n")
        return code

    return lambda folder: partial(around, folder)


def filled(verb: Verb, base: Path, room: int, expected: dict[str, str]) -> dict[str, Any]:
    """Let the disk become full while the verb writes, then run what a user would, and compare."""
    folder, code, said = interrupted(verb, base, with_room(room))
    if "Traceback" in said or code not in (0, 1, 2, 3):
        return {"outcome": f"ended with {code}", "what": said[-2000:]}
    if code == 0:  # what did not fit was not needed, such as the cache
        return {"outcome": "same" if verb.made(folder) == expected else "wrong", "what": said[-500:]}
    return {**outcome(verb, folder, expected), "said": said[-500:]}


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return a Markdown table of results."""
    lines = ["| command | full at | of its bytes | the next command ends in the same | not |", "|---|---|---|---|---|"]
    for name, rows in found.items():
        same = sum(row["outcome"] == "same" for row in rows)
        lines.append(f"| {name} | {len(rows)} points | {rows[-1]['size']:,} | {same} | {len(rows) - same} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "full_disk" not in os.environ.get("LD_PRELOAD", ""):
        sys.exit(preloaded())
    campaign(__doc__, attack, table, points={"type": int, "default": 12})
