"""Opening image files: headers are read and checked against limits, and only parts that carry pixels reach Pillow."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from onsight.core.errors import ImageError
from onsight.core.silence import silence_libtiff

MAX_SIDE = 20_000  # pixels
MAX_PIXELS = 25_000_000  # decoded; 75 MB as RGB
MAX_JPEG_PIXELS = 120_000_000  # of a JPEG, which can be decoded at a reduced size: phones take 108 megapixels
MAX_RLE_PIXELS = 2_500_000  # Pillow unpacks run-length BMP in Python: 0.4 s per megapixel
MAX_SCAN_PIXELS = 2_500_000_000  # pixels x scans: each scan of a progressive JPEG visits all pixels, 0.2 s per billion
MAX_COEFFICIENTS = 256_000_000  # bytes: the decoder keeps all coefficients of a JPEG of several scans, 2 bytes each
MAX_ARITHMETIC = 16_000_000  # bytes of an arithmetic-coded JPEG: 0.12 s per million
MAX_PARTS = 100_000  # segments, chunks or strips per file: each costs Python time
MAX_BYTES = 256 << 20  # per file; 25 million pixels of 4 x 16 bits are 200 MB
MAX_PREAMBLE = 16 << 20  # bytes before the first frame of a GIF

SAVE_AGAIN = "Open the image in a viewer and save it as JPEG or PNG, or leave it out"
NO_HEIC = (
    'HEIC images need the package pi-heif. Install it with pip install "onsight[heic]", or save the image as JPEG. On '
    "an iPhone, Settings > Camera > Formats > Most Compatible stores new photos as JPEG."
)


def file_format(data: bytes) -> str:
    """Return the name of the format that the first bytes identify.

    Raises:
        ImageError: the format cannot be read; the message says what the bytes are instead.
    """
    for magic, name in _MAGIC:
        if data.startswith(magic) and (name != "WebP" or data[8:12] == b"WEBP"):
            return name
    if data[4:8] == b"ftyp":
        # The major brand, its version (not a brand), and the compatible brands.
        end = min(int.from_bytes(data[:4]), 256)
        brands = {data[start : start + 4] for start in (8, *range(16, end, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}:
            return "HEIC"
    if data.startswith((b"II+\0", b"MM\0+")):
        raise ImageError("BigTIFF images cannot be read. Save the image as an ordinary TIFF or as PNG.")
    if not data:
        raise ImageError("The file is empty (0 bytes). Copy it again from its source, or leave it out.")
    raise ImageError(
        f"The file cannot be read as an image: it begins with {data[:8]!r}; expected JPEG, PNG, WebP, BMP, GIF, TIFF, "
        f"AVIF or HEIC. {SAVE_AGAIN}."
    )


_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"RIFF", "WebP"),
    (b"BM", "BMP"),
    ((b"GIF87a", b"GIF89a"), "GIF"),
    ((b"II*\0", b"MM\0*"), "TIFF"),
)


def check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Raise ImageError unless the sides and the number of pixels are within the limits."""
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ImageError(
            f"The image has {width:,} x {height:,} pixels; each side must be 1 to {MAX_SIDE:,}. Resize it, or leave it "
            "out."
        )
    if width * height > most:
        raise ImageError(
            f"The image has {width:,} x {height:,} pixels, {width * height / 1e6:.1f} million; at most {most / 1e6:g} "
            "million can be read. Scale it down, or leave it out."
        )


# The openers raise struct.error, IndexError, KeyError or ValueError for damaged data; decode() reports it.


