"""Fills the templates of the HTML pages. Every value is untrusted text, and is escaped unless it is `Markup`."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"


def fill(name: str, filters: dict[str, Callable[..., Any]], /, **values: Any) -> str:
    """Return the Jinja template `name` filled with `values`.

    `filters` are available in addition to Jinja's own and to `whole`, which is `whole_words`.

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
        bytecode_cache=_compiled(),
    )
    environment.filters |= {"whole": whole_words, **filters}
    return environment.get_template(name).render(values)


@functools.cache
def _compiled() -> jinja2.BytecodeCache:
    """Return a memory for compiled templates: a server or a notebook compiles each template once, not for each page."""
    import jinja2
    from jinja2.bccache import Bucket

    codes: dict[str, bytes] = {}

    class Memory(jinja2.BytecodeCache):
        def load_bytecode(self, bucket: Bucket) -> None:
            if bucket.key in codes:
                bucket.bytecode_from_string(codes[bucket.key])

        def dump_bytecode(self, bucket: Bucket) -> None:
            codes[bucket.key] = bucket.bytecode_to_string()

    return Memory()


def data_uri(kind: str, content: bytes) -> str:
    """Return the content of a file as a URI that a page can embed; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def whole_words(text: str) -> Markup:
    """Return a command or a path whose lines break only at its spaces and after its slashes.

    Browsers also break lines after hyphens, as in `--epochs`. The class `whole` of the pages prevents it.

    >>> whole_words("see --a")
    Markup('see <span class="whole">--a</span>')
    >>> whole_words("a/b")  # breaks after the slash only if it does not fit on a line of its own
    Markup('<span class="whole"><span class="whole">a/</span><span class="whole">b</span></span>')
    """
    whole = Markup('<span class="whole">{}</span>').format

    def kept(word: str) -> Markup:
        pieces = re.findall("[^/]*/|[^/]+", word)
        if len(pieces) > 1:
            return whole(Markup("").join(map(whole, pieces)))
        return whole(word) if "-" in word or "/" in word else escape(word)

    return Markup(" ").join(map(kept, text.split(" ")))
