"""The training loop: epochs, checkpoints, early stopping, signals. All that it knows is in its checkpoints."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .backend import PRECISIONS
from .checkpoints import load_checkpoint, numbered, save_checkpoint
from .errors import Interrupted, TrainingError
from .events import EventLog
from .files import sync_folder
from .models import build_model
from .pipeline import full_batches, steps_per_epoch, training_batches
from .progress import Reporter
from .runs import Run
from .saving import save_model
from .schedules import judge_epoch, new_judge, rate_factor
from .spec import TrainSpec
from .steps import make_optimizer, make_step

if TYPE_CHECKING:
    import keras

SHOWN_EVERY = 0.5  # seconds between two updates of the display
LOGGED_EVERY = 2.0  # seconds between two tick lines of history.jsonl


class Examples(NamedTuple):
    """One part of a data set; its pictures stay where they are, in memory or mapped from the cache."""

    images: np.ndarray  # (all, size, size, 3) uint8: of every part
    chosen: np.ndarray  # (n,) indices of those that are meant
    labels: np.ndarray  # (n,) integers, of those


def fit(
    run: Run,
    spec: TrainSpec,
    training: Examples,
    validation: Examples,
    show: Reporter,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train from the run's newest checkpoint, or from the start, and write `model/` last.

    Raises:
        RunError: another process trains in this run.
        TrainingError: the loss is no longer finite, the disk or the memory is full. Older checkpoints stay whole.
        Interrupted: Ctrl-C or SIGTERM came; the state is saved.
    """
    with run.locked(), explained(run, spec), signals() as received:
        loop = Loop(run, spec, training, validation, show, received, callbacks)
        try:
            while loop.state["epoch"] < spec.epochs and not loop.state["stopped"]:
                loop.epoch()
        finally:
            loop.events.close()
        loop.checkpoint()
        loop.finish()


