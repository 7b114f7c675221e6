"""The layout of a folder or zip: which of its folders are parts, and which are classes.

`find_layout` looks at names only. What could be meant in two ways is not guessed: the error shows both readings and
the flag that chooses one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from onsight.core.errors import DataError
from onsight.core.text import count, quoted
from onsight.data.reading import Layout
from onsight.imaging.decode import SUFFIXES

WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
PARTS = {word: part for part, words in WORDS.items() for word in words}
PART_NAME = re.compile(rf"(?:seg[_ -]?)?({'|'.join(PARTS)})(?:[_ -]?(?:set|data|images))?")  # Training_Set, seg_val
UNLABELLED = re.compile(r"(?:seg[_ -]?)?(?:pred|test|unlabel)")  # how names of folders of images to predict begin
KNOWN = (
    "; ".join(f"{part}: {', '.join(words)}" for part, words in WORDS.items())
    + "; each also with _set, _data or _images"
)
EXPECTED = "expected one sub-folder per class (cat/1.jpg), or the same inside train/ and test/ (train/cat/1.jpg)"


class Top(NamedTuple):
    """A folder on the top level."""

    name: str
    part: str  # the part that its name means, or ""
    inner: str  # the folder that holds the class folders, if this is a part: itself, or "seg_train/seg_train"
    inside: frozenset[str]  # the names of the folders in `inner`
    filled: frozenset[str]  # those that hold images, at any depth
    images: int
    loose: int  # images that are in none of them


class Placed(NamedTuple):
    """Where the images belong."""

    images: dict[str, tuple[str, str]]  # path -> (class, part); images outside of the class folders are left out
    empty: dict[str, str]  # class folder without an image -> class
    notes: list[str]  # what was ignored or put together


def part_of(name: str) -> str:
    """Return the part that a folder or a cell of this name means: "train", "validation", "test", or "" for none.

    >>> part_of("Training_Set"), part_of("seg_val"), part_of("dev"), part_of("cat")
    ('train', 'validation', 'validation', '')
    """
    found = PART_NAME.fullmatch(name.strip().lower())
    return PARTS[found[1]] if found else ""


def needless_levels(folders: Iterable[str], layout: Layout | None) -> str:
    """Return the path, like "photos/", of the levels on top that hold one folder only, which is no part; or ""."""
    prefix = ""
    while True:
        below = [path.removeprefix(prefix) for path in folders if path.startswith(prefix)]
        tops = {_top(path) for path in below}
        if len(tops) != 1 or not any("/" in path for path in below):
            return prefix
        (only,) = tops
        if part_of(only) and layout != "classes":
            return prefix
        prefix += f"{only}/"


def find_layout(where: str, paths: Iterable[str], folders: Iterable[str], layout: Layout | None) -> Placed:
    """Return the class and part of each image, from its path. `where` begins the error messages.

    Raises:
        DataError: The layout is neither of the two in `EXPECTED`, or both readings are possible and no one chose.
    """
    paths = list(paths)
    if not paths:
        raise DataError(f"{where} holds no images ({' '.join(sorted(SUFFIXES))}): {EXPECTED}")
    tops = _look(paths, folders)
    if not tops:
        raise DataError(f"{where} holds its images directly, without class folders: {EXPECTED}")
    if layout == "classes" or (layout is None and not _has_parts(where, tops)):
        return Placed(
            {path: (_top(path), "") for path in paths if "/" in path},
            {top.name: top.name for top in tops if not top.images},
            [],
        )
    return _in_parts(where, tops, paths)


def _look(paths: list[str], folders: Iterable[str]) -> list[Top]:
    """Return the top folders, sorted by name."""
    inside: dict[str, set[str]] = {}  # folder -> names of the folders in it
    for path in folders:
        above, _, name = path.rpartition("/")
        inside.setdefault(above, set()).add(name)
    inner = {}
    for name in inside.get("", ()):
        below = inside.get(name, set())
        doubled = next(iter(below)) if len(below) == 1 else ""
        same = doubled.lower() == name.lower() or (part_of(name) != "" and part_of(doubled) == part_of(name))
        inner[name] = f"{name}/{doubled}" if same else name
    images = dict.fromkeys(inner, 0)
    loose = dict.fromkeys(inner, 0)
    filled: dict[str, set[str]] = {name: set() for name in inner}
    for above, number in Counter(path.rpartition("/")[0] for path in paths).items():  # far fewer than images
        name = _top(above)
        if not name:
            continue
        images[name] += number
        if above.startswith(f"{inner[name]}/"):
            filled[name].add(_top(above.removeprefix(f"{inner[name]}/")))
        else:
            loose[name] += number
    return [
        Top(
            name,
            part_of(name),
            inner[name],
            frozenset(inside.get(inner[name], ())),
            frozenset(filled[name]),
            images[name],
            loose[name],
        )
        for name in sorted(inner)
    ]


def _has_parts(where: str, tops: list[Top]) -> bool:
    """Return whether the top folders are parts rather than classes.

    Raises:
        DataError: Both are possible.
    """
    used = [top for top in tops if top.images]
    parts = [top for top in tops if top.part]
    # A class may be called "train", next to "car" and "plane". A part is recognised by the class folders in it.
    divided = [top for top in parts if top.inside]
    if not divided and len(parts) < len(tops):
        alike = len({top.filled for top in used}) == 1 and len(used[0].filled) >= 2
        # A flat folder named like a part, next to one that holds only folders: a test without labels, or a class.
        half = bool(parts) and any(len(top.filled) >= 2 and not top.loose for top in used)
        if half or (len(used) >= 2 and alike and not all(top.loose for top in used)):
            raise DataError(_both_readings(where, used))
        return False
    others = [top for top in used if not top.part]
    # Flat folders next to two parts are left over. Next to one, the part may be a class like them, called "train".
    left_over = len(divided) >= 2 or all(UNLABELLED.match(top.name.lower()) for top in others)
    clear = left_over and len({name for top in divided for name in top.filled}) >= 2
    if any(top.filled for top in others) or (others and not clear):
        raise DataError(_both_readings(where, used))
    return True


def _both_readings(where: str, used: list[Top]) -> str:
    parts = [top for top in used if top.part]
    others = [top for top in used if not top.part]
    inside = {name for top in used for name in top.filled}
    said = [
        f"{quoted([top.name])} is the {top.part} part{'' if top.inside else ', but has no class folders'}"
        for top in parts
    ]
    said += [f"{quoted(names)} {role}" for names, role in _roles(others, parts)]
    return (
        f"{where} can be read in two ways. Choose one, with a flag of train or check:\n"
        f"  --layout parts    the classes are {quoted(inside)}; {'; '.join(said)}\n"
        f"  --layout classes  the classes are {quoted(top.name for top in used)}\n"
        f"Or move what does not belong elsewhere. Names of parts are {KNOWN}."
    )


def _roles(others: list[Top], parts: list[Top]) -> list[tuple[list[str], str]]:
    """Return what folders become that are named like no part, if the other folders are parts."""
    pooled = [top.name for top in others if top.filled]
    flat = [top.name for top in others if not top.filled]
    joins = "joins the training images" if parts else "is no name of a part, so the images are put together and split"
    join = "join the training images" if parts else "are no names of parts, so their images are put together and split"
    roles = [(pooled, joins if len(pooled) == 1 else join)] if pooled else []
    ignored = "is ignored, because it has" if len(flat) == 1 else "are ignored, because they have"
    return [*roles, (flat, f"{ignored} no class folders")] if flat else roles


def _in_parts(where: str, tops: list[Top], paths: list[str]) -> Placed:
    """Return the images by part. Folders that are named like no part join the training images, or are ignored."""
    parts = [top for top in tops if top.part]
    others = [top for top in tops if top.images and not top.part]
    if flat := [top.name for top in parts if not top.inside]:
        raise DataError(
            f"{where}: there are no class folders in {quoted(flat)}: {EXPECTED}. Images without labels belong elsewhere"
        )
    named: dict[str, str] = {}
    for top in parts:
        if top.part in named:
            raise DataError(
                f"{where}: '{named[top.part]}' and '{top.name}' both mean the {top.part} part: put their images into "
                "one folder, or pass --layout classes if they are classes"
            )
        named[top.part] = top.name
    pooled = [top for top in others if top.filled]
    if not parts and not pooled:
        raise DataError(f"{where}: there are no class folders in {quoted(top.name for top in others)}: {EXPECTED}")
    place = {top.name: (f"{top.inner}/", top.part or ("train" if parts else "")) for top in [*parts, *pooled]}
    images = {}
    for path in paths:
        inner, part = place.get(_top(path), ("", ""))
        label, slash, _ = path.removeprefix(inner).partition("/")
        if inner and slash and path.startswith(inner):
            images[path] = (label, part)
    empty = {f"{top.inner}/{name}": name for top in [*parts, *pooled] for name in top.inside - top.filled}
    number = {top.name: top.images for top in others}
    notes = [
        f"{quoted(names)} ({count(sum(number[name] for name in names), 'image')}) {role}"
        for names, role in _roles(others, parts)
    ]
    return Placed(images, empty, notes)


def _top(path: str) -> str:
    return path.partition("/")[0]
