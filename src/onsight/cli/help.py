"""What `onsight --help` and the help of a command say, for a terminal of any width."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence

from onsight.cli.flags import Option, options_of, summary

WIDEST = 100  # columns: longer lines are hard to read
ROOM = 40  # columns that descriptions need; in narrower terminals they stand below the names


def columns_here() -> int:
    """Return how many columns the terminal has for text."""
    return min(shutil.get_terminal_size().columns, WIDEST)


def command_help(command: str, function: Callable[..., None]) -> str:
    """Return the help about a command."""
    options = options_of(function)
    usage = [usage_of(each) for each in options if not each.flag or each.required]
    usage += ["[OPTIONS]"] * any(each.flag for each in options)
    blocks = ["\n".join(wrapped(paragraph)) for paragraph in summary(function).split("\n\n")]
    blocks.insert(0, "\n    ".join(wrapped(" ".join(["Usage: onsight", command, *usage]), columns_here() - 4)))
    found: dict[str, list[tuple[str, str]]] = {}
    for option in sorted(options, key=lambda each: bool(each.flag)):
        if not option.hidden:
            found.setdefault(option.about.group if option.flag else "Arguments", []).append(row(option))
    return "\n\n".join([*blocks, *(section(heading, rows) for heading, rows in found.items())])


def overview(about: str, sections: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """Return the help about the whole command line: what it is for, and its commands by group."""
    blocks = ["Usage: onsight COMMAND", "\n".join(wrapped(about))]
    return "\n\n".join([*blocks, *(section(heading, rows) for heading, rows in sections.items())])


def usage_of(option: Option) -> str:
    """Return an argument or a required flag as the usage has it: RUN, [DATA], [IMAGES ...] or --to CHOICE."""
    if option.repeated:
        return f"[{option.shown} ...]"
    return written(option) if option.required else f"[{option.shown}]"


def row(option: Option) -> tuple[str, str]:
    """Return how an option is written, and what it means."""
    left = written(option) + (f", {option.opposite}" if option.opposite else "")
    notes = ["required"] * bool(option.flag and option.required)
    notes += [f"choices: {', '.join(option.choices)}"] * bool(option.choices)
    if not (option.default is None or option.default is False or option.default in ("", ())):
        notes.append(f"default: {option.default}")
    notes += [f"env: {option.about.env}"] * bool(option.about.env)
    return left, " ".join([option.about.help, *(f"[{note}]" for note in notes)]).strip()


def written(option: Option) -> str:
    """Return how an argument, or a flag with its value, is written."""
    return f"{option.shown} {kind_of(option)}" if option.flag and not option.is_switch else option.shown


def kind_of(option: Option) -> str:
    """Return what kind of value a flag takes."""
    names = ["CHOICE"] * bool(option.choices)
    names += ["TEXT" if kind is str else kind.__name__.upper() for kind in option.types]
    return "|".join(names) + " ..." * option.about.several


def section(heading: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return a heading with rows of names and descriptions in two columns, or one below the other if it is narrow."""
    longest = max(len(left) for left, _ in rows) + 4
    beside = columns_here() - longest >= ROOM
    lines = wrapped(f"{heading}:")
    for left, text in rows:
        if beside:
            first, *others = wrapped(text, columns_here() - longest) or [""]
            lines.append(f"  {left.ljust(longest - 2)}{first}".rstrip())
            lines += [" " * longest + line for line in others]
        else:
            lines += [f"  {left}", *(f"      {line}" for line in wrapped(text, columns_here() - 6))]
    return "\n".join(lines)


def wrapped(text: str, width: int | None = None) -> list[str]:
    """Return text as lines. Words are never broken, so that they can be copied."""
    return textwrap.wrap(text, max(20, width or columns_here()), break_long_words=False, break_on_hyphens=False)
