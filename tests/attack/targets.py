"""What is attacked: for each kind of file, good examples and what Onsight does with a damaged one."""

from __future__ import annotations

import io
import itertools
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from attack.mutations import mutated, mutated_json

SHAPES = [(3, 3, 3, 8), (8,), (8, 4)]
RUN_FILES = ("spec.json", "dataset.json", "history.jsonl", "split.csv", "model/model.json", "model/manifest.json",
             "evaluations/test/metrics.json", "evaluations/test/predictions.csv")  # fmt: skip


class Target(NamedTuple):
    """A kind of file.

    Attributes:
        examples: given a folder and a finished run, returns good files by their suffixes.
        use: reads a damaged file; it may raise OnsightError, and nothing else.
    """

    examples: Callable[[Path, Path], list[tuple[str, bytes]]]
    use: Callable[[Path, Path], None]


def pictures() -> list[tuple[str, bytes]]:
    """Return small pictures of every format and of the modes that decoders treat differently."""
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.normal(0, 6, (40, 56, 4)), axis=1) + 128
    rgba = Image.fromarray(smooth.clip(0, 255).astype(np.uint8), "RGBA")
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    exif = Image.Exif()
    exif[274] = 6
    deep = Image.fromarray((np.asarray(grey).astype(np.uint16)) * 257)
    made: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "JPEG", {}), (rgb, "JPEG", {"progressive": True, "exif": exif}), (rgb.convert("CMYK"), "JPEG", {}),
        (grey, "JPEG", {"restart_marker_blocks": 2}), (rgb, "PNG", {}), (rgba, "PNG", {}), (deep, "PNG", {}),
        (rgb.quantize(16), "PNG", {"transparency": 3}), (rgb, "WEBP", {}), (rgba, "WEBP", {"lossless": True}),
        (rgb.quantize(32), "GIF", {}), (rgb, "BMP", {}), (rgb.quantize(4), "BMP", {}), (rgb, "TIFF", {}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}), (rgb, "TIFF", {"compression": "jpeg"}),
        (grey.convert("1"), "TIFF", {"compression": "group4"}), (deep, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (rgb, "AVIF", {}),
    ]  # fmt: skip
    found = []
    for image, kind, options in made:
        file = io.BytesIO()
        try:
            image.save(file, kind, **options)
        except (OSError, KeyError, ValueError):  # this build of Pillow cannot write it
            continue
        found.append((f".{kind.lower()}", file.getvalue()))
    return found


def use_picture(path: Path, run: Path) -> None:
    from onsight.imaging import decode

    data = path.read_bytes()
    for read in (decode.header, lambda data: decode.load(data, 32)):
        read(data)


def members() -> list[tuple[str, bytes]]:
    """Return eight pictures of two classes, as the members of an archive."""
    jpeg = pictures()[0][1]
    return [(f"photos/{name}/{number}.jpg", jpeg) for name in ("ant", "bee") for number in range(4)]


def archives(folder: Path, run: Path) -> list[tuple[str, bytes]]:
    """Return zip files, stored and compressed."""
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, data in members():
                archive.writestr(name, data)
        found.append((".zip", file.getvalue()))
    return found


