"""A .tflite file as a function from images to arrays, computed by LiteRT on several threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from onsight.core.errors import ModelFileError
from onsight.core.silence import without_stderr
from onsight.core.text import count
from onsight.models.check_litert import check_litert

# Pixels per call of the interpreter: 4 images of 32 px. With 1 or 16 images, `cnn_compact` and `micro` answer 2 to 4 %
# fewer per second of CPU time, with 256 9 % fewer. The memory of each thread's interpreter grows with this number.
PIXELS = 4 * 32 * 32


@contextmanager
def refused_by_litert() -> Iterator[None]:
    """Turn the exceptions with which LiteRT refuses a file into ours."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ModelFileError(f"model.tflite cannot be run by LiteRT: {' '.join(str(error).split())}") from error


class LitertFunction:
    """Runs a .tflite file. Each of our threads has an interpreter with one thread, which releases the GIL.

    One interpreter with two threads would spend 20 % of its CPU time synchronising them after each layer.
    """

    def __init__(self, content: bytes, size: int, shapes: Sequence[tuple[int, ...]]) -> None:
        """Open the file.

        Args:
            content: its bytes.
            size: pixels per side of the images.
            shapes: the shape of each output, without the batch.

        Raises:
            ModelFileError: LiteRT cannot run the file, or it has other inputs or outputs.
        """
        check_litert(content)
        self.content = content
        self.size = size
        self.shapes = [tuple(shape) for shape in shapes]
        self.step = max(1, PIXELS // size**2)
        self.own = threading.local()
        self.pool: ThreadPoolExecutor | None = None
        # When a process opens its first file, LiteRT writes notes about itself to standard error, and no setting stops
        # it. Problems raise exceptions as well, so none is lost.
        with without_stderr():
            self._interpreter()  # opened here, so that a file that cannot be read raises an error now

    def __call__(self, images: np.ndarray, threads: int | None = None) -> list[np.ndarray]:
        """Return the outputs, (n, ...) float32 each, of (n, size, size, 3) uint8; by default on one thread per core."""
        outputs = [np.empty((len(images), *shape), np.float32) for shape in self.shapes]
        starts = range(0, len(images), self.step)

        def work(starts: range) -> None:
            for start in starts:
                self._run(images[start : start + self.step], [each[start : start + self.step] for each in outputs])

        cores = os.cpu_count() or 1
        threads = min(threads or cores, len(starts))
        if threads <= 1:
            work(starts)
        else:
            self.pool = self.pool or ThreadPoolExecutor(cores)
            # Each thread takes every n-th step, so that all finish at about the same time.
            list(self.pool.map(work, [starts[first::threads] for first in range(threads)]))
        return outputs

    def _run(self, images: np.ndarray, outputs: list[np.ndarray]) -> None:
        """Write the outputs of at most `step` images."""
        interpreter = self._interpreter()
        with refused_by_litert():
            self._compute(interpreter, images, outputs)
        if not all(np.isfinite(output).all() for output in outputs):
            raise ModelFileError("model.tflite answers with NaN or infinity: it was damaged or changed.")

    def _compute(self, interpreter: Any, images: np.ndarray, outputs: list[np.ndarray]) -> None:
        if self.own.batch != len(images):  # this takes 0.02 ms for a small network, 0.2 ms for one of photos
            self._resize(interpreter, len(images))
        interpreter.set_tensor(self.own.input, images)
        interpreter.invoke()
        for index, output in zip(self.own.outputs, outputs, strict=True):
            output[:] = interpreter.get_tensor(index)

    def _interpreter(self) -> Any:
        """Return the interpreter of this thread. Create it on first use."""
        if not hasattr(self.own, "interpreter"):
            from ai_edge_litert.interpreter import Interpreter

            with refused_by_litert():
                interpreter = Interpreter(model_content=self.content, num_threads=1)
                inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
                if (len(inputs), len(outputs)) != (1, len(self.shapes)):
                    raise ModelFileError(
                        f"model.tflite has {count(len(inputs), 'input')} and {count(len(outputs), 'output')}; expected "
                        f"one input for images and {count(len(self.shapes), 'output')}."
                    )
                found = [f"{value['dtype'].__name__} {value['shape'][1:].tolist()}" for value in (*inputs, *outputs)]
                expected = [f"uint8 {[self.size, self.size, 3]}", *(f"float32 {list(each)}" for each in self.shapes)]
                if found != expected:
                    raise ModelFileError(
                        f"model.tflite maps {found[0]} to {' and '.join(found[1:])}, but model.json describes "
                        f"{expected[0]} to {' and '.join(expected[1:])}."
                    )
                self.own.input, self.own.outputs = inputs[0]["index"], [each["index"] for each in outputs]
                self._resize(interpreter, 1)
            self.own.interpreter = interpreter
        return self.own.interpreter

    def _resize(self, interpreter: Any, batch: int) -> None:
        interpreter.resize_tensor_input(self.own.input, (batch, self.size, self.size, 3))
        interpreter.allocate_tensors()
        self.own.batch = batch
