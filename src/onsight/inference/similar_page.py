"""The page of `similar`: each image with those that resemble it most, in one file that loads nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from onsight.core.text import short
from onsight.display.page import fill
from onsight.inference.embed import Neighbour, picture


def render(found: Sequence[Neighbour], data: str | Path, network: str) -> str:
    """Return the page of neighbours, which are in the order of their queries."""

    def shown(name: str, folder: str | Path) -> str:
        content = picture(name, folder)
        return "" if content is None else "data:image/webp;base64," + base64.b64encode(content).decode()

    groups = [
        {
            "name": query,
            "image": shown(query, ""),
            "neighbours": [(each.name, shown(each.name, data), f"{each.similarity:.3f}") for each in rows],
        }
        for query, rows in groupby(found, key=lambda each: each.query)
    ]
    return fill("similar.html.j2", {"name": short}, groups=groups, data=str(data), network=network)
