"""The writer of the `c` format: a folder of C++ for microcontrollers, with the int8 model as an array.

`micro/` holds the files that are the same for every model. model.h and model.cc are made here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from onsight.core.files import write_atomic
from onsight.exporting.arena import arena_size
from onsight.exporting.judge import Precision
from onsight.exporting.quantize import quantized
from onsight.exporting.write_litert import litert_content, run_name
from onsight.models.litert_file import parse
from onsight.models.model_file import ModelDescription, read_description

MICRO = Path(__file__).parent / "micro"
# Operators whose method of MicroMutableOpResolver is not named as the others: MAX_POOL_2D is added by AddMaxPool2D.
NAMES = {"BATCH_MATMUL": "BatchMatMul", "PADV2": "PadV2", "REVERSE_V2": "ReverseV2", "SELECT_V2": "SelectV2"}

HEADER = """\
// Made by Onsight from {name}. Do not edit.
#pragma once

#include <cstddef>

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

constexpr int kImageSize = {size};  // pixels per side
constexpr int kClasses = {classes};
constexpr std::size_t kArenaSize = {arena};  // bytes, measured on a 64-bit computer with the reference kernels
constexpr float kUnsureBelow = {threshold};  // an answer whose largest probability is smaller is unsure
constexpr bool kHasDistance = {has_distance};  // whether the second output says how unlike its training images one is
constexpr float kUnlikeAbove = {distance_threshold};  // an image with a greater distance is unlike the training images
constexpr std::size_t kModelSize = {bytes};  // bytes

extern const char* const kLabels[kClasses];  // UTF-8
extern const unsigned char kModel[];

using Resolver = tflite::MicroMutableOpResolver<{count}>;

inline TfLiteStatus AddOperators(Resolver& resolver) {{
{adding}
  return kTfLiteOk;
}}
"""

SOURCE = """\
// Made by Onsight from {name}. Do not edit.
#include "model.h"

const char* const kLabels[kClasses] = {{
{labels}
}};

alignas(16) const unsigned char kModel[] = {{
{content}
}};
"""


def write_c(model_folder: Path, path: Path, precision: Precision, images: np.ndarray) -> None:
    """Write the folder.

    Raises:
        ExportError: TensorFlow Lite Micro cannot run the model.
    """
    content = quantized(litert_content(model_folder), precision, images)
    path.mkdir()
    for source in MICRO.iterdir():
        shutil.copy2(source, path)
    name = run_name(model_folder).encode("ascii", "replace").decode()
    description = read_description(model_folder)
    write_atomic(path / "model.h", header(name, description, content))
    write_atomic(path / "model.cc", source_of(name, description.classes, content))


def header(name: str, description: ModelDescription, content: bytes) -> str:
    """Return model.h."""
    operators = operator_names(content)
    return HEADER.format(
        name=name,
        size=description.image_size,
        classes=len(description.classes),
        arena=arena_size(content),
        threshold=number(description.threshold or 0),
        has_distance="true" if description.prototypes else "false",
        distance_threshold=number(description.distance_threshold or 0),
        bytes=len(content),
        count=len(operators),
        adding="\n".join(f"  if (resolver.Add{each}() != kTfLiteOk) return kTfLiteError;" for each in operators),
    )


def source_of(name: str, labels: tuple[str, ...] | list[str], content: bytes) -> str:
    """Return model.cc."""
    lines = [content[start : start + 20] for start in range(0, len(content), 20)]
    return SOURCE.format(
        name=name,
        labels="\n".join(f"    {text(label)}," for label in labels),
        content="\n".join("    " + ", ".join(f"{byte:#04x}" for byte in line) + "," for line in lines),
    )


def text(label: str) -> str:
    """Return a C string literal of UTF-8 bytes. Bytes other than plain ASCII are octal, which ends after 3 digits."""
    plain = set(range(32, 127)) - set(b'"\\?')  # two question marks could begin a trigraph
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in label.encode()) + '"'


def number(value: float) -> str:
    """Return a float literal of C++."""
    return f"{value:.9g}" + ("" if "." in f"{value:.9g}" or "e" in f"{value:.9g}" else ".0") + "f"


def operator_names(content: bytes) -> list[str]:
    """Return the names of the operators in a .tflite file, as MicroMutableOpResolver's methods write them, sorted."""
    from ai_edge_litert import schema_py_generated as schema

    model = parse(content)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    used = {names[model.operatorCodes[each.opcodeIndex].builtinCode] for each in model.subgraphs[0].operators}
    return sorted(NAMES.get(name) or name.replace("_", " ").title().replace(" ", "") for name in used)
