"""Damage done to files, from a seed: the same number gives the same bytes on every machine."""

from __future__ import annotations

import json

import numpy as np

EXTREME = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
VALUES = (None, True, -0.0, 1e308, -1, 2**64, "", "x" * 5000, "../../etc/passwd", "\0", "\ud800", [], {}, [[]], {"": 0})


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a damaged copy of bytes: bits, numbers, ranges, copies or the end of the file are changed."""
    content = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 4, 16]))):
        within = len(content) if rng.random() < 0.5 else min(len(content), 512)  # headers are worth more damage
        at = int(rng.integers(within + 1))
        kind = rng.integers(7)
        length = int(rng.choice([1, 2, 4, 8, 64, 1024]))
        if kind == 0 and content:
            content[min(at, len(content) - 1)] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            content[at : at + length] = rng.bytes(min(length, max(len(content) - at, 0)))
        elif kind == 2:
            width = int(rng.choice([1, 2, 4, 8]))
            number = int(EXTREME[rng.integers(len(EXTREME))]) % 256**width
            content[at : at + width] = number.to_bytes(width, str(rng.choice(["little", "big"])))
        elif kind == 3:
            end = len(content) if rng.random() < 0.3 else at + length
            del content[at:end]
        elif kind == 4:
            source = int(rng.integers(len(content) + 1))
            content[at:at] = content[source : source + length]
        elif kind == 5:
            content[at : at + length] = bytes(min(length, max(len(content) - at, 0)))
        else:
            source = int(rng.integers(len(content) + 1))
            content[at : at + length] = content[source : source + length]
    return bytes(content)


def mutated_json(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a damaged copy of a JSON text: a value anywhere in it is replaced, removed, nested or made huge."""
    value = json.loads(data)
    places = list(walk(value))
    for _ in range(int(rng.integers(1, 4))):
        holder, key = places[rng.integers(len(places))]
        kind = rng.integers(4)
        try:
            if kind == 0:
                del holder[key]
            elif kind == 1:
                holder[key] = VALUES[rng.integers(len(VALUES))]
            elif kind == 2:
                holder[key] = [holder[key]]
            else:
                other, name = places[rng.integers(len(places))]
                holder[key] = other[name]
        except (KeyError, IndexError):
            continue
    try:
        return json.dumps(value).encode()
    except (ValueError, RecursionError):  # a circle
        return b"[" * 100_000


def walk(value):
    """Yield every place in a JSON value: the list or object that holds it, and its index or name."""
    for key in range(len(value)) if isinstance(value, list) else list(value):
        yield value, key
        if isinstance(value[key], list | dict):
            yield from walk(value[key])