class Jpeg(NamedTuple):
    """What the segments of a JPEG say."""

    width: int
    height: int
    components: int
    coefficients: int  # bytes that the decoder keeps until the last scan; 0 if it decodes row by row
    exif: bytes

    @property
    def scale(self) -> int:
        """The power of two by which it is reduced while decoding, so that it has at most `MAX_PIXELS`."""
        scale = 1
        while -(-self.width // scale) * -(-self.height // scale) > MAX_PIXELS:
            scale *= 2
        return scale

    @property
    def memory(self) -> int:
        """Bytes that decoding it takes: the pixels, a turned copy of them, and the coefficients."""
        return 2 * self.width * self.height * max(self.components, 3) // self.scale**2 + self.coefficients


def decode_jpeg(data: bytes, header: Jpeg) -> Image.Image:
    """Decode a JPEG, one of more than `MAX_PIXELS` at 1/2 or 1/4, whichever is the first that has no more."""
    scale = header.scale
    size = -(-header.width // scale), -(-header.height // scale)
    check_size(*size)
    # Four channels are stored inverted, as Adobe does. Every decoder assumes this, whether or not the file says so.
    mode, raw = ("CMYK", "CMYK;I") if header.components == 4 else ("RGB", "RGB")
    return Image.frombytes(mode, size, data, "jpeg", raw, "", scale, 0)


def jpeg_header(data: bytes) -> Jpeg:
    """Return what the segments of a JPEG say that can be decoded.

    Pillow's JPEG opener doubles the time of a 32 px image (a data set has 60,000 of them). It also warns about EXIF
    data and about images above 89 megapixels. So the segments are walked here, in the steps of libjpeg's next_marker,
    which ignores bytes between segments, and the decoder is called with the size that the segments give.
    """
    pos, frame, scans, exif, single = 2, 0, 0, b"", False
    width = height = components = 0
    samples = 1.0  # per pixel
    for _ in range(MAX_PARTS):
        marker = _JPEG_MARKER.search(data, pos)
        if marker is None:
            raise ValueError("no end of the image")
        pos = marker.end()
        kind = data[pos - 1]
        if kind == 0xD9:  # end of image
            break
        length = data[pos] << 8 | data[pos + 1]  # including its own two bytes
        if kind in _JPEG_FRAMES:
            frame = kind
            bits, height, width, components = struct.unpack_from(">BHHB", data, pos + 2)
            if bits != 8 or components not in (1, 3, 4) or frame not in _JPEG_DECODABLE:
                raise ImageError(
                    f"A JPEG of {bits} bits, {components} channels and frame type {frame & 15} cannot be read; "
                    f"expected 8 bits, 1, 3 or 4 channels, frame type 0, 1, 2, 9 or 10. {SAVE_AGAIN}."
                )
            factors = [(each >> 4) * (each & 15) for each in data[pos + 9 : pos + 8 + 3 * components : 3]]
            samples = sum(factors) / max(*factors, 1)
        elif kind == 0xDA:  # start of scan
            scans += 1
            if data[pos + 2] == components and frame not in _JPEG_PROGRESSIVE:
                single = True
                break  # the only scan
        elif kind == 0xE1 and data[pos + 2 : pos + 8] == b"Exif\0\0":
            exif = exif or data[pos + 8 : pos + length]  # later ones continue the first
        pos += length
    else:
        raise ValueError("too many segments")
    if not scans:
        raise ValueError("no scan")

    check_size(width, height, MAX_JPEG_PIXELS)
    if width * height * scans > MAX_SCAN_PIXELS:
        raise ImageError(
            f"A JPEG of {width:,} x {height:,} pixels in {scans:,} scans takes too long to decode; at most "
            f"{MAX_SCAN_PIXELS / 1e9:g} billion pixels x scans can be read. {SAVE_AGAIN}."
        )
    coefficients = 0 if single else int(2 * width * height * samples)
    if coefficients > MAX_COEFFICIENTS:
        raise ImageError(
            f"A JPEG of {width:,} x {height:,} pixels in {scans:,} scans takes {coefficients / 1e6:,.0f} MB to decode; "
            f"at most {MAX_COEFFICIENTS / 1e6:g} MB are used. {SAVE_AGAIN}."
        )
    if frame in _JPEG_ARITHMETIC and len(data) > MAX_ARITHMETIC:
        raise ImageError(
            f"An arithmetic-coded JPEG of {len(data) / 1e6:,.0f} MB takes too long to decode; at most "
            f"{MAX_ARITHMETIC / 1e6:g} MB can be read. {SAVE_AGAIN}."
        )
    return Jpeg(width, height, components, coefficients, exif)


# A marker is FF and a byte. FF 00 is data; 01 and D0 to D7 have no segment; any number of FF may precede a marker.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame; C4 and CC are tables, C8 is reserved
_JPEG_PROGRESSIVE = frozenset({0xC2, 0xCA})
_JPEG_ARITHMETIC = frozenset({0xC9, 0xCA})
_JPEG_DECODABLE = frozenset({0xC0, 0xC1, 0xC9}) | _JPEG_PROGRESSIVE


def _open_png(data: bytes) -> tuple[Image.Image, int]:
    """Open a PNG, keeping only the chunks that carry pixels."""
    from PIL.PngImagePlugin import PngImageFile

    pos, kept, exif = 8, [data[:8]], b""
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, pos)
        end = pos + 12 + length
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(data[pos:end])
        elif kind == b"eXIf":
            exif = data[pos + 8 : end - 4]
        if kind == b"IEND":
            break
        pos = end
    else:
        raise ValueError("too many chunks")
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    check_size(width, height)
    image = PngImageFile(io.BytesIO(b"".join(kept)))
    check_size(*image.size)
    # Pillow scales the pixels to 8 bits but leaves the transparent colour as stored in the file.
    clear = image.info.get("transparency")
    if image.mode == "L" and isinstance(clear, int):
        image.info["transparency"] = clear * 255 // (2**depth - 1)
    elif image.mode == "RGB" and isinstance(clear, tuple) and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    return image, exif_orientation(exif)


def _open_webp(data: bytes) -> tuple[Image.Image, int]:
    """Open a WebP. Its size is read from the header first, because opening it already allocates the canvas."""
    from PIL.WebPImagePlugin import WebPImageFile

    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[start : start + 3], "little") + 1 for start in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    check_size(width, height)
    image = WebPImageFile(io.BytesIO(data))
    check_size(*image.size)
    return image, exif_orientation(image.info.get("exif", b""))


