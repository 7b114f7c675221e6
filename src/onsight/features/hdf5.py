"""Read weights from an .h5 file in the layout in which Keras publishes them, without trusting the file.

    /                 attribute layer_names: the layers in order (if it is long: layer_names0, layer_names1, …)
    /<layer>          attribute weight_names: paths below the layer, one per data set

An HDF5 file can point elsewhere: to other files (external links, external storage, virtual data sets), and in circles.
All of this is refused, and so are filters and chunks. Arrays are read only if they are float32, have the shapes of the
network's weights, and are stored uncompressed in one piece.

The HDF5 library itself loops for ever on some damaged files, and nothing but the end of its process stops it. So a
child process reads the file, with limits of time and memory: `python -m onsight.features.hdf5`.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onsight.core.errors import ModelFileError
from onsight.core.memory import limit_memory

LARGEST = 2**30  # bytes of a file; the largest published file used here has 112 MB
SECONDS = 10.0  # for reading a file, and one more for each MB; the largest published one takes 0.5 s
MEMORY = 4 << 30  # bytes of private memory of the child process: the file and its arrays
# The largest number of names in an attribute, and of bytes in a name. Keras also writes names of variable length. HDF5
# knows their length only after reading them whole, so only the limit on their number protects memory.
NAMES, NAME = 2_000, 512
REFUSED = 3  # exit code of the child process


def read_h5(path: Path, shapes: Sequence[tuple[int, ...]], top: Sequence[tuple[int, ...]] = ()) -> list[np.ndarray]:
    """Return the float32 arrays of `shapes` from an .h5 file, in the file's order of layers.

    Args:
        path: the file.
        shapes: what the file must hold, in this order: a network's trainable and other weights, layer by layer.
        top: what the file may hold after that: the weights of the top layers, which are not read.

    Raises:
        ModelFileError: the file holds anything else, stores it in a way that is refused, or cannot be read in time.
    """
    asked = json.dumps({"path": str(path), "shapes": shapes, "top": top})
    seconds = SECONDS + (path.stat().st_size / 1e6 if path.is_file() else 0)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "onsight.features.hdf5"], input=asked.encode(), capture_output=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise ModelFileError(
            f"{path} could not be read as HDF5 within {seconds:.0f} s: it is damaged. Fetch it again."
        ) from None
    if done.returncode == REFUSED:
        raise ModelFileError(done.stdout.decode())
    expected = [math.prod(shape) for shape in shapes]
    if done.returncode or len(done.stdout) != 4 * sum(expected):
        why = (done.stderr.decode(errors="replace").strip() or "no message").splitlines()[-1]
        raise ModelFileError(f"{path} stopped the process that read it ({why}): it is damaged. Fetch it again.")
    numbers = np.frombuffer(done.stdout, "<f4")
    parts = np.split(numbers, np.cumsum(expected)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def main() -> None:
    """Read what standard input asks for; write the numbers, or the message of an error, to standard output."""
    limit_memory(MEMORY)
    asked = json.load(sys.stdin)
    shapes, top = ([tuple(shape) for shape in asked[name]] for name in ("shapes", "top"))
    try:
        arrays = read_here(Path(asked["path"]), shapes, top)
    except ModelFileError as error:
        sys.stdout.buffer.write(str(error).encode())
        sys.exit(REFUSED)
    for array in arrays:
        sys.stdout.buffer.write(array.astype("<f4").data)


def read_here(path: Path, shapes: Sequence[tuple[int, ...]], top: Sequence[tuple[int, ...]] = ()) -> list[np.ndarray]:
    """Do what `read_h5` does, in this process and without limits."""
    import h5py

    try:
        if path.stat().st_size > LARGEST:
            raise ModelFileError(f"{path} has {path.stat().st_size:,} bytes, more than the limit of {LARGEST:,}.")
        with h5py.File(path, "r") as file:
            # A file written by `model.save` has the same layout below this group.
            root = group_at(file, "model_weights") if "model_weights" in file else file
            places: list[tuple[Any, str]] = []
            for layer in names_in(root, "layer_names"):
                group = group_at(root, layer)
                places += [(group, name) for name in names_in(group, "weight_names")]
                if len(places) > len(shapes) + len(top):
                    raise Refused(f"it holds {len(places):,} arrays or more, but the network has {len(shapes):,}")
            if not places:
                raise Refused("it names no layers with weights, so it does not have the layout of Keras' weight files")
            if len(places) not in (len(shapes), len(shapes) + len(top)):
                raise Refused(f"it holds {len(places):,} arrays, but the network has {len(shapes):,}")
            for (group, name), shape in zip(places, [*shapes, *top], strict=False):
                check_dataset(dataset_at(group, name), shape)
            return [values_of(dataset_at(*place)) for place in places[: len(shapes)]]
    except Refused as error:
        raise ModelFileError(f"{path} cannot be used: {error}.") from None
    except OSError as error:  # truncated, or not HDF5 at all
        raise ModelFileError(f"{path} cannot be read as HDF5: {' '.join(str(error).split())}.") from None
    except (KeyError, RuntimeError, ValueError, TypeError, UnicodeError) as error:
        raise ModelFileError(f"{path} is damaged: {' '.join(str(error).split())}.") from None


class Refused(Exception):
    """The file holds something that is refused. The message is the reason, without the path of the file."""


def names_in(group: Any, name: str) -> list[str]:
    """Return the names in an attribute that holds a list of names, in one piece or in numbered pieces."""
    import h5py

    if name in group.attrs:
        pieces = [name]
    else:
        pieces = [f"{name}{piece}" for piece in range(len(group.attrs)) if f"{name}{piece}" in group.attrs]
    found: list[str] = []
    for piece in pieces:
        kind = group.attrs.get_id(piece)
        if len(kind.shape) != 1 or kind.shape[0] > NAMES:
            raise Refused(f"its attribute {piece} has the shape {kind.shape}, but a list of names was expected")
        if kind.shape[0] == 0:  # a layer without weights has an empty list, without a type
            continue
        if h5py.check_string_dtype(kind.dtype) is None or kind.dtype.itemsize > NAME:
            raise Refused(f"its attribute {piece} is not a list of names")
        values = group.attrs[piece].tolist()
        found += [value if isinstance(value, str) else value.decode() for value in values]
        if len(found) > NAMES or any(len(text) > NAME for text in found):
            raise Refused(
                f"its attribute {name} holds more than {NAMES:,} names, or one of more than {NAME} characters"
            )
    return found


def group_at(group: Any, path: str) -> Any:
    """Return the group at a path that consists of hard links only."""
    import h5py

    found = object_at(group, path)
    if not isinstance(found, h5py.Group):
        raise Refused(f"its '{path}' is not a group")
    return found


def dataset_at(group: Any, path: str) -> Any:
    """Return the data set at a path that consists of hard links only."""
    import h5py

    found = object_at(group, path)
    if not isinstance(found, h5py.Dataset):
        raise Refused(f"its '{path}' is not a data set")
    return found


def object_at(group: Any, path: str) -> Any:
    """Return the group or data set at a path below `group`. Check each step: it must be a hard link."""
    import h5py

    for step in path.split("/"):
        if step in ("", ".", "..") or not isinstance(group, h5py.Group):
            raise Refused(f"its path '{path}' is not valid")
        link = group.get(step, getlink=True)
        if type(link) is not h5py.HardLink:
            raise Refused(f"its '{path}' is {'missing' if link is None else 'a soft or external link'}")
        group = group[step]
    return group


def check_dataset(found: Any, shape: tuple[int, ...]) -> None:
    """Refuse a data set of another shape or type, or whose numbers are not stored in this file as they are.

    Axes of length 1 do not count: Keras' ConvNeXt has them elsewhere in the kernels of depthwise convolutions.
    """
    import h5py

    plan = found.id.get_create_plist()
    if plan.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) or plan.get_nfilters():
        raise Refused(f"its '{found.name}' is virtual, chunked or filtered, but weights must be stored in one piece")
    if plan.get_external_count():
        raise Refused(f"its '{found.name}' is stored in another file")
    lengths, expected = ([length for length in each if length != 1] for each in (found.shape, shape))
    if found.dtype != np.dtype("<f4") or lengths != expected:
        raise Refused(f"its '{found.name}' is {found.dtype} {found.shape}, but the network has float32 {tuple(shape)}")


def values_of(found: Any) -> np.ndarray:
    """Return the numbers of a checked data set; refuse NaN and infinity."""
    values = np.asarray(found[()], np.float32)
    if not np.isfinite(values).all():
        raise Refused(f"its '{found.name}' holds NaN or infinity")
    return values


if __name__ == "__main__":
    main()
