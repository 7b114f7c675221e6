"""The files that describe exported files: contract.json, and a README.md whose code can be run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onsight.core.errors import ExportError
from onsight.core.files import read_json, sha256
from onsight.core.records import ExportRow
from onsight.exporting.formats import FORMATS, READERS, file_name
from onsight.exporting.image_files import from_file
from onsight.exporting.usage import usage
from onsight.imaging.fit import DECODED, RESAMPLED, SENTENCES
from onsight.inference.parity import TOLERANCE
from onsight.models.model_file import ModelDescription
from onsight.runs.run import Run

# What a reader of README.md installs, where it is not the packages that the format's reader imports.
NEEDS = {"keras": "keras, and tensorflow or jax", "web": "a browser; for the code below, ai-edge-litert"}
ROUNDING = 0.1  # a quantized file's answers differ by up to that much between processors, whose kernels round otherwise


def make_contract(description: ModelDescription, folder: Path, table: list[ExportRow]) -> dict[str, Any]:
    """Return the content of contract.json: the input and output that all files share, and the checksums of each."""
    size = description.image_size
    return {
        "schema": 1,
        "model": description.model,
        "weights_sha256": description.weights_sha256,
        "input": {
            "name": "image",
            "dtype": "uint8",
            "shape": ["batch", size, size, 3],
            "channels": "RGB",
            "decoding": DECODED,
            "geometry": description.geometry,
            "resampling": RESAMPLED,
        },
        "output": {"name": "probabilities", "dtype": "float32", "shape": ["batch", len(description.classes)]},
        **distance_output(description),
        "inside": ["normalisation", "temperature", "softmax"],
        "temperature": description.temperature,
        "threshold": description.threshold,
        "files": {
            row["file"]: {
                "format": row["format"],
                "precision": row["precision"],
                "max_difference": row["max_difference"],
                **file_distance(description, row),
                "sha256": checksums(folder / row["file"]),
            }
            for row in table
        },
    }


def distance_output(description: ModelDescription) -> dict[str, Any]:
    """Return the entry of contract.json about the output `distance`; empty if the model has none."""
    if not description.prototypes:
        return {}
    meaning = (
        "1 minus the largest cosine of the image's features to a prototype of the training images: above the "
        "threshold, the image is unlike the training images"
    )
    return {
        "distance": {
            "name": "distance",
            "dtype": "float32",
            "shape": ["batch"],
            "threshold": description.distance_threshold,
            "meaning": meaning,
        }
    }


def file_distance(description: ModelDescription, row: ExportRow) -> dict[str, Any]:
    """Return whether a file has the output `distance`, and how far from Keras' it is; empty if the model has none."""
    if not description.prototypes:
        return {}
    if "max_distance_difference" not in row:
        return {"distance": False}
    return {"distance": True, "max_distance_difference": row["max_distance_difference"]}


def read_contract(folder: Path) -> dict[str, Any] | None:
    """Return the content of contract.json in an `export/`, or None if there is no such file.

    Raises:
        ExportError: the content is not what `make_contract` returns.
    """
    path = folder / "contract.json"
    if not path.exists():
        return None
    try:
        value = read_json(path)
        known = {file_name(name, precision) for name in FORMATS for precision in FORMATS[name].precisions}
        if value["schema"] != 1 or not set(value["files"]) <= known or not isinstance(value["weights_sha256"], str):
            raise ValueError("it has unknown file names or a schema other than 1")
        for name, entry in value["files"].items():
            if name != file_name(entry["format"], entry["precision"]) or not isinstance(entry["sha256"], dict):
                raise ValueError(f"its entry for {name} is invalid")
            float(entry["max_difference"] or 0)  # null: not proven
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ExportError(
            f"{path} is damaged, or was not written by Onsight: {error}. Remove {folder} and export again."
        ) from None
    checked: dict[str, Any] = value
    return checked


