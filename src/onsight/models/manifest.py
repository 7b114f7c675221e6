"""manifest.json of a run's model folder: which checkpoint the model is of, and the SHA-256 of model.json.

model.json has the SHA-256 of the other files, so the manifest protects them all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from onsight.core.errors import ModelFileError
from onsight.core.files import read_json, sha256, write_json

SCHEMA = 1
MANIFEST = "manifest.json"
LIMIT = 4096  # bytes


def write_manifest(folder: Path, checkpoint: int) -> None:
    """Write `folder`/manifest.json for the number of the checkpoint that the model is of."""
    write_json(folder / MANIFEST, {"schema": SCHEMA, "checkpoint": checkpoint, "sha256": sha256(folder / "model.json")})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the content of `folder`/manifest.json; nothing if there is none, as in runs of earlier versions.

    Raises:
        ModelFileError: it is damaged.
    """
    path = folder / MANIFEST
    try:
        found = read_json(path, LIMIT)
        if type(found["checkpoint"]) is int and is_sha256(found["sha256"]):
            return dict(found)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ModelFileError(f"{path} is damaged, or was not written by Onsight.")


def is_sha256(value: Any) -> bool:
    """Return whether a value is a string of 64 hexadecimal digits."""
    return type(value) is str and re.fullmatch("[0-9a-f]{64}", value) is not None
