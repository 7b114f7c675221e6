"""Cut the power at every change that a command makes to its folder, let it go on, and compare with an unbroken command.

    python tests/attack/attack_power.py OUT [--verbs train export …] [--minutes 60] [--shard 0/2]

A command is recorded once. Then its folder is made anew for every moment, as two kinds of disks could leave it (see
`power_cut`), and a user's next command has to end in what the unbroken one made. After the last change, nothing has to
be done any more. Moments that leave the same files count once. OUT, the table and the exit code are like those of
attack_kills.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from attack.attack_files import read  # noqa: E402
from attack.power_cut import DISKS, recording, states, write  # noqa: E402
from attack.verbs import SHARD, VERBS, Verb, campaign, differences, outcome, unbroken  # noqa: E402


def attack(name: str, file: Path, asked: argparse.Namespace) -> None:
    """Cut the power at each moment of a verb that has no line in the file yet."""
    verb = VERBS[name]
    shard, shards = asked.shard
    done = {(row["disk"], row["point"]) for row in read(file)}
    with tempfile.TemporaryDirectory() as place:
        cut, contents, log = Path(place) / "cut", Path(place) / "contents", Path(place) / "events.json"
        contents.mkdir()
        base, expected, _ = unbroken(verb, Path(place), lambda folder: recording(folder, contents, log))
        events = json.loads(log.read_text())
        with file.open("a") as lines:
            for disk in DISKS:
                seen = set[str]()
                for point, root in states(base, events, contents):
                    shutil.rmtree(cut, ignore_errors=True)
                    write(root, disk, cut)
                    left, last = digest(cut), point == len(events)
                    new = left not in seen
                    seen.add(left)
                    if not (new or last) or point % shards != shard or (disk, point) in done:
                        continue
                    if time.monotonic() > asked.until:
                        return
                    result = finished(verb, cut, expected) if last else outcome(verb, cut, expected)
                    lines.write(json.dumps({"disk": disk, "point": point, "points": len(events), **result}) + "\n")
                    lines.flush()


def finished(verb: Verb, folder: Path, expected: dict[str, str]) -> dict[str, Any]:
    """Compare what is there after the last change with what the unbroken command made."""
    found = verb.made(folder)
    if found != expected:
        return {"outcome": "not kept", "what": differences(found, expected)}
    return {"outcome": "same"}


def digest(folder: Path) -> str:
    """Return a checksum of all files below a folder and of their names."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return found.hexdigest()


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return a Markdown table of results."""
    lines = ["| command | disk | power cuts | the next command ends in the same | not |", "|---|---|---|---|---|"]
    for name, rows in found.items():
        for disk in DISKS:
            of_disk = [row["outcome"] == "same" for row in rows if row["disk"] == disk]
            lines.append(f"| {name} | {disk} | {len(of_disk)} | {sum(of_disk)} | {len(of_disk) - sum(of_disk)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    campaign(__doc__, attack, table, shard=SHARD)
