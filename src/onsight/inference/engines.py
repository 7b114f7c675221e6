"""What computes the answers of a finished run: LiteRT, which needs no framework, or Keras.

Both give probabilities for uint8 images of the model's size; which one it is changes nothing but the speed.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from onsight.core.errors import ModelFileError, SpecError

if TYPE_CHECKING:
    from onsight.models.model_file import ModelDescription
    from onsight.runs.run import Run


Answer = Callable[[np.ndarray], np.ndarray]  # uint8 (n, H, W, 3), any n, to float32 probabilities (n, classes)
EngineName = Literal["auto", "litert", "keras"]

# Pixels that one call of the interpreter takes: 16 images of 32 px. More leave the cache (5,200 instead of 6,700
# images a second of processor time at 256 of them), fewer are bound by Python.
PIXELS = 16 * 32 * 32


class Engine(Protocol):
    """What answers.

    Attributes:
        name: "litert", or "keras on" and its backend.
        reason: why it is this one.
        size: pixels a side of the images.
        classes: their names, in the order of the probabilities.
        threshold: below this probability of the likeliest class an answer is unsure; None where it was not set.
    """

    name: str
    reason: str
    size: int
    classes: tuple[str, ...]
    threshold: float | None

    def probabilities(self, images: np.ndarray, threads: int | None = None) -> np.ndarray:
        """Return (n, classes) float32 for (n, size, size, 3) uint8; on `threads` where it can, else one a core."""


def open_engine(run: Run, engine: EngineName = "auto") -> Engine:
    """Return what answers for a finished run; `auto` takes LiteRT where the run and the machine have it, else Keras.

    Args:
        run: a finished run.
        engine: "litert" or "keras" to insist.

    Raises:
        RunError: the run is not finished.
        SpecError: the engine is unknown, or what it needs is not there.
        ModelFileError: a file of the model is damaged.
    """
    from onsight.models.model_file import read_description

    if engine not in ("auto", "litert", "keras"):
        raise SpecError(f"No engine '{engine}'. Known: auto, litert, keras.")
    run.require_trained()
    description = read_description(run.model_folder)
    missing = None
    if not description.litert_sha256:
        missing = f"{run.name} has no verified model.tflite"
    elif not find_spec("ai_edge_litert"):
        missing = "ai-edge-litert is not installed"
    if engine == "litert" and missing:
        raise SpecError(f"LiteRT cannot answer: {missing}. Take --engine keras, or auto.")
    if engine == "keras" or missing:
        return KerasEngine(run, description, missing or "asked for")
    content = read_litert(run.model_folder, description)
    return LitertEngine(content, description, "asked for" if engine == "litert" else "it needs no framework")


def read_litert(folder: Path, description: ModelDescription) -> bytes:
    """Return the content of a model folder's model.tflite.

    Raises:
        ModelFileError: it is not the file that model.json names.
    """
    path = folder / "model.tflite"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}, which model.json names, cannot be read: {error.strerror}.") from None
    if hashlib.sha256(content).hexdigest() != description.litert_sha256:
        raise ModelFileError(f"{path} does not have the SHA-256 that model.json names: it was damaged or exchanged.")
    return content


class LitertEngine:
    """A .tflite file, with an interpreter of one thread for each of ours: they let go of Python while they compute.

    One interpreter with two threads spends a fifth of its processor time on their meeting after every layer.
    """

    name = "litert"

    def __init__(self, content: bytes, description: ModelDescription, reason: str = "asked for") -> None:
        self.reason = reason
        self.size = description.image_size
        self.classes = tuple(description.classes)
        self.threshold = description.threshold
        self.content = content
        self.step = max(1, PIXELS // self.size**2)
        self.own = threading.local()
        self.pool: ThreadPoolExecutor | None = None
        with hushed():
            self._interpreter()  # a file that cannot be read says so now

    def probabilities(self, images: np.ndarray, threads: int | None = None) -> np.ndarray:
        """Return (n, classes) float32 for (n, size, size, 3) uint8; on so many threads, else one a core."""
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
            # Every n-th step each, so that none waits for another's share.
            list(self.pool.map(work, [starts[first::threads] for first in range(threads)]))
        return answers

    def _answer(self, images: np.ndarray, answers: np.ndarray) -> None:
        """Write the answers for at most `step` images."""
        interpreter = self._interpreter()
        if self.own.batch < len(images):
            self._resize(interpreter, len(images))
        if self.own.batch > len(images):  # the last ones: filled up, for another size would cost more
            images = np.concatenate([images, np.zeros((self.own.batch - len(images), *images.shape[1:]), np.uint8)])
        interpreter.set_tensor(self.own.input, images)
        interpreter.invoke()
        answers[:] = interpreter.get_tensor(self.own.output)[: len(answers)]

    def _interpreter(self) -> Any:
        """Return this thread's interpreter."""
        if not hasattr(self.own, "interpreter"):
            from ai_edge_litert.interpreter import Interpreter

            try:
                interpreter = Interpreter(model_content=self.content, num_threads=1)
                inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
                if (len(inputs), len(outputs)) != (1, 1):
                    raise ModelFileError(
                        f"model.tflite has {len(inputs)} inputs and {len(outputs)} outputs; expected one of each: "
                        "images in, probabilities out."
                    )
                given, answered = inputs[0], outputs[0]
                found = [f"{value['dtype'].__name__} {value['shape'][1:].tolist()}" for value in (given, answered)]
                expected = [f"uint8 {[self.size, self.size, 3]}", f"float32 {[len(self.classes)]}"]
                if found != expected:
                    raise ModelFileError(
                        f"model.tflite takes {found[0]} and gives {found[1]}; model.json says {' and '.join(expected)}."
                    )
                self.own.input, self.own.output = given["index"], answered["index"]
                self._resize(interpreter, 1)
            except (ValueError, RuntimeError) as error:
                raise ModelFileError(f"model.tflite is no file that LiteRT can run: {error}") from error
            self.own.interpreter = interpreter
        return self.own.interpreter

    def _resize(self, interpreter: Any, batch: int) -> None:
        interpreter.resize_tensor_input(self.own.input, (batch, self.size, self.size, 3))
        interpreter.allocate_tensors()
        self.own.batch = batch


@contextmanager
def hushed() -> Iterator[None]:
    """Keep off the standard error what LiteRT writes there about itself when a process opens its first file.

    It has no setting for that. What it complains of comes as an exception too.
    """
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class KerasEngine:
    """The Keras model itself, on the backend that is chosen for this process."""

    def __init__(self, run: Run, description: ModelDescription, reason: str) -> None:
        self.model = run.load_model()
        import keras  # after load_model has chosen the backend

        self.name = f"keras on {keras.config.backend()}"
        self.reason = reason
        self.size = description.image_size
        self.classes = tuple(description.classes)
        self.threshold = description.threshold
        self.batch_size = 1

    def probabilities(self, images: np.ndarray, threads: int | None = None) -> np.ndarray:
        """Return (n, classes) float32 for (n, size, size, 3) uint8; the backend has threads of its own."""
        from onsight.data.batches import answered_at_once, full_batches

        # The first batch's size, if it is not too large, stays that of all: one shape, one compiled program.
        self.batch_size = max(self.batch_size, min(answered_at_once(self.size), len(images)))
        parts = [np.zeros((0, len(self.classes)), np.float32)]
        for batch, count in full_batches(images, np.arange(len(images)), self.batch_size):
            parts.append(np.asarray(self.model.predict_on_batch(batch))[:count])
        return np.concatenate(parts)
