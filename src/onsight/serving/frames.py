"""Messages between the server and its workers: a JSON object and byte strings, each with its length before it.

Nothing in a message can run code, so a worker that a picture has taken over cannot take over the server.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

HEAD = struct.Struct("<IQ")  # bytes of the JSON object, bytes of everything that follows it


def packed(header: dict[str, Any], parts: Sequence[bytes] = ()) -> list[bytes]:
    """Return a message as byte strings to write one after the other."""
    text = json.dumps(header | {"sizes": [len(part) for part in parts]}, separators=(",", ":")).encode()
    return [HEAD.pack(len(text), sum(map(len, parts))), text, *parts]


def unpacked(text: bytes, content: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Return the object and the byte strings of a message, from what follows its `HEAD`.

    Raises:
        ValueError: it is not a message.
    """
    header = json.loads(text)
    if not isinstance(header, dict) or sum(header["sizes"]) != len(content):
        raise ValueError("a message whose sizes do not add up")
    parts, start = [], 0
    for size in header["sizes"]:
        parts.append(content[start : start + size])
        start += size
    return header, parts
