import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from clients import png
from onsight.inference.engines import open_engine
from onsight.serving import frames, worker


def item(**more):
    return {"kind": "file", "top": 2, "full": False} | more


@pytest.fixture(scope="module")
def engine(knowing_run):
    return open_engine(knowing_run)


def test_answers_do_not_depend_on_the_batch(engine, red):
    one, _ = worker.reply(engine, [item()], [red])
    many, _ = worker.reply(engine, [item()] * 20, [red] * 20)
    assert many["answers"] == one["answers"] * 20


def test_a_heat_map_is_of_the_likeliest_class_or_the_one_that_is_named(engine):
    halves = np.zeros((32, 32, 3), np.uint8)
    halves[:16, :, 0] = halves[16:, :, 2] = 230
    data = png(halves)
    _, (likeliest,) = worker.reply(engine, [item(explain=None)], [data])
    maps = [worker.reply(engine, [item(explain=index)], [data])[1][0] for index in range(3)]
    assert likeliest in maps
    assert len(set(maps)) > 1
    assert Image.open(io.BytesIO(likeliest)).size == (320, 320)


def bomb():
    """A PNG file of 30 kB that says that it has 900 million pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(30_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_and_its_neighbours_are_answered(engine, red):
    header, _ = worker.reply(engine, [item()] * 3, [red, bomb(), red])
    assert "error" in header["answers"][1]
    assert header["answers"][0] == header["answers"][2]


def test_pixels_are_answered_like_the_engine_answers_them(engine):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    header, (row,) = worker.reply(engine, [item(kind="pixels", full=True)], [pixels.tobytes()])
    expected = engine.answer(pixels[None])
    np.testing.assert_array_equal(np.frombuffer(row, np.float32), expected.probabilities[0])
    assert header["answers"][0]["distance"] == pytest.approx(float(expected.distances[0]), abs=1e-6)


def test_messages_survive_and_damaged_ones_raise():
    head, text, *parts = frames.packed({"a": 1}, [b"x", b"", b"yz"])
    assert frames.HEAD.unpack(head) == (len(text), 3)
    assert frames.unpacked(text, b"".join(parts)) == ({"a": 1, "sizes": [1, 0, 2]}, [b"x", b"", b"yz"])
    with pytest.raises(ValueError, match="do not add up"):
        frames.unpacked(text, b"x")
