"""The teacher of a distilled or pruned run: how it is recorded, opened, and compared with its student."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from onsight.core.errors import RunError
from onsight.core.files import sha256, write_json
from onsight.core.progress import Reporter
from onsight.core.records import ModelFacts, TeacherRecord, TeacherReference
from onsight.data.batches import Examples, Plan
from onsight.data.pixel_cache import load_pixels
from onsight.imaging.augment import augment
from onsight.inference.engines import Answer, open_engine
from onsight.inference.predict import probabilities
from onsight.metrics.intervals import paired
from onsight.models.model_file import read_description
from onsight.reporting.teacher_notes import teacher_notes
from onsight.runs.images import RunImages
from onsight.runs.run import Run, open_run
from onsight.runs.seen import FILE
from onsight.spec import TrainSpec
from onsight.training.zero_weights import zero_share

if TYPE_CHECKING:
    import keras


class Teacher(NamedTuple):
    """A finished run from whose answers another run learns."""

    run: Run
    answer: Answer  # LiteRT if it can: it takes a third of the time of Keras, and answers the same on every backend
    images: np.ndarray  # (all, size, size, 3) uint8: the images of the data set at the teacher's image size

    def taught(self, seen: np.ndarray, training: Examples, plan: Plan, start: int) -> np.ndarray:
        """Return the answers (batch, classes) float32 for an augmented batch.

        A student of another image size sees the same changes of the same images as its teacher, each at its own size;
        only noise is drawn for each of them.

        Args:
            seen: (batch, H, W, 3) uint8: the batch as the student sees it.
            training: the training images.
            plan: the plan of the epoch.
            start: the place of the first image of the batch in the order of the plan.
        """
        size, own = training.images.shape[1], self.images.shape[1]
        if own == size:
            return self.answer(seen)
        chosen = plan.order[start : start + len(seen)]
        images = self.images[training.chosen[chosen]]
        return self.answer(augment(images, plan.draws.of(chosen).scaled(own / size)))


def reference(run: Run) -> TeacherReference:
    """Return what the spec.json of a student records about its teacher: its weights, and how much it was pruned."""
    found: TeacherReference = {
        "run": run.name,
        "weights_sha256": read_description(run.model_folder).weights_sha256,
        "sparsity": run.spec.get("sparsity") or 0.0,
        "channels": run.spec.get("channels") or 0.0,
    }
    if (run.folder / FILE).is_file():
        found["seen_sha256"] = sha256(run.folder / FILE)
    return found


def open_teacher(run: Run, spec: TrainSpec, images: RunImages, show: Reporter) -> Teacher | None:
    """Return the teacher of a run with this spec and these images, or None if it has none.

    Raises:
        RunError: the teacher is gone, or has other weights than when the training began.
    """
    if spec.teacher is None:
        return None
    teacher = open_run(spec.teacher)
    teacher.require_trained()
    if reference(teacher)["weights_sha256"] != run.record["teacher"]["weights_sha256"]:
        raise RunError(
            f"{teacher.folder} has other weights than when {run.name} began to learn from it. Start a new run: onsight "
            "distill or onsight prune."
        )
    engine = open_engine(teacher)
    pixels = images.pixels
    if engine.size != spec.image_size:
        pixels = load_pixels(images.dataset, engine.size, show.work, fit=engine.fit)
    return Teacher(teacher, engine.probabilities, pixels.images)


def inherit_weights(model: keras.Model, teacher: Run) -> None:
    """Set the weights of a network from a finished run of the same network with at least as many channels."""
    import keras

    from onsight.models.remove_channels import inherit

    answering = teacher.load_model()
    inherit(model, keras.Model(answering.input, answering.get_layer("logits").output))


def compare_with_teacher(run: Run, teacher: Teacher, validation: Examples, show: Reporter) -> None:
    """Compare a finished run with its teacher, write teacher.json into the run, and show the result.

    Args:
        run: the student.
        teacher: its teacher.
        validation: the validation images; there may be none.
        show: receives the result.
    """
    images, chosen, labels = validation
    sides = [(teacher.answer, teacher.images), (open_engine(run).probabilities, images)]
    found: TeacherRecord = {"runs": [facts(each) for each in (teacher.run, run)]}
    for side, milliseconds in zip(
        found["runs"], latencies([(answer, seen[:1]) for answer, seen in sides]), strict=True
    ):
        side["latency_ms"] = milliseconds
    if len(chosen):
        before, after = (probabilities(answer, seen, chosen, 256).argmax(axis=1) == labels for answer, seen in sides)
        for side, right in zip(found["runs"], (before, after), strict=True):
            side["validation_accuracy"] = float(right.mean())
        apart = paired(int((before & ~after).sum()), int((after & ~before).sum()), len(labels))
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
        "image_size": description.image_size,
        "parameters": description.parameters,
        "zeros": zero_share([array for name, array in weights.items() if name.endswith("kernel")]),
        "file": path.name,
        "bytes": len(content),
        "bytes_compressed": len(zlib.compress(content, 9)),
    }


def latencies(sides: Sequence[tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]]) -> list[float]:
    """Return the CPU time in milliseconds that each takes for its image: medians of 20, measured in turn."""
    spent: list[list[float]] = [[] for _ in sides]
    for _ in range(20):
        for (answer, image), times in zip(sides, spent, strict=True):
            answer(image)
            started = time.process_time()
            for _ in range(5):
                answer(image)
            times.append((time.process_time() - started) / 5 * 1e3)
    return [float(np.median(times)) for times in spent]
