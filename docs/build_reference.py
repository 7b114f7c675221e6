"""Write docs/reference.md from the public names of `onsight`: python docs/build_reference.py."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import onsight

HERE = Path(__file__).parent
HEAD = """# Reference

Everything that is public in Python: `import onsight`, then `onsight.NAME`. `help(onsight.NAME)` shows the arguments,
the shapes and the errors. Names are imported when they are first used. `docs/build_reference.py`
writes this page.

| name | what it is |
|---|---|
"""


def rows() -> list[str]:
    """Return one table row per public name, in the order of `onsight.__all__`."""
    return [f"| `{call(name)}` | {summary(name)} |" for name in onsight.__all__ if name != "__version__"]


def call(name: str) -> str:
    """Return a name as it is used: a function with the names of its arguments."""
    value: Any = getattr(onsight, name)
    if isinstance(value, ModuleType) or inspect.isclass(value):
        return name
    words, keywords = [], False
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            words.append("*")
            keywords = True
        words.append(parameter.name)
    return f"{name}({', '.join(words)})"


def summary(name: str) -> str:
    """Return the first sentence of a docstring."""
    first = (inspect.getdoc(getattr(onsight, name)) or "").partition("\n\n")[0]
    return " ".join(first.split()).replace("|", "\\|")


def page() -> str:
    """Return the content of docs/reference.md."""
    return HEAD + "\n".join(rows()) + "\n"


if __name__ == "__main__":
    (HERE / "reference.md").write_text(page())
