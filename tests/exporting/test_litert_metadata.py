import io
import zipfile

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from onsight.exporting.litert_metadata import with_metadata
from onsight.models.litert_file import parse
from onsight.models.model_file import read_description


class Table:
    """A table of a flatbuffer, read without its schema: by the numbers of its fields."""

    def __init__(self, content, place):
        self.content, self.place = content, place

    def number(self, place, kind):
        return int(np.frombuffer(self.content, kind, 1, place)[0])

    def field(self, slot):
        """Return where a field lies; 0 if it is missing."""
        fields = self.place - self.number(self.place, "<i4")
        offset = self.number(fields + 4 + 2 * slot, "<u2") if 4 + 2 * slot < self.number(fields, "<u2") else 0
        return offset and self.place + offset

    def target(self, slot):
        place = self.field(slot)
        return place + self.number(place, "<u4")

    def text(self, slot):
        place = self.target(slot)
        return self.content[place + 4 :][: self.number(place, "<u4")].decode()

    def enum(self, slot):
        return self.content[self.field(slot)]

    def table(self, slot):
        return Table(self.content, self.target(slot))

    def tables(self, slot):
        places = [self.target(slot) + 4 + 4 * index for index in range(self.number(self.target(slot), "<u4"))]
        return [Table(self.content, place + self.number(place, "<u4")) for place in places]


def metadata_of(content):
    model = parse(content)
    (place,) = (each.buffer for each in model.metadata if each.name == b"TFLITE_METADATA")
    data = bytes(model.buffers[place].data)
    assert data[4:8] == b"M001"
    return Table(data, int(np.frombuffer(data, "<u4", 1)[0]))


@pytest.fixture(params=["toy_run", "knowing_run"])
def made(request):
    """A run, and its .tflite file with metadata."""
    run = request.getfixturevalue(request.param)
    plain = (run.model_folder / "model.tflite").read_bytes()
    return run, plain, with_metadata(plain, read_description(run.model_folder), run.name)


def test_the_metadata_says_what_goes_in_and_comes_out(made):
    run, _, content = made
    description = read_description(run.model_folder)
    model = metadata_of(content)
    assert model.text(0) == run.name
    assert model.text(7) == "1.0.0"
    (graph,) = model.tables(3)
    (given,) = graph.tables(2)
    assert given.text(0) == "image"
    assert "the centre square of the image, scaled to 32 x 32" in given.text(1)
    assert given.table(3).enum(0) == 2  # ImageProperties
    assert given.table(3).table(1).enum(0) == 1  # RGB
    answered = graph.tables(3)
    assert [each.text(0) for each in answered] == ["probabilities", "distance"][: 1 + (description.prototypes > 0)]
    (labels,) = answered[0].tables(6)
    assert (labels.text(0), labels.enum(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    for each, value in zip(answered, (description.threshold, description.distance_threshold), strict=False):
        assert ("unsure" in each.text(1)) == (value is not None)


def test_the_labels_lie_behind_the_model_which_answers_as_before(made):
    run, plain, content = made
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(run.classes)
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    answers = []
    for each in (plain, content):
        interpreter = Interpreter(model_content=each)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
        interpreter.invoke()
        answers.append([interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()])
    for before, after in zip(*answers, strict=True):
        np.testing.assert_array_equal(before, after)
    assert with_metadata(plain, read_description(run.model_folder), run.name) == content  # the same bytes each time


def test_a_label_takes_one_line(toy_run):
    from dataclasses import replace

    description = replace(read_description(toy_run.model_folder), classes=["two\nlines", "dög", "c"])
    content = with_metadata((toy_run.model_folder / "model.tflite").read_bytes(), description, "run")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert len(archive.read("labels.txt").decode().splitlines()) == 3
