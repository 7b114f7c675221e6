"""The HTML pages' templates: whatever is put into one is a stranger's text, and escaped unless it is `Markup`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def fill(name: str, filters: dict[str, Callable[..., Any]], /, **values: Any) -> str:
    """Return the Jinja template `name` with its values filled in, by these filters beside Jinja's own.

    Raises:
        jinja2.UndefinedError: the template shows a value that is not among them.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name).render(values)
