"""The teacher of a distilled or pruned run: how it is recorded, opened, and compared with its student."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onsight.core.errors import RunError
from onsight.core.files import write_json
from onsight.core.progress import Reporter
from onsight.core.records import ModelFacts, TeacherRecord, TeacherReference
from onsight.data.batches import Examples
from onsight.inference.engines import Answer, open_engine
from onsight.inference.predict import probabilities
from onsight.metrics.intervals import paired
from onsight.models.model_file import read_description
from onsight.reporting.teacher_notes import teacher_notes
from onsight.runs.run import Run, open_run
from onsight.training.zero_weights import zero_share

if TYPE_CHECKING:
    import keras


def reference(run: Run) -> TeacherReference:
    """Return what the spec.json of a student records about its teacher: its weights, and how much it was pruned."""
    return {
        "run": run.name,
        "weights_sha256": read_description(run.model_folder).weights_sha256,
        "sparsity": run.spec.get("sparsity") or 0.0,
        "channels": run.spec.get("channels") or 0.0,
    }


def open_teacher(run: Run, folder: Path) -> tuple[Run, Answer]:
    """Return the teacher of `run`, whose folder is `folder`, and a function that returns its answers.

    LiteRT answers if it can: it takes a third of the time of Keras, and answers the same on every backend.

    Raises:
        RunError: the teacher is gone, or has other weights than when the training began.
    """
    teacher = open_run(folder)
    teacher.require_trained()
    if reference(teacher)["weights_sha256"] != run.record["teacher"]["weights_sha256"]:
        raise RunError(
            f"{teacher.folder} has other weights than when {run.name} began to learn from it. Start a new run: onsight "
            "distill or onsight prune."
        )
    return teacher, open_engine(teacher).probabilities


def inherit_weights(model: keras.Model, teacher: Run) -> None:
    """Set the weights of a network from a finished run of the same network with at least as many channels."""
    import keras

    from onsight.models.remove_channels import inherit

    answering = teacher.load_model()
    inherit(model, keras.Model(answering.input, answering.get_layer("logits").output))


def compare_with_teacher(run: Run, folder: Path, validation: Examples, show: Reporter) -> None:
    """Compare a finished run with its teacher, write teacher.json into the run, and show the result.

    Args:
        run: the student.
        folder: of the teacher.
        validation: the validation images; there may be none.
        show: receives the result.
    """
    images, chosen, labels = validation
    runs = [open_run(folder), run]
    answers = [open_engine(each).probabilities for each in runs]
    found: TeacherRecord = {"runs": [facts(each) for each in runs]}
    for side, milliseconds in zip(found["runs"], latencies(answers, images[:1]), strict=True):
        side["latency_ms"] = milliseconds
    if len(chosen):
        teacher, own = (probabilities(answer, images, chosen, 256).argmax(axis=1) == labels for answer in answers)
        for side, right in zip(found["runs"], (teacher, own), strict=True):
            side["validation_accuracy"] = float(right.mean())
        apart = paired(int((teacher & ~own).sum()), int((own & ~teacher).sum()), len(labels))
        found["validation_n"], found["difference"] = len(labels), apart._asdict()
    write_json(run.folder / "teacher.json", found)
    for label, text in teacher_notes(found):
        show.note(label, text)


def facts(run: Run) -> ModelFacts:
    """Return how large the model of a run is: parameters, zeros in its kernels, bytes, and bytes when compressed."""
    from safetensors.numpy import load_file

    description = read_description(run.model_folder)
    weights = load_file(run.model_folder / "weights.safetensors")
    path = run.model_folder / ("model.tflite" if description.litert_sha256 else "weights.safetensors")
    content = path.read_bytes()
    return {
        "run": run.name,
        "model": description.model,
        "parameters": description.parameters,
        "zeros": zero_share([array for name, array in weights.items() if name.endswith("kernel")]),
        "file": path.name,
        "bytes": len(content),
        "bytes_compressed": len(zlib.compress(content, 9)),
    }


def latencies(answers: Sequence[Callable[[np.ndarray], np.ndarray]], image: np.ndarray) -> list[float]:
    """Return the CPU time in milliseconds that each takes for one image: medians of 20, measured in turn."""
    spent: list[list[float]] = [[] for _ in answers]
    for _ in range(20):
        for answer, times in zip(answers, spent, strict=True):
            answer(image)
            started = time.process_time()
            for _ in range(5):
                answer(image)
            times.append((time.process_time() - started) / 5 * 1e3)
    return [float(np.median(times)) for times in spent]
