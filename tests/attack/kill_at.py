"""Run an onsight command and kill this process, as SIGKILL would, at its N-th change of a folder.

    python tests/attack/kill_at.py N FOLDER predict runs/latest photo.jpg

A change is what alters the folder: a file opened for writing, a rename, a new folder, a removal. It is counted before
it happens. With N = 0 nothing is killed, and the number of changes is the last line of standard error.
"""

import os
import sys

CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
RELATIVE = {"os.mkdir", "os.remove", "os.rmdir"}  # their last argument is the folder that a path is relative to, or -1
FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def install(point: int, folder: str) -> list[int]:
    """Count the changes below `folder`, and end the process before number `point`; return the list with the count."""
    counted = [0]
    folder = os.path.realpath(folder)

    def hook(event: str, about: tuple) -> None:
        if event not in CHANGES or (event == "open" and not (about[2] or 0) & FOR_WRITING):
            return
        paths = [os.fsdecode(each) for each in about[:2] if isinstance(each, str | bytes | os.PathLike)]
        beside = (
            about[-1] if event in RELATIVE and about[-1] >= 0 else None
        )  # an open folder that the path is relative to
        start = "" if beside is None else os.readlink(f"/proc/self/fd/{beside}")
        if any(os.path.abspath(os.path.join(start, path)).startswith(folder) for path in paths):
            counted[0] += 1
            if counted[0] == point:
                os._exit(137)

    sys.addaudithook(hook)
    return counted


def main() -> None:
    """Run the command that is given."""
    point, folder, *words = sys.argv[1:]
    counted = install(int(point), folder)
    from onsight.__main__ import main as command

    sys.argv = ["onsight", *words]
    code = 0
    try:
        command()
    except SystemExit as end:
        code = int(end.code or 0)
    sys.stderr.write(f"{counted[0]}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
