"""The only decoder of images: bytes -> RGB uint8. All code that reads images goes through this file.

A file is recognised by its first bytes, never by its name. Pillow, for HEIC pi-heif, decodes it after `containers` has
read its headers, checked them against limits and kept only the parts that carry pixels. So comments, profiles,
thumbnails, later frames and compressed texts cannot slow down decoding. Nothing can cause a warning
(`warnings.catch_warnings` is not thread-safe). Nothing large is allocated before its size is known.

How samples become RGB:

- EXIF orientation is applied, in AVIF and HEIC the rotation that they have instead; colour profiles are not.
- Transparent pixels are blended with white: round((alpha * colour + (255 - alpha) * 255) / 255).
- 16-bit greys, including those in Pillow's integer modes, become round(value / 257). Floating-point greys from 0 to 1
  become round(value * 255). A value outside the range is refused. 16-bit colours keep their high byte. The decoders
  of AVIF and HEIC scale 10 and 12 bits to 8.
- Only the first frame or page is used, of HEIC the primary image.
"""

from __future__ import annotations

import io
import os
import stat

import numpy as np
from PIL import Image

from onsight.core.errors import ImageError
from onsight.core.memory import room
from onsight.imaging.augment import GREY
from onsight.imaging.containers import (
    MAX_BYTES,
    MAX_JPEG_PIXELS,
    OPENERS,
    SAVE_AGAIN,
    check_size,
    decode_jpeg,
    exif_orientation,
    file_format,
    jpeg_header,
)
from onsight.imaging.fit import Fit, Place, place

# What `load` accepts: a path, the bytes of a file, a Pillow image, or a uint8 array (H, W), (H, W, 1), (H, W, 3) RGB or
# (H, W, 4) RGBA.
ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
# A folder scan treats files with these suffixes as images. HEIC is among them even if pi-heif, which decodes it, is not
# installed, so that such files are reported, not silently ignored.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"}
)
BACKGROUND = (255, 255, 255)
WHOLE = 2**20  # pixels of a JPEG whose pixels are hashed
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> the operation that turns the image upright


def decode(data: bytes) -> np.ndarray:
    """Decode the bytes of an image file: JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF if Pillow supports it, HEIC by pi-heif.

    The pixels depend on the file alone, never on the size that the caller needs: training, `predict`, the page in a
    browser and the users of exported files must see the same ones. Only a JPEG of more than 25 million pixels is
    decoded at a reduced size (`containers.decode_jpeg`).

    Returns:
        (H, W, 3) uint8 RGB, read-only.

    Raises:
        ImageError: the bytes are not a complete image of a known format, or the image is too large; the message says
            which.
    """
    return _array(_decoded(data))


def _decoded(data: bytes) -> Image.Image:
    """Return what `decode` returns, as a Pillow image."""
    kind = file_format(data)
    try:
        if kind == "JPEG":
            found = jpeg_header(data)
            with room(found.memory):
                return _rgb(decode_jpeg(data, found), exif_orientation(found.exif))
        image, orientation = OPENERS[kind](data)
        with room(12 * image.width * image.height):  # four channels of 16 bits, then RGB
            image.load()
            return _rgb(image, orientation)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises nearly every type of exception for damaged bytes
        raise ImageError(f"The {kind} data is damaged or cut short ({len(data):,} bytes). {SAVE_AGAIN}.") from error


def header(data: bytes) -> tuple[int, int, int]:
    """Return the width and height in pixels as stored, and the EXIF orientation (1 is upright), without decoding.

    Raises:
        ImageError: as `decode`, for problems that the header shows.
    """
    kind = file_format(data)
    try:
        if kind == "JPEG":
            found = jpeg_header(data)
            return found.width, found.height, exif_orientation(found.exif)
        image, orientation = OPENERS[kind](data)
        return *image.size, orientation
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"The {kind} data is damaged or cut short ({len(data):,} bytes). {SAVE_AGAIN}.") from error


