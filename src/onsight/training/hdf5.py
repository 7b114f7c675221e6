"""Weights from an .h5 file in the layout in which Keras publishes them, by a walk that lets the file decide nothing.

    /                 attribute layer_names: the layers in order (layer_names0, layer_names1, … where it is long)
    /<layer>          attribute weight_names: paths below it, to one data set each

An HDF5 file can point elsewhere: to other files (external links, external storage, virtual data sets), and in circles.
All of that is refused, and so are filters and chunks: what is read is float32, in the shape that the network has, and
lies in the file as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onsight.core.errors import ModelFileError

LARGEST = 2**30  # bytes of a file; the largest published one here has 112 MB
# At most so many names in an attribute, of so many bytes; where each may have any length, which Keras does too, HDF5
# tells the length only by reading it, so that their number is all that keeps the memory from being filled.
NAMES, NAME = 2_000, 512


def read_h5(path: Path, shapes: Sequence[tuple[int, ...]], top: Sequence[tuple[int, ...]] = ()) -> list[np.ndarray]:
    """Return the float32 arrays of `shapes` from an .h5 file, in the file's order of layers.

    Args:
        path: the file.
        shapes: what it must hold, in that order: a network's trainable and other weights, layer by layer.
        top: what it may hold after that: the layers on top, which are not read.

    Raises:
        ModelFileError: it holds anything else, or holds it in a way that is refused.
    """
    import h5py

    try:
        if path.stat().st_size > LARGEST:
            raise ModelFileError(f"{path} has {path.stat().st_size:,} bytes; at most {LARGEST:,} are read.")
        with h5py.File(path, "r") as file:
            # What `model.save` writes holds the same below this group.
            root = group_at(file, "model_weights") if "model_weights" in file else file
            places: list[tuple[Any, str]] = []
            for layer in names_in(root, "layer_names"):
                group = group_at(root, layer)
                places += [(group, name) for name in names_in(group, "weight_names")]
                if len(places) > len(shapes) + len(top):
                    raise Refused(f"it holds {len(places):,} arrays or more, and the network has {len(shapes):,}")
            if not places:
                raise Refused("it names no layers with weights: not the layout in which Keras publishes weights")
            if len(places) not in (len(shapes), len(shapes) + len(top)):
                raise Refused(f"it holds {len(places):,} arrays, and the network has {len(shapes):,}")
            for (group, name), shape in zip(places, [*shapes, *top], strict=False):
                check(dataset_at(group, name), shape)
            return [values_of(dataset_at(*place)) for place in places[: len(shapes)]]
    except Refused as error:
        raise ModelFileError(f"{path} is not taken: {error}.") from None
    except OSError as error:  # truncated, or not HDF5 at all
        raise ModelFileError(f"{path} cannot be read as HDF5: {' '.join(str(error).split())}.") from None
    except (KeyError, RuntimeError, ValueError, TypeError, UnicodeError) as error:
        raise ModelFileError(f"{path} is damaged: {' '.join(str(error).split())}.") from None


class Refused(Exception):
    """Something in the file that is not followed; the message is the reason, without the file."""


def names_in(group: Any, name: str) -> list[str]:
    """Return an attribute that is a list of names, whole or in numbered pieces."""
    import h5py

    if name in group.attrs:
        pieces = [name]
    else:
        pieces = [f"{name}{piece}" for piece in range(len(group.attrs)) if f"{name}{piece}" in group.attrs]
    found: list[str] = []
    for piece in pieces:
        kind = group.attrs.get_id(piece)
        if len(kind.shape) != 1 or kind.shape[0] > NAMES:
            raise Refused(f"its attribute {piece} has the shape {kind.shape}, not that of a list of names")
        if kind.shape[0] == 0:  # of a layer without weights: an empty list of no type
            continue
        if h5py.check_string_dtype(kind.dtype) is None or kind.dtype.itemsize > NAME:
            raise Refused(f"its attribute {piece} is no list of names")
        values = group.attrs[piece].tolist()
        found += [value if isinstance(value, str) else value.decode() for value in values]
        if len(found) > NAMES or any(len(text) > NAME for text in found):
            raise Refused(
                f"its attribute {name} holds more than {NAMES:,} names, or one of more than {NAME} characters"
            )
    return found


def group_at(group: Any, path: str) -> Any:
    """Return the group at a path that runs through hard links alone."""
    import h5py

    found = follow(group, path)
    if not isinstance(found, h5py.Group):
        raise Refused(f"its '{path}' is no group")
    return found


def dataset_at(group: Any, path: str) -> Any:
    """Return the data set at a path that runs through hard links alone."""
    import h5py

    found = follow(group, path)
    if not isinstance(found, h5py.Dataset):
        raise Refused(f"its '{path}' is no data set")
    return found


def follow(group: Any, path: str) -> Any:
    """Return what lies at a path below `group`, one step at a time, through hard links alone."""
    import h5py

    for step in path.split("/"):
        if step in ("", ".", "..") or not isinstance(group, h5py.Group):
            raise Refused(f"the name '{path}' in it leads nowhere")
        link = group.get(step, getlink=True)
        if type(link) is not h5py.HardLink:
            raise Refused(f"its '{path}' is {'absent' if link is None else 'a link to somewhere else'}")
        group = group[step]
    return group


def check(found: Any, shape: tuple[int, ...]) -> None:
    """Refuse a data set that is of another shape or type, or whose numbers do not simply lie in the file."""
    import h5py

    plan = found.id.get_create_plist()
    if plan.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) or plan.get_nfilters():
        raise Refused(f"its '{found.name}' is virtual, chunked or filtered; weights lie in the file as they are")
    if plan.get_external_count():
        raise Refused(f"its '{found.name}' lies in another file")
    if found.dtype != np.dtype("<f4") or found.shape != tuple(shape):
        raise Refused(f"its '{found.name}' is {found.dtype} {found.shape}, and the network has float32 {tuple(shape)}")


def values_of(found: Any) -> np.ndarray:
    """Return the numbers of a data set that was checked; NaN and infinity are refused."""
    values = np.asarray(found[()], np.float32)
    if not np.isfinite(values).all():
        raise Refused(f"its '{found.name}' holds NaN or infinity")
    return values
