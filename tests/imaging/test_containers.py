"""HEIC by pi-heif, and AVIF by Pillow: what is decoded, and what the headers refuse."""

import base64
import io
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, features

from onsight.core.errors import ImageError
from onsight.imaging import containers, decode

needs_heic = pytest.mark.usefixtures("pi_heif")
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")

DRAWN = np.zeros((16, 24, 3), np.uint8)  # four rectangles: red, green, blue, nearly white
DRAWN[:8, :12], DRAWN[:8, 12:], DRAWN[8:, :12], DRAWN[8:, 12:] = (220, 30, 30), (30, 200, 40), (40, 60, 230), 240

# Three HEIC files of DRAWN, written once by pillow-heif 1.8.1 (pi-heif cannot write), with SAVE_NCLX_PROFILE = False:
#   saved = lambda file, **options: file.save(stream, quality=60, chroma="444", **options)
#   TURNED: saved(from_pillow(Image.fromarray(DRAWN)), exif=EXIF with orientation 6), which also writes a rotation
#   DEEP: 10 bits; two images, first the negative, then DRAWN, which is the primary one:
#     for each in (255 - DRAWN, DRAWN): file.add_frombytes("RGB;16", (24, 16), (each.astype(np.uint16) * 257).tobytes())
#     saved(file, primary_index=1)
#   CLEAR: saved(from_pillow(RGBA image)), opaque except for the red rectangle, whose alpha is 0
# fmt: off
TURNED = base64.b64decode(
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAbVtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAA"
    "AAAERAAAIAAQAAAAAB2QABAAAAAAAAAGoAAgAAAAACQwABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVp"
    "bmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAAA9GlwcnAAAADUaXBjbwAAAHdodmNDAQQIAAAAnjgAAAAAHvAA/P/4+AAADwNgAAEAF0"
    "ABDAH//wQIAAADAJ44AAADAAAeugJAYQABACpCAQEECAAAAwCeOAAAAwAAHpAEECCy3VXTXNwENBgQAAADAZAAAAMAEIBiAAEACEQBwXMYMBiQ"
    "AAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAABgAAAABAAAAEAAAAAH////YAAAAAv///9AAAAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm"
    "90AwAAABhpcG1hAAAAAAAAAAEAAQWBAgSDhQAAABppcmVmAAAAAAAAAA5jZHNjAAIAAQABAAAAlm1kYXQAAABmKAGvCchukx4jmZ8/0H/78chJ"
    "4jdhN9UgO/AjaQfTuzEXn9RIefurLPPkeLGwAF3BNnkx/CUdE01CWWFqPQV5VZ4PoPZ474fu/SyiWqwrMQWjSAG3xgWg7LNXBL3Ei3LnaeKYfL"
    "nAAAAABkV4aWYAAE1NACoAAAAIAAEBEgADAAAAAQAGAAAAAAAA"
)
DEEP = base64.b64decode(
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAZhtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAA"
    "AAAERAAAIAAQAAAAABvAABAAAAAAAAAGUAAgAAAAACIQABAAAAAAAAAGkAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVp"
    "bmZlAgAAAAACAABodmMxAAAAAA5waXRtAAAAAAACAAAA8WlwcnAAAADLaXBjbwAAAHdodmNDAQQIAAAAnDgAAAAAHvAA/P/6+gAADwNgAAEAF0"
    "ABDAH//wQIAAADAJw4AAADAAAeugJAYQABACpCAQEECAAAAwCcOAAAAwAAHpAEECCbLdVdNc3AQ0GBAAADABkAAAMAAQhiAAEACEQBwXMYMBiQ"
    "AAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAABgAAAABAAAAEAAAAAH////YAAAAAv///9AAAAACAAAAEHBpeGkAAAAAAwoKCgAAAB5pcG"
    "1hAAAAAAAAAAIAAQSBAgSDAAIEgQIEgwAAANZtZGF0AAAAYSgBrwnIbs0WI5mfF9B+8/H/yeI3YTfdK8CdiGnj07RS3DnDV9JV3QeD77iLiJq5"
    "5JKL1UdbgkKzEz+R9kQ/AGYdOcv0/QMJqumFTPImtV8vS6D74VjMk60qILWLXozO7PwAAABlKAGvCchu0BojmZ8/0H/78chJ3DV8JvqkB34EbS"
    "D6d3mu8bWJDz90YCLtivEeGANE8/bFsN0hWNqE4eHUiSkQ1bZZy/T9A28NILsC+u9CkpI8VfULevyOckpR1oAv0E9HGWKMnSY="
)
CLEAR = base64.b64decode(
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAlltZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAA"
    "AAAERAAAIAAQAAAAACfQABAAAAAAAAAGoAAgAAAAAC5wABAAAAAAAAADYAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVp"
    "bmZlAgAAAAACAABodmMxAAAAAA5waXRtAAAAAAABAAABmGlwcnAAAAFxaXBjbwAAAHdodmNDAQQIAAAAnjgAAAAAHvAA/P/4+AAADwNgAAEAF0"
    "ABDAH//wQIAAADAJ44AAADAAAeugJAYQABACpCAQEECAAAAwCeOAAAAwAAHpAEECCy3VXTXNwENBgQAAADAZAAAAMAEIBiAAEACEQBwXMYMBiQ"
    "AAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAABgAAAABAAAAEAAAAAH////YAAAAAv///9AAAAACAAAAEHBpeGkAAAAAAwgICAAAAHFodm"
    "NDAQQIAAAAn/gAAAAAHvAA/Pz4+AAADwNgAAEAF0ABDAH//wQIAAADAJ/4AAADAAAeugJAYQABACZCAQEECAAAAwCf+AAAAwAAHsCCBBZbqrpr"
    "mwIAAAMAMgAAAwACEGIAAQAGRAHBc8GJAAAADnBpeGkAAAAAAQgAAAAnYXV4QwAAAAB1cm46bXBlZzpoZXZjOjIwMTU6YXV4aWQ6MQAAAAAfaX"
    "BtYQAAAAAAAAACAAEEgQIEgwACBYUCBoeDAAAAGmlyZWYAAAAAAAAADmF1eGwAAgABAAEAAACobWRhdAAAAGYoAa8JyG6THiOZnz/Qf/vxyEni"
    "N2E31SA78CNpB9O7MRef1Eh5+6ss8+R4sbAAXcE2eTH8JR0TTUJZYWo9BXlVng+g9njvh+79LKJarCsxBaNIAbfGBaDss1cEvcSLcudp4ph8uc"
    "AAAAAyKAGuE5C7ISA9FaD/yIn/A8ROsDz1xMRVq2cSgy+iADKhT0KgWSUzmXRFU5yCwEQUAyY="
)
# fmt: on


