"""A check as one page: its findings with small images, in a file that opens from disk and asks for nothing more."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from onsight.core.errors import ImageError
from onsight.data.dataset import Dataset
from onsight.data.pixel_cache import Pixels
from onsight.display.page import fill
from onsight.imaging import decode

SHOWN = 24  # items of a finding
SIDE = 96  # pixels of an image from a file
ROOM = 3_500_000  # characters of images; a page stays below 5 MB
CLASSES = 60  # rows of the table


def render(record: dict[str, Any], dataset: Dataset, pixels: Pixels) -> str:
    """Return the page of a check: `record` is the content of check.json. All texts in it are a stranger's."""
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


def varied(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the items with one of each connected group of images first: fifty pairs of one car show little."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = name = leader[leader[name]]
        return name

    for item in items:
        for name in item["pictures"][1:]:
            leader[find(name)] = find(item["pictures"][0])
    seen: set[str] = set()
    first: list[dict[str, Any]] = []
    later: list[dict[str, Any]] = []
    for item in items:
        group = find(item["pictures"][0]) if item["pictures"] else ""
        (later if group and group in seen else first).append(item)
        seen.add(group)
    return first + later


def thumbnail(dataset: Dataset, pixels: Pixels, index: int) -> str:
    """Return an image as a data address, its middle square at 96 pixels or its own 32; "" where it cannot be read."""
    if index in pixels.broken:
        return ""
    try:
        image = dataset.images[index] if dataset.images is not None else decode.load(dataset.read(index), SIDE)
    except ImageError:  # it was there a moment ago
        return ""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=85, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
