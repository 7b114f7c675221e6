"""Decoding: every mode and format is compared with values computed here; all else is refused with the reason."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from onsight.core.errors import ImageError
from onsight.imaging import decode

RNG = np.random.default_rng(7)
COLOUR = RNG.integers(0, 256, (9, 13, 3), np.uint8)
GREY = RNG.integers(0, 256, (9, 13), np.uint8)
ALPHA = RNG.integers(0, 256, (9, 13), np.uint8)
DEEP = RNG.integers(0, 65536, (9, 13), np.uint16)
BITS = GREY > 127
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")

# --- files, made by Pillow if it can write them and otherwise by hand


def save(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


def png_rows(samples: np.ndarray) -> bytes:
    """Return unfiltered rows of big-endian samples."""
    return b"".join(b"\0" + row.tobytes() for row in samples)


def bmp(width: int, height: int, bits: int, compression: int, body: bytes) -> bytes:
    palette = b"".join(bytes((value, 255 - value, 7, 0)) for value in range(1 << bits))  # blue, green, red
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


def gif(before: bytes = b"", width: int = 4, height: int = 4) -> bytes:
    """Return a GIF with a frame of one colour and the bytes `before` ahead of the frame."""
    whole = save(Image.new("P", (4, 4), 1), "GIF")
    start = whole.index(b",", 13 + 3 * (2 << (whole[10] & 7)))
    return whole[:6] + struct.pack("<HH", width, height) + whole[10 : whole.index(b",")] + before + whole[start:]


def tiff(tags: dict[int, tuple[int, list[int]]], body: bytes, order: str = "<") -> bytes:
    """Return a TIFF of one page whose strips or tiles start at byte 8."""
    letters = {1: "B", 3: "H", 4: "I", 5: "Q", 7: "B"}
    far, entries = 8 + len(body), []
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{letters[kind]}", *values)
        if len(packed) > 4:
            body, packed, far = body + packed, struct.pack(order + "I", far), far + len(packed)
        entries.append(struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0"))
    magic = b"II*\0" if order == "<" else b"MM\0*"
    count = struct.pack(order + "H", len(entries))
    return magic + struct.pack(order + "I", far) + body + count + b"".join(entries) + bytes(4)


def jpeg_sized(width: int, height: int, **options: object) -> bytes:
    """Return a JPEG whose header claims another size; libjpeg fills in the missing pixels."""
    data = save(np.full((64, 64, 3), 90, np.uint8), "JPEG", **options)
    start = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: start + 5] + struct.pack(">HH", height, width) + data[start + 9 :]


def exif(orientation: int, order: str = "<") -> bytes:
    magic = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHI", 0x0112, 3, 1) + struct.pack(order + "H", orientation) + b"\0\0"
    return b"Exif\0\0" + magic + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


# --- the expected pixels, computed without Pillow


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[:, :, np.newaxis], 3, axis=2)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., np.newaxis] / 255
    return np.floor(share * colour + (1 - share) * 255 + 0.5).astype(np.uint8)


def opaque(values: np.ndarray, clear: object) -> np.ndarray:
    """Return 0 where a sample is `clear`, 255 elsewhere."""
    return np.where(values == clear, 0, 255)


def cmyk(ink: np.ndarray) -> np.ndarray:
    """Return the RGB of CMYK ink: red is what cyan and black leave of white, and so on."""
    ink = ink.astype(float)
    return (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255


def scaled(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale as the docstring of decode.resize() specifies."""

    def one_pass(rows: np.ndarray, size: int) -> np.ndarray:
        """Resample the first axis."""
        ratio = len(rows) / size
        centres = (np.arange(size) + 0.5) * ratio
        weights = np.maximum(0, 1 - np.abs(np.arange(len(rows)) + 0.5 - centres[:, np.newaxis]) / max(ratio, 1))
        weights = np.round(weights / weights.sum(axis=1, keepdims=True) * 2**22)
        return np.floor(np.tensordot(weights, rows.astype(float), axes=1) / 2**22 + 0.5)

    return one_pass(one_pass(image.swapaxes(0, 1), width).swapaxes(0, 1), height)


