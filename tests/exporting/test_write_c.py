"""The folder of C++ for microcontrollers: what it holds, and that a compiler takes it."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from onsight.core.errors import ExportError
from onsight.core.progress import Reporter
from onsight.exporting import arena
from onsight.exporting.arena import arena_size
from onsight.exporting.export import check_export, export
from onsight.exporting.write_c import operator_names, text
from onsight.models.litert_file import convert
from onsight.runs.run import Run

needs_micro = pytest.mark.skipif(not find_spec("tflite_micro"), reason="tflite-micro has no wheel here")
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed")

# Just enough of TensorFlow Lite Micro to compile and link: the "model" answers with the class of the first red byte.
STUB = {
    "micro_mutable_op_resolver.h": """
        #pragma once
        enum TfLiteStatus { kTfLiteOk, kTfLiteError };
        namespace tflite { template <unsigned n> struct MicroMutableOpResolver { METHODS }; }
    """,
    "micro_interpreter.h": """
        #pragma once
        #include <cstddef>
        #include <cstdint>
        namespace tflite {
        struct Model {};
        struct Tensor { union { std::uint8_t* uint8; float* f; } data; };
        struct MicroInterpreter {
          std::uint8_t image[1 << 20]; float answer[1000] = {}, far[1] = {}; Tensor in, out, second;
          template <class R> MicroInterpreter(const Model*, R&, std::uint8_t*, std::size_t) {
            in.data.uint8 = image; out.data.f = answer; second.data.f = far;
          }
          TfLiteStatus AllocateTensors() { return kTfLiteOk; }
          Tensor* input(int) { return &in; }
          Tensor* output(int number) { return number ? &second : &out; }
          TfLiteStatus Invoke() { for (float& each : answer) each = 0; answer[image[0]] = 1; return kTfLiteOk; }
        };
        }
    """,
    "system_setup.h": "#pragma once\nnamespace tflite { inline void InitializeTarget() {} }",
    "../schema/schema_generated.h": """
        #pragma once
        namespace tflite { inline const Model* GetModel(const void*) { return nullptr; } }
    """,
}


@pytest.fixture(scope="module")
def folder(toy_run, tmp_path_factory):
    """The `export/` of a copy of the toy run. Tests only read it."""
    place = tmp_path_factory.mktemp("micro") / "run"
    shutil.copytree(toy_run.folder, place)
    rows = export(Run(place), ["c"], max_drop=100, reporter=Reporter())
    assert [(row["file"], row["precision"]) for row in rows] == [("classifier", "int8")]
    return place / "export"


@needs_micro
@pytest.mark.backend
def test_the_folder_holds_the_int8_model_that_was_proven(folder, toy_run):
    names = {path.name for path in (folder / "classifier").iterdir()}
    assert names == {"model.h", "model.cc", "classifier.h", "classifier.cc", "classifier.ino", "main.cc"}
    source, header = ((folder / "classifier" / name).read_text() for name in ("model.cc", "model.h"))
    content = bytes.fromhex("".join(re.findall("0x([0-9a-f]{2})", source)))
    assert f"kModelSize = {len(content)};" in header
    assert all(f'"{label}",' in source for label in toy_run.classes)
    assert f"kArenaSize = {arena_size(content)};" in header
    assert all(f"resolver.Add{name}()" in header for name in operator_names(content))
    assert "Cast" not in operator_names(content)  # TensorFlow Lite Micro has no cast from uint8
    (row,) = json.loads((folder / "table.json").read_text())["files"]
    assert row["agreement"] > 0.9
    ((name, difference),) = check_export(Run(folder.parent), Reporter())
    assert (name, difference) == ("classifier", 0)


def compiled(sources, include, tmp_path, library=()):
    words = ["g++", "-std=c++17", "-Wall", "-Wextra", *(f"-I{path}" for path in include), *map(str, sources), *library]
    done = subprocess.run([*words, "-o", str(tmp_path / "program")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tmp_path / "program", done.stderr


@needs_micro
@needs_compiler
def test_a_compiler_takes_the_folder(folder, toy_run, tmp_path):
    methods = re.findall(r"resolver\.(Add\w+)\(\)", (folder / "classifier" / "model.h").read_text())
    for name, content in STUB.items():
        path = tmp_path / "tensorflow" / "lite" / "micro" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            content.replace("METHODS", " ".join(f"TfLiteStatus {m}() {{ return kTfLiteOk; }}" for m in methods))
        )
    program, warnings = compiled((folder / "classifier").glob("*.cc"), [tmp_path], tmp_path)
    assert warnings == ""
    images = np.zeros((3, 32, 32, 3), np.uint8)
    images[:, 0, 0, 0] = [2, 0, 1]
    done = subprocess.run([program], input=images.tobytes(), capture_output=True, check=True)
    answers = [line.split("\t")[:2] for line in done.stdout.decode().splitlines()]
    assert answers == [[toy_run.classes[index], "sure"] for index in (2, 0, 1)]


@needs_micro
@needs_compiler
@pytest.mark.skipif("ONSIGHT_TFLM" not in os.environ, reason="ONSIGHT_TFLM names no build of TensorFlow Lite Micro")
def test_the_real_library_answers_as_the_gate_did(folder, tmp_path):
    """ONSIGHT_TFLM names folders to include, separated by colons. The first has libtflm.a.

    The library was built with TF_LITE_STATIC_MEMORY.
    """
    include = os.environ["ONSIGHT_TFLM"].split(":")
    library = ["-w", "-DTF_LITE_STATIC_MEMORY", f"{include[0]}/libtflm.a"]
    program, _ = compiled((folder / "classifier").glob("*.cc"), include, tmp_path, library)
    images = np.load(folder / "vectors" / "pictures.npy")
    done = subprocess.run([program], input=images.tobytes(), capture_output=True, check=True)
    found = np.array([line.split("\t")[2:] for line in done.stdout.decode().splitlines()], np.float32)
    with np.load(folder / "vectors" / "classifier.npz") as file:
        np.testing.assert_allclose(found, file["probabilities"], atol=1e-5)


@needs_micro
def test_a_network_with_an_unknown_operator_is_refused():
    import keras
    from keras import layers

    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    flat = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, layers.Dense(3, activation="softmax")(layers.Dense(4, activation="gelu")(flat)))
    with pytest.raises(ExportError, match="TensorFlow Lite Micro cannot run this network"):
        arena_size(convert(model))


@pytest.mark.parametrize(
    ("label", "literal"),
    [
        ("cat", '"cat"'),
        ('a"b\\c', r'"a\042b\134c"'),
        ("Bär", r'"B\303\244r"'),
        ("\n1", r'"\0121"'),
        ("??/", r'"\077\077/"'),
    ],
)
def test_labels_are_string_literals(label, literal):
    assert text(label) == literal


def test_an_arena_in_which_the_library_crashes_is_too_small(monkeypatch, capsys):
    def prepared(content, arena_size):
        if arena_size < 4096:
            os.kill(os.getpid(), signal.SIGKILL)
        if arena_size < 10_000:
            raise RuntimeError("too small")

    monkeypatch.setattr(arena, "interpreter", lambda: SimpleNamespace(from_bytes=prepared))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    arena.main()
    assert capsys.readouterr().out == "10240\n"
