import json
import re
import subprocess

import numpy as np
import pytest

from onsight.exporting.formats import FORMATS, write
from onsight.exporting.usage import triton_config, usage
from onsight.models.model_file import read_description


def section(run, name, file=None, run_name="run"):
    """Return what the README says about a proven file of a format."""
    row = {"format": name, "file": file or FORMATS[name].file, "max_difference": 1e-7}
    return usage(run_name, read_description(run.model_folder), row)


@pytest.fixture(scope="module", params=["toy_run", "knowing_run"])
def onnx(request, tmp_path_factory):
    """A run, its description, and its ONNX file in ONNX Runtime."""
    import onnxruntime

    run = request.getfixturevalue(request.param)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write("onnx", run.model_folder, path, "float32", np.zeros((0, 32, 32, 3), np.uint8))
    return run, read_description(run.model_folder), onnxruntime.InferenceSession(path)


def test_an_onnx_file_says_what_its_answers_mean(onnx):
    run, description, session = onnx
    found = session.get_modelmeta()
    assert found.graph_name == run.name
    facts = found.custom_metadata_map
    assert json.loads(facts["labels"]) == list(run.classes)
    assert facts["geometry"] == description.geometry
    for key in ("threshold", "distance_threshold"):
        value = getattr(description, key)
        assert facts.get(key) == (None if value is None else str(value))
    for value in (*session.get_inputs(), *session.get_outputs()):
        assert value.shape[0] == "batch"


def test_the_triton_configuration_has_the_names_and_shapes_of_the_onnx_file(onnx):
    run, description, session = onnx
    text = triton_config(run.name, description)
    kinds = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
    for side, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        found = re.findall(rf'^{side} \[\{{ name: "(\w+)", data_type: (\w+), dims: (\[.*?\])(.*) \}}\]$', text, re.M)
        assert {name: (kind, [] if "shape: [ ]" in rest or "shape: []" in rest else json.loads(shape))
                for name, kind, shape, rest in found} == {
            value.name: (kinds[value.type], value.shape[1:]) for value in values
        }  # fmt: skip
    assert f'name: "{run.name}"' in text


@pytest.mark.parametrize(("name", "found"), [("onnx", "model.onnx"), ("saved_model", "saved_model.pb")])
def test_the_commands_lay_out_the_folder_of_a_server(toy_run, tmp_path, name, found):
    path = tmp_path / FORMATS[name].file
    if name == "saved_model":
        path.mkdir()
        path = path / "saved_model.pb"
    path.write_bytes(b"model")
    text = section(toy_run, name, run_name="my run's")
    subprocess.run(["sh", "-ec", re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1]], cwd=tmp_path, check=True)
    assert (tmp_path / "models" / "my run's" / "1" / found).read_bytes() == b"model"


@pytest.mark.parametrize("name", FORMATS)
def test_every_section_is_complete(toy_run, name):
    text = section(toy_run, name)
    assert text.count("```") % 2 == 0
    assert "{file}" not in text
    assert "Not proven here" not in text


def test_microcontrollers_and_phones_are_told_their_files(knowing_run):
    text = section(knowing_run, "litert", "model-int8.tflite")
    assert 'createFromFile(context, "model-int8.tflite")' in text
    assert 'forResource: "model-int8", ofType: "tflite"' in text
    assert "its only score is the distance" in text


def test_vision_is_told_how_to_fit_the_image(toy_run, padded_run):
    assert ".centerCrop" in section(toy_run, "coreml")
    assert ".scaleFit" in section(padded_run, "coreml")
    assert "adds black, not grey" in section(padded_run, "coreml")
