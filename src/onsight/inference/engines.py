"""The engines that run the model of a finished run: LiteRT, which needs no framework, or Keras.

Both return probabilities for uint8 images of the model's size. The choice changes only the speed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from onsight.core.errors import ModelFileError, SpecError
from onsight.models.litert_function import LitertFunction

if TYPE_CHECKING:
    from onsight.imaging.fit import Fit
    from onsight.models.model_file import ModelDescription
    from onsight.runs.run import Run


Answer = Callable[[np.ndarray], np.ndarray]  # uint8 (n, H, W, 3), any n, to float32 probabilities (n, classes)
EngineName = Literal["auto", "litert", "keras"]


class Answers(NamedTuple):
    """What a model answers for n images."""

    probabilities: np.ndarray  # (n, classes) float32
    distances: np.ndarray | None  # (n,) float32, from the training images; None if the model knows no distance


def doubts(answers: Answers, engine: Engine) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) bool: the answers that are unsure because two classes are close, and those of unlike images.

    An image that is unlike the training images counts as unlike only, whatever its probabilities.
    """
    unlike = np.zeros(len(answers.probabilities), bool)
    if answers.distances is not None and engine.distance_threshold is not None:
        unlike = answers.distances > engine.distance_threshold
    return (answers.probabilities.max(axis=1, initial=0.0) < (engine.threshold or 0.0)) & ~unlike, unlike


class Engine(Protocol):
    """Runs a model.

    Attributes:
        name: "litert", or "keras on" and the backend.
        reason: why this engine was chosen.
        size: pixels per side of the images.
        fit: how an image of another shape becomes square (`imaging.decode.resize`).
        classes: the names of the classes, in the order of the probabilities.
        threshold: if the largest probability is below it, the answer is unsure; None if the model has no threshold.
        distance_threshold: if the distance is above it, the image is unlike the training images; None if the model
            knows no distance.
    """

    name: str
    reason: str
    size: int
    fit: Fit
    classes: tuple[str, ...]
    threshold: float | None
    distance_threshold: float | None

    def answer(self, images: np.ndarray, threads: int | None = None) -> Answers:
        """Return probabilities and, if the model knows them, distances; arguments as for `probabilities`."""

    def probabilities(self, images: np.ndarray, threads: int | None = None) -> np.ndarray:
        """Return (n, classes) float32 for (n, size, size, 3) uint8.

        Args:
            images: the images.
            threads: the number of threads, if the engine supports it; None: one per core.
        """


def open_engine(run: Run, engine: EngineName = "auto") -> Engine:
    """Return the engine of a finished run.

    Args:
        run: a finished run.
        engine: "litert", "keras", or "auto": LiteRT if the run has a verified model.tflite and LiteRT is installed,
            else Keras.

    Raises:
        RunError: the run is not finished.
        SpecError: the engine is unknown, or something that it needs is missing.
        ModelFileError: a file of the model is damaged.
    """
    from onsight.models.manifest import read_manifest
    from onsight.models.model_file import read_description

    if engine not in ("auto", "litert", "keras"):
        raise SpecError(f"There is no engine '{engine}'; expected auto, litert or keras.")
    run.require_model()
    description = read_description(run.model_folder)
    if not read_manifest(run.model_folder) and tuple(description.classes) != run.classes:  # of an earlier version
        raise ModelFileError(
            f"{run.model_folder / 'model.json'} and {run.folder / 'dataset.json'} name different classes: one of them "
            "was edited or damaged."
        )
    missing = None
    if not description.litert_sha256:
        missing = f"{run.name} has no verified model.tflite"
    elif not find_spec("ai_edge_litert"):
        missing = "ai-edge-litert is not installed"
    if engine == "litert" and missing:
        raise SpecError(f"LiteRT cannot run this model: {missing}. Use --engine keras or --engine auto.")
    if engine == "keras" or missing:
        return KerasEngine(run, description, missing or "asked for")
    content = read_litert(run.model_folder, description)
    return LitertEngine(content, description, "asked for" if engine == "litert" else "it needs no framework")


def read_litert(folder: Path, description: ModelDescription) -> bytes:
    """Return the content of a model folder's model.tflite.

    Raises:
        ModelFileError: the file is missing, or is not the one that model.json names.
    """
    path = folder / "model.tflite"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}, which model.json names, cannot be read: {error.strerror}.") from None
    if hashlib.sha256(content).hexdigest() != description.litert_sha256:
        raise ModelFileError(f"{path} does not have the SHA-256 that model.json names: it was damaged or replaced.")
    return content


class LitertEngine:
    """Runs a .tflite file."""

    name = "litert"

    def __init__(self, content: bytes, description: ModelDescription, reason: str = "asked for") -> None:
        self.reason = reason
        self.size = description.image_size
        self.fit = description.fit
        self.classes = tuple(description.classes)
        self.threshold = description.threshold
        self.distance_threshold = description.distance_threshold
        shapes: list[tuple[int, ...]] = [(len(self.classes),), ()]
        self.function = LitertFunction(content, self.size, shapes if description.prototypes else shapes[:1])

    def answer(self, images: np.ndarray, threads: int | None = None) -> Answers:
        """Return the answers for (n, size, size, 3) uint8, on `threads` threads, by default one per core."""
        found, *distances = self.function(images, threads)
        return Answers(found, distances[0] if distances else None)

    def probabilities(self, images: np.ndarray, threads: int | None = None) -> np.ndarray:
        """Return (n, classes) float32 for (n, size, size, 3) uint8, on `threads` threads, by default one per core."""
        return self.answer(images, threads).probabilities


class KerasEngine:
    """Runs the Keras model, on the backend of this process."""

    def __init__(self, run: Run, description: ModelDescription, reason: str) -> None:
        self.model = run.load_model(distance=True)
        import keras  # only after load_model, which chooses the backend

        self.name = f"keras on {keras.config.backend()}"
        self.reason = reason
        self.size = description.image_size
        self.fit = description.fit
        self.classes = tuple(description.classes)
        self.threshold = description.threshold
        self.distance_threshold = description.distance_threshold
        self.batch_size = 1

    def answer(self, images: np.ndarray, threads: int | None = None) -> Answers:
        """Return the answers for (n, size, size, 3) uint8. The backend ignores `threads` and uses its own."""
        from onsight.data.batches import answered_at_once, full_batches

        # The batch size only grows, up to a limit, and smaller batches are padded: each new shape is compiled.
        self.batch_size = max(self.batch_size, min(answered_at_once(self.size), len(images)))
        parts, distances = [np.zeros((0, len(self.classes)), np.float32)], [np.zeros(0, np.float32)]
        for batch, real in full_batches(images, np.arange(len(images)), self.batch_size):
            outputs = self.model.predict_on_batch(batch)
            if self.distance_threshold is not None:
                outputs, distance = outputs
                distances.append(np.asarray(distance)[:real])
            parts.append(np.asarray(outputs)[:real])
        known = self.distance_threshold is not None
        return Answers(np.concatenate(parts), np.concatenate(distances) if known else None)

    def probabilities(self, images: np.ndarray, threads: int | None = None) -> np.ndarray:
        """Return (n, classes) float32 for (n, size, size, 3) uint8. The backend ignores `threads` and uses its own."""
        return self.answer(images, threads).probabilities