def cut(image: np.ndarray, size: int) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    return scaled(image[(height - side) // 2 :, (width - side) // 2 :][:side, :side], size, size)


def pad(image: np.ndarray, size: int) -> np.ndarray:
    most = max(image.shape[:2])
    height, width = (max(1, int(size * side / most + 0.5)) for side in image.shape[:2])
    square = np.full((size, size, 3), 128.0)
    down, right = (size - height) // 2, (size - width) // 2
    square[down : down + height, right : right + width] = scaled(image, height, width)
    return square


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # EXIF specification: how stored rows are turned
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}

PALETTE = RNG.integers(0, 256, (256, 3), np.uint8)


def with_palette(index: np.ndarray) -> Image.Image:
    image = Image.fromarray(index, "L")
    image.putpalette(PALETTE.tobytes())
    return image


def golden() -> dict[str, tuple[bytes, np.ndarray]]:
    """Return name -> (a file, its exact pixels)."""
    rgba = np.dstack([COLOUR, ALPHA])
    ink = np.dstack([COLOUR, ALPHA])
    scaled = np.floor(DEEP / 257 + 0.5)
    four = RNG.integers(0, 16, (2, 4), np.uint8)
    four_rows = png_rows(four[:, ::2] << 4 | four[:, 1::2])
    deep_colour = RNG.integers(0, 65536, (2, 3, 3), np.uint16)
    clear = tuple(int(value) for value in COLOUR[2, 3])
    table = bytes(RNG.integers(0, 256, 256, np.uint8))
    index_alpha = np.frombuffer(table, np.uint8)[GREY]
    strip = {256: (3, [13]), 257: (3, [9]), 262: (3, [1]), 277: (3, [1]), 278: (3, [9]), 273: (4, [8])}
    deep_tags = {**strip, 258: (3, [16]), 279: (4, [DEEP.nbytes])}
    tiles = np.zeros((16, 32), np.uint8)
    tiles[:9, :13] = GREY
    tiles[:, 16:] = RNG.integers(0, 256)
    tiled = {256: (3, [13]), 257: (3, [9]), 258: (3, [8]), 262: (3, [1]), 277: (3, [1]), 322: (3, [16]), 323: (3, [16])}
    planes = {
        **strip,
        258: (3, [8, 8, 8]),
        262: (3, [2]),
        277: (3, [3]),
        284: (3, [2]),
        273: (4, [8, 8 + 117, 8 + 234]),
        279: (4, [117, 117, 117]),
    }
    pastel = COLOUR // 4 + 96
    lab = ImageCms.applyTransform(
        Image.fromarray(pastel),
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
    )
    assert lab is not None
    rle = b"\x04\x05\x00\x03\x01\x02\x03\x00\x00\x00" + b"\x07\x09\x00\x01"  # bottom row first
    rle_index = np.array([[9] * 7, [5, 5, 5, 5, 1, 2, 3]])
    return {
        "png rgb": (save(COLOUR, "PNG"), COLOUR),
        "png rgba": (save(rgba, "PNG"), on_white(COLOUR, ALPHA)),
        "png grey": (save(GREY, "PNG"), grey(GREY)),
        "png grey alpha": (save(np.dstack([GREY, ALPHA]), "PNG"), on_white(grey(GREY), ALPHA)),
        "png 1 bit": (save(Image.fromarray(BITS), "PNG"), grey(BITS * 255)),
        "png palette": (save(with_palette(GREY), "PNG"), PALETTE[GREY]),
        "png palette, alpha": (
            save(with_palette(GREY), "PNG", transparency=table),
            on_white(PALETTE[GREY], index_alpha),
        ),
        "png palette, one clear": (
            save(with_palette(GREY), "PNG", transparency=int(GREY[0, 0])),
            on_white(PALETTE[GREY], opaque(GREY, GREY[0, 0])),
        ),
        "png colour, one clear": (
            save(COLOUR, "PNG", transparency=clear),
            on_white(COLOUR, opaque(COLOUR, clear).max(axis=2)),
        ),
        "png grey, one clear": (
            save(GREY, "PNG", transparency=int(GREY[0, 0])),
            on_white(grey(GREY), opaque(GREY, GREY[0, 0])),
        ),
        "png 4 bits": (png(4, 2, 4, 0, four_rows), grey(four * 17)),
        "png 4 bits, one clear": (
            png(4, 2, 4, 0, four_rows, chunk(b"tRNS", struct.pack(">H", four[0, 1]))),
            on_white(grey(four * 17), opaque(four, four[0, 1])),
        ),
        "png 16 bits": (save(DEEP, "PNG"), grey(scaled)),
        "png 16 bits, one clear": (
            png(13, 9, 16, 0, png_rows(DEEP.astype(">u2")), chunk(b"tRNS", struct.pack(">H", DEEP[0, 1]))),
            on_white(grey(scaled), opaque(DEEP, DEEP[0, 1])),
        ),
        "png 16-bit colour": (png(3, 2, 16, 2, png_rows(deep_colour.astype(">u2"))), deep_colour >> 8),
        "png 16-bit colour, one clear": (
            png(
                3, 2, 16, 2, png_rows(deep_colour.astype(">u2")), chunk(b"tRNS", struct.pack(">3H", *deep_colour[1, 1]))
            ),
            on_white(deep_colour >> 8, np.array([[255, 255, 255], [255, 0, 255]])),
        ),
        "bmp rgb": (save(COLOUR, "BMP"), COLOUR),
        "bmp grey": (save(GREY, "BMP"), grey(GREY)),
        "bmp 1 bit": (save(Image.fromarray(BITS), "BMP"), grey(BITS * 255)),
        "bmp palette": (save(with_palette(GREY), "BMP"), PALETTE[GREY]),
        "bmp run-length": (bmp(7, 2, 8, 1, rle), np.dstack([rle_index * 0 + 7, 255 - rle_index, rle_index])),
        "gif grey": (save(GREY, "GIF"), grey(GREY)),
        "gif palette": (save(with_palette(GREY), "GIF"), PALETTE[GREY]),
        "gif one clear": (
            save(with_palette(GREY), "GIF", transparency=int(GREY[0, 0])),
            on_white(PALETTE[GREY], opaque(GREY, GREY[0, 0])),
        ),
        "gif animated": (
            save(with_palette(GREY), "GIF", save_all=True, append_images=[with_palette(255 - GREY)], comment=b"hello"),
            PALETTE[GREY],
        ),
        "webp rgb": (save(COLOUR, "WEBP", lossless=True), COLOUR),
        "webp rgba": (save(rgba, "WEBP", lossless=True, exact=True), on_white(COLOUR, ALPHA)),
        "webp animated": (
            save(COLOUR, "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(255 - COLOUR)]),
            COLOUR,
        ),
        "tiff rgb": (save(COLOUR, "TIFF"), COLOUR),
        "tiff rgba": (save(rgba, "TIFF"), on_white(COLOUR, ALPHA)),
        "tiff grey": (save(GREY, "TIFF"), grey(GREY)),
        "tiff grey alpha": (save(np.dstack([GREY, ALPHA]), "TIFF"), on_white(grey(GREY), ALPHA)),
        "tiff 1 bit": (save(Image.fromarray(BITS), "TIFF"), grey(BITS * 255)),
        "tiff fax": (save(Image.fromarray(BITS), "TIFF", compression="group4"), grey(BITS * 255)),
        "tiff palette": (save(with_palette(GREY), "TIFF"), PALETTE[GREY]),
        "tiff cmyk": (save(Image.fromarray(ink, "CMYK"), "TIFF"), cmyk(ink)),
        "tiff lab": (save(lab, "TIFF"), pastel),
        "tiff lzw": (save(COLOUR, "TIFF", compression="tiff_lzw"), COLOUR),
        "tiff deflate": (save(COLOUR, "TIFF", compression="tiff_adobe_deflate"), COLOUR),
        "tiff packbits": (save(COLOUR, "TIFF", compression="packbits"), COLOUR),
        "tiff 16 bits": (save(DEEP, "TIFF"), grey(scaled)),
        "tiff 16 bits, lzw": (save(DEEP, "TIFF", compression="tiff_lzw"), grey(scaled)),
        "tiff 16 bits, big-endian": (tiff(deep_tags, DEEP.astype(">u2").tobytes(), ">"), grey(scaled)),
        "tiff 32 bits": (save(DEEP.astype(np.int32), "TIFF"), grey(scaled)),
        "tiff float": (save((GREY / 255).astype(np.float32), "TIFF"), grey(GREY)),
        "tiff two pages": (
            save(COLOUR, "TIFF", save_all=True, append_images=[Image.fromarray(255 - COLOUR)]),
            COLOUR,
        ),
        "tiff tiles": (
            tiff({**tiled, 324: (4, [8]), 325: (4, [256])}, tiles[:, :16].tobytes()),
            grey(GREY),
        ),
        "tiff planes": (tiff(planes, COLOUR.transpose(2, 0, 1).tobytes()), COLOUR),
    }


GOLDEN = golden()
EXACT_WITHIN = {"tiff cmyk": 1, "tiff lab": 3}  # Pillow rounds twice; LAB has 8 bits


@pytest.mark.parametrize("name", GOLDEN)
def test_every_mode_gives_the_expected_pixels(name: str) -> None:
    data, expected = GOLDEN[name]
    found = decode.decode(data)
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    assert np.abs(found.astype(float) - expected).max() <= EXACT_WITHIN.get(name, 0)


def test_lossy_formats_are_close() -> None:
    smooth = np.full((16, 24, 3), (200, 90, 30), np.uint8)
    for kind in ("JPEG", "WEBP", *(["AVIF"] if features.check("avif") else [])):
        assert np.abs(decode.decode(save(smooth, kind, quality=95)).astype(int) - smooth).max() <= 4, kind
    assert np.abs(decode.decode(save(smooth, "TIFF", compression="jpeg")).astype(int) - smooth).max() <= 4
    assert np.abs(decode.decode(save(grey(GREY[:1, :1]), "JPEG")).astype(int) - GREY[0, 0]).max() <= 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 0},
        {"optimize": True, "quality": 30},
        {"restart_marker_blocks": 1},
        {"comment": b"c" * 9000, "icc_profile": b"p" * 200_000},
    ],
    ids=str,
)
def test_jpeg_pixels_equal_those_of_pillows_opener(options: dict[str, object]) -> None:
    """The decoder bypasses Pillow's JPEG opener, which must not change the pixels."""
    big = Image.fromarray(RNG.integers(0, 256, (20, 25, 3), np.uint8)).resize((401, 333))
    for image in (big, big.convert("L"), big.convert("CMYK"), big.crop((0, 0, 1, 1))):
        data = save(image, "JPEG", **options)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(decode.decode(data), expected), image.mode


