import contextlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from onsight.cli.app import app
from onsight.core.errors import ExportError, ParityError, RunError, SpecError
from onsight.core.progress import Reporter
from onsight.exporting import export as export_module
from onsight.exporting import formats
from onsight.exporting.export import check_export, export
from onsight.exporting.formats import FORMATS
from onsight.imaging.fit import GEOMETRIES, SENTENCES
from onsight.models.litert_file import parse
from onsight.models.model_file import save_model
from onsight.models.registry import MODELS, build_model
from onsight.reporting.report import report
from onsight.runs.run import Run

QUICK = ["litert", "onnx", "openvino"]  # formats whose runtimes start within a second


@pytest.fixture(scope="module")
def exported(toy_run, tmp_path_factory):
    """A copy of the toy run with three exported formats and an int8 file. Tests only read it."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(toy_run.folder, folder)
    run = Run(folder)
    export(run, QUICK, reporter=Reporter())
    export(run, ["litert"], precision="int8", max_drop=100, reporter=Reporter())
    return run


@pytest.fixture
def run(exported, tmp_path):
    """A copy of `exported` that a test may change."""
    shutil.copytree(exported.folder, tmp_path / "run")
    return Run(tmp_path / "run")


def rewrite(run, name, content):
    """Replace the content of an exported file, and update its checksum."""
    path = run.folder / "export" / name
    path.write_bytes(content)
    contract = json.loads((run.folder / "export" / "contract.json").read_text())
    contract["files"][name.split("/")[0]]["sha256"] = export_module.checksums(
        run.folder / "export" / name.split("/")[0]
    )
    (run.folder / "export" / "contract.json").write_text(json.dumps(contract))


@pytest.mark.backend
def test_the_folder_holds_files_labels_contract_vectors_and_a_table(exported, toy_run):
    folder = exported.folder / "export"
    names = {path.name for path in folder.iterdir()}
    files = {"model.tflite", "model-int8.tflite", "model.onnx", "openvino"}
    assert names == files | {"labels.json", "contract.json", "table.json", "README.md", "MODEL_CARD.md", "vectors"}
    assert json.loads((folder / "labels.json").read_text()) == list(toy_run.classes)
    contract = json.loads((folder / "contract.json").read_text())
    assert contract["input"]["shape"] == ["batch", 32, 32, 3]
    assert contract["input"]["decoding"].startswith("the file at full size")
    assert contract["input"]["resampling"].startswith("triangle filter")
    assert contract["output"]["shape"] == ["batch", 3]
    assert set(contract["files"]) == files
    table = {row["file"]: row for row in json.loads((folder / "table.json").read_text())["files"]}
    assert set(table) == files
    counts = toy_run.dataset["counts"]
    for row in table.values():
        assert row["validation_n"] == sum(counts["validation"].values())
        assert 0 < row["latency_ms"] <= row["latency_p95_ms"]
        assert 0 < row["latency_ms_all"] <= row["latency_p95_ms_all"]
        assert row["images_per_second"] > 0
        assert row["first_answer_seconds"] > 0
    for name in files - {"model-int8.tflite"}:
        assert table[name]["max_difference"] <= 1e-5
        assert table[name]["agreement"] == 1
    assert table["model-int8.tflite"]["bytes"] < 0.35 * table["model.tflite"]["bytes"]
    assert table["model-int8.tflite"]["agreement"] > 0.9
    assert [path.name for path in exported.folder.iterdir() if path.name.endswith(".partial")] == []


def test_the_report_shows_the_table(exported):
    text = exported.report.read_text("utf-8")
    for name in ("model.tflite", "model-int8.tflite", "model.onnx", "openvino"):
        assert f'<th scope="row">{name}</th>' in text
    assert 'href="#exports"' in text


def test_a_damaged_table_raises_an_error_that_names_it(run):
    (run.folder / "export" / "table.json").write_text('{"files": [{}]}')
    with pytest.raises(RunError, match=r"table\.json is damaged\. Remove that folder and export again"):
        report(run)


def test_a_replaced_or_removed_file_is_not_kept_by_the_next_export(run):
    folder = run.folder / "export"
    (folder / "model.onnx").write_bytes(b"another")
    shutil.rmtree(folder / "openvino")
    export(run, ["litert"], reporter=Reporter())
    contract = json.loads((folder / "contract.json").read_text())
    assert set(contract["files"]) == {"model.tflite", "model-int8.tflite"}
    assert not (folder / "model.onnx").exists()


@pytest.mark.slow
def test_a_quantized_file_with_answers_to_other_test_vectors_is_not_kept(run):
    """An earlier version had fewer test vectors."""
    path = run.folder / "export" / "vectors" / "model-int8.tflite.npz"
    with np.load(path) as file:
        answers = file["probabilities"]
    np.savez(path, probabilities=answers[:-6])
    export(run, ["litert"], reporter=Reporter())
    assert set(dict(check_export(run, Reporter()))) == {"model.tflite", "model.onnx", "openvino"}


def test_the_use_of_the_test_set_is_logged(exported):
    assert '"scored": false' in (exported.folder / "test_uses.jsonl").read_text()


@pytest.mark.backend
def test_int8_maps_uint8_to_float32_probabilities(exported):
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(exported.folder / "export" / "model-int8.tflite"))
    (given,), (answered,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (given["dtype"], answered["dtype"]) == (np.uint8, np.float32)
    kinds = {detail["name"]: detail["dtype"] for detail in interpreter.get_tensor_details()}
    assert sum(kind == np.int8 for kind in kinds.values()) > len(kinds) / 2  # most tensors are integers
    assert given["quantization"] == (1.0, 0)  # read without a cast to float32
    graph = parse((exported.folder / "export" / "model-int8.tflite").read_bytes()).subgraphs[0]
    in_float = [each for each in graph.operators if graph.tensors[each.inputs[0]].type == schema.TensorType.FLOAT32]
    assert [list(each.outputs) for each in in_float] == [list(graph.outputs)]  # only softmax reads float32


def scripts(run):
    text = (run.folder / "export" / "README.md").read_text()
    return dict(re.findall(r"^## (\S+)\n.*?```python\n(.*?)```", text, re.DOTALL | re.MULTILINE))


def run_readme(run, name):
    words = [sys.executable, "-I", "-c", scripts(run)[name]]
    done = subprocess.run(words, capture_output=True, text=True, cwd=run.folder / "export")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in run.classes


@pytest.mark.backend
@pytest.mark.parametrize("name", ["model.tflite", "model-int8.tflite", "model.onnx", "openvino"])
def test_the_code_of_the_readme_runs_without_onsight(exported, name):
    assert "onsight" not in re.sub(r'""".*?"""', "", scripts(exported)[name])
    run_readme(exported, name)


def test_check_passes_unchanged_files(exported):
    found = dict(check_export(exported, Reporter()))
    assert set(found) == {"model.tflite", "model-int8.tflite", "model.onnx", "openvino"}
    assert found["model.onnx"] <= 1e-5


@pytest.mark.parametrize(
    "name", ["model.tflite", "model.onnx", pytest.param("openvino/model.xml", marks=pytest.mark.slow)]
)
def test_a_truncated_or_replaced_file_is_refused(run, name):
    content = (run.folder / "export" / name).read_bytes()
    (run.folder / "export" / name).write_bytes(content + b" ")
    with pytest.raises(ExportError, match="damaged or replaced"):
        check_export(run, Reporter())
    for bad in (content[: len(content) // 2], b"nothing", b""):
        rewrite(run, name, bad)
        with pytest.raises(ExportError, match="cannot be read as"):
            check_export(run, Reporter())
    (run.folder / "export" / name).unlink()
    with pytest.raises(ExportError, match="damaged or replaced"):
        check_export(run, Reporter())


SLOW_READERS = "keras", "saved_model"  # they import TensorFlow


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW_READERS else name for name in FORMATS]
)
@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x05\x06" + bytes(18)], ids=["empty", "text", "zip"])
def test_every_reader_refuses_a_foreign_file(name, content, tmp_path):
    path = tmp_path / FORMATS[name].file
    opened = path / (FORMATS[name].opened or ("saved_model.pb" if name == "saved_model" else ""))
    opened.parent.mkdir(exist_ok=True)
    opened.write_bytes(content)
    np.save(tmp_path / "images.npy", np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(ExportError, match=rf"^{path.name} cannot be read as {name}: .*\. It is damaged, or another"):
        export_module.run_reader(name, path, tmp_path / "images.npy", None, threads=1)


@pytest.mark.parametrize("name", ["model.tflite", "model-int8.tflite"])
def test_a_file_of_another_model_is_refused(run, tmp_path, name):
    (tmp_path / "other").mkdir()
    save_model(tmp_path / "other", build_model("cnn", 32, 3), run.classes)
    images = np.load(run.folder / "export" / "vectors" / "pictures.npy")
    precision = "int8" if "int8" in name else "float32"
    formats.write("litert", tmp_path / "other", tmp_path / "other.tflite", precision, images)
    rewrite(run, name, (tmp_path / "other.tflite").read_bytes())
    with pytest.raises(ParityError, match="differs from its test vectors"):
        check_export(run, Reporter())


@pytest.mark.parametrize(
    "edit", ["[]", "{", '{"schema": 2}', '{"schema": 1, "files": {"../x": {}}, "weights_sha256": ""}']
)
def test_an_invalid_contract_is_refused(run, edit):
    (run.folder / "export" / "contract.json").write_text(edit)
    with pytest.raises(ExportError, match="is damaged, or was not written by Onsight"):
        check_export(run, Reporter())


def test_files_of_other_weights_are_refused(run, tmp_path):
    save_model(run.model_folder, build_model("cnn", 32, 3), run.classes)
    with pytest.raises(ExportError, match="other weights"):
        check_export(run, Reporter())
    shutil.rmtree(run.folder / "export")
    with pytest.raises(RunError, match="has no export/"):
        check_export(run, Reporter())


def test_other_answers_than_keras_write_nothing_and_exit_with_3(run, monkeypatch, tmp_path):
    """Here the converter is wrong: it writes an untrained network."""
    before = {path: path.read_bytes() for path in (run.folder / "export").rglob("*") if path.is_file()}
    (tmp_path / "other").mkdir()
    save_model(tmp_path / "other", build_model("cnn", 32, 3), run.classes)
    original = formats.write
    monkeypatch.setattr(export_module, "write", lambda name, folder, *rest: original(name, tmp_path / "other", *rest))
    with pytest.raises(ParityError, match=r"model\.tflite is not written: its probabilities differ") as error:
        app(["export", str(run.folder), "litert", "--quiet"])
    assert error.value.exit_code == 3
    with pytest.raises(ParityError, match="int8 must reach 95%"):
        export(run, ["litert"], precision="int8", reporter=Reporter())
    with pytest.raises(ParityError, match="float16"):
        export(run, ["litert"], precision="float16", reporter=Reporter())
    assert before == {path: path.read_bytes() for path in (run.folder / "export").rglob("*") if path.is_file()}
    assert not list(run.folder.glob(".*.partial"))


@pytest.mark.slow
def test_a_format_that_fails_does_not_take_the_others_with_it(run, monkeypatch, tmp_path):
    (tmp_path / "other").mkdir()
    save_model(tmp_path / "other", build_model("cnn", 32, 3), run.classes)
    original = formats.write

    def write(name, folder, *rest):
        original(name, tmp_path / "other" if name == "openvino" else folder, *rest)

    monkeypatch.setattr(export_module, "write", write)
    (run.folder / "export" / "model.tflite").unlink()
    with pytest.raises(
        ParityError, match=r"openvino is not written: .* Written all the same: model\.tflite\."
    ) as error:
        export(run, ["openvino", "litert"], reporter=Reporter())
    assert error.value.exit_code == 3
    monkeypatch.undo()
    assert dict(check_export(run, Reporter())).keys() == {"model.onnx", "model-int8.tflite", "model.tflite", "openvino"}


@pytest.mark.slow
def test_a_file_that_this_system_cannot_run_is_not_called_proven(run, monkeypatch):
    """Here a folder stands for the package of Core ML, so that the test needs no converter."""

    def write(name, folder, path, *rest):
        path.mkdir()
        (path / "Manifest.json").write_text("{}")

    monkeypatch.setattr(export_module, "write", write)
    monkeypatch.setattr(formats, "find_spec", lambda package: True)
    monkeypatch.setattr(formats.sys, "platform", "linux")
    table = export(run, ["coreml"], reporter=Reporter())
    row = {row["format"]: row for row in table}["coreml"]
    assert (row["max_difference"], row["agreement"], row["latency_ms"], row["compared"]) == (None, None, None, 0)
    (cells,) = (each for each in table.cells() if each[0] == "model.mlpackage")
    assert cells[2:] == ("–", "not proven", *["–"] * 7)
    assert "**Not proven here**" in (run.folder / "export" / "README.md").read_text()
    assert "not proven" in run.report.read_text("utf-8")
    assert "model.mlpackage" not in dict(check_export(run, Reporter()))
    (run.folder / "export" / "model.mlpackage" / "Manifest.json").write_text("[]")
    with pytest.raises(ExportError, match="damaged or replaced"):
        check_export(run, Reporter())


@pytest.mark.skipif(not formats.find_spec("coremltools"), reason="coremltools is not installed")
def test_core_ml_answers_as_keras_does(run):
    """On macOS this proves the file; elsewhere it can only be written and described."""
    table = export(run, ["coreml"], reporter=Reporter())
    row = {row["format"]: row for row in table}["coreml"]
    import coremltools

    model = coremltools.models.MLModel(str(run.folder / "export" / "model.mlpackage"), skip_model_load=True)
    described = model.get_spec().description
    assert described.input[0].type.imageType.width == 32
    assert described.predictedFeatureName == "classLabel"
    assert json.loads(model.user_defined_metadata["labels"]) == list(run.classes)
    if sys.platform == "darwin":
        assert row["max_difference"] <= 1e-5
        run_readme(run, "model.mlpackage")
    else:
        assert row["max_difference"] is None


def test_invalid_options_and_missing_packages_raise_errors(run, monkeypatch):
    for wanted, options, error, message in (
        ([], {}, SpecError, "No format was given. Formats: litert"),
        (["onxx"], {}, SpecError, "Did you mean 'onnx'"),
        (["onnx"], {"precision": "int8"}, SpecError, "--precision int8 is for litert"),
        (["litert"], {"max_drop": -1}, SpecError, "from 0 to 100"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            export(run, wanted, reporter=Reporter(), **options)
    find = formats.find_spec
    for package, wanted, options in (
        ("tf2onnx", ["onnx"], {}),
        ("openvino", ["openvino"], {}),
        ("ai_edge_quantizer", ["litert"], {"precision": "int8"}),
    ):
        monkeypatch.setattr(formats, "find_spec", lambda name, package=package: None if name == package else find(name))
        with pytest.raises(ExportError, match=rf"needs {package}. Install: pip install 'onsight\[export\]'"):
            export(run, wanted, reporter=Reporter(), **options)


@pytest.mark.parametrize(
    ("name", "extras"), [("onnx", "'onsight[export]' 'onsight[tensorflow]'"), ("saved_model", "'onsight[tensorflow]'")]
)
def test_all_that_a_format_lacks_is_named_at_once(run, monkeypatch, name, extras):
    """With JAX alone, TensorFlow is missing as well as what its converter needs."""
    absent = {"tensorflow", "tf2onnx", "onnx", "onnxruntime"}
    monkeypatch.setattr(formats, "find_spec", lambda package: None if package in absent else True)
    with pytest.raises(ExportError, match=rf"needs .*tensorflow.*\. Install: pip install {re.escape(extras)}$"):
        export(run, [name], reporter=Reporter())


@pytest.mark.backend
@pytest.mark.slow
@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_in_every_format(name, toy_spec, tmp_path, monkeypatch):
    """Every model in the registry can be exported in every format, and the code of its README runs."""
    import onsight

    monkeypatch.setenv("ONSIGHT_RUNS", str(tmp_path / "runs"))
    spec = toy_spec.model_copy(update={"model": name, "epochs": 2, "image_size": max(24, MODELS[name].smallest)})
    run = onsight.train(spec, reporter=Reporter())
    wanted = [name for name in FORMATS if name not in ("c", "coreml")]
    table = export(run, wanted, reporter=Reporter())
    assert [row["format"] for row in table] == wanted
    export(run, ["litert"], precision="float16", reporter=Reporter())
    export(run, ["litert"], precision="int8", max_drop=100, reporter=Reporter())
    with contextlib.suppress(ExportError):  # TensorFlow Lite Micro lacks gelu
        export(run, ["c"], max_drop=100, reporter=Reporter())
    assert len(check_export(run, Reporter())) >= len(wanted) + 2
    for script in scripts(run):
        run_readme(run, script)


def test_the_contract_and_the_readme_describe_whole_frames(padded_run, exported, tmp_path):
    shutil.copytree(padded_run.folder, tmp_path / "run")
    run = Run(tmp_path / "run")
    export(run, ["litert"], reporter=Reporter())
    for each, fit in ((run, "pad"), (exported, "cut")):
        contract = json.loads((each.folder / "export" / "contract.json").read_text())
        assert contract["input"]["geometry"] == GEOMETRIES[fit]
        page = (each.folder / "export" / "README.md").read_text()
        assert f"its input is plain pixels: {SENTENCES[fit].format(size=32)}. `contract" in page
    vectors = np.load(run.folder / "export" / "vectors" / "pictures.npy")
    assert sum((image[:8] == 128).all() for image in vectors) >= 9  # real images are padded above


@pytest.fixture(scope="module")
def exported_distance(knowing_run):
    """The run that knows the distance, with files of every format and an int8 file. Tests only read it."""
    export(knowing_run, ["litert", "onnx", "openvino", "keras", "saved_model"], reporter=Reporter())
    export(knowing_run, ["litert"], precision="int8", max_drop=100, reporter=Reporter())
    return knowing_run


@pytest.mark.slow
@pytest.mark.backend
def test_the_distance_is_the_second_output_of_some_formats(exported_distance):
    folder = exported_distance.folder / "export"
    contract = json.loads((folder / "contract.json").read_text())
    threshold = json.loads((exported_distance.model_folder / "model.json").read_text())["distance_threshold"]
    assert contract["output"]["name"] == "probabilities"
    described = {"name": "distance", "dtype": "float32", "shape": ["batch"], "threshold": threshold}
    assert {key: value for key, value in contract["distance"].items() if key != "meaning"} == described
    assert {name for name, entry in contract["files"].items() if entry["distance"]} == {
        "model.tflite", "model.onnx", "model-int8.tflite"
    }  # fmt: skip
    table = {row["file"]: row for row in json.loads((folder / "table.json").read_text())["files"]}
    for name in ("model.tflite", "model.onnx"):
        assert table[name]["max_distance_difference"] <= 1e-5
    assert table["model-int8.tflite"]["unlike_agreement"] >= 0.95
    assert "max_distance_difference" not in table["openvino"]
    for name in ("model.tflite", "model-int8.tflite", "model.onnx", "openvino"):
        run_readme(exported_distance, name)
    assert "is unlike the training images: treat" in (folder / "README.md").read_text()
    assert dict(check_export(exported_distance, Reporter()))["model.tflite"] <= 1e-5


def test_a_model_without_prototypes_has_no_trace_of_a_distance(exported):
    folder = exported.folder / "export"
    assert "distance" not in (folder / "contract.json").read_text() + (folder / "table.json").read_text()
    assert "distances.npy" not in (folder / "README.md").read_text()
    assert not (folder / "vectors" / "distances.npy").exists()


@pytest.mark.slow
@pytest.mark.backend
def test_int8_keeps_the_distance_in_float_and_zero_points_once(exported_distance):
    from ai_edge_litert import schema_py_generated as schema

    from onsight.exporting.quantize import distance_values

    content = (exported_distance.model_folder / "model.tflite").read_bytes()
    assert distance_values(content)[-1] == "distance"
    quantized = (exported_distance.folder / "export" / "model-int8.tflite").read_bytes()
    graph = schema.ModelT.InitFromPackedBuf(quantized, 0).subgraphs[0]
    last = next(each for each in graph.operators if set(each.outputs) & set(graph.outputs[1:]))
    kinds = {graph.tensors[index].type for index in last.inputs}
    assert schema.TensorType.INT8 not in kinds


def test_each_column_of_the_table_has_a_name_of_its_own():
    from onsight.reporting.export_table import HEADING

    assert len(set(HEADING)) == len(HEADING)
    assert HEADING[6:9] == ("ms, all threads", "images/s", "images/s, all threads")