@pytest.fixture
def pi_heif():
    """Skip the test if pi-heif, of the extra `heic`, is not installed."""
    pytest.importorskip("pi_heif", reason="pi-heif is not installed")


def with_sides(data: bytes, width: int, height: int) -> bytes:
    """Return a HEIC or AVIF whose properties say another size, without a rectangle to crop to."""
    changed = re.sub(
        rb"ispe\0{4}.{8}", lambda _: b"ispe" + struct.pack(">III", 0, width, height), data, flags=re.DOTALL
    )
    return changed.replace(b"clap", b"free")


@needs_heic
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (TURNED, np.rot90(DRAWN, -1)),  # once, though the file has a rotation and an EXIF orientation
        (DEEP, DRAWN),  # the second image, 10 bits scaled to 8
        (CLEAR, np.where((DRAWN == (220, 30, 30)).all(axis=2, keepdims=True), 255, DRAWN)),  # on white
    ],
    ids=["turned", "deep", "clear"],
)
def test_heic_is_decoded(data, expected):
    found = decode.decode(data)
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 15
    assert difference.mean() < 2
    height, width = expected.shape[:2]
    assert decode.header(data) == (width, height, 1)
    assert min(decode.header(data)[:2]) == 16
    assert np.array_equal(decode.load(data, 8, "pad"), decode.resize(found, 8, "pad"))


@needs_heic
def test_a_heic_that_is_too_large_is_refused_by_its_header(monkeypatch):
    import pi_heif

    monkeypatch.setattr(pi_heif.HeifImageFile, "load", lambda self: pytest.fail("it was decoded"))
    for sides, reason in (((6000, 5000), r"30\.0 million"), ((24000, 16), "each side must be 1 to 20,000")):
        with pytest.raises(ImageError, match=reason):
            decode.decode(with_sides(DEEP, *sides))


@needs_heic
def test_a_damaged_heic_is_refused():
    for data in (TURNED[:-200], DEEP[:300], TURNED[:40], with_sides(TURNED, 8, 8), DEEP.replace(b"hvcC", b"none")):
        with pytest.raises(ImageError, match="HEIC data is damaged"):
            decode.decode(data)


