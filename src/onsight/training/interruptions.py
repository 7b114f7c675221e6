"""Handle the early end of a training: signals, which take effect once the state is saved, and a full disk or memory."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from onsight.core.errors import Interrupted, TrainingError
from onsight.core.files import argument, is_disk_full
from onsight.runs.run import Run
from onsight.spec import TrainSpec
from onsight.training.checkpoints import checkpoint_folders
from onsight.training.state import State

SIGNALS = "SIGINT", "SIGTERM", "SIGHUP"  # Windows has no SIGHUP


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Collect Ctrl-C, SIGTERM and SIGHUP (a closed terminal) in a list. A second signal of the same kind acts as usual.

    Signals that are ignored (`nohup`, background jobs of a shell) stay ignored. Only the main thread may handle
    signals: on other threads nothing is collected.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {}
    for number in (int(getattr(signal, name)) for name in SIGNALS if hasattr(signal, name)):
        handler = signal.getsignal(number)
        if handler not in (None, signal.SIG_IGN):
            previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def cause(number: int) -> str:
    """Return the name of a signal: Ctrl-C, SIGTERM or SIGHUP."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def interruption(run: Run, state: State, epochs: int, number: int) -> Interrupted:
    """Return the error of a training that a signal stops after its state has been saved."""
    ended = state["stopped"] or state["epoch"] >= epochs
    at = f"at epoch {state['epoch'] + 1}, step {state['step']}"
    return Interrupted(
        f"Stopped by {cause(number)} {'after the last epoch' if ended else at}. Everything is saved. "
        f"Continue with: onsight train --resume {argument(run.folder)}",
        128 + number,
    )


def diverged(what: str, run: Run, state: State, spec: TrainSpec) -> TrainingError:
    """Return the error for numbers that are no longer finite."""
    return TrainingError(
        f"{what} at epoch {state['epoch'] + 1}, step {state['step']}: training diverged. The last good "
        f"state is in {run.checkpoints}. Train again with a lower rate: --learning-rate {spec.learning_rate / 10:g} "
        f"(it was {spec.learning_rate:g})."
    )


@contextlib.contextmanager
def explained(run: Run, spec: TrainSpec) -> Iterator[None]:
    """Turn a full disk and full memory into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        again = "train again."
        if checkpoint_folders(run.checkpoints):
            again = f"onsight train --resume {argument(run.folder)}. The checkpoints written before are complete."
        raise TrainingError(f"The disk is full ({os.fspath(run.folder)}). Free some space, then: {again}") from error
    except Exception as error:
        # The errors of TensorFlow and JAX cannot be named without importing both.
        exhausted = type(error).__name__ == "ResourceExhaustedError" or "RESOURCE_EXHAUSTED" in str(error)
        if not (exhausted or isinstance(error, MemoryError)):
            raise
        raise TrainingError(
            f"There is not enough memory for {spec.model} at {spec.image_size} px with batches of {spec.batch_size}. "
            f"Train with a smaller batch: --batch-size {max(1, spec.batch_size // 2)}"
        ) from error