def resize(image: np.ndarray, size: int, fit: Fit = "cut") -> np.ndarray:
    """Scale an image to a square: its centre square, or all of it on grey. Return `image` itself if it is that square.

    Any implementation of the following geometry gives the same bits. `fit.place` says which rows and columns are
    scaled, to how many, and where they lie in the result. If n columns become m, then with r = n / m, column i of the
    result is centred on c = (i + 0.5) r, and column k has the weight max(0, 1 - |k + 0.5 - c| / max(r, 1)): a triangle,
    widened when shrinking. The weights are divided by their sum and rounded to multiples of 2^-22. Columns are
    resampled first, then rows in the same way. Both passes round to uint8, halves up.

    Args:
        image: (H, W, 3) uint8, H and W at least 1.
        size: pixels, at least 1.
        fit: "cut" takes the centre square; "pad" takes the whole image and fills the rest of the square with grey 128,
            the middle of the range, which is also the colour of the holes that cutout paints.

    Returns:
        (size, size, 3) uint8; a view of `image` if no scaling or padding is needed.
    """
    height, width = image.shape[:2]
    if height == width == size:
        return image
    at = place(height, width, size, fit)
    # Crop before scaling: scaled to 224, an image of 1 x 5,000 would be 1,120,000 pixels long.
    taken = image[at.top : at.top + at.height, at.left : at.left + at.width]
    if (at.height, at.width) != (at.to_height, at.to_width):
        taken = _array(_scaled(Image.fromarray(taken), at))
    return _on_square(taken, at, size)


def _fitted(image: Image.Image, size: int, fit: Fit) -> np.ndarray:
    """Return what `resize` returns for a Pillow image, which need not become an array before it is scaled."""
    if image.size == (size, size):
        return _array(image)
    at = place(image.height, image.width, size, fit)
    taken = image.crop((at.left, at.top, at.left + at.width, at.top + at.height))
    return _on_square(_array(_scaled(taken, at)), at, size)


def _scaled(taken: Image.Image, at: Place) -> Image.Image:
    """Return the rows and columns that are scaled, scaled."""
    if at.height != at.width:  # the columns in a call of their own: Pillow may begin with the rows of a tall image
        taken = taken.resize((at.to_width, at.height), Image.Resampling.BILINEAR)
    return taken.resize((at.to_width, at.to_height), Image.Resampling.BILINEAR)


def _on_square(taken: np.ndarray, at: Place, size: int) -> np.ndarray:
    """Return a scaled image in its place on a grey square, or the image itself if it fills the square."""
    if (at.to_height, at.to_width) == (size, size):
        return taken
    square = np.full((size, size, 3), GREY, np.uint8)
    square[at.down : at.down + at.to_height, at.right : at.right + at.to_width] = taken
    return square


def load(source: ImageSource, size: int, fit: Fit = "cut") -> np.ndarray:
    """Return an image from any source that a user may give, at `size` x `size` pixels.

    Args:
        source: a path; the bytes of a file; a Pillow image; or an array (H, W), (H, W, 1), (H, W, 3) RGB or
            (H, W, 4) RGBA of uint8.
        size: pixels per side.
        fit: "cut" to the centre square, or "pad" the whole image (see `resize`).

    Returns:
        (size, size, 3) uint8 RGB. Treat it as read-only: it is `source` itself if nothing had to be done.

    Raises:
        ImageError: `source` is not an image; the message says what it is and what was expected.
    """
    if isinstance(source, np.ndarray):
        return resize(_from_array(source), size, fit)
    if isinstance(source, Image.Image):
        return _fitted(_from_pillow(source), size, fit)
    if isinstance(source, bytes):
        return _fitted(_decoded(source), size, fit)
    if isinstance(source, str | os.PathLike):
        return _fitted(_decoded(_read(source)), size, fit)
    raise ImageError(f"A {type(source).__name__} is not an image; expected a path, bytes, a Pillow image or an array.")


