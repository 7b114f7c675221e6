"""Checkpoints that are either complete or absent: after a power cut at any moment, at least one is valid.

    checkpoints/00000017/        one numbered folder per checkpoint
        state.safetensors        all arrays: weights, optimizer, seed generators, the best weights so far
        state.json               all numbers: epoch, step, running totals, the state of early stopping, the history
        manifest.json            the SHA-256 of both files, written last

A checkpoint is written in this order: create a new folder, write and sync each file, sync the folder, rename it, sync
its parent. The newest two are kept. An older one is removed only after the new one has been read back and verified.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from onsight.core.errors import RunError
from onsight.core.files import make_folder, read_json, sha256, sync_file, sync_folder, write_json

FILES = ("state.safetensors", "state.json")
KEPT = 2


class Checkpoint(NamedTuple):
    """The content of a checkpoint, and its folder."""

    arrays: dict[str, np.ndarray]
    state: dict[str, Any]
    folder: Path


def save_checkpoint(root: Path, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> Path:
    """Write a new checkpoint below `root`, verify it, remove all but the newest two, and return its folder.

    Raises:
        OSError: it could not be written, for example because the disk is full. Existing checkpoints stay untouched.
    """
    make_folder(root)
    for leftover in root.glob("*.partial"):  # of a killed process: we hold the run's lock, so nobody else is writing
        shutil.rmtree(leftover, ignore_errors=True)
    number = max((int(path.name) for path in checkpoint_folders(root)), default=0) + 1
    folder = root / f"{number:08d}"
    partial = root / f"{folder.name}.partial"
    try:
        partial.mkdir()
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, partial / FILES[0])
        sync_file(partial / FILES[0])
        write_json(partial / FILES[1], state)
        write_json(partial / "manifest.json", {name: sha256(partial / name) for name in FILES})
        sync_folder(partial)
        os.rename(partial, folder)
        sync_folder(root)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) or "safetensor" not in type(error).__name__.lower():
            raise
        raise OSError(str(error)) from error  # safetensors raises its own type of error for a full disk
    if not is_valid(folder):
        raise OSError(f"{folder} does not read back as it was written: the disk is failing.")
    for old in checkpoint_folders(root)[:-KEPT]:
        shutil.rmtree(old)
    return folder


def load_checkpoint(root: Path) -> Checkpoint:
    """Return the newest checkpoint below `root` whose files have the checksums of its manifest.

    Raises:
        RunError: there is no valid checkpoint.
    """
    for folder in reversed(checkpoint_folders(root)):
        if is_valid(folder):
            state = read_json(folder / FILES[1])
            return Checkpoint(load_file(folder / FILES[0]), state, folder)
    raise RunError(
        f"{root} holds no valid checkpoint: training stopped before the first one, or all are damaged. Train again "
        "from the start."
    )


def checkpoint_folders(root: Path) -> list[Path]:
    """Return the checkpoint folders below `root`, oldest first."""
    return sorted(path for path in root.glob("[0-9]*") if path.name.isdigit()) if root.is_dir() else []


def is_valid(folder: Path) -> bool:
    """Return whether the manifest exists and both files have its checksums."""
    try:
        manifest = read_json(folder / "manifest.json")
        return all(manifest[name] == sha256(folder / name) for name in FILES)
    except (OSError, ValueError, KeyError, TypeError):
        return False