class Loop:
    """One training in progress. `state` and the step's arrays are all that the next epoch depends on."""

    def __init__(
        self,
        run: Run,
        spec: TrainSpec,
        training: Examples,
        validation: Examples,
        show: Reporter,
        received: list[int],
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        import keras

        self.run, self.spec, self.training, self.validation = run, spec, training, validation
        self.show, self.received = show, received
        self.batch_size = min(spec.batch_size, len(training.labels))
        self.steps = steps_per_epoch(len(training.labels), self.batch_size)
        self.model = build(spec, len(run.classes))
        optimizer = make_optimizer(spec.optimizer, spec.learning_rate, spec.weight_decay)
        self.model.optimizer, self.model.stop_training = optimizer, False  # where Keras callbacks look
        self.step = make_step(self.model, optimizer, spec.label_smoothing)
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=self.model)
        self.state: dict[str, Any] = {
            "epoch": 0,
            "step": 0,
            "loss_sum": 0.0,
            "correct": 0,
            "seen": 0,
            "seconds": 0.0,
            "stopped": False,
            "judge": new_judge(),
            "history": [],
        }
        self.best: dict[str, np.ndarray] = {}
        self.events = EventLog(run.folder / "tensorboard")
        self.saved = self.shown = self.logged = self.started = time.monotonic()
        if numbered(run.checkpoints):
            self.restore()
        else:
            self.checkpoint()  # from here on, whatever happens can be resumed

    def epoch(self) -> None:
        """Train one epoch, or what is left of it, then validate and judge it."""
        state, spec = self.state, self.spec
        self.callbacks.on_epoch_begin(state["epoch"])
        self.started = time.monotonic() - state["seconds"]
        batches = training_batches(
            *self.training,
            batch_size=self.batch_size,
            augmentation=spec.augmentation,
            seed=spec.seed,
            epoch=state["epoch"],
            start=state["step"],
        )
        pending: tuple[Any, Any] | None = None
        for images, labels in batches:
            taken = state["epoch"] * self.steps + state["step"]
            learning_rate = spec.learning_rate * rate_factor(
                spec.schedule, taken / (spec.epochs * self.steps), state["judge"]
            )
            outcome = self.step.train(images, labels, learning_rate)
            if pending:  # read one step late, so that the device never waits for us
                self.count(*pending)
            pending = outcome
            state["step"] += 1
            now = time.monotonic()
            if now - self.shown > SHOWN_EVERY:
                self.tick(now)
            if self.received or now - self.saved > spec.checkpoint_seconds:
                self.count(*pending)
                pending = None
                self.checkpoint()
            if self.received:
                self.interrupt()
        if pending:
            self.count(*pending)
        self.end_epoch(learning_rate)

    def count(self, loss: Any, correct: Any) -> None:
        """Add one batch to the epoch's totals; a loss that is not finite ends the training."""
        loss = float(loss)
        if not math.isfinite(loss):
            raise self.diverged(f"The loss became {loss}")
        self.state["loss_sum"] += loss * self.batch_size
        self.state["correct"] += int(correct)
        self.state["seen"] += self.batch_size

    def end_epoch(self, learning_rate: float) -> None:
        """Validate, write the epoch's line, judge it, and checkpoint."""
        state, spec = self.state, self.spec
        self.step.sync()
        seconds = time.monotonic() - self.started
        row = {
            "event": "epoch",
            "epoch": state["epoch"] + 1,
            "loss": state["loss_sum"] / state["seen"],
            "accuracy": state["correct"] / state["seen"],
        }
        best = False
        if len(self.validation.labels):
            row["val_loss"], row["val_accuracy"] = self.validate()
            best = judge_epoch(state["judge"], row["epoch"], row["val_loss"], patience=spec.patience)
            if best and spec.patience:
                self.best = {name: array for name, array in self.step.arrays().items() if name.startswith("model.")}
            state["stopped"] = bool(spec.patience) and state["judge"]["waited"] >= spec.patience
        row["learning_rate"] = learning_rate
        row["images_per_second"] = state["seen"] / seconds
        row["seconds"] = time.monotonic() - self.started
        state["history"].append(row)
        self.run.append_history(row)
        self.events.write(row)
        left = row["seconds"] * (spec.epochs - row["epoch"])
        self.show.epoch({**row, "epochs": spec.epochs, "seconds_left": 0 if state["stopped"] else left, "best": best})
        self.callbacks.on_epoch_end(state["epoch"], {key: row[key] for key in row if key not in ("event", "epoch")})
        state["stopped"] |= bool(self.model.stop_training)
        state.update(epoch=state["epoch"] + 1, step=0, loss_sum=0.0, correct=0, seen=0, seconds=0.0)
        # Small sets have epochs of a fraction of a second: a tenth of the interval is often enough for them.
        if time.monotonic() - self.saved > spec.checkpoint_seconds / 10:
            self.checkpoint()

    def validate(self) -> tuple[float, float]:
        """Return the mean cross entropy and the accuracy on the validation pictures."""
        loss = correct = 0.0
        start = 0
        for images, count in full_batches(self.validation.images, self.validation.chosen, max(self.batch_size, 256)):
            logits = self.step.logits(images)[:count].astype(np.float64)
            labels = self.validation.labels[start : start + count]
            start += count
            shifted = logits - logits.max(axis=1, keepdims=True)
            log_sums = np.log(np.exp(shifted).sum(axis=1))
            loss += float((log_sums - shifted[np.arange(count), labels]).sum())
            correct += int((logits.argmax(axis=1) == labels).sum())
        if not math.isfinite(loss):
            raise self.diverged(f"The validation loss became {loss}")
        return loss / start, correct / start

    def tick(self, now: float) -> None:
        """Show how far the epoch is."""
        state = self.state
        if not state["seen"]:
            return
        self.shown = now
        seconds = now - self.started
        rate = state["seen"] / max(seconds, 1e-9)
        left = (self.spec.epochs - state["epoch"]) * self.steps - state["step"]
        facts = {
            "epoch": state["epoch"] + 1,
            "epochs": self.spec.epochs,
            "step": state["step"],
            "steps": self.steps,
            "loss": state["loss_sum"] / state["seen"],
            "accuracy": state["correct"] / state["seen"],
            "images_per_second": rate,
            "seconds_left": left * self.batch_size / rate,
        }
        self.show.tick(facts)
        if now - self.logged > LOGGED_EVERY:
            self.logged = now
            self.run.append_history({"event": "tick", **facts})

    def checkpoint(self) -> None:
        """Save everything that the next step depends on."""
        self.state["seconds"] = time.monotonic() - self.started if self.state["step"] else 0.0
        arrays = self.step.arrays()
        for array in arrays.values():
            if not np.isfinite(array).all():
                raise self.diverged("A weight is no longer finite")
        best = {f"best.{name}": array for name, array in self.best.items()}
        save_checkpoint(self.run.checkpoints, arrays | best, self.state)
        self.saved = time.monotonic()

    def restore(self) -> None:
        """Go back to the newest valid checkpoint; what history.jsonl says of later epochs is dropped."""
        checkpoint = load_checkpoint(self.run.checkpoints)
        self.state = checkpoint.state
        self.state["stopped"] = False
        self.best = {
            name.removeprefix("best."): array for name, array in checkpoint.arrays.items() if name.startswith("best.")
        }
        self.step.restore(checkpoint.arrays)
        self.run.rewrite_history(self.state["history"])
        where = f"epoch {self.state['epoch'] + 1}, step {self.state['step']}"
        self.show.note(f"resuming         at {where}, from {checkpoint.folder}")

    def interrupt(self) -> None:
        """Leave after a signal; the state was just saved."""
        number = self.received[0]
        cause = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        raise Interrupted(
            f"Stopped by {cause} at epoch {self.state['epoch'] + 1}, step {self.state['step']}. Everything is saved. "
            f"Go on with: onsight train --resume {self.run.folder}",
            128 + number,
        )

    def diverged(self, what: str) -> TrainingError:
        """Return the error for a training that has left the finite numbers."""
        rate = self.spec.learning_rate
        return TrainingError(
            f"{what} at epoch {self.state['epoch'] + 1}, step {self.state['step']}: training diverged. The last good "
            f"state is in {self.run.checkpoints}. Train again with a lower rate: --learning-rate {rate / 10:g} "
            f"(it was {rate:g})."
        )

    def finish(self) -> None:
        """Write `model/`: the best weights where early stopping judged, else the last. Renamed into place."""
        if self.best and self.spec.patience:
            self.step.restore(self.step.arrays() | self.best)
            self.show.note(
                f"kept             the weights of epoch {self.state['judge']['best_epoch']}, the best on validation"
            )
        self.step.sync()
        folder, partial, old = (self.run.folder / name for name in ("model", ".model.partial", ".model.old"))
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir()
        save_model(partial, self.model, self.run.classes)
        if folder.exists():  # a finished run that was trained longer
            folder.rename(old)
        partial.rename(folder)
        sync_folder(self.run.folder)
        shutil.rmtree(old, ignore_errors=True)