def readme(run: Run, description: ModelDescription, table: list[ExportRow]) -> str:
    """Return the content of README.md: the input and output, and for each file the code to use it, which tests run."""
    size, count = description.image_size, len(description.classes)
    parts = [
        f"# {run.name}\n",
        f"A `{description.model}` model. Its input `image` takes uint8 RGB images `(batch, {size}, {size}, 3)`. Its "
        f"output `probabilities` is float32 `(batch, {count})`, in the order of `labels.json`. Normalisation, "
        "temperature and softmax are part of the model, so its input is plain pixels: "
        f"{SENTENCES[description.fit].format(size=size)}. `contract.json` describes the same for programs. `vectors/` "
        "holds test images and the model's probabilities for them. For a quantized file it also holds the "
        f"file's own answers; on other processors they may differ by {ROUNDING:g}.\n",
    ]
    if description.threshold is not None:
        parts.append(f"If the largest probability is below {description.threshold:g}, treat the answer as unsure.\n")
    if description.prototypes:
        parts.append(
            "The output `distance`, float32 `(batch,)`, says how unlike its training images an image is. If the "
            f"distance is above {description.distance_threshold:.4g}, the image is unlike the training images: treat "
            "the answer as unsure, whatever the probabilities are.\n"
        )
        if without := [f"`{row['file']}`" for row in table if "max_distance_difference" not in row]:
            parts.append(f"Without this output: {', '.join(without)}.\n")
    parts.append(from_file(description))
    for row in table:
        format_ = FORMATS[row["format"]]
        needs = NEEDS.get(row["format"]) or ", ".join(name.replace("_", "-") for name in sorted(format_.reads))
        opened = row["file"] + (f"/{format_.opened}" if format_.opened else "")
        parts += [
            f"## {row['file']}\n",
            f"{format_.description}; {row['precision']}, {row['bytes']:,} bytes. Needs: {needs}.\n",
            f"```python\n{example(description, row, opened)}```\n",
        ]
        if more := usage(run.name, description, row):
            parts.append(more)
    return "\n".join(parts)


def example(description: ModelDescription, row: ExportRow, opened: str) -> str:
    """Return a script that opens an exported file, runs it on the test vectors and compares the answers.

    A float32 file is compared with Keras, a quantized one with its own answers when it was written.

    Args:
        description: of the model.
        row: of the file.
        opened: the path to open, relative to `export/`.
    """
    reader = (READERS / f"read_{row['format']}.py").read_text("utf-8")
    distance, quantized = "max_distance_difference" in row, row["precision"] != "float32"
    own, within = f'np.load("vectors/{own_answers(row["file"])}")', ROUNDING if quantized else TOLERANCE
    expected = f'{own}["probabilities"]' if quantized else 'np.load("vectors/probabilities.npy")'
    away = f'{own}["distances"]' if quantized else 'np.load("vectors/distances.npy")'
    lines = [
        reader.replace("from collections.abc", "import json\nfrom collections.abc", 1) + "\n",
        f'answer = open_model("{opened}")',
        'images = np.load("vectors/pictures.npy")',
        f"{'found, distances' if distance else 'found'} = answer(images)",
        'with open("labels.json", encoding="utf-8") as file:',
        "    labels = json.load(file)",
        "print(labels[found[0].argmax()], found[0].max())",
        f"assert np.abs(found - {expected}).max() <= {within:g}",
    ]
    if distance:
        lines += [
            f"if distances[0] > {description.distance_threshold!r}:",
            '    print("unlike the training images")',
            f"assert np.abs(distances - {away}).max() <= {within:g}",
        ]
    return "\n".join([*lines, ""])


def own_answers(name: str) -> str:
    """Return the name of the file in `vectors/` that holds a quantized file's own answers to the test vectors."""
    return f"{name}.npz"


def checksums(path: Path) -> dict[str, str]:
    """Return {path: SHA-256} of a file, or of all files in a folder relative to it; empty if nothing is there."""
    if path.is_file():
        return {path.name: sha256(path)}
    return {file.relative_to(path).as_posix(): sha256(file) for file in sorted(path.rglob("*")) if file.is_file()}


def size_of(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
