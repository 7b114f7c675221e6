"""Custom networks, from their registration to every command."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import keras
import numpy as np
import pytest
from keras import layers

import onsight
from onsight.core.errors import ModelFileError, RunError, SpecError
from onsight.core.progress import Reporter
from onsight.models.custom import check_network, import_own, missing
from onsight.models.registry import MODELS, build_model
from onsight.spec import TrainSpec
from onsight.testing import check_model


def linear(image_size, num_classes, *, dtype="uint8", name="dense", softmax=None, last="logits", at_end="float32"):
    """Return a small network that keeps the contract, or breaks it in one way."""
    inputs = keras.Input((image_size, image_size, 3), dtype=dtype, name="image")
    x = layers.Rescaling(1 / 255, name="normalise")(inputs)
    x = layers.AveragePooling2D(4, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(8, activation="relu", name=name)(x)
    return keras.Model(inputs, layers.Dense(num_classes, activation=softmax, dtype=at_end, name=last)(x))


@pytest.fixture
def mine():
    onsight.model("mine", description="a linear model", smallest=16, largest=64, default_size=32)(linear)
    yield linear
    del MODELS["mine"]


def test_a_registered_function_can_be_used_by_name_like_a_built_in_network(mine):
    network = build_model("mine", 24, 3)
    assert network.name == "mine"
    assert network.output_shape == (None, 3)
    assert MODELS["mine"].description == "a linear model"
    with pytest.raises(SpecError, match="mine takes images of 16 to 64 px, but image_size is 65"):
        build_model("mine", 65, 3)
    assert TrainSpec(model="mine").model == "mine"
    assert onsight.model("mine")(linear) is linear  # a rerun notebook cell


def test_names_and_sizes_are_checked(mine):
    for name in ("", "1st", "a-b", "../x", "a" * 65):
        with pytest.raises(SpecError, match="cannot name a model"):
            onsight.model(name)
    with pytest.raises(SpecError, match="expected 8 <= smallest <= largest <= 1024, not 64 and 32"):
        onsight.model("other", smallest=64, largest=32)
    with pytest.raises(SpecError, match=r"'cnn' is taken by a built-in network. Give test_custom:linear another"):
        onsight.model("cnn")(linear)
    same = FunctionType(linear.__code__, globals(), "cnn")
    same.__module__ = "cnn"  # so that its reference equals that of the built-in network
    with pytest.raises(SpecError, match="'cnn' is taken"):
        onsight.model("cnn")(same)


def with_two_outputs(network):
    import keras

    return keras.Model(network.input, [network.output, network.output])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda size, classes: None, "returned NoneType, expected a keras.Model"),
        (lambda size, classes: linear(size, classes, dtype="float32"), "takes float32 .*the network must normalise"),
        (lambda size, classes: linear(32, classes), "expected uint8 .None, 24, 24, 3"),
        (lambda size, classes: linear(size, 5), "expected 'logits', float32 .None, 3"),
        (lambda size, classes: linear(size, classes, last="head"), "ends in 'head'"),
        (lambda size, classes: with_two_outputs(linear(size, classes)), "1 input and 2 outputs, expected one of each"),
        (lambda size, classes: linear(size, classes, at_end="float16"), "ends in 'logits', float16"),
        (lambda size, classes: linear(size, classes, name=None), "a different network each time: .*'dense.* a name="),
    ],
)
def test_a_network_that_breaks_the_contract_is_refused_and_the_error_says_what_was_expected(broken, message):
    onsight.model("broken")(broken)
    try:
        with pytest.raises(SpecError, match=message):
            check_network("broken", 24, 3)
    finally:
        del MODELS["broken"]


def test_every_command_takes_a_custom_network_or_says_what_to_import(mine, toy_spec, monkeypatch, tmp_path):
    monkeypatch.setenv("ONSIGHT_RUNS", str(tmp_path))
    spec = toy_spec.model_copy(update={"model": "mine", "epochs": 2})
    run = onsight.train(spec, reporter=Reporter())
    assert run.record["model_import"] == "test_custom:linear"
    onsight.resume(run, epochs=3, reporter=Reporter())
    expected = onsight.evaluate(run, reporter=Reporter()).metrics["accuracy"]
    assert expected > 0.3
    table = onsight.export(run, ["litert"], reporter=Reporter())
    assert table[0]["max_difference"] <= 1e-5
    answers = onsight.predict(run, [np.zeros((24, 24, 3), np.uint8)], engine="keras")

    entry = MODELS.pop("mine")  # as in another process
    try:
        hint = "function linear of the module test_custom.*`import test_custom`.*ONSIGHT_IMPORT=test_custom"
        reopened = onsight.open_run(run.folder)
        # The LiteRT file is self-contained: the user's code is not needed.
        again = onsight.predict(reopened, [np.zeros((24, 24, 3), np.uint8)], engine="litert")
        assert again[0].label == answers[0].label
        assert onsight.evaluate(reopened, reporter=Reporter()).metrics["accuracy"] == expected
        with pytest.raises(ModelFileError, match=hint):
            reopened.load_model()
        with pytest.raises(RunError, match=hint):
            onsight.resume(reopened, epochs=4, reporter=Reporter())
        with pytest.raises(RunError, match=hint):
            onsight.train(TrainSpec(data="toy", weights=str(run.folder)), reporter=Reporter())
        with pytest.raises(RunError, match=hint):
            onsight.prune(reopened, sparsity=0.5, reporter=Reporter())
        with pytest.raises(RunError, match=hint):
            onsight.evaluate(reopened, folds=2, reporter=Reporter())
        with pytest.raises(ModelFileError, match=hint):
            onsight.export(reopened, ["litert"], reporter=Reporter())
    finally:
        MODELS["mine"] = entry


def test_a_module_that_a_file_names_is_never_imported_and_malformed_names_are_not_shown():
    assert "no imported module has registered it" in missing("x", None)
    assert "no imported module has registered it" in missing("x", "os; rm -rf:x")
    assert "run its definition first" in missing("x", "__main__:x")
    assert "`import this`" in missing("x", "this:x")
    assert "this" not in sys.modules


NETS = """
import keras
import onsight

