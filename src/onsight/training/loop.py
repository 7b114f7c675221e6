"""The training loop: epochs, checkpoints, early stopping, signals. All that it knows is in its checkpoints."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.backend import dtype_policy, to_numpy
from onsight.core.errors import Interrupted, RunError, SpecError, TrainingError
from onsight.core.files import is_disk_full, sync_folder
from onsight.core.progress import Reporter
from onsight.core.text import seconds_of
from onsight.data.batches import (
    Examples,
    Plan,
    ahead,
    answered_at_once,
    full_batches,
    plan_epoch,
    steps_per_epoch,
    training_batches,
)
from onsight.imaging.augment import mirrors
from onsight.inference.engines import Answer
from onsight.inference.litert import add_litert
from onsight.inference.parity import spread
from onsight.models.model_file import save_model
from onsight.models.registry import build_model, prepare_model
from onsight.runs.run import Run
from onsight.spec import TrainSpec
from onsight.training.calibrate import calibrate
from onsight.training.checkpoints import load_checkpoint, numbered, save_checkpoint
from onsight.training.features import load_features
from onsight.training.initial_weights import load
from onsight.training.phases import Phase, at, from_scratch, plan_phases
from onsight.training.schedules import judge_anew, judge_epoch, new_judge, rate_factor
from onsight.training.steps import Loss, assign, balanced, make_head_step, make_optimizer, make_step
from onsight.training.teacher import inherit_weights, open_teacher
from onsight.training.tensorboard import EventLog
from onsight.training.time_budget import steps_in
from onsight.training.zero_weights import UPDATES, scheduled, smallest_masked

if TYPE_CHECKING:
    import keras


SHOWN_EVERY = 0.5  # seconds between two updates of the display
LOGGED_EVERY = 2.0  # seconds between two tick lines of history.jsonl
EARLY = 0.25  # share of the epochs in which images are shrunk to `early_size`


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
        show.note("compiling        the training step, once")
        loop.callbacks.on_train_begin()
        if spec.time_budget and not loop.state["history"] and not loop.state["step"]:
            loop.fit_into(seconds_of(spec.time_budget))
        if spec.time_budget:
            loop.deadline = loop.began + seconds_of(spec.time_budget)
        while loop.state["epoch"] < loop.spec.epochs and not loop.state["stopped"]:
            loop.epoch()
        loop.callbacks.on_train_end()
        loop.checkpoint()
        loop.finish()
        loop.events.close()
        if received:  # too late to stop anything, but whoever asked wants no more to follow
            raise Interrupted(
                f"Stopped by {cause(received)}; training had just finished: {run.folder}", 128 + received[0]
            )


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

        self.run, self.spec = run, spec
        self.show, self.received = show, received
        self.batch_size = min(spec.batch_size, len(training.labels))
        self.steps = steps_per_epoch(len(training.labels), self.batch_size)
        self.examples = training, validation
        self.class_weights = balanced(training.labels, len(run.classes)) if spec.class_weight == "balanced" else None
        self.model = build(spec, len(run.classes))
        self.model.stop_training = False  # where Keras callbacks look
        self.phases = plan_phases(spec)
        if isinstance(spec.freeze, int) and spec.freeze >= len(self.model.layers):
            raise SpecError(
                f"freeze={spec.freeze} leaves nothing to learn: {spec.model} has {len(self.model.layers)} layers, and "
                "the last one is the head."
            )
        self.early = round(spec.epochs * EARLY) if spec.early_size else 0  # epochs of smaller images
        self.teacher = open_teacher(run, spec.teacher) if spec.teacher else None
        self.masks: list[Any] | None = None  # for each trainable variable: which of its numbers are not pruned
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=self.model)
        self.state: dict[str, Any] = {
            "epoch": 0,
            "step": 0,
            "loss_sum": 0.0,
            "correct": 0,
            "seen": 0,
            "seconds": 0.0,
            "stopped": False,
            "total": None,  # steps in all, where a time budget set them
            "judge": new_judge(),
            "history": [],
        }
        self.best: dict[str, np.ndarray] = {}
        self.deadline = math.inf
        self.began = self.saved = self.shown = self.logged = self.started = time.perf_counter()
        if numbered(run.checkpoints):
            self.restore()
        else:
            if not from_scratch(spec):
                load(self.model, spec.weights)
            elif self.teacher and (spec.sparsity or spec.channels):
                inherit_weights(self.model, self.teacher[0])
            else:
                order = np.random.default_rng([spec.seed, 3]).permutation(training.chosen)
                prepare_model(self.model, training.images, order)
            self.enter(self.phases[0])
            self.checkpoint()  # from here on, whatever happens can be resumed
            self.feed()
        self.events = EventLog(run.folder / "tensorboard", self.state["epoch"])

    def enter(self, phase: Phase) -> None:
        """Begin a phase: which layers learn, by a new optimizer, from images or from features of them."""
        spec, self.phase = self.spec, phase
        if not from_scratch(spec):
            self.show.note(f"phase            {phase}")
        optimizer = make_optimizer(spec.optimizer, phase.learning_rate, spec.weight_decay)
        self.model.optimizer = optimizer  # where Keras callbacks look
        if phase.frozen is not None:
            freeze(self.model, phase.frozen)
        make = make_head_step if phase.head_only else make_step
        network = at_any_size(self.model, spec.early_size) if spec.early_size else self.model
        self.step = make(network, optimizer, Loss(spec.label_smoothing, self.class_weights))

    def feed(self) -> None:
        """Set what the phase trains and validates on: images, or features of them."""
        self.training, self.validation = self.examples
        if self.phase.head_only:
            self.training, self.validation = (self.featured(each) for each in self.examples)

    def featured(self, examples: Examples) -> Examples:
        """Return images as their features, those of training images mirrored too where the augmentation mirrors."""
        if not len(examples.labels):
            return examples

        def told(done: int, count: int) -> None:
            self.show.work("computing features", done, count)
            if self.received:
                self.interrupt()

        mirrored = examples is self.examples[0] and mirrors(self.spec.augmentation)
        features = load_features(self.model, examples.images, examples.chosen, mirrored=mirrored, progress=told)
        return Examples(features, np.arange(len(examples.labels)), examples.labels)

    def epoch(self) -> None:
        """Train one epoch, or what is left of it, then validate and judge it."""
        state, checkpoint_seconds = self.state, self.spec.checkpoint_seconds
        self.callbacks.on_epoch_begin(state["epoch"])
        self.started = time.perf_counter() - state["seconds"]
        rates = np.array([self.learning_rate(step) for step in range(self.steps)], np.float32)
        pending: tuple[Any, Any] | None = None
        left = None if state["total"] is None else state["total"] - state["epoch"] * self.steps - state["step"]
        for outcome in itertools.islice(self.outcomes(self.plan(state["epoch"]), rates, state["step"]), left):
            if pending:  # read one step late, so that the device never waits for us
                self.count(*pending)
            pending = outcome
            state["step"] += 1
            now = time.perf_counter()
            if now - self.shown > SHOWN_EVERY:
                self.tick(now)
            if self.received or now - self.saved > checkpoint_seconds:
                self.count(*pending)
                pending = None
                self.checkpoint()
            if self.received:
                self.interrupt()
            if now > self.deadline:  # slower than it was when the steps were timed
                state["stopped"] = True
                break
        if pending:
            self.count(*pending)
        self.end_epoch()

    def plan(self, epoch: int) -> Plan:
        """Return what an epoch, from 0, shows."""
        plan = plan_epoch(self.training, self.spec.augmentation, self.spec.seed, epoch)
        return plan._replace(side=self.spec.early_size) if epoch < self.early else plan

    def outcomes(self, plan: Plan, rates: np.ndarray, start: int) -> Iterator[tuple[Any, Any]]:
        """Train on an epoch's batches from step `start` on; yield each one's loss and number of right answers."""
        trained = partial(self.learn, self.teacher[1]) if self.teacher else self.step.epoch
        return trained(self.training, plan, rates, self.batch_size, start)

    def fit_into(self, budget: float) -> None:
        """Set the number of steps, and with it the schedule, so that the training ends within `budget` seconds."""
        total = steps_in(self, budget)
        epochs = -(-total // self.steps)
        self.state["total"] = total
        self.spec = self.spec.model_copy(update={"epochs": epochs})
        self.phases = plan_phases(self.spec)
        self.phase = self.phases[0]
        self.record_epochs(f"what fits into {self.spec.time_budget}")
        self.show.note(f"epochs           {total / self.steps:.2f}  (what fits into {budget:g} s: {total:,} steps)")
        self.checkpoint()

    def record_epochs(self, reason: str) -> None:
        """Write into spec.json that the training takes another number of epochs than it began with, and why."""
        self.run.record["reasons"] = self.run.record.get("reasons", {}) | {"epochs": reason}
        self.run.record["phases"] = [str(phase) for phase in self.phases]
        self.run.update_spec(epochs=self.spec.epochs, time_budget=self.spec.time_budget)

    def learn(
        self, answer: Answer, examples: Examples, plan: Plan, rates: np.ndarray, batch_size: int, start: int
    ) -> Iterator[tuple[Any, Any]]:
        """Do what `Step.epoch` does with a teacher's answers for each batch, and with masks where zeros are wanted."""
        batches = ahead(training_batches(examples, plan, batch_size, start))
        for step, (images, labels) in enumerate(batches, start=start):
            if self.spec.sparsity:
                self.prune(step)
            yield self.step.train(images, labels, rates[step], answer(images), self.masks)

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step of this epoch."""
        taken = (self.state["epoch"] - self.phase.start) * self.steps + step
        length = self.state["total"] or (self.phase.stop - self.phase.start) * self.steps
        return self.phase.learning_rate * rate_factor(self.spec.schedule, min(1, taken / length), self.state["judge"])

    def prune(self, step: int) -> None:
        """Choose, every so many steps, which numbers of the kernels are zero from this step of the epoch on."""
        taken, every = self.state["epoch"] * self.steps + step, self.spec.epochs * self.steps
        if taken % max(1, every // UPDATES):
            return
        self.step.sync()
        kernels = {
            number: to_numpy(variable)
            for number, variable in enumerate(self.model.trainable_variables)
            if variable.name.endswith("kernel")
        }
        masks = smallest_masked(list(kernels.values()), scheduled(self.spec.sparsity, taken / every))
        self.set_masks(dict(zip(kernels, masks, strict=True)))

    def set_masks(self, masks: dict[int, np.ndarray]) -> None:
        """Keep masks, by the number of their trainable variable, where the step reads them."""
        from keras import ops

        placed = {number: ops.convert_to_tensor(mask) for number, mask in masks.items()}
        self.masks = [placed.get(number) for number in range(len(self.model.trainable_variables))]

    def count(self, loss: Any, correct: Any) -> None:
        """Add one batch to the epoch's totals; a loss that is not finite ends the training."""
        loss = float(loss)
        if not math.isfinite(loss):
            raise self.diverged(f"The loss became {loss}")
        self.state["loss_sum"] += loss * self.batch_size
        self.state["correct"] += int(correct)
        self.state["seen"] += self.batch_size

    def end_epoch(self) -> None:
        """Validate, write the epoch's line, judge it, and checkpoint."""
        state, spec = self.state, self.spec
        self.step.sync()
        learning_rate = self.learning_rate(state["step"] - 1)  # before the epoch is judged
        seconds = time.perf_counter() - self.started
        row = {
            "event": "epoch",
            "epoch": state["epoch"] + 1,
            "loss": state["loss_sum"] / state["seen"],
            "accuracy": state["correct"] / state["seen"],
        }
        if len(self.validation.labels):
            row["val_loss"], row["val_accuracy"] = self.validate()
            if judge_epoch(state["judge"], row["epoch"], row["val_loss"], patience=spec.patience) and spec.patience:
                self.best = {name: array for name, array in self.step.arrays().items() if name.startswith("model.")}
            impatient = bool(spec.patience) and state["judge"]["waited"] >= spec.patience
            state["stopped"] |= impatient and self.phase is self.phases[-1] and row["epoch"] > self.early
            if row["epoch"] == self.early:  # what follows is judged by itself
                judge_anew(state["judge"])
        row["learning_rate"] = learning_rate
        row["images_per_second"] = state["seen"] / max(seconds, 1e-9)
        row["seconds"] = time.perf_counter() - self.started
        state["history"].append(row)
        self.run.append_history(row)
        self.events.write(row)
        left = row["seconds"] * max(0.0, (state["total"] or self.phase.stop * self.steps) / self.steps - row["epoch"])
        self.show.epoch({**row, "epochs": spec.epochs, "seconds_left": 0 if state["stopped"] else left})
        self.callbacks.on_epoch_end(state["epoch"], {key: row[key] for key in row if key not in ("event", "epoch")})
        state["stopped"] |= bool(self.model.stop_training)
        state.update(epoch=state["epoch"] + 1, step=0, loss_sum=0.0, correct=0, seen=0, seconds=0.0)
        phase = at(self.phases, state["epoch"])
        if phase is not self.phase and not state["stopped"]:
            judge_anew(state["judge"])
            self.enter(phase)
            self.checkpoint()
            self.feed()
        # Small sets have epochs of a fraction of a second: a tenth of the interval is often enough for them.
        if time.perf_counter() - self.saved > spec.checkpoint_seconds / 10:
            self.checkpoint()

    def validate(self) -> tuple[float, float]:
        """Return the mean cross entropy on the validation images, classes weighed as in training; the accuracy."""
        logits, labels = self.validation_logits(self.step.logits, self.validation), self.validation.labels
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(shifted).sum(axis=1))
        each = log_sums - shifted[np.arange(len(labels)), labels]
        loss = float((each if self.class_weights is None else each * self.class_weights[labels]).mean())
        if not math.isfinite(loss):
            raise self.diverged(f"The validation loss became {loss}")
        return loss, int((logits.argmax(axis=1) == labels).sum()) / len(labels)

    def validation_logits(self, answer: Callable[[np.ndarray], Any], validation: Examples) -> np.ndarray:
        """Return (n, classes) float64 of the validation images; `answer` is from them, or features, to logits."""
        size = max(self.batch_size, answered_at_once(self.spec.image_size))
        batches = full_batches(validation.images, validation.chosen, size)
        return np.concatenate([np.asarray(answer(images), np.float64)[:count] for images, count in batches])

    def tick(self, now: float) -> None:
        """Show how far the epoch is."""
        state = self.state
        if not state["seen"]:
            return
        self.shown = now
        seconds = now - self.started
        rate = state["seen"] / max(seconds, 1e-9)
        left = (state["total"] or self.phase.stop * self.steps) - state["epoch"] * self.steps - state["step"]
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
        self.state["seconds"] = time.perf_counter() - self.started if self.state["step"] else 0.0
        arrays = self.step.arrays()
        for array in arrays.values():
            if not np.isfinite(array).all():
                raise self.diverged("A weight is no longer finite")
        best = {f"best.{name}": array for name, array in self.best.items()}
        masks = {
            f"mask.{number:05d}": to_numpy(mask) for number, mask in enumerate(self.masks or ()) if mask is not None
        }
        save_checkpoint(self.run.checkpoints, arrays | best | masks, self.state)
        self.saved = time.perf_counter()

    def restore(self) -> None:
        """Go back to the newest valid checkpoint; what history.jsonl says of later epochs is dropped."""
        checkpoint = load_checkpoint(self.run.checkpoints)
        self.state = checkpoint.state
        self.best = {
            name.removeprefix("best."): array for name, array in checkpoint.arrays.items() if name.startswith("best.")
        }
        masks = {
            int(name.removeprefix("mask.")): array
            for name, array in checkpoint.arrays.items()
            if name.startswith("mask.")
        }
        if masks:
            self.set_masks(masks)
        try:
            assign(self.model, "model", checkpoint.arrays)  # first: features are computed from them
            self.enter(at(self.phases, self.state["epoch"]))
            before = at(plan_phases(TrainSpec(**self.run.spec)), self.state["epoch"])
            if before.head_only == self.phase.head_only:
                self.step.restore(checkpoint.arrays)
            else:  # more epochs were asked for, and they are of more layers
                judge_anew(self.state["judge"])
        except (KeyError, ValueError) as error:
            raise RunError(
                f"{checkpoint.folder} does not fit this version's {self.spec.model} ({error}). Go on with the Onsight "
                f"{self.run.record['environment']['onsight']} that made it, or train anew."
            ) from None
        if self.spec.epochs != self.run.spec["epochs"]:  # asked to go on for longer
            self.state["stopped"], self.state["total"], self.state["judge"]["waited"] = False, None, 0
            self.checkpoint()
            self.record_epochs("asked for when it was resumed")
        self.feed()
        self.run.rewrite_history(self.state["history"])
        where = f"epoch {self.state['epoch'] + 1}, step {self.state['step']}"
        self.show.note(f"resuming         {self.run.folder} at {where}, from checkpoint {checkpoint.folder.name}")

    def interrupt(self) -> None:
        """Leave after a signal; the state was just saved."""
        raise Interrupted(
            f"Stopped by {cause(self.received)} at epoch {self.state['epoch'] + 1}, step {self.state['step']}. "
            f"Everything is saved. Go on with: onsight train --resume {self.run.folder}",
            128 + self.received[0],
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
        """Calibrate and write `model/`: the best weights where early stopping judged, else the last; renamed last."""
        if self.best and self.spec.patience:
            self.step.restore(self.step.arrays() | self.best)
            best = self.state["judge"]["best_epoch"]
            self.show.note(f"kept             the weights of epoch {best}, the best on validation")
        self.step.sync()
        folder, partial, old = (self.run.folder / name for name in ("model", ".model.partial", ".model.old"))
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir()
        save_model(partial, self.model, self.run.classes, *self.calibrate(), channels=self.spec.channels)
        training = self.examples[0]
        chosen = training.chosen[spread(len(training.chosen), 64)]
        if why := add_litert(partial, training.images[chosen]):
            self.show.note(f"model.tflite     none: {why}. `onsight predict` takes Keras for this run")
        if folder.exists():  # a finished run that was trained longer
            folder.rename(old)
        partial.rename(folder)
        sync_folder(self.run.folder)
        shutil.rmtree(old, ignore_errors=True)

    def calibrate(self) -> tuple[float, float | None]:
        """Return the temperature and the threshold of the final weights, both chosen on validation alone."""
        answer, validation = self.step.logits, self.validation
        if not len(validation.labels):
            self.show.note("temperature      1  (no validation images to fit it on)")
            return 1.0, None
        if self.spec.precision != "float32":  # of the network that answers later, which computes in float32
            model = build(self.spec.model_copy(update={"precision": "float32"}), len(self.run.classes))
            for weight, trained in zip(model.weights, self.model.weights, strict=True):
                weight.assign(to_numpy(trained))
            answer, validation = model.predict_on_batch, self.examples[1]
        logits = self.validation_logits(answer, validation)
        return calibrate(logits, validation.labels, self.spec.min_precision, self.show.note)


def build(spec: TrainSpec, num_classes: int) -> keras.Model:
    """Return the untrained network of `spec`, its initial weights derived from the seed, in the training precision."""
    import keras

    keras.utils.set_random_seed(spec.seed % 2**32)
    with dtype_policy(spec.precision):
        return build_model(spec.model, spec.image_size, num_classes, spec.channels)


def at_any_size(model: keras.Model, side: int) -> keras.Model:
    """Return a network of the same layers and weights that takes images of any size.

    Raises:
        SpecError: its weights are meant for one size: at `side` it would need others.
    """
    import keras

    def again(side: int | None) -> keras.Model:
        inputs = keras.Input((side, side, 3), dtype="uint8", name="image")
        return keras.models.clone_model(model, input_tensors=inputs, clone_function=lambda layer: layer)

    try:
        again(side)
        return again(None)
    except (ValueError, TypeError):  # a user's own layer may raise either
        raise SpecError(
            f"early_size={side} shows smaller images first, and {model.name} has layers that fit one size alone. "
            "Leave it out, or take a network that ends in a global pooling, such as cnn_compact."
        ) from None


def freeze(model: keras.Model, layers: int) -> None:
    """Keep the first so many layers as they are, and all batch norms: those then compute as at inference.

    Only ever switched off here: a layer that is switched on would train weights that its model function keeps fixed.
    """
    import keras

    for number, layer in enumerate(model.layers):
        if number < layers or isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


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

    previous: dict[int, Any] = {}
    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        handler = signal.getsignal(number)
        if handler not in (None, signal.SIG_IGN):  # ignored: nohup, or a shell's background job
            previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def cause(received: list[int]) -> str:
    """Name what stopped the training."""
    return "Ctrl-C" if received[0] == signal.SIGINT else signal.Signals(received[0]).name


@contextlib.contextmanager
def explained(run: Run, spec: TrainSpec) -> Iterator[None]:
    """Turn a full disk and a full memory into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        again = "train again."
        if numbered(run.checkpoints):
            again = f"onsight train --resume {run.folder}. The checkpoints written before are whole."
        raise TrainingError(f"The disk is full ({os.fspath(run.folder)}). Make room, then: {again}") from error
    except Exception as error:
        # TensorFlow's and JAX's own errors cannot be named without importing both.
        exhausted = type(error).__name__ == "ResourceExhaustedError" or "RESOURCE_EXHAUSTED" in str(error)
        if not (exhausted or isinstance(error, MemoryError)):
            raise
        raise TrainingError(
            f"The memory was not enough for {spec.model} at {spec.image_size} px with batches of {spec.batch_size}. "
            f"Train with a smaller batch: --batch-size {max(1, spec.batch_size // 2)}"
        ) from error