@needs_heic
def test_metadata_that_would_crash_pi_heif_is_harmless():
    """In a process of its own, which would end with a segmentation fault."""
    assert re.search(rb"infe.{8}Exif\0", TURNED, re.DOTALL)
    code = "import sys; from onsight.imaging import decode; print(decode.decode(sys.stdin.buffer.read()).shape)"
    data = TURNED.replace(b"Exif\0", b"Ex\xaff\0", 1)
    run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert run.stdout.strip() == b"(24, 16, 3)"


def test_heic_without_pi_heif_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)  # importing it fails, as if it were not installed
    headers = (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix")
    for data in (TURNED, DEEP, *headers):
        assert containers.file_format(data) == "HEIC"
        for read in (decode.decode, decode.header):
            with pytest.raises(ImageError, match=r'pip install "onsight\[heic\]".*Most Compatible'):
                read(data)


def test_pi_heif_is_imported_only_for_heic():
    code = (
        "import sys, io; from PIL import Image; from onsight.imaging import decode; file = io.BytesIO(); "
        "Image.new('RGB', (9, 9)).save(file, 'PNG'); decode.decode(file.getvalue()); print('pi_heif' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def avif(**options):
    file = io.BytesIO()
    Image.fromarray(DRAWN).save(file, "AVIF", quality=100, subsampling="4:4:4", **options)
    return file.getvalue()


@needs_avif
def test_the_header_of_avif_has_its_size_and_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode.header(avif()) == (24, 16, 1)
    assert decode.header(avif(exif=exif.tobytes())) == (24, 16, 6)
    assert decode.decode(avif(exif=exif.tobytes())).shape == (24, 16, 3)


@needs_avif
def test_an_avif_that_is_too_large_is_refused_by_its_header(monkeypatch):
    from PIL.AvifImagePlugin import AvifImageFile

    monkeypatch.setattr(AvifImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match=r"30\.0 million"):
        decode.decode(with_sides(avif(), 6000, 5000))
    with pytest.raises(ImageError):  # libavif itself refuses such a side
        decode.decode(with_sides(avif(), 40000, 16))


def jpeg(mode="RGB", frame=None, size=None, **options):
    """Return a small JPEG; `frame` replaces the kind of its frame, `size` its width and height."""
    file = io.BytesIO()
    Image.new(mode, (64, 48)).save(file, "JPEG", **options)
    data = bytearray(file.getvalue())
    at = re.search(rb"\xff[\xc0\xc2]", data).start()
    if frame is not None:
        data[at + 1] = frame
    if size is not None:
        data[at + 5 : at + 9] = struct.pack(">HH", size[1], size[0])
    return bytes(data)


def test_a_jpeg_whose_coefficients_would_fill_the_memory_is_refused_by_its_header():
    for options in ({"mode": "CMYK"}, {"mode": "RGB", "subsampling": 0}):
        data = jpeg(progressive=True, size=(12_000, 9_000), **options)
        megabytes = {"CMYK": 864, "RGB": 648}[options["mode"]]
        with pytest.raises(ImageError, match=f"takes {megabytes} MB to decode; at most 256 MB"):
            decode.header(data)
    assert containers.jpeg_header(jpeg(progressive=True, subsampling=2)).coefficients == 2 * 64 * 48 * 3 // 2
    assert containers.jpeg_header(jpeg()).coefficients == 0
    assert decode.header(jpeg(size=(12_000, 9_000)))[:2] == (12_000, 9_000)  # row by row, and reduced


def test_an_arithmetic_coded_jpeg_has_a_limit_in_bytes():
    data = jpeg(frame=0xC9)
    assert decode.header(data)[:2] == (64, 48)
    with pytest.raises(ImageError, match="arithmetic-coded JPEG of 16 MB takes too long to decode"):
        decode.header(data + bytes(containers.MAX_ARITHMETIC))


def test_libtiff_writes_nothing_about_damaged_files(tmp_path):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    Image.fromarray(noise).save(file, "TIFF", compression="tiff_lzw")
    data = bytearray(file.getvalue())
    data[8:200] = bytes(192)
    (tmp_path / "a.tiff").write_bytes(data)
    code = "import sys; from onsight.imaging import decode; decode.load(sys.argv[1], 8)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.tiff"], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("onsight.core.errors.ImageError: The TIFF data is damaged")
    assert "Using code not yet in table" not in done.stderr
