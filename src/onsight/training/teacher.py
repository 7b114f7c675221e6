"""The run that a smaller one learns from: what is recorded of it, what answers for it, and how the two compare."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.errors import RunError
from onsight.core.files import write_json
from onsight.core.progress import Reporter
from onsight.inference.engines import Answer, open_engine
from onsight.inference.predict import probabilities
from onsight.metrics.intervals import paired
from onsight.models.model_file import read_description
from onsight.reporting.teacher_lines import comparison_lines
from onsight.runs.run import Run, open_run
from onsight.training.zero_weights import zero_share

if TYPE_CHECKING:
    import keras


def named(run: Run) -> dict[str, Any]:
    """Return what a run's spec.json says of the finished run that it learns from, and how thin that is already."""
    return {
        "run": run.name,
        "weights_sha256": read_description(run.model_folder).weights_sha256,
        "sparsity": run.spec.get("sparsity") or 0.0,
        "channels": run.spec.get("channels") or 0.0,
    }


def open_teacher(run: Run, folder: Path) -> tuple[Run, Answer]:
    """Return the run that `run` learns from, which lies in `folder`, and what answers for it.

    By LiteRT where that can be: a third of the time that Keras takes, and the same on every backend.

    Raises:
        RunError: it is gone, or has other weights than when the training began.
    """
    teacher = open_run(folder)
    teacher.require_trained()
    if named(teacher)["weights_sha256"] != run.record["teacher"]["weights_sha256"]:
        raise RunError(f"{teacher.folder} has other weights than when {run.name} began to learn from it.")
    return teacher, open_engine(teacher).probabilities


def inherit_weights(model: keras.Model, teacher: Run) -> None:
    """Set a network's weights from a finished run with the same network, and at least as many channels."""
    import keras

    from onsight.models.remove_channels import inherit

    answering = teacher.load_model()
    inherit(model, keras.Model(answering.input, answering.get_layer("logits").output))


def say_difference(
    run: Run, folder: Path, images: np.ndarray, chosen: np.ndarray, labels: np.ndarray, show: Reporter
) -> None:
    """Compare a finished run with its teacher in `folder`, write teacher.json into it, and say what that says.

    Args:
        run: the smaller one.
        folder: the teacher's.
        images: (all, H, W, 3) uint8.
        chosen: (n,) indices of the validation images; none may be there.
        labels: (n,) of those.
        show: where it is said.
    """
    runs = [open_run(folder), run]
    answers = [open_engine(each).probabilities for each in runs]
    found: dict[str, Any] = {"runs": [facts(each) for each in runs]}
    for side, milliseconds in zip(found["runs"], latencies(answers, images[:1]), strict=True):
        side["latency_ms"] = milliseconds
    if len(chosen):
        teacher, own = (probabilities(answer, images, chosen, 256).argmax(axis=1) == labels for answer in answers)
        for side, right in zip(found["runs"], (teacher, own), strict=True):
            side["validation_accuracy"] = float(right.mean())
        apart = paired(int((teacher & ~own).sum()), int((own & ~teacher).sum()), len(labels))
        found |= {"validation_n": len(labels), "difference": apart._asdict()}
    write_json(run.folder / "teacher.json", found)
    for line in comparison_lines(found):
        show.note(line)


def facts(run: Run) -> dict[str, Any]:
    """Return how large a run's model is: parameters, zeros among its kernels, and bytes as it lies and compressed."""
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
    """Return the milliseconds of processor time that each needs for one image, asked in turn; the median of 20."""
    spent: list[list[float]] = [[] for _ in answers]
    for _ in range(20):
        for answer, times in zip(answers, spent, strict=True):
            answer(image)
            started = time.process_time()
            for _ in range(5):
                answer(image)
            times.append((time.process_time() - started) / 5 * 1e3)
    return [float(np.median(times)) for times in spent]