def _open_bmp(data: bytes) -> tuple[Image.Image, int]:
    """Open a BMP."""
    from PIL.BmpImagePlugin import BmpImageFile

    image = BmpImageFile(io.BytesIO(data))
    check_size(*image.size, MAX_RLE_PIXELS if image.info["compression"] in (1, 2) else MAX_PIXELS)
    return image, 1


def _open_gif(data: bytes) -> tuple[Image.Image, int]:
    """Open a GIF, keeping only the global palette and the first frame with its control block."""
    from PIL.GifImagePlugin import GifImageFile

    width, height, flags = struct.unpack_from("<HHB", data, 6)
    pos = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    head, control, blocks = data[:pos], b"", data[:MAX_PREAMBLE]
    while blocks[pos] != 0x2C:  # start of a frame
        if blocks[pos] == 0x3B:
            raise ValueError("the file ends before its first frame")
        if blocks[pos] != 0x21:  # some programs write an extra zero byte
            pos += 1
            continue
        # An extension: its kind, then sub-blocks, each preceded by its length; a length of 0 ends it.
        start, kind, pos = pos, blocks[pos + 1], pos + 2
        while length := blocks[pos]:
            pos += 1 + length
        pos += 1
        if kind == 0xF9:  # graphic control: the transparent colour
            control = blocks[start:pos]
    left, top, frame_width, frame_height = struct.unpack_from("<4H", data, pos + 1)
    check_size(max(width, left + frame_width), max(height, top + frame_height))
    return GifImageFile(io.BytesIO(head + control + data[pos:])), 1


def _open_tiff(data: bytes) -> tuple[Image.Image, int]:
    """Open a TIFF, keeping only the first page with the tags that describe its pixels. Each of these tags is checked.

    A new directory with these tags is appended and the header is pointed at it, so that every offset stays valid.
    """
    from PIL.TiffImagePlugin import TiffImageFile

    silence_libtiff()
    order, directory = _directory(data)
    tags = {tag: entry for tag, entry in sorted(directory.items()) if tag in _TIFF_TAGS}
    if any(not 1 <= count <= _TIFF_TAGS[tag] or (kind == 7) != (tag == 347) for tag, (kind, count, _) in tags.items()):
        raise ValueError("a tag has a wrong type or number of values")
    if sum(count * struct.calcsize(_TIFF_TYPES[kind]) for kind, count, _ in tags.values()) > len(data):
        raise ValueError("tags overlap")
    values = {tag: _values(data, order, entry) for tag, entry in tags.items()}

    def first(tag: int, default: int) -> int:
        return values[tag][0] if tag in values else default

    width, height, photometric = values[256][0], values[257][0], first(262, 0)
    compression, bits, samples, form = first(259, 1), first(258, 1), first(277, 1), first(339, 1)
    check_size(width, height)
    if (
        compression not in _TIFF_COMPRESSIONS
        or bits not in (1, 2, 4, 8, 16, 32)
        or samples > 6
        or (form == 2 and bits < 16)  # signed: Pillow would read -1 as 255
        or (photometric == 0 and bits > 8)  # zero is white: Pillow would return a negative image
    ):
        raise ImageError(
            f"A TIFF with compression {compression}, {bits} bits, {samples} samples, sample format {form}, photometric "
            f"interpretation {photometric} cannot be read; expected no compression, CCITT, LZW, JPEG, deflate or "
            f"PackBits, 1, 2, 4, 8, 16 or 32 bits, 1 to 6 samples. {SAVE_AGAIN}."
        )

    # Strips are tiles as wide as the image. More of them than the image needs could decode the same data repeatedly.
    offsets, lengths = (values[324], values[325]) if 322 in values else (values[273], values[279])
    across, down = (values[322][0], values[323][0]) if 322 in values else (width, min(first(278, height), height))
    pieces = -(-width // across) * -(-height // down)
    if len(offsets) > pieces * (samples if first(284, 1) == 2 else 1) or pieces * across * down > 4 * MAX_PIXELS:
        raise ValueError("there are more strips or tiles than the image needs")
    # Otherwise Pillow would read past the end of the pixels, into the new directory.
    if any(offset + length > len(data) for offset, length in zip(offsets, lengths, strict=True)):
        raise ValueError("a strip or tile lies outside the file")
    if compression == 1 and sum(lengths) < height * (width * bits * samples // 8):
        raise ValueError("the strips or tiles are too short")

    entries = b"".join(struct.pack(order + "HHI4s", tag, *entry) for tag, entry in tags.items())
    gap = bytes(len(data) % 2)
    clean = [data[:4], struct.pack(order + "I", len(data) + len(gap)), data[8:], gap]
    clean += [struct.pack(order + "H", len(tags)), entries, bytes(4)]
    return TiffImageFile(io.BytesIO(b"".join(clean))), exif_orientation(data)


# Tag -> maximum number of values. Other tags do not change the pixels, or are useless for a single page.
_TIFF_TAGS = {
    **dict.fromkeys((256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323), 1),
    **dict.fromkeys((258, 338, 339, 529, 530, 532), 64),
    **dict.fromkeys((273, 279, 324, 325), MAX_PARTS),  # offsets and lengths of strips and tiles
    320: 3 << 16,  # colours in the palette
    347: 1 << 16,  # bytes of JPEG tables
}
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 5: "Q", 7: "B"}  # 5 is a fraction, 7 is bytes
_TIFF_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})  # none, CCITT, LZW, JPEG, deflate, PackBits