def load_and_whole(data: bytes, size: int, fit: Fit = "cut") -> tuple[np.ndarray, bytes | None]:
    """Return what `load` returns for the bytes of a file, and the pixels (H, W, 3) of the whole image as bytes.

    The pixels are None for a JPEG of more than 2^20 pixels: to copy and hash them would take half as long as to decode
    it.
    """
    image = _decoded(data)
    large = image.width * image.height > WHOLE and file_format(data) == "JPEG"
    return _fitted(image, size, fit), None if large else image.tobytes()


def thumbnail(image: np.ndarray, size: int = 96, fit: Fit = "cut") -> bytes:
    """Return an (H, W, 3) uint8 image, fitted to a square, as a small WebP file for a page, never enlarged.

    Up to 64 px the file is lossless, because a lossy WebP halves the colour resolution, which is visible in images this
    small.
    """
    file = io.BytesIO()
    height, width = image.shape[:2]
    side = min(size, max(height, width) if fit == "pad" else min(height, width))
    Image.fromarray(resize(image, side, fit)).save(file, "WEBP", lossless=side <= 64, quality=80, method=4)
    return file.getvalue()


def _read(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file that a user named."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            raise ImageError("The path is not a file but a folder or a device; expected the path of an image.")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"The file has {status.st_size >> 20:,} MiB; at most 256 MiB can be read.")
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except (FileNotFoundError, ValueError):  # ValueError: a path with a NUL
        raise ImageError("The file does not exist; expected the path of an image.") from None
    except OSError as error:
        raise ImageError(f"The file cannot be read ({error.strerror}).") from error


def _from_array(array: np.ndarray) -> np.ndarray:
    """Return `array` as (H, W, 3) uint8."""
    if array.dtype != np.uint8:
        advice = " Convert 0 to 1 with (255 * array).round().astype('uint8')." if array.dtype.kind == "f" else ""
        raise ImageError(f"The array has the type {array.dtype}; expected uint8, from 0 to 255.{advice}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"The array has the shape {array.shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).")
    return array if array.ndim == 3 and array.shape[2] == 3 else _array(_rgb(Image.fromarray(array), 1))


def _from_pillow(image: Image.Image) -> Image.Image:
    """Return a user's Pillow image as RGB, turned upright by its EXIF data."""
    check_size(*image.size, MAX_JPEG_PIXELS)
    try:
        image.load()
        exif = image.info.get("exif")
        return _rgb(image, exif_orientation(exif) if isinstance(exif, bytes) else 1)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"The Pillow image cannot be read: its file is damaged or closed. {SAVE_AGAIN}.") from error


def _array(image: Image.Image) -> np.ndarray:
    """Return an RGB image as (H, W, 3) uint8, read-only."""
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)


def _rgb(image: Image.Image, orientation: int) -> Image.Image:
    """Return a loaded image of any mode as RGB, turned upright."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _grey(image)
    if image.mode != "RGB" or "transparency" in image.info:
        if image.has_transparency_data:
            if image.mode == "La":
                image = image.convert("LA")
            layer = image.convert("RGBA")
            image = Image.new("RGB", image.size, BACKGROUND)
            image.paste(layer, mask=layer)
        else:
            image = image.convert("RGB")
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    return image


def _grey(image: Image.Image) -> Image.Image:
    """Return a grey image of 16 or 32 bits scaled to 8 bits. Pillow's convert() would clip it."""
    values = np.asarray(image)
    white = 1 if image.mode == "F" else 65535
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= white:
        raise ImageError(f"The grey values range from {low:g} to {high:g}; expected 0 to {white}. {SAVE_AGAIN}.")
    # float32 is exact enough: a value is never closer than 1/514 to the middle between two results.
    scaled = Image.fromarray(np.rint(values * np.float32(255 / white)).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        scaled.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return scaled