def shards(folder: Path, run: Path) -> list[tuple[str, bytes]]:
    """Return tar shards in three formats: pictures with their classes."""
    found = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
            for number, (_, data) in enumerate(members()):
                for suffix, content in (("jpg", data), ("cls", str(number // 4).encode())):
                    entry = tarfile.TarInfo(f"{number:06d}.{suffix}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
        found.append((".tar", file.getvalue()))
    return found


def use_data(path: Path, run: Path) -> None:
    from onsight.data.load import load_dataset
    from onsight.data.pixel_cache import load_pixels

    load_pixels(load_dataset(path), 32, pass_over_all=True)


def weight_files(folder: Path, run: Path) -> list[tuple[str, bytes]]:
    from safetensors.numpy import save

    rng = np.random.default_rng(0)
    return [(".safetensors", save({f"w{i}": rng.normal(size=s).astype("float32") for i, s in enumerate(SHAPES)}))]


def use_weights(path: Path, run: Path) -> None:
    from onsight.models.model_file import read_tensors

    read_tensors(path, {f"w{number}": (shape, "float32") for number, shape in enumerate(SHAPES)}, None)


def hdf5_files(folder: Path, run: Path) -> list[tuple[str, bytes]]:
    import h5py

    rng = np.random.default_rng(0)
    with h5py.File(folder / "good.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv", b"dense"]
        for name, shapes in (("conv", SHAPES[:2]), ("dense", SHAPES[2:])):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{number}".encode() for number in range(len(shapes))]
            for number, shape in enumerate(shapes):
                group[f"{name}/{number}"] = rng.normal(size=shape).astype("float32")
    return [(".h5", (folder / "good.h5").read_bytes())]


def use_hdf5(path: Path, run: Path) -> None:
    from onsight.features.hdf5 import read_h5

    read_h5(path, SHAPES)


def litert_files(folder: Path, run: Path) -> list[tuple[str, bytes]]:
    return [(".tflite", (run / "model" / "model.tflite").read_bytes())]


def use_litert(path: Path, run: Path) -> None:
    """Open a file whose checksum fits, as a stranger's could, and let it answer."""
    from onsight.inference.engines import LitertEngine
    from onsight.models.model_file import read_description

    engine = LitertEngine(path.read_bytes(), read_description(run / "model"))
    images = np.random.default_rng(0).integers(0, 256, (3, engine.size, engine.size, 3), dtype=np.uint8)
    assert np.isfinite(engine.probabilities(images, threads=1)).all()


def run_files(folder: Path, run: Path) -> list[tuple[str, bytes]]:
    return [(f"@{name}", (run / name).read_bytes()) for name in RUN_FILES if (run / name).is_file()]


def use_run(path: Path, run: Path) -> None:
    """Put the file into a copy of the run, and let the commands read it that read runs."""
    copy = path.parent / "runs" / "attacked"
    shutil.rmtree(copy.parent, ignore_errors=True)
    shutil.copytree(run, copy)
    (copy / path.name.partition("@")[2].replace("%", "/")).write_bytes(path.read_bytes())
    picture = path.parent / "picture.jpg"
    picture.write_bytes(pictures()[0][1])
    commands = (["runs", str(copy.parent)], ["predict", str(copy), str(picture)], ["report", str(copy)],
                ["compare", str(copy), str(run), "--out", str(path.parent / "compare.html")])  # fmt: skip
    for words in commands:
        command(words)


def command(words: list[str]) -> None:
    """Run a command in this process, as `python -m onsight` does. An exception that is not ours passes."""
    from onsight.__main__ import run

    sys.argv = ["onsight", *words]
    try:
        run()
    except SystemExit as end:
        if end.code not in (0, 1, 2, None):
            raise


TARGETS: dict[str, Target] = {
    "picture": Target(lambda folder, run: pictures(), use_picture),
    "zip": Target(archives, use_data),
    "tar": Target(shards, use_data),
    "safetensors": Target(weight_files, use_weights),
    "h5": Target(hdf5_files, use_hdf5),
    "tflite": Target(litert_files, use_litert),
    "run": Target(run_files, use_run),
}


def damaged(name: str, examples: list[tuple[str, bytes]], number: int) -> tuple[str, bytes]:
    """Return the suffix and the bytes of damaged file `number` of a kind."""
    kind = list(TARGETS).index(name)
    rng = np.random.default_rng([20261129, kind, number])
    suffix, data = examples[number % len(examples)]
    structured = suffix.endswith((".json", ".jsonl")) and rng.random() < 0.7
    if not structured:
        return suffix, mutated(data, rng)
    if suffix.endswith(".json"):
        return suffix, mutated_json(data, rng)
    lines = data.splitlines()
    at = int(rng.integers(len(lines)))
    return suffix, b"\n".join(itertools.chain(lines[:at], [mutated_json(lines[at], rng)], lines[at + 1 :])) + b"\n"
