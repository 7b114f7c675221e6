"""Images in the requests of other protocols: arrays of numbers, or files; and probabilities for their answers."""

from __future__ import annotations

import array
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from onsight.serving.pool import Item
from onsight.serving.predictions import PICTURES
from onsight.serving.refusals import Refused, bad


def files(contents: Sequence[bytes]) -> list[Item]:
    """Return image files as items."""
    check_count(len(contents))
    return [Item(data, full=True) for data in contents]


def pixels(content: bytes, size: int) -> list[Item]:
    """Return the bytes of (n, size, size, 3) uint8 as n items."""
    each = size * size * 3
    if len(content) % each:
        raise bad(f"The images have {len(content):,} bytes in total; expected {each:,} per image, {size} x {size} RGB.")
    check_count(len(content) // each)
    return [Item(content[at : at + each], "pixels", full=True) for at in range(0, len(content), each)]


def check_count(count: int) -> None:
    """Refuse a request without images or with too many."""
    if not 1 <= count <= PICTURES:
        raise bad(f"The request has {count:,} images; expected 1 to {PICTURES}.")


def shape_of(value: Any) -> list[int]:
    """Return the shape of nested lists by their first elements."""
    shape: list[int] = []
    while isinstance(value, list) and len(shape) < 5:
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def flat(value: Any) -> Iterator[Any]:
    """Yield the elements of nested lists."""
    for each in value:
        if isinstance(each, list):
            yield from flat(each)
        else:
            yield each


def bytes_of(value: list[Any], count: int) -> bytes:
    """Return nested lists of whole numbers from 0 to 255 as bytes; there must be `count` of them."""
    try:
        content = bytes(flat(value))
    except (TypeError, ValueError, RecursionError):
        raise bad("Pixels must be whole numbers from 0 to 255.") from None
    if len(content) != count:
        raise bad(f"There are {len(content):,} numbers; the shape asks for {count:,}.")
    return content


def whole(answers: Sequence[tuple[dict[str, Any], bytes]]) -> list[bytes]:
    """Return the probabilities of each image as float32 in little-endian order, or refuse the first unreadable one."""
    for number, (answer, _) in enumerate(answers):
        if "error" in answer:
            raise Refused(400, "unreadable_image", f"Image {number} cannot be used: {answer['error']}")
    return [little_endian(content) for _, content in answers]


def little_endian(content: bytes) -> bytes:
    """Return float32 of this machine in little-endian order."""
    if sys.byteorder == "little":
        return content
    values = array.array("f", content)
    values.byteswap()
    return values.tobytes()


def numbers(content: bytes) -> list[float]:
    """Return float32 in little-endian order as numbers with as many digits as they have."""
    values = array.array("f", content)
    if sys.byteorder != "little":
        values.byteswap()
    return [float(f"{value:.8g}") for value in values]
