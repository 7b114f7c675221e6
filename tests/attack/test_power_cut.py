"""The disks of the power-cut attack, and each attack on commands in short; `make attack` is the whole one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attack.power_cut import DISKS, recording, states, write

HERE = Path(__file__).parent


def test_what_was_not_synchronised_is_lost(tmp_path):
    base, folder, contents = tmp_path / "base", tmp_path / "folder", tmp_path / "contents"
    for each in (base, folder, contents):
        each.mkdir()
    for each in (base, folder):
        (each / "old.txt").write_text("old")

    def save(path, text):
        with open(path, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def work():
        (folder / "lost.txt").write_text("never synchronised")
        save(folder / "new.partial", "new")
        os.replace(folder / "new.partial", folder / "new.txt")
        (folder / "old.txt").write_text("newer")
        (folder / "deep").mkdir()
        save(folder / "deep" / "a", "a")
        number = os.open(folder, os.O_RDONLY)
        os.fsync(number)
        os.close(number)
        (folder / "old.txt").unlink()
        return 0

    process = os.fork()
    if not process:
        recording(folder, contents, tmp_path / "log.json")(work)
        os._exit(0)
    os.waitpid(process, 0)
    events = json.loads((tmp_path / "log.json").read_text())
    assert [event[0] for event in events] == [
        "truncate", "truncate", "sync", "rename", "truncate", "mkdir", "truncate", "sync", "sync folder", "remove",
    ]  # fmt: skip

    def left(disk, number):
        target = tmp_path / f"{disk} {number}"
        write(dict(states(base, events[:number], contents))[number], disk, target)
        return {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}

    assert left("strict", 8) == {"old.txt": "old"}
    assert left("strict", 10) == {"old.txt": "old", "new.txt": "new", "lost.txt": ""}
    assert left("ordered", 2) == {"old.txt": "old", "lost.txt": "", "new.partial": ""}
    assert left("ordered", 5) == {"old.txt": "", "lost.txt": "", "new.txt": "new"}
    assert left("ordered", 10) == {"lost.txt": "", "new.txt": "new", "deep/a": "a"}
    assert set(DISKS) == {"strict", "ordered"}


@pytest.mark.slow
@pytest.mark.backend
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "words",
    [
        ["attack_kills.py", "--shard", "0/12"],
        ["attack_power.py", "--shard", "0/40", "--verbs", "train", "train longer", "export", "embed"],
        ["attack_disk.py", "--points", "2"],
    ],
    ids=lambda words: words[0],
)
def test_nothing_is_lost(tmp_path, words):
    program, *more = words
    done = subprocess.run(
        [sys.executable, HERE / program, tmp_path, *more], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
