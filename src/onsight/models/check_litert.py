"""Check a .tflite file before LiteRT runs it: LiteRT trusts offsets, indices and sizes in a file without looking.

A .tflite file is a flatbuffer: tables that refer to each other by offsets. `TABLES` names the parts that LiteRT reads.
Every offset must stay within the file, every index within its list, every constant must have the size of its shape, and
values must be computed before they are used. Operators must be among `OPERATORS`: none keeps a state, calls another
graph, reads strings or draws random numbers.

The format is that of schema.fbs (LiteRT, schema version 3) and of FlatBuffers' "Internals".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from onsight.core.errors import ModelFileError

# Table -> the kind of each known field: the format of a number or, in brackets, of the numbers of a list; the name of a
# table or, in brackets, of the tables of a list. None: the field must be absent.
TABLES: dict[str, list[Any]] = {
    "Model": ["I", ["OperatorCode"], ["SubGraph"], ["B"], ["Buffer"], ["i"], ["Metadata"], ["SignatureDef"], None,
              None],
    "OperatorCode": ["b", None, "i", "i"],
    "SubGraph": [["Tensor"], ["i"], ["i"], ["Operator"], ["B"], "i"],
    "Tensor": [["i"], "b", "I", ["B"], "Quantization", None, None, ["i"], "B", None],
    "Quantization": [["f"], ["f"], ["f"], ["q"], None, None, "i"],
    "Operator": ["I", ["i"], ["i"], "B", "Options", ["B"], "b", ["B"], ["i"], None, None, None, None, "i"],
    "Buffer": [["B"], "Q", "Q"],
    "Metadata": [["B"], "I"],
    "SignatureDef": [["TensorMap"], ["TensorMap"], ["B"], None, "I"],
    "TensorMap": [["B"], "I"],
    "Options": [],
    "Reshape": [["i"]],
    "Conv2D": ["b", "i", "i", "b", "i", "i"],
    "DepthwiseConv2D": ["b", "i", "i", "i", "b", "i", "i"],
    "Pool2D": ["b", "i", "i", "i", "i", "b"],
}  # fmt: skip
MOST_TABLES = 50_000  # the largest network here has about 3,000
LARGEST = 1 << 30  # bytes of a constant or of a value for one image
MOST_SIDE = 4096  # of a stride, a dilation or a window
# The bytes of an element, by the number of its type: those that networks for images use.
TYPES = {0: "f", 1: "e", 2: "i", 3: "B", 4: "q", 6: "?", 7: "h", 9: "b"}
OPERATORS = {
    "ADD": 0, "AVERAGE_POOL_2D": 1, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "DEPTH_TO_SPACE": 5,
    "DEQUANTIZE": 6, "FLOOR": 8, "FULLY_CONNECTED": 9, "L2_NORMALIZATION": 11, "L2_POOL_2D": 12,
    "LOCAL_RESPONSE_NORMALIZATION": 13, "LOGISTIC": 14, "MAX_POOL_2D": 17, "MUL": 18, "RELU": 19, "RELU6": 21,
    "RESHAPE": 22, "RESIZE_BILINEAR": 23, "SOFTMAX": 25, "SPACE_TO_DEPTH": 26, "TANH": 28, "PAD": 34, "GATHER": 36,
    "TRANSPOSE": 39, "MEAN": 40, "SUB": 41, "DIV": 42, "SQUEEZE": 43, "STRIDED_SLICE": 45, "EXP": 47, "SPLIT": 49,
    "LOG_SOFTMAX": 50, "CAST": 53, "PRELU": 54, "MAXIMUM": 55, "ARG_MAX": 56, "MINIMUM": 57, "LESS": 58, "NEG": 59,
    "PADV2": 60, "GREATER": 61, "GREATER_EQUAL": 62, "LESS_EQUAL": 63, "SELECT": 64, "SLICE": 65, "SIN": 66,
    "TRANSPOSE_CONV": 67, "TILE": 69, "EXPAND_DIMS": 70, "EQUAL": 71, "NOT_EQUAL": 72, "LOG": 73, "SUM": 74, "SQRT":
    75, "RSQRT": 76, "SHAPE": 77, "POW": 78, "ARG_MIN": 79, "REDUCE_PROD": 81, "REDUCE_MAX": 82, "PACK": 83,
    "LOGICAL_OR": 84, "ONE_HOT": 85, "LOGICAL_AND": 86, "LOGICAL_NOT": 87, "UNPACK": 88, "REDUCE_MIN": 89,
    "FLOOR_DIV": 90, "REDUCE_ANY": 91, "SQUARE": 92, "ZEROS_LIKE": 93, "FILL": 94, "RESIZE_NEAREST_NEIGHBOR": 97,
    "LEAKY_RELU": 98, "SQUARED_DIFFERENCE": 99, "MIRROR_PAD": 100, "ABS": 101, "SPLIT_V": 102, "CEIL": 104, "ADD_N":
    106, "COS": 108, "ELU": 111, "QUANTIZE": 114, "ROUND": 116, "HARD_SWISH": 117, "SELECT_V2": 123, "BATCH_MATMUL":
    126, "CUMSUM": 128, "BROADCAST_TO": 130, "BROADCAST_ARGS": 145, "GELU": 150, "RELU_0_TO_1": 152, "SIGN": 158,
}  # fmt: skip
KNOWN = frozenset(OPERATORS.values())
# Operator -> the number of its options' type in the file, and the table that they are.
OPTIONS = {
    "CONV_2D": (1, "Conv2D"), "DEPTHWISE_CONV_2D": (2, "DepthwiseConv2D"), "AVERAGE_POOL_2D": (5, "Pool2D"),
    "L2_POOL_2D": (5, "Pool2D"), "MAX_POOL_2D": (5, "Pool2D"), "RESHAPE": (17, "Reshape"), "SQUEEZE": (30, "Reshape"),
}  # fmt: skip
TYPED = {OPERATORS[name]: found for name, found in OPTIONS.items()}
SIDES = {"Conv2D": (1, 2, 4, 5), "DepthwiseConv2D": (1, 2, 5, 6), "Pool2D": (1, 2, 3, 4)}  # fields in pixels
PAD, TRANSPOSE = OPERATORS["PAD"], OPERATORS["TRANSPOSE"]
SIZED = {OPERATORS[name] for name in ("TILE", "BROADCAST_TO", "FILL", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")}


class Refused(Exception):
    """The file is not what it must be. The message is the reason."""


def check_litert(content: bytes) -> None:
    """Check a .tflite file of one graph.

    Raises:
        ModelFileError: LiteRT must not run the file; the message says why.
    """
    try:
        reader = Reader(content)
        check_graph(reader, reader.model())
    except Refused as error:
        raise ModelFileError(f"model.tflite cannot be used: {error}. It was damaged or changed.") from None


class Reader:
    """Reads the tables of a flatbuffer, and nothing outside it. A list of numbers becomes a NumPy array."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.tables = 0

    def model(self) -> dict[str, Any]:
        """Return the file's root table, with all tables below it."""
        if self.content[4:8] != b"TFL3":
            raise Refused("it does not begin as a .tflite file")
        found = self.table("Model", self.number("I", 0))
        if found.get(0) != 3:
            raise Refused(f"its version is {found.get(0)}, not 3")
        return found

    def number(self, format_: str, at: int) -> Any:
        """Return the number at a position."""
        size = struct.calcsize("<" + format_)
        if not 0 <= at <= len(self.content) - size:
            raise Refused(f"it refers to byte {at:,}, but has {len(self.content):,}")
        return struct.unpack_from("<" + format_, self.content, at)[0]

    def table(self, name: str, at: int) -> dict[Any, Any]:
        """Return the fields of a table by their numbers, those that are there."""
        self.tables += 1
        if self.tables > MOST_TABLES:
            raise Refused(f"it has more than {MOST_TABLES:,} tables")
        layout = at - self.number("i", at)
        size, extent = self.number("H", layout), self.number("H", layout + 2)
        if size < 4 or size % 2 or extent < 4 or at + extent > len(self.content):
            raise Refused(f"a table ({name}) has an impossible layout")
        found: dict[Any, Any] = {"at": at}
        kinds = TABLES[name]
        for field in range((size - 4) // 2):
            offset = self.number("H", layout + 4 + 2 * field)
            if not offset:
                continue
            if not 4 <= offset < extent:
                raise Refused(f"a table ({name}) has a field outside itself")
            if field < len(kinds):
                found[field] = self.field(name, kinds[field], at + offset)
        return found

    def field(self, name: str, kind: Any, at: int) -> Any:
        """Return the value of a field of a kind that `TABLES` names."""
        if kind is None:
            raise Refused(f"a table ({name}) uses a feature that Onsight does not")
        if isinstance(kind, str) and kind not in TABLES:
            return self.number(kind, at)
        start = at + self.number("I", at)
        if isinstance(kind, str):
            return self.table(kind, start)
        count, element = self.number("I", start), kind[0]
        if element in TABLES:
            self.number("B", start + 4 * count)
            places = [start + 4 + 4 * each for each in range(min(count, MOST_TABLES + 1))]
            return [self.table(element, place + self.number("I", place)) for place in places]
        width = struct.calcsize("<" + element)
        if start + 4 + count * width > len(self.content):
            raise Refused(f"a list ({name}) is longer than the file")
        return np.frombuffer(self.content, "<" + element if element != "?" else "?", count, start + 4)


def check_graph(reader: Reader, model: dict[Any, Any]) -> None:
    """Check indices, sizes and order in the only graph of a model."""
    graphs, buffers, codes = model.get(2, []), model.get(4, []), model.get(1, [])
    if len(graphs) != 1:
        raise Refused(f"it has {len(graphs)} graphs; expected one")
    if any(buffer.get(1) or buffer.get(2) for buffer in buffers):
        raise Refused("it keeps constants behind the flatbuffer")
    graph = graphs[0]
    tensors = graph.get(0, [])
    constants = [constant(tensor, buffers) for tensor in tensors]
    below = index_check(len(tensors))
    inputs, outputs = ([below(each) for each in graph.get(field, ())] for field in (1, 2))
    known = {number for number, found in enumerate(constants) if found is not None} | set(inputs)
    if any(constants[each] is not None for each in inputs):
        raise Refused("a constant is its input")
    for operator in graph.get(3, []):
        code = checked_code(operator, codes)
        taken = [below(each) for each in operator.get(1, ()) if each != -1]
        made = [below(each) for each in operator.get(2, ())]
        if not set(taken) <= known or not made:
            raise Refused("an operator uses a value before it is computed, or makes none")
        if set(made) & known or len(set(made)) != len(made):
            raise Refused("a value is computed twice")
        known.update(made)
        check_operator(reader, code, operator, [constants[i] for i in taken], [tensors[i] for i in taken])
    if not outputs or not set(outputs) <= known:
        raise Refused("an output is not computed")
    for signature in model.get(7, []):
        for entry in [*signature.get(0, []), *signature.get(1, [])]:
            below(entry.get(1, 0))


def index_check(count: int) -> Callable[[Any], int]:
    """Return a function that returns an index into a list of `count`, and refuses others."""

    def below(index: Any) -> int:
        if not 0 <= index < count:
            raise Refused(f"it refers to number {index} of {count}")
        return int(index)

    return below


def constant(tensor: dict[Any, Any], buffers: list[dict[Any, Any]]) -> np.ndarray | None:
    """Return the elements of a tensor that is a constant, as they lie in the file; None if it is computed."""
    kind = TYPES.get(tensor.get(1, 0))
    if kind is None:
        raise Refused(f"a value has the type {tensor.get(1, 0)}, which no network for images needs")
    shape = [int(side) for side in tensor.get(0, ())]
    if any(side < 0 for side in shape):
        raise Refused(f"a value has the shape {shape}")
    size = math.prod(shape) * struct.calcsize(kind)
    if size > LARGEST:
        raise Refused(f"a value has {size:,} bytes, more than the limit of {LARGEST:,}")
    free = tensor.get(7, ())
    if len(free) and (len(free) != len(shape) or any(a not in (-1, b) for a, b in zip(free, shape, strict=True))):
        raise Refused("a value has two different shapes")
    check_scales(tensor.get(4, {}), shape)
    data = buffers[index_check(len(buffers))(tensor.get(2, 0))].get(0, np.zeros(0, np.uint8))
    if not len(data):
        return None
    if len(data) != size:
        raise Refused(f"a constant of the shape {shape} has {len(data):,} bytes instead of {size:,}")
    return np.frombuffer(data, "<" + kind if kind != "?" else "?")


def check_scales(quantization: dict[Any, Any], shape: list[int]) -> None:
    """Refuse scales and zero points whose number does not fit, or which are no scales."""
    scales, zeros, axis = quantization.get(2, np.zeros(0)), quantization.get(3, ()), quantization.get(6, 0)
    if not len(scales) and not len(zeros):
        return
    wanted = {1} | ({shape[axis]} if 0 <= axis < len(shape) else set())
    if len(scales) != len(zeros) or len(scales) not in wanted or not (np.isfinite(scales) & (scales > 0)).all():
        raise Refused(f"a value of the shape {shape} has {len(scales)} scales and {len(zeros)} zero points")
    if np.abs(zeros).max() > 255:
        raise Refused("a zero point is outside the range of its type")


def checked_code(operator: dict[Any, Any], codes: list[dict[Any, Any]]) -> int:
    """Return the number of an operator's kind, if it is a known one."""
    entry = codes[index_check(len(codes))(operator.get(0, 0))]
    code = max(entry.get(0, 0), entry.get(3, 0))
    if code not in KNOWN:
        raise Refused(f"it uses the operator number {code}, which Onsight does not run")
    return int(code)


def check_operator(
    reader: Reader,
    code: int,
    operator: dict[Any, Any],
    constants: list[np.ndarray | None],
    tensors: list[dict[Any, Any]],
) -> None:
    """Check what an operator's code reads from its options and constants without looking."""
    if code in TYPED and 4 in operator:
        number, name = TYPED[code]
        if operator.get(3) != number:
            raise Refused("an operator has the options of another one")
        options = reader.table(name, operator[4]["at"])
        if not all(1 <= options.get(field, 1) <= MOST_SIDE for field in SIDES.get(name, ())):
            raise Refused("a stride, a dilation or a window is not a number of pixels")
    if code in (PAD, TRANSPOSE):
        rank = len(tensors[0].get(0, ()))
        values = constants[1] if len(constants) > 1 else None
        if values is None or len(values) != (rank if code == TRANSPOSE else 2 * rank):
            raise Refused("the order of axes or the border of an operator is missing or has the wrong length")
        if code == TRANSPOSE and sorted(values.tolist()) != list(range(rank)):
            raise Refused("an operator has an impossible order of axes")
        if code == PAD and not ((values >= 0) & (values <= MOST_SIDE)).all():
            raise Refused("a border is negative or too wide")
    if code in SIZED:
        for values in constants:
            if values is not None and values.dtype.kind == "i" and math.prod(map(abs, values.tolist())) > LARGEST // 4:
                raise Refused("an operator makes a value that is too large")
