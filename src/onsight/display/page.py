"""Fills the templates of the HTML pages. Every value is untrusted text, and is escaped unless it is `Markup`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def fill(name: str, filters: dict[str, Callable[..., Any]], /, **values: Any) -> str:
    """Return the Jinja template `name` filled with `values`. `filters` are available in addition to Jinja's own.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not in `values`.
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