@onsight.model("tiny", description="the smallest there is")
def tiny(image_size, num_classes):
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, name="normalise")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="logits")(x))
"""


def test_onsight_import_must_name_a_module(monkeypatch):
    monkeypatch.setenv("ONSIGHT_IMPORT", "./nets")
    with pytest.raises(SpecError, match=r"names '\./nets': expected the name of a module, like nets, or a file"):
        import_own()


@pytest.mark.slow
def test_the_command_line_knows_the_networks_of_onsight_import(tmp_path, mine):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "nets.py").write_text(NETS)

    def onsight_with(*words, imports=""):
        return subprocess.run(
            [sys.executable, "-m", "onsight", *words], capture_output=True, text=True,
            env=os.environ | {"ONSIGHT_IMPORT": imports},
        )  # fmt: skip

    done = onsight_with("models", imports=os.path.join("sub", "nets.py"))
    assert done.returncode == 0, done.stderr
    assert "the smallest there is" in done.stdout
    (tmp_path / "sub" / "this.py").write_text(NETS)
    assert "a module this exists already" in onsight_with("models", imports=os.path.join("sub", "this.py")).stderr
    done = onsight_with("models", imports="nowhere_to_be_found")
    assert done.returncode == 2
    assert "ONSIGHT_IMPORT names 'nowhere_to_be_found', but there is no module" in done.stderr


def test_the_example_in_the_docs_passes_the_contract():
    text = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    try:
        exec(compile(code, "nets.py", "exec"), {"__name__": "nets"})
        check_model("mine", 24)
    finally:
        MODELS.pop("mine", None)


@pytest.mark.slow
def test_an_export_in_a_separate_process_finds_the_custom_network(tmp_path, toy_spec, monkeypatch):
    """TensorFlow writes ONNX files; on another backend it does so in a separate process."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ONSIGHT_RUNS", str(tmp_path / "runs"))
    import nets  # noqa: F401

    try:
        run = onsight.train(toy_spec.model_copy(update={"model": "tiny", "epochs": 1}), reporter=Reporter())
        (row,) = onsight.export(run, ["onnx"], reporter=Reporter())
        assert row["max_difference"] <= 1e-5
        assert json.loads((run.model_folder / "model.json").read_text())["model_import"] == "nets:tiny"
    finally:
        del MODELS["tiny"]