def test_jpeg_segments_are_found_as_libjpeg_finds_them() -> None:
    data = save(COLOUR, "JPEG")
    expected = decode.decode(data)
    length = int.from_bytes(data[4:6]) + 4
    for junk in (
        b"\0\1\2",
        b"\xff\xff\xff",
        b"\xff\x00",
        b"\xff\x01",
        b"\xff\xd3",
        b"\xff\xe5\0\4\xff\xc0",
        b"ab\xff\xff",
    ):
        assert np.array_equal(decode.decode(data[:length] + junk + data[length:]), expected), junk
    assert np.array_equal(decode.decode(data + b"trailing \xff\xc0\xff\xda"), expected)


def test_exif_in_two_segments_counts_once() -> None:
    data = save(COLOUR, "JPEG")
    first, more = (b"\xff\xe1" + struct.pack(">H", len(mark) + 2) + mark for mark in (exif(6), b"Exif\0\0the rest"))
    turned = decode.decode(data[:2] + first + more + data[2:])
    assert np.array_equal(turned, UPRIGHT[6](decode.decode(data)))


def test_cmyk_jpeg_is_stored_inverted() -> None:
    ink = np.full((16, 16, 4), (10, 200, 90, 40), np.uint8)
    data = save(Image.fromarray(ink, "CMYK"), "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(decode.decode(data) - cmyk(ink)).max() <= 3


# --- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_orientation_is_applied_in_every_format(orientation: int, order: str) -> None:
    turn, mark = UPRIGHT[orientation], exif(orientation, order)
    assert np.array_equal(decode.decode(save(COLOUR, "PNG", exif=mark)), turn(COLOUR))
    assert np.array_equal(decode.decode(save(COLOUR, "WEBP", lossless=True, exif=mark)), turn(COLOUR))
    assert np.array_equal(decode.decode(save(COLOUR, "TIFF", exif=mark)), turn(COLOUR))
    assert np.array_equal(decode.decode(save(DEEP, "TIFF", exif=mark)), turn(decode.decode(save(DEEP, "TIFF"))))
    data = save(COLOUR, "JPEG")
    assert np.array_equal(decode.decode(save(COLOUR, "JPEG", exif=mark)), turn(decode.decode(data)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_a_reduced_jpeg(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onsight.imaging.containers.MAX_PIXELS", 20_000)
    big = np.asarray(Image.fromarray(COLOUR).resize((520, 360)))
    stored = decode.decode(save(big, "JPEG"))
    assert stored.shape == (90, 130, 3)
    found = decode.decode(save(big, "JPEG", exif=exif(orientation)))
    assert np.array_equal(found, UPRIGHT[orientation](stored))


@needs_avif
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_avif(orientation: int) -> None:
    big = np.asarray(Image.fromarray(COLOUR).resize((52, 36)))
    found = decode.decode(save(big, "AVIF", exif=exif(orientation), quality=100, subsampling="4:4:4"))
    assert np.abs(found.astype(int) - UPRIGHT[orientation](big)).max() <= 6


@needs_avif
def test_pillow_without_avif_is_named_in_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(COLOUR, "AVIF")
    monkeypatch.setattr("PIL.AvifImagePlugin.SUPPORTED", False)
    assert "This Pillow cannot read AVIF" in refusal(data)


@needs_avif
def test_damaged_exif_in_avif_is_silent() -> None:
    data = save(COLOUR, "AVIF", exif=exif(1)[:14] + struct.pack("<HHHII", 1, 0x010E, 2, 9, 26) + bytes(20))
    entry = struct.pack("<HHI", 0x010E, 2, 9)
    assert data.count(entry) == 1
    broken = data.replace(entry, struct.pack("<HHI", 0x010E, 2, 1 << 24))
    assert np.array_equal(decode.decode(broken), decode.decode(data))


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0XX*\0\x08\0\0\0",
        exif(6)[:-10],
        exif(0),
        exif(9),
        exif(6).replace(b"\x12\x01\x03\0", b"\x12\x01\x0c\0"),  # a float
        exif(6).replace(b"\x08\0\0\0", b"\xff\xff\xff\xff"),
    ],
)
def test_damaged_exif_is_upright_and_silent(broken: bytes) -> None:
    data = save(COLOUR, "JPEG")
    with_exif = data[:2] + b"\xff\xe1" + struct.pack(">H", len(broken) + 2) + broken + data[2:]
    assert np.array_equal(decode.decode(with_exif), decode.decode(data))
    plain = save(COLOUR, "PNG")
    assert np.array_equal(decode.decode(plain[:33] + chunk(b"eXIf", broken[6:]) + plain[33:]), COLOUR)


# --- refusals


def refusal(data: bytes) -> str:
    start = time.process_time()
    with warnings.catch_warnings(record=True, action="always") as warned, pytest.raises(ImageError) as caught:
        decode.decode(data)
    assert not warned
    assert time.process_time() - start < 2
    return str(caught.value)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_file_cut_short_is_refused(name: str) -> None:
    """If only bytes after the pixels are missing, the file may be read, with the right pixels."""
    data, _ = GOLDEN[name]
    whole = decode.decode(data)
    for share in (0.1, 0.5, 0.8, 0.95):
        part = data[: max(12, int(len(data) * share))]
        try:
            found = decode.decode(part)
        except ImageError:
            assert "damaged or cut short" in refusal(part)
        else:
            assert np.array_equal(found, whole)
            assert share > 0.9 or name.endswith(("animated", "pages"))


@pytest.mark.parametrize("progressive", [False, True])
def test_half_a_jpeg_is_refused(progressive: bool) -> None:
    data = save(RNG.integers(0, 256, (40, 60, 3), np.uint8), "JPEG", progressive=progressive)
    whole = decode.decode(data)
    for end in range(3, len(data), 37):
        assert "JPEG data is damaged or cut short" in refusal(data[:end])
    for end in range(len(data) - 40, len(data)):
        with contextlib.suppress(ImageError):
            assert np.array_equal(decode.decode(data[:end]), whole)


def test_a_wrong_pixel_checksum_is_refused() -> None:
    data = bytearray(save(COLOUR, "PNG", compress_level=0))
    data[200] ^= 1  # a pixel
    assert "PNG data is damaged" in refusal(bytes(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty (0 bytes)"),
        (b"<!DOCTYPE html>", r"begins with b'<!DOCTYP'; expected JPEG"),
        (b"\xff\xd8", "expected JPEG"),
        (b"\x00\x00\x00\x18ftypisom\0\0\0\0isomavc1", "expected JPEG"),
        (b"\x00\x00\x00\x18ftypmif1\0\0\0\0mif1heix", "HEIC"),
        (b"II+\0\x08\0\0\0", "BigTIFF"),
        (png(30000, 30000, 8, 2, b""), "30,000 x 30,000 pixels; each side must be 1 to 20,000"),
        (png(6000, 6000, 8, 2, b""), "6,000 x 6,000 pixels, 36.0 million; at most 25 million"),
        (png(0, 5, 8, 2, b""), "0 x 5"),
        (bmp(20001, 1, 8, 0, b""), "20,001 x 1 pixels"),
        (bmp(2000, 2000, 8, 1, b""), "at most 2.5 million"),
        (gif(width=60000, height=60000), "60,000 x 60,000"),
        (jpeg_sized(0, 64), "0 x 64"),
        (save(COLOUR, "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "JPEG of 12 bits, 3 channels"),
        (save(COLOUR, "JPEG").replace(b"\xff\xc0", b"\xff\xc3"), "frame type 3"),
        (b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\x3f\0\xff\x3f\0", "16,384 x 16,384"),
        (b"RIFF\0\0\0\0WEBPVP8L\x0a\0\0\0\x2f\xff\xff\xff\x0f", "16,384 x 16,384"),
        (b"RIFF\0\0\0\0WEBPVP8 \x0a\0\0\0" + b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f", "16,383 x 16,383"),
        (save(Image.new("L", (6000, 5000)), "TIFF"), "30.0 million"),
        (save(np.full((3, 3), 70000, np.int32), "TIFF"), "from 70000 to 70000; expected 0 to 65535"),
        (save(np.full((3, 3), -1, np.int32), "TIFF"), "from -1 to -1; expected 0 to 65535"),
        (save(np.full((3, 3), np.nan, np.float32), "TIFF"), "from nan to nan; expected 0 to 1"),
        (save(np.full((3, 3), 1.5, np.float32), "TIFF"), "to 1.5; expected 0 to 1"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,
)
def test_an_unreadable_file_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


def test_a_jpeg_is_reduced_only_if_it_has_more_than_25_million_pixels() -> None:
    assert decode.decode(jpeg_sized(5000, 5000)).shape == (5000, 5000, 3)
    assert decode.decode(jpeg_sized(6250, 4001)).shape == (2001, 3125, 3)
    assert decode.decode(jpeg_sized(12000, 9000)).shape == (2250, 3000, 3)
    assert "at most 120 million" in refusal(jpeg_sized(12000, 10100))


@pytest.mark.parametrize("fit", ["cut", "pad"])
def test_a_photo_is_decoded_in_full_however_small_the_model_is(fit: decode.Fit) -> None:
    """A decoder that reduces it, which is faster, gives other answers than a browser and the users' own code."""
    photo = Image.fromarray(RNG.integers(0, 256, (80, 120, 3), np.uint8)).resize((1200, 800))
    data = save(photo, "JPEG", quality=90)
    whole = np.asarray(Image.open(io.BytesIO(data)))
    for size in (8, 32, 224):
        assert np.array_equal(decode.load(data, size, fit), decode.resize(whole, size, fit)), size


# --- files made to take long to decode


def test_texts_profiles_and_comments_cost_nothing() -> None:
    bomb = zlib.compress(bytes(100_000_000), 9)
    whole = save(COLOUR, "PNG")
    texts = chunk(b"zTXt", b"a\0\0" + bomb) * 70 + chunk(b"iCCP", b"a\0\0" + bomb) + chunk(b"acTL", b"")
    start = time.process_time()
    assert np.array_equal(decode.decode(whole[:33] + texts + whole[33:]), COLOUR)
    assert decode.decode(gif(before=b"!\xfe" + b"\1x" * 300_000 + b"\0")).shape == (4, 4, 3)
    assert time.process_time() - start < 2


def test_bombs_are_refused_at_once() -> None:
    last = (data := jpeg_sized(12000, 9000, progressive=True)).rfind(b"\xff\xda")
    assert "scans takes too long" in refusal(data[:-2] + data[last:-2] * 50 + b"\xff\xd9")
    assert "damaged" in refusal(b"\xff\xd8" + b"\xff" * 4_000_000)
    whole = save(COLOUR, "JPEG")
    assert "damaged" in refusal(whole[:2] + b"\xff\xe0\0\2" * 200_000 + whole[2:])
    whole = save(COLOUR, "PNG")
    assert "damaged" in refusal(whole[:33] + chunk(b"abCd", b"") * 200_000 + whole[33:])
    assert decode.decode(gif(before=b"\0")).shape == (4, 4, 3)
    assert "damaged" in refusal(gif(before=b";"))
    assert "damaged" in refusal(gif(before=b"!\xfe" + b"\1x" * 9_000_000 + b"\0"))


def test_tiff_tags_that_do_not_fit_the_image_are_refused() -> None:
    size = {256: (3, [13]), 257: (3, [9]), 258: (3, [8]), 262: (3, [1])}
    strip = {**size, 278: (3, [9]), 273: (4, [8]), 279: (4, [117])}
    assert decode.decode(tiff(strip, GREY.tobytes())).shape == (9, 13, 3)
    assert "damaged" in refusal(tiff({**strip, 279: (4, [60])}, bytes(500)))
    assert "damaged" in refusal(tiff({**strip, 279: (4, [900])}, bytes(500)))
    assert "damaged" in refusal(tiff({**strip, 278: (3, [0])}, bytes(500)))
    assert "damaged" in refusal(tiff({**strip, 256: (3, [13, 13])}, bytes(500)))
    assert "compression 34925" in refusal(tiff({**strip, 259: (3, [34925])}, bytes(500)))
    assert "12 bits" in refusal(tiff({**strip, 258: (3, [12])}, bytes(500)))
    assert "photometric interpretation 0" in refusal(tiff({**strip, 258: (3, [16]), 262: (3, [0])}, bytes(500)))
    assert "10 samples" in refusal(tiff({**strip, 258: (3, [8] * 10), 277: (3, [10])}, bytes(500)))
    # Two tags that share their values: together longer than the file, which Pillow warns about.
    shared = tiff({**strip, 320: (3, [7]), 325: (3, [7])}, bytes(5000))
    for tag in (320, 325):
        entry = struct.pack("<HHI", tag, 3, 1)
        start = shared.index(entry)
        shared = shared[:start] + struct.pack("<HHII", tag, 3, 2400, 8) + shared[start + 12 :]
    assert "damaged" in refusal(shared)
    # An image of 10,000 strips that are all the same 25 MB, and a tile of 105 million pixels for 13 x 9.
    many = {**size, 256: (3, [5000]), 257: (3, [5000]), 278: (3, [4999])}
    assert "damaged" in refusal(tiff({**many, 273: (4, [8, 9] * 5000), 279: (4, [2500] * 10_000)}, bytes(25_000_000)))
    tile = zlib.compress(bytes(10_240**2), 1)
    tags = {259: (3, [8]), 322: (3, [10_240]), 323: (3, [10_240]), 324: (4, [8]), 325: (4, [len(tile)])}
    assert "damaged" in refusal(tiff({**size, **tags}, tile))


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Change, drop, repeat or insert a few bytes; often near the start, where the headers are."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        start, reach = rng.choice([0, 8, 8, 8]), rng.choice([40, 200, len(found)])
        pos = rng.randrange(start, max(start + 1, min(reach, len(found))))
        match rng.randrange(6):
            case 0:
                found[pos : pos + 1] = bytes([rng.randrange(256)])
            case 1:
                found[pos : pos + 1] = bytes([(found[pos] ^ 1 << rng.randrange(8)) if pos < len(found) else 0])
            case 2:
                found[pos : pos + 4] = rng.choice(
                    [b"\xff" * 4, bytes(4), b"\0\0\x4e\x20", b"\x20\x4e\0\0", b"\x7f\xff\xff\xff"]
                )
            case 3:
                del found[pos : pos + rng.choice([1, 2, 30])]
            case 4:
                found[pos:pos] = found[pos : pos + rng.choice([1, 12, 200])]
            case 5:
                del found[rng.randrange(len(found) // 2, len(found) + 1) :]
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:  # otherwise only the checksums would be tested
        pos = 8
        while pos + 12 <= len(found):
            end = min(pos + 12 + int.from_bytes(found[pos : pos + 4]), len(found))
            found[end - 4 : end] = struct.pack(">I", zlib.crc32(found[pos + 4 : end - 4]))
            pos = end
    return bytes(found)


def seeds() -> list[bytes]:
    """Return one file of each format and mode, including the metadata that real files carry."""
    photo = Image.fromarray(RNG.integers(0, 256, (8, 10, 3), np.uint8)).resize((80, 60))
    mark = exif(6) + b"more"
    found = [data for data, _ in GOLDEN.values()]
    found += [save(photo, "JPEG", exif=mark, progressive=on, dpi=(72, 72), comment=b"hi") for on in (False, True)]
    found += [save(photo.convert(mode), "JPEG") for mode in ("L", "CMYK")]
    found += [save(photo, "WEBP", exif=mark), save(photo, "TIFF", exif=mark, compression="jpeg")]
    found += [
        save(photo, "PNG", exif=mark, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    ]
    return found + ([save(photo, "AVIF", exif=mark)] if features.check("avif") else [])


def check_mutations(count: int) -> None:
    """Decode `count` damaged files: pixels or ImageError, in 2 s, without a warning."""
    rng, refused = random.Random(count), 0
    files = seeds()
    for number in range(count):
        data = damaged(files[number % len(files)], rng)
        start = time.process_time()
        with warnings.catch_warnings(record=True, action="always") as caught:
            try:
                found = decode.decode(data)
            except ImageError:
                refused += 1
            else:
                assert (found.dtype, found.ndim, found.shape[2]) == (np.uint8, 3, 3)
        assert not caught, (data, [str(item.message) for item in caught])
        assert time.process_time() - start < 2, data
    assert 0.3 < refused / count < 0.9  # the damage is neither harmless nor always in the first bytes


def test_ten_thousand_damaged_files_are_read_or_refused() -> None:
    check_mutations(10_000)


@pytest.mark.slow
def test_many_more_damaged_files_are_read_or_refused() -> None:
    check_mutations(200_000)


class OddError(Exception):
    """An exception that nobody expects."""


@pytest.mark.parametrize("error", [OddError, MemoryError, SyntaxError, struct.error, zlib.error, RecursionError])
def test_no_exception_of_pillow_escapes(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error("text of the library")

    data = save(COLOUR, "JPEG")
    monkeypatch.setattr(Image, "frombytes", fail)
    reason = refusal(data)
    assert "damaged or cut short" in reason
    assert "library" not in reason


def test_threads_decode_the_same_pixels() -> None:
    files = [data for data, _ in GOLDEN.values()] + seeds()
    alone = [decode.decode(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            together = pool.map(decode.decode, files)
            assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


# --- resize


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(64, 96, 32), (97, 64, 32), (33, 50, 32), (50, 33, 32), (20, 31, 32), (1, 1, 8), (1, 40, 8), (333, 200, 7)],
)
def test_resize_follows_its_description_to_the_bit(height: int, width: int, size: int) -> None:
    image = RNG.integers(0, 256, (height, width, 3), np.uint8)
    found = decode.resize(image, size)
    assert found.dtype == np.uint8
    assert found.shape == (size, size, 3)
    assert np.array_equal(found, cut(image, size))
    found = decode.resize(image, size, "pad")
    assert found.dtype == np.uint8
    assert found.shape == (size, size, 3)
    assert np.array_equal(found, pad(image, size))


def test_resize_does_not_scale_an_image_of_the_right_size() -> None:
    image = RNG.integers(0, 256, (32, 32, 3), np.uint8)
    assert decode.resize(image, 32) is image
    wide = RNG.integers(0, 256, (32, 35, 3), np.uint8)
    assert np.array_equal(decode.resize(wide, 32), wide[:, 1:33])
    padded = decode.resize(wide, 35, "pad")
    assert np.array_equal(padded[1:33], wide)
    assert (padded[[0, 33, 34]] == 128).all()  # the odd row lies below
    assert decode.resize(image, 32, "pad") is image


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (5000, 1, 3), (2, 20000, 3)])
def test_resize_takes_thin_images(shape: tuple[int, ...]) -> None:
    image = np.full(shape, 77, np.uint8)
    assert (decode.resize(image, 224) == 77).all()
    padded = decode.resize(image, 224, "pad")
    line = padded[111] if shape[1] > 1 else padded[:, 111]
    assert (line == 77).all()
    assert (padded == 77).all() if shape[:2] == (1, 1) else (padded == 128).sum() == 223 * 224 * 3


# --- load


def test_load_goes_by_the_content_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "really a.png"
    path.write_bytes(save(np.full((40, 60, 3), 120, np.uint8), "JPEG"))
    for source in (path, str(path), path.read_bytes(), Image.open(path)):
        found = decode.load(source, 16)
        assert found.shape == (16, 16, 3)
        assert np.abs(found.astype(int) - 120).max() <= 1
    assert ".png" in decode.SUFFIXES
    path.write_bytes(data := save(np.asarray(Image.fromarray(COLOUR).resize((520, 360))), "JPEG"))
    whole = decode.decode(data)
    for source in (path, data, Image.open(path), whole):
        assert np.array_equal(decode.load(source, 45), decode.resize(whole, 45))
        assert np.array_equal(decode.load(source, 45, "pad"), decode.resize(whole, 45, "pad"))


def test_a_thumbnail_is_square_and_never_enlarged() -> None:
    image = RNG.integers(0, 256, (20, 40, 3), np.uint8)
    for fit, side in (("cut", 20), ("pad", 40)):
        shown = np.asarray(Image.open(io.BytesIO(decode.thumbnail(image, 96, fit))))
        assert np.array_equal(shown, decode.resize(image, side, fit))


def test_load_says_what_is_wrong_with_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in (tmp_path / "nothing.jpg", "", "zero\0byte.jpg"):
        with pytest.raises(ImageError, match="does not exist"):
            decode.load(source, 16)
    with pytest.raises(ImageError, match="a folder or a device"):
        decode.load(tmp_path, 16)
    with (tmp_path / "huge.tif").open("wb") as file:
        file.truncate(257 << 20)
    with pytest.raises(ImageError, match="257 MiB"):
        decode.load(tmp_path / "huge.tif", 16)
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match="empty") as caught:
        decode.load(tmp_path / "empty.jpg", 16)
    assert str(tmp_path) not in str(caught.value)

    def locked(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(decode, "open", locked, raising=False)
    with pytest.raises(ImageError, match=r"cannot be read \(Permission denied\)"):
        decode.load(tmp_path / "empty.jpg", 16)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_load_takes_every_mode_of_pillow(mode: str) -> None:
    white = Image.new("RGB", (9, 9), (255, 255, 255))
    for middle in ("L", "LA", "RGBA", "RGB"):
        try:
            image = white.convert(middle).convert(mode)
        except ValueError:
            continue
        assert (decode.load(image, 9) >= 254).all()
        return
    pytest.fail(f"Pillow cannot make an image of mode {mode}")


def test_load_treats_pillow_images_like_files() -> None:
    for data in (save(COLOUR, "PNG", exif=exif(6)), save(COLOUR, "TIFF", exif=exif(6)), GOLDEN["png 16 bits"][0]):
        assert np.array_equal(decode.load(Image.open(io.BytesIO(data)), 8), decode.load(data, 8))
    closed = Image.open(io.BytesIO(save(COLOUR, "PNG")))
    closed.close()
    broken = Image.open(io.BytesIO(save(COLOUR, "PNG")[:-60]))
    bright = Image.fromarray(np.full((9, 9), 1e6, np.float32))
    for image in (closed, broken, bright, Image.new("RGB", (0, 5))):
        with pytest.raises(ImageError):
            decode.load(image, 8)


def test_load_takes_arrays() -> None:
    assert decode.load(square := COLOUR[:9, :9], 9) is square
    assert np.array_equal(decode.load(GREY[:9, :9], 9), grey(GREY[:9, :9]))
    assert np.array_equal(decode.load(GREY[:9, :9, np.newaxis], 9), grey(GREY[:9, :9]))
    rgba = np.dstack([COLOUR, ALPHA])[:, 2:11]
    assert np.array_equal(decode.load(rgba, 9), on_white(COLOUR, ALPHA)[:, 2:11])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros((9, 9, 3), np.float32), "type float32; expected uint8, from 0 to 255. Convert 0 to 1 with "),
        (np.zeros((9, 9, 3), np.int64), "type int64; expected uint8"),
        (np.zeros((3, 9, 9), np.uint8), r"shape \(3, 9, 9\); expected \(H, W\)"),
        (np.zeros((1, 9, 9, 3), np.uint8), "shape"),
        (np.zeros((0, 9, 3), np.uint8), "shape"),
        (np.zeros(9, np.uint8), "shape"),
        ([1, 2], "A list is not an image; expected a path"),
        (None, "A NoneType"),
    ],
)
def test_load_refuses_other_things(source: object, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode.load(source, 9)  # type: ignore[arg-type]


def test_import_is_light() -> None:
    code = "import sys, onsight.imaging.decode; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"keras", "scipy", "sklearn", "PIL.TiffImagePlugin", "PIL.PngImagePlugin"} & set(run.stdout.split())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF"])
def test_the_sides_are_read_from_the_header(kind):
    content = io.BytesIO()
    Image.new("RGB", (50, 30)).save(content, kind)
    assert min(decode.header(content.getvalue())[:2]) == 30
    with pytest.raises(ImageError):
        decode.header(content.getvalue()[:12])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF"])
def test_header_returns_the_stored_size_and_the_orientation(kind):
    exif = Image.Exif()
    exif[0x112] = 6
    content = io.BytesIO()
    Image.new("RGB", (50, 30)).save(content, kind, exif=exif)
    assert decode.header(content.getvalue()) == (50, 30, 6)
    assert decode.decode(content.getvalue()).shape == (50, 30, 3)
