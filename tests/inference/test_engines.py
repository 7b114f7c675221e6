import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from edits import edit_model
from onsight.core.errors import ExportError, ModelFileError, SpecError
from onsight.core.progress import Reporter
from onsight.evaluation.evaluate import evaluate
from onsight.exporting import export
from onsight.inference.engines import LitertEngine, open_engine
from onsight.inference.parity import edge_images
from onsight.inference.predict import Predictor
from onsight.models.model_file import read_description
from onsight.runs.run import Run


@pytest.fixture
def run(toy_run, tmp_path):
    """A copy of the toy run that a test may change."""
    shutil.copytree(toy_run.folder, tmp_path / "run")
    return Run(tmp_path / "run")


def edit(run, **fields):
    edit_model(run.model_folder, **fields)


@pytest.mark.backend
def test_both_engines_give_the_same_answers(toy_run):
    litert, by_keras = open_engine(toy_run), open_engine(toy_run, "keras")
    assert litert.name == "litert"
    assert by_keras.name.startswith("keras on ")
    images = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    for count in (0, 1, 5, 300, 16, 17):
        found, expected = litert.probabilities(images[:count]), by_keras.probabilities(images[:count])
        assert found.dtype == np.float32
        assert found.shape == (count, 3)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (litert.size, litert.classes, litert.threshold) == (by_keras.size, by_keras.classes, by_keras.threshold)


def test_a_batch_is_computed_at_its_own_size(toy_run):
    """An answer after a larger batch must not take as long as the larger batch."""
    engine = open_engine(toy_run)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    expected = engine.probabilities(images, threads=1)
    for count in (1, 3, 4, 2):
        found = engine.probabilities(images[:count], threads=1)
        assert engine.function.own.batch == count
        np.testing.assert_allclose(found, expected[:count], atol=1e-6)


def test_errors_and_reasons_name_what_is_missing(run, monkeypatch):
    with pytest.raises(SpecError, match="There is no engine 'onnx'; expected auto, litert or keras"):
        open_engine(run, "onnx")
    edit(run, litert_sha256=None)
    with pytest.raises(SpecError, match="has no verified"):
        open_engine(run, "litert")
    assert "has no verified" in open_engine(run).reason


def test_a_damaged_or_replaced_file_is_refused(run):
    path = run.model_folder / "model.tflite"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(ModelFileError, match="damaged or replaced"):
        open_engine(run)
    path.unlink()
    with pytest.raises(ModelFileError, match="cannot be read"):
        open_engine(run)
    description = read_description(run.model_folder)
    for bad in (b"", b"nothing", content[: len(content) // 2], content[:40]):
        with pytest.raises(ModelFileError, match="cannot be used: "):
            LitertEngine(bad, description)
    edit(run, image_size=24)
    with pytest.raises(ModelFileError, match="maps uint8"):
        LitertEngine(content, read_description(run.model_folder))


def test_a_file_with_a_second_output_is_refused(run):
    """A converter may keep the logits as a second output. Which of the two is meant would be a guess."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf((run.model_folder / "model.tflite").read_bytes(), 0)
    graph = model.subgraphs[0]
    (softmax,) = (operator for operator in graph.operators if graph.outputs[0] in operator.outputs)
    graph.outputs = [graph.outputs[0], softmax.inputs[0]]
    model.signatureDefs = None
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    content = bytes(builder.Output())
    with pytest.raises(ModelFileError, match="has 1 input and 2 outputs"):
        LitertEngine(content, read_description(run.model_folder))
    (run.folder / "two.tflite").write_bytes(content)
    np.save(run.folder / "pictures.npy", edge_images(32))
    with pytest.raises(ExportError, match=r"outputs of 2 or 2 and 1 dimensions; found \[2, 2\]"):
        export.run_reader("litert", run.folder / "two.tflite", run.folder / "pictures.npy", None, 1)


def test_a_prediction_below_the_threshold_is_unsure(run):
    image = edge_images(32)[-1]
    edit(run, threshold=1.0)
    assert [prediction.unsure for prediction in Predictor(run).stream(image)] == [True]
    edit(run, threshold=0.01)
    assert [prediction.unsure for prediction in Predictor(run).stream(image)] == [False]


def test_litert_imports_no_framework(toy_run, tmp_path):
    Image.fromarray(edge_images(32)[0]).save(tmp_path / "a.png")
    code = """
import sys
from onsight.cli.app import app
app(sys.argv[1:])
print([m for m in ("keras", "tensorflow", "jax", "torch") if m in sys.modules], file=sys.stderr)
"""
    for words in (
        ("predict", toy_run.folder, tmp_path / "a.png"),
        ("evaluate", toy_run.folder, "--engine", "litert", "--quiet"),
        ("report", toy_run.folder),
    ):
        words = [sys.executable, "-c", code, *map(str, words)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stderr.splitlines() == ["[]"]  # and nothing else: LiteRT's own notes are dropped
        assert done.stdout


@pytest.mark.backend
def test_metrics_name_the_engine(run):
    found = {engine: evaluate(run, engine=engine, reporter=Reporter()).metrics for engine in ("litert", "keras")}
    assert found["litert"]["engine"] == "litert"
    assert found["keras"]["engine"].startswith("keras on ")
    assert found["litert"]["accuracy"] == found["keras"]["accuracy"]
