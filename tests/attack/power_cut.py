"""Record what a command does to a folder, and make the folder anew as a power cut at any moment could leave it.

What is recorded are the changes that Python makes (files opened for writing, renames, new folders, removals) and every
fsync, with the content of the file at that time. Two disks are imagined:

- strict: nothing is kept that was not synchronised: neither the content of a file, nor an entry of a folder.
- ordered: all changes of folders are kept in their order, as the journal of a file system does, but the content of a
  file only if it was synchronised. A new or truncated file is empty.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attack.kill_at import is_change, paths_of

Event = tuple[str, ...]  # what happens, then paths relative to the folder; after "sync" also the name of the content
DISKS = ("strict", "ordered")


def install(folder: str, contents: Path) -> list[Event]:
    """Record the changes of a folder by this process from now on; copy synchronised files into `contents`."""
    folder = os.path.realpath(folder)
    events: list[Event] = []
    synchronise = os.fsync

    def inside(path: str) -> str | None:
        return os.path.relpath(path, folder) if path == folder or path.startswith(folder + os.sep) else None

    def hook(event: str, about: tuple[Any, ...]) -> None:
        if is_change(event, about):
            found = [inside(path) for path in paths_of(event, about)]
            if found and None not in found:
                kind = "truncate" if event == "open" and about[2] & os.O_TRUNC else event.removeprefix("os.")
                events.append((kind, *map(str, found)))

    def recorded(file: Any) -> None:
        synchronise(file)
        number = file if isinstance(file, int) else file.fileno()
        path = os.readlink(f"/proc/self/fd/{number}")
        if (name := inside(path)) is None:
            return
        if os.path.isdir(path):
            events.append(("sync folder", name))
        else:
            content = contents / str(len(events))
            shutil.copyfile(path, content)
            events.append(("sync", name, content.name))

    def recorded_for_all() -> None:
        for place, _, names in os.walk(folder):
            for path in (place, *(os.path.join(place, name) for name in names)):
                number = os.open(path, os.O_RDONLY)
                recorded(number)
                os.close(number)

    os.fsync, os.sync = recorded, recorded_for_all
    sys.addaudithook(hook)
    return events


class File:
    """A file: its content when it was synchronised, and whether it was truncated since."""

    def __init__(self, kept: Path | None) -> None:
        self.kept = kept
        self.truncated = kept is None


class Folder(dict[str, "File | Folder"]):
    """A folder: its entries, and those that were there when it was synchronised."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, File | Folder] = {}

    def __getitem__(self, path: str) -> Any:
        """Return what lies at a path; KeyError if there is nothing."""
        found: Any = self
        for name in Path(path).parts:
            found = dict.__getitem__(found, name)
        return found


def tree(folder: Path) -> Folder:
    """Return a folder on a disk, all of which is synchronised."""
    made = Folder()
    for path in folder.iterdir():
        made.setdefault(path.name, tree(path) if path.is_dir() else File(path))
    made.kept = dict(made)
    return made


def apply(root: Folder, event: Event, contents: Path) -> None:
    """Do what an event did. A change that failed, because there was nothing or too much, changes nothing."""
    kind, path, *more = event
    if kind == "sync folder":
        root[path].kept = dict(root[path])
        return
    try:
        parent, name = root[str(Path(path).parent)], Path(path).name
    except KeyError:  # the folder is missing, so the change failed
        return
    if kind == "mkdir":
        parent.setdefault(name, Folder())
    elif kind in ("open", "truncate", "sync"):
        file = parent.setdefault(name, File(None))
        file.truncated |= kind == "truncate"
        if kind == "sync":
            file.kept, file.truncated = contents / more[0], False
    elif kind in ("remove", "rmdir"):
        parent.pop(name, None)
    elif kind == "rename" and name in parent:
        root[str(Path(more[0]).parent)].update({Path(more[0]).name: parent.pop(name)})
    elif kind in ("link", "symlink"):
        raise NotImplementedError(event)


def states(base: Path, events: list[Event], contents: Path) -> Iterator[tuple[int, Folder]]:
    """Yield the number of events before a power cut, and what there was then, for every number."""
    root = tree(base)
    yield 0, root
    for number, event in enumerate(events, 1):
        apply(root, event, contents)
        yield number, root


def write(root: Folder, disk: str, target: Path) -> None:
    """Write what such a disk holds after a power cut into a new folder."""
    target.mkdir()
    for name, item in (root.kept if disk == "strict" else root).items():
        if isinstance(item, Folder):
            write(item, disk, target / name)
        elif item.kept is None or (disk == "ordered" and item.truncated):
            (target / name).touch()
        else:
            shutil.copyfile(item.kept, target / name)


def recording(folder: Path, contents: Path, into: Path) -> Callable[[Callable[[], int]], int]:
    """Return what runs a command while its changes are recorded, and writes them to the file `into`."""

    def around(command: Callable[[], int]) -> int:
        events = install(str(folder), contents)
        code = command()
        into.write_text(json.dumps(events))
        return code

    return around
