"""The table of exports says where its speed cannot be trusted."""

import pytest

from onsight.reporting.export_table import Exports

ROW = {
    "file": "model.tflite", "format": "litert", "precision": "float32", "bytes": 1000, "validation_accuracy": None,
    "max_difference": 0.0, "agreement": 1.0, "latency_ms": 1.0, "latency_p95_ms": 2.9, "latency_ms_all": 1.0,
    "latency_p95_ms_all": 3.0, "images_per_second": 1.0, "images_per_second_all": 1.0, "peak_mb": None,
    "first_answer_seconds": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("changed", [{}, {"latency_p95_ms": 3.1}, {"latency_p95_ms_all": 3.1}])
def test_a_busy_machine_is_named(changed):
    table = Exports([ROW | changed])
    assert sum("busy" in cell for cell in table.cells()[1]) == len(changed)
    assert [("model.tflite" in said and "busy" in said) for said in table.sentences()] == [True] * len(changed)
