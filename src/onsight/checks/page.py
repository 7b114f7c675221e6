"""The HTML page of a check: its findings with small images, in one file that opens from disk and loads nothing else."""

from __future__ import annotations

import io

from PIL import Image

from onsight.core.errors import ImageError
from onsight.core.records import CheckRecord, Item
from onsight.data.dataset import Dataset
from onsight.data.pixel_cache import Pixels
from onsight.display.page import data_uri, fill
from onsight.imaging import decode

SHOWN = 24  # most items shown of a finding
SIDE = 96  # side of a thumbnail from a file, in pixels
ROOM = 3_500_000  # most characters of embedded images, so that the page stays below 5 MB
CLASSES = 60  # most rows of the table of classes


def render(record: CheckRecord, dataset: Dataset, pixels: Pixels) -> str:
    """Return the page of a check; `record` is the content of check.json. None of its texts is trusted."""
    index = {name: number for number, name in enumerate(dataset.names)}
    drawn: dict[str, str] = {}
    room = ROOM
    sections = []
    for finding in record["findings"]:
        items = []
        for item in varied(finding["items"])[:SHOWN]:
            for name in item["pictures"]:
                if name not in drawn:
                    drawn[name] = thumbnail(dataset, pixels, index[name]) if room > 0 else ""
                    room -= len(drawn[name])
            items.append({"note": item["note"], "pictures": [(name, drawn[name]) for name in item["pictures"]]})
        sections.append({**finding, "items": items, "more": len(finding["items"]) > SHOWN})
    rows = sorted(record["classes"].items(), key=lambda row: sum(row[1].values()))
    parts = list(rows[0][1])
    return fill(
        "check.html.j2",
        {},
        record=record,
        findings=sections,
        parts=parts,
        rows=rows[:CLASSES],
        hidden=len(rows) - CLASSES,
        most=max(sum(counts.values()) for _, counts in rows),
    )


def varied(items: list[Item]) -> list[Item]:
    """Return the items reordered: one of each connected group of images first.

    Fifty pairs of one car show little.
    """
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = name = leader[leader[name]]
        return name

    for item in items:
        for name in item["pictures"][1:]:
            leader[find(name)] = find(item["pictures"][0])
    seen: set[str] = set()
    first: list[Item] = []
    later: list[Item] = []
    for item in items:
        group = find(item["pictures"][0]) if item["pictures"] else ""
        (later if group and group in seen else first).append(item)
        seen.add(group)
    return first + later


def thumbnail(dataset: Dataset, pixels: Pixels, index: int) -> str:
    """Return the centre square of an image as a data URI, or "" if the image cannot be read.

    An image from a file has a side of 96 pixels; one from an array keeps its size.
    """
    if index in pixels.broken:
        return ""
    try:
        image = dataset.images[index] if dataset.images is not None else decode.load(dataset.read(index), SIDE)
    except ImageError:  # the file changed since it was loaded
        return ""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=85, subsampling=0)
    return data_uri("image/jpeg", content.getvalue())
