import subprocess
import sys

import pytest

from onsight.formats import FORMATS, READERS, file_name


def test_listing_the_registry_imports_no_framework():
    code = (
        "import sys, onsight.formats, onsight.exporting; "
        "print([m for m in ('keras', 'tensorflow', 'jax', 'onnx', 'openvino', 'ai_edge_litert') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_have_names_of_their_own():
    names = [file_name(name, precision) for name in FORMATS for precision in FORMATS[name].precisions]
    assert len(set(names)) == len(names)
    assert file_name("litert", "int8") == "model-int8.tflite"
    assert file_name("saved_model", "float32") == "saved_model"


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_has_a_reader_that_knows_nothing_of_onsight(name):
    source = (READERS / f"read_{name}.py").read_text()
    assert "def open_model(path" in source
    assert "import onsight" not in source
    assert "from onsight" not in source
