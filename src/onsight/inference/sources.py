"""The images that a user wants answers for: paths, folders, patterns, shards, addresses, bytes, PIL images, arrays."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from onsight.core.errors import DataError, ImageError
from onsight.core.files import is_address
from onsight.data.reading import names_shards
from onsight.imaging import decode
from onsight.imaging.containers import MAX_BYTES
from onsight.imaging.decode import ImageSource

# An image, or what reads it when its turn comes, or why it cannot be used.
Source = ImageSource | Callable[[], bytes] | ImageError


def as_iterable(images: ImageSource | Iterable[ImageSource]) -> Iterable[ImageSource]:
    """Return several images unchanged, and a single one in a list."""
    single = isinstance(images, str | os.PathLike | bytes | np.ndarray) or hasattr(images, "getexif")
    return [images] if single else images  # type: ignore[list-item, return-value]


def expand(images: Iterable[ImageSource]) -> Iterator[tuple[str, Source]]:
    """Yield one (source, image) per image. Folders, patterns, shards and addresses are replaced by the images in them.

    Raises:
        DataError: a path, folder, pattern or address names no image, or a shard is damaged.
    """
    for place in find_places(images):
        if isinstance(place, str):
            from onsight.data.shards import images_of

            yield from images_of(place)
        else:
            yield place


def find_places(images: Iterable[ImageSource]) -> Iterator[str | tuple[str, Source]]:
    """Yield the path or address of each shard, and one (source, image) per other image; those in a folder sorted.

    Raises:
        DataError: a path, folder, pattern or address names no image.
    """
    for number, image in enumerate(images, start=1):
        if not isinstance(image, str | os.PathLike):
            yield f"image {number}", image
            continue
        path = os.fspath(image)
        if path == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
            too_long = ImageError(f"It has more than {MAX_BYTES >> 20} MiB, the most that can be read.")
            yield "standard input", content if len(content) <= MAX_BYTES else too_long
            continue
        if is_address(path):
            yield from _at_address(path)
            continue
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError):  # ValueError: the path contains a NUL
            mode = 0
        if names_shards(path) or stat.S_ISDIR(mode):
            from onsight.data.folder import (
                walk,  # as in training: it skips hidden files and follows links to folders
            )
            from onsight.data.shards import find_shards

            found = sorted(str(Path(path) / name) for name in walk(Path(path))[0]) if stat.S_ISDIR(mode) else []
            shards = [] if found else find_shards(path)
            if not found and not shards:
                raise DataError(f"The folder '{path}' holds no images ({', '.join(sorted(decode.SUFFIXES))}).")
            yield from shards
            yield from ((file, file) for file in found)
        elif mode:
            yield path, path
        else:
            found = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
            if not found:
                raise DataError(f"There is no image at '{path}'. Give files, folders, patterns like 'x/*.jpg', or -.")
            yield from ((file, file) for file in found)


def _at_address(address: str) -> Iterator[str | tuple[str, Source]]:
    from onsight.data.address import list_address
    from onsight.data.remote import read
    from onsight.data.shards import find_shards

    images, shards = ({}, find_shards(address)) if names_shards(address) else list_address(address)
    if not images and not shards:
        raise DataError(f"There are no images at '{address}' ({', '.join(sorted(decode.SUFFIXES))}, or shards).")
    yield from [] if images else shards
    for name in sorted(images):
        yield f"{address.rstrip('/')}/{name}", partial(read, address, {name: images[name]}, name)


def opened(source: Source) -> ImageSource:
    """Return the image itself.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(source, ImageError):
        raise source
    return source() if callable(source) else source
