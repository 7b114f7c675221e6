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
from attack.verbs import VERBS, Verb, import_all, outcome, prepare, run  # noqa: E402


def main() -> None:
    """Cut, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--verbs", nargs="*", choices=list(VERBS), default=list(VERBS))
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--shard", default="0/1")
    asked = parser.parse_args()
    shard, shards = map(int, asked.shard.split("/"))
    asked.out.mkdir(parents=True, exist_ok=True)
    import_all()
    until = time.monotonic() + 60 * asked.minutes
    for name in asked.verbs:
        if time.monotonic() < until:
            attack(name, asked.out, shard, shards, until)
    found = {name: rows for name in VERBS if (rows := read(asked.out / f"{name}.jsonl"))}
    sys.stdout.write(table(found))
    sys.exit(any(row["outcome"] != "same" for rows in found.values() for row in rows))


def attack(name: str, out: Path, shard: int, shards: int, until: float) -> None:
    """Cut the power at each moment of a verb that has no line in OUT yet."""
    verb, file = VERBS[name], out / f"{name}.jsonl"
    done = {(row["disk"], row["point"]) for row in read(file)}
    with tempfile.TemporaryDirectory() as place:
        base, whole, cut = Path(place) / "base", Path(place) / "whole", Path(place) / "cut"
        contents, log = Path(place) / "contents", Path(place) / "events.json"
        contents.mkdir()
        prepare(verb, base)
        shutil.copytree(base, whole)
        code, said = run(whole, verb.words, recording(whole, contents, log))
        assert code == 0, said
        expected, events = verb.made(whole), json.loads(log.read_text())
        with file.open("a") as lines:
            for disk in DISKS:
                seen = set[str]()
                for point, root in states(base, events, contents):
                    shutil.rmtree(cut, ignore_errors=True)
                    write(root, disk, cut)
                    before, last = digest(cut), point == len(events)
                    if (before in seen and not last) or point % shards != shard or (disk, point) in done:
                        continue
                    if time.monotonic() > until:
                        return
                    seen.add(before)
                    result = finished(verb, cut, expected) if last else outcome(verb, cut, expected)
                    lines.write(json.dumps({"disk": disk, "point": point, "points": len(events), **result}) + "\n")
                    lines.flush()


def finished(verb: Verb, folder: Path, expected: dict[str, str]) -> dict[str, Any]:
    """Compare what is there after the last change with what the unbroken command made."""
    found = verb.made(folder)
    if found != expected:
        return {"outcome": "not kept", "what": json.dumps({"found": found, "expected": expected})[:1000]}
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
    main()
