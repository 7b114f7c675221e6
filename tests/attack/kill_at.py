"""Run an onsight command and kill this process, as SIGKILL would, at its N-th change of a folder.

    python tests/attack/kill_at.py N FOLDER predict runs/latest photo.jpg

A change is what alters the folder: a file opened for writing, a rename, a new folder, a removal. It is counted before
it happens. With N = 0 nothing is killed, and the number of changes is the last line of standard error.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
RELATIVE = {"os.mkdir", "os.remove", "os.rmdir"}  # their last argument is the folder that a path is relative to, or -1
FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
KILLED = 137


def install(point: int, folder: str) -> list[int]:
    """Count the changes below `folder`, and end the process before number `point`; return the list with the count."""
    counted = [0]
    folder = os.path.realpath(folder)

    def hook(event: str, about: tuple) -> None:
        if is_change(event, about) and any(path.startswith(folder) for path in paths_of(event, about)):
            counted[0] += 1
            if counted[0] == point:
                os._exit(KILLED)

    sys.addaudithook(hook)
    return counted


def is_change(event: str, about: tuple) -> bool:
    """Return whether an audit event changes a folder."""
    return event in CHANGES and (event != "open" or bool((about[2] or 0) & FOR_WRITING))


def paths_of(event: str, about: tuple) -> list[str]:
    """Return the absolute paths that an audit event is about."""
    beside = about[-1] if event in RELATIVE and about[-1] >= 0 else None  # an open folder that the path is relative to
    start = "" if beside is None else os.readlink(f"/proc/self/fd/{beside}")
    given = [os.fsdecode(each) for each in about[:2] if isinstance(each, str | bytes | os.PathLike)]
    paths = given[:1] if event in ("open", *RELATIVE) else given
    return [os.path.abspath(os.path.join(start, path)) for path in paths]


def killed_at(point: int, folder: str, command: Callable[[], int]) -> int:
    """Run a command in this process, killed at a change of `folder`; say how many there were, and return its code."""
    counted = install(point, folder)
    code = command()
    sys.stderr.write(f"{counted[0]}\n")
    return code


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from attack.verbs import command

    sys.exit(killed_at(int(sys.argv[1]), sys.argv[2], lambda: command(sys.argv[3:])))