def _open_avif(data: bytes) -> tuple[Image.Image, int]:
    """Open an AVIF."""
    from PIL.AvifImagePlugin import SUPPORTED, AvifImageFile

    if not SUPPORTED:
        raise ImageError("This Pillow cannot read AVIF. Install Pillow's own wheel, or save the image as JPEG.")
    # AVIF stores its rotation in a property of its own, which Pillow reports as EXIF. The EXIF data of the file is
    # ignored, and Pillow warns if it is damaged. So the entry for that data is renamed.
    image = AvifImageFile(io.BytesIO(_AVIF_EXIF.sub(rb"\1none", data)))
    check_size(*image.size)
    return image, exif_orientation(image.info.get("exif", b""))


def _open_heic(data: bytes) -> tuple[Image.Image, int]:
    """Open the primary image of a HEIC file, by pi-heif. Without it, raise ImageError with the text NO_HEIC.

    libheif turns and crops the image as the properties of the file say, and the size is that of the result. The
    format's standard says that the EXIF orientation, which phones write as well, is not to be applied.
    """
    try:
        from pi_heif import HeifImageFile
    except ImportError:
        raise ImageError(NO_HEIC) from None
    # pi-heif crashes the process if the type of a metadata item is not ASCII. Nothing of the metadata is needed.
    image = HeifImageFile(io.BytesIO(_HEIC_METADATA.sub(rb"\1none", data)))
    check_size(*image.size)
    return image, 1


# The entry of an item: version, flags, number and protection, then its type. Only images keep their type.
_HEIC_METADATA = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))(?!hvc1|hev1|grid|iden|iovl).{4}", re.DOTALL)
_AVIF_EXIF = re.compile(rb"(infe.{8,10})Exif", re.DOTALL)

OPENERS: dict[str, Callable[[bytes], tuple[Image.Image, int]]] = {
    "PNG": _open_png,
    "WebP": _open_webp,
    "BMP": _open_bmp,
    "GIF": _open_gif,
    "TIFF": _open_tiff,
    "AVIF": _open_avif,
    "HEIC": _open_heic,
}


def _directory(data: bytes) -> tuple[str, dict[int, tuple[int, int, bytes]]]:
    """Return the byte order and the first directory of TIFF or EXIF data: tag -> (type, count, 4 bytes of value).

    Raises:
        KeyError, struct.error: the data is not TIFF data, or is damaged.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}[data[:4]]
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    found: dict[int, tuple[int, int, bytes]] = {}
    for tag, kind, number, value in struct.iter_unpack(order + "HHI4s", data[start + 2 : start + 2 + 12 * count]):
        found.setdefault(tag, (kind, number, value))
    return order, found


def _values(data: bytes, order: str, entry: tuple[int, int, bytes]) -> tuple[int, ...]:
    """Return the values of a directory entry. A fraction is returned as one meaningless number.

    Raises:
        KeyError, struct.error: the type is not bytes, integer or fraction, or the values lie outside `data`.
    """
    kind, count, value = entry
    form = f"{order}{count}{_TIFF_TYPES[kind]}"
    if struct.calcsize(form) <= 4:
        return struct.unpack_from(form, value)
    return struct.unpack_from(form, data, struct.unpack(order + "I", value)[0])


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF or TIFF data, or 1 (upright) if it is missing or the data is damaged."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        order, tags = _directory(exif)
        kind, _, value = tags[0x0112]
        return int(struct.unpack_from(order + {3: "H", 4: "I"}[kind], value)[0])
    except (KeyError, struct.error):
        return 1
