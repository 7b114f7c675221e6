"""The page of `similar`: each image with those that resemble it most, in one file that loads nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path, PurePath

from onsight.core.progress import Reporter
from onsight.core.text import short
from onsight.data.dataset import Dataset
from onsight.display.page import data_uri, fill
from onsight.inference.embed import Neighbour, files_of, listed, picture


def render(found: Sequence[Neighbour], data: str | Path, network: str) -> str:
    """Return the page of neighbours, which are in the order of their queries."""
    dataset, queries = listed(data, Reporter()), files_of(each.query for each in found)

    def shown(name: str, among: Dataset) -> str:
        content = picture(among, name)
        return "" if content is None else data_uri("image/webp", content)

    groups = [
        {
            "name": query,
            "image": shown(query, queries),
            "neighbours": [(each.name, shown(each.name, dataset), f"{each.similarity:.3f}") for each in rows],
        }
        for query, rows in groupby(found, key=lambda each: each.query)
    ]
    filters = {
        "name": short,
        "file": lambda path: PurePath(path).name,
        "folder": lambda path: PurePath(path).parent.name,
    }
    return fill("similar.html.j2", filters, groups=groups, data=str(data), network=network)
