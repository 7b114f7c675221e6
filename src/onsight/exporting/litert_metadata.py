"""Metadata and labels inside a .tflite file, as TensorFlow Lite defines them: ML Kit and MediaPipe Tasks read them.

The metadata is a flatbuffer in a buffer of the model. The labels are a ZIP archive behind the model, which LiteRT does
not read.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import numpy as np

from onsight.core.text import plain
from onsight.exporting.quantize import pack_sharing_zero_points
from onsight.imaging.fit import SENTENCES
from onsight.models.litert_file import parse
from onsight.models.model_file import ModelDescription

LABELS = "labels.txt"
# Values of the schema: ContentProperties.FeatureProperties and .ImageProperties, ColorSpaceType.RGB,
# AssociatedFileType.TENSOR_AXIS_LABELS.
FEATURES, IMAGE, RGB, AXIS_LABELS = 1, 2, 1, 2


def with_metadata(content: bytes, description: ModelDescription, name: str) -> bytes:
    """Return a .tflite file with the name of its run, what its input and outputs mean, and its labels.

    Args:
        content: the file, with the outputs `probabilities` and perhaps `distance`.
        description: of the model.
        name: of the run.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = parse(content)
    graph = model.subgraphs[0]
    # By their dimensions, as the readers do: the runs of earlier versions name them otherwise.
    outputs = ["probabilities" if len(graph.tensors[index].shape) == 2 else "distance" for index in graph.outputs]
    model.buffers.append(schema.BufferT(data=np.frombuffer(metadata(description, name, outputs), np.uint8)))
    model.metadata = [
        *(model.metadata or []),
        schema.MetadataT(name="TFLITE_METADATA", buffer=len(model.buffers) - 1),
    ]
    file = io.BytesIO(pack_sharing_zero_points(model))
    with zipfile.ZipFile(file, "a") as archive:  # neither compressed nor dated: the same bytes each time
        archive.writestr(zipfile.ZipInfo(LABELS), "".join(f"{plain(label)}\n" for label in description.classes))
    return file.getvalue()


def metadata(description: ModelDescription, name: str, outputs: Sequence[str]) -> bytes:
    """Return the flatbuffer ModelMetadata, of the schema version 1.0.0; `outputs` are the names in their order."""
    import flatbuffers

    builder = flatbuffers.Builder()
    text = builder.CreateString

    def table(offsets: dict[int, int], **enums: int) -> int:
        """Write a table and return its offset. `offsets` are by the number of the field, `enums` too: f0=1."""
        builder.StartObject(8)  # no table has more fields
        for slot, offset in offsets.items():
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for field, value in enums.items():
            builder.PrependUint8Slot(int(field[1:]), value, 0)
        return int(builder.EndObject())

    def vector(offsets: Sequence[int]) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    geometry = SENTENCES[description.fit].format(size=description.image_size)
    meaning = {
        "probabilities": f"of the classes, in the order of {LABELS}{unsure(description.threshold, 'below')}",
        "distance": f"to the training images{unsure(description.distance_threshold, 'above')}",
    }
    seen = table({1: table({}, f0=RGB)}, f0=IMAGE)
    given = table({0: text("image"), 1: text(f"uint8 RGB pixels: {geometry}"), 3: seen})
    answered = []
    for output in outputs:
        fields = {0: text(output), 1: text(meaning[output]), 3: table({1: table({})}, f0=FEATURES)}
        if output == "probabilities":
            fields[6] = vector([table({0: text(LABELS)}, f2=AXIS_LABELS)])
        answered.append(table(fields))
    graph = table({2: vector([given]), 3: vector(answered)})
    model = f"{description.model} that classifies images, with normalisation, temperature and softmax inside"
    root = table({0: text(name), 1: text(model), 3: vector([graph]), 7: text("1.0.0")})
    builder.Finish(root, b"M001")
    return bytes(builder.Output())


def unsure(threshold: float | None, side: str) -> str:
    """Return when an answer is unsure as the end of a sentence; empty if the model has no such threshold."""
    return "" if threshold is None else f"; an answer {side} {threshold:.4g} is unsure"
