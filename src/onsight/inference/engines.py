"""The engines that run the model of a finished run: LiteRT, which needs no framework, or Keras.

Both return probabilities for uint8 images of the model's size. The choice changes only the speed.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from onsight.core.errors import ModelFileError, SpecError
from onsight.core.silence import without_stderr
from onsight.core.text import count

if TYPE_CHECKING:
    from onsight.imaging.fit import Fit
    from onsight.models.model_file import ModelDescription
    from onsight.runs.run import Run


Answer = Callable[[np.ndarray], np.ndarray]  # uint8 (n, H, W, 3), any n, to float32 probabilities (n, classes)
EngineName = Literal["auto", "litert", "keras"]

# Pixels per call of the interpreter: 16 images of 32 px. More do not fit into the cache (with 256 images, 5,200 instead
# of 6,700 images per second of CPU time). With fewer, Python's overhead dominates.
PIXELS = 16 * 32 * 32


class Engine(Protocol):
    """Runs a model.

    Attributes:
        name: "litert", or "keras on" and the backend.
        reason: why this engine was chosen.
        size: pixels per side of the images.
        fit: how an image of another shape becomes square (`imaging.decode.resize`).
        classes: the names of the classes, in the order of the probabilities.
        threshold: if the largest probability is below it, the answer is unsure; None if the model has no threshold.
    """

    name: str
    reason: str
    size: int
    fit: Fit
    classes: tuple[str, ...]
    threshold: float | None

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
    from onsight.models.model_file import read_description

    if engine not in ("auto", "litert", "keras"):
        raise SpecError(f"There is no engine '{engine}'; expected auto, litert or keras.")
    run.require_trained()
    description = read_description(run.model_folder)
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
    """Runs a .tflite file. Each of our threads has an interpreter with one thread, which releases the GIL.

    One interpreter with two threads would spend 20 % of its CPU time synchronising them after each layer.
    """

    name = "litert"

    def __init__(self, content: bytes, description: ModelDescription, reason: str = "asked for") -> None:
        self.reason = reason
        self.size = description.image_size
        self.fit = description.fit
        self.classes = tuple(description.classes)
        self.threshold = description.threshold
        self.content = content
        self.step = max(1, PIXELS // self.size**2)
        self.own = threading.local()
        self.pool: ThreadPoolExecutor | None = None
        # When a process opens its first file, LiteRT writes notes about itself to standard error, and no setting stops
        # it. Problems raise exceptions as well, so none is lost.
        with without_stderr():
            self._interpreter()  # opened here, so that a file that cannot be read raises an error now

    def probabilities(self, images: np.ndarray, threads: int | None = None) -> np.ndarray:
        """Return (n, classes) float32 for (n, size, size, 3) uint8, on `threads` threads, by default one per core."""
        answers = np.empty((len(images), len(self.classes)), np.float32)
        starts = range(0, len(images), self.step)

        def work(starts: range) -> None:
            for start in starts:
                self._answer(images[start : start + self.step], answers[start : start + self.step])

        cores = os.cpu_count() or 1
        threads = min(threads or cores, len(starts))
        if threads <= 1:
            work(starts)
        else:
            self.pool = self.pool or ThreadPoolExecutor(cores)
            # Each thread takes every n-th step, so that all finish at about the same time.
            list(self.pool.map(work, [starts[first::threads] for first in range(threads)]))
        return answers

    def _answer(self, images: np.ndarray, answers: np.ndarray) -> None:
        """Write the probabilities of at most `step` images into `answers`."""
        interpreter = self._interpreter()
        if self.own.batch < len(images):
            self._resize(interpreter, len(images))
        if self.own.batch > len(images):  # the last images: padded, because resizing would take longer
            images = np.concatenate([images, np.zeros((self.own.batch - len(images), *images.shape[1:]), np.uint8)])
        interpreter.set_tensor(self.own.input, images)
        interpreter.invoke()
        answers[:] = interpreter.get_tensor(self.own.output)[: len(answers)]

    def _interpreter(self) -> Any:
        """Return the interpreter of this thread. Create it on first use."""
        if not hasattr(self.own, "interpreter"):
            from ai_edge_litert.interpreter import Interpreter

            try:
                interpreter = Interpreter(model_content=self.content, num_threads=1)
                inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
                if (len(inputs), len(outputs)) != (1, 1):
                    raise ModelFileError(
                        f"model.tflite has {count(len(inputs), 'input')} and {count(len(outputs), 'output')}; expected "
                        "one input for images and one output for probabilities."
                    )
                given, answered = inputs[0], outputs[0]
                found = [f"{value['dtype'].__name__} {value['shape'][1:].tolist()}" for value in (given, answered)]
                expected = [f"uint8 {[self.size, self.size, 3]}", f"float32 {[len(self.classes)]}"]
                if found != expected:
                    raise ModelFileError(
                        f"model.tflite maps {found[0]} to {found[1]}, but model.json describes {' to '.join(expected)}."
                    )
                self.own.input, self.own.output = given["index"], answered["index"]
                self._resize(interpreter, 1)
            except (ValueError, RuntimeError) as error:
                raise ModelFileError(f"model.tflite cannot be run by LiteRT: {error}") from error
            self.own.interpreter = interpreter
        return self.own.interpreter

    def _resize(self, interpreter: Any, batch: int) -> None:
        interpreter.resize_tensor_input(self.own.input, (batch, self.size, self.size, 3))
        interpreter.allocate_tensors()
        self.own.batch = batch


class KerasEngine:
    """Runs the Keras model, on the backend of this process."""

    def __init__(self, run: Run, description: ModelDescription, reason: str) -> None:
        self.model = run.load_model()
        import keras  # only after load_model, which chooses the backend

        self.name = f"keras on {keras.config.backend()}"
        self.reason = reason
        self.size = description.image_size
        self.fit = description.fit
        self.classes = tuple(description.classes)
        self.threshold = description.threshold
        self.batch_size = 1

    def probabilities(self, images: np.ndarray, threads: int | None = None) -> np.ndarray:
        """Return (n, classes) float32 for (n, size, size, 3) uint8. The backend ignores `threads` and uses its own."""
        from onsight.data.batches import answered_at_once, full_batches

        # The batch size only grows, up to a limit, and smaller batches are padded: each new shape is compiled.
        self.batch_size = max(self.batch_size, min(answered_at_once(self.size), len(images)))
        parts = [np.zeros((0, len(self.classes)), np.float32)]
        for batch, real in full_batches(images, np.arange(len(images)), self.batch_size):
            parts.append(np.asarray(self.model.predict_on_batch(batch))[:real])
        return np.concatenate(parts)