def build(spec: TrainSpec, num_classes: int) -> keras.Model:
    """Return the untrained network of `spec`, its initial weights derived from the seed, in the training precision."""
    import keras

    keras.utils.set_random_seed(spec.seed % 2**32)
    keras.config.set_dtype_policy(PRECISIONS[spec.precision])
    try:
        return build_model(spec.model, spec.image_size, num_classes)
    finally:
        keras.config.set_dtype_policy("float32")


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM instead of dying of them; the second one of a kind acts as it always did."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may ask for signals
        yield received
        return

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {int(number): signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def explained(run: Run, spec: TrainSpec) -> Iterator[None]:
    """Turn a full disk and a full memory into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC and "No space left" not in str(error):
            raise
        raise TrainingError(
            f"The disk is full ({os.fspath(run.folder)}). The checkpoints written before are whole. Make room, then: "
            f"onsight train --resume {run.folder}"
        ) from error
    except Exception as error:
        # TensorFlow raises ResourceExhaustedError, JAX XlaRuntimeError, and neither can be named without importing it.
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in f"{type(error).__name__} {error}":
            raise
        raise TrainingError(
            f"The memory was not enough for {spec.model} at {spec.image_size} px with batches of {spec.batch_size}. "
            f"Train with a smaller batch: --batch-size {max(1, spec.batch_size // 2)}"
        ) from error
