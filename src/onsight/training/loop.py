"""The training loop: epochs, validation, early stopping, checkpoints. A checkpoint holds the loop's whole state."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.errors import Interrupted, RunError
from onsight.core.progress import Reporter
from onsight.core.text import percent, seconds_of
from onsight.data.batches import (
    Examples,
    Plan,
    ahead,
    answered_at_once,
    plan_epoch,
    steps_per_epoch,
    training_batches,
)
from onsight.features.initial_weights import load
from onsight.metrics.scores import cross_entropy
from onsight.models.registry import prepare_model
from onsight.runs.run import Run
from onsight.spec import TrainSpec
from onsight.training.checkpoints import Checkpoint, save_checkpoint
from onsight.training.distributed import Wishes, here
from onsight.training.finish import write_model
from onsight.training.head_phase import HeadFit, featured, likeness_of, starts_fresh
from onsight.training.interruptions import cause, diverged, explained, interruption, signals
from onsight.training.losses import Loss, balanced_weights
from onsight.training.network import at_any_size, build, check_freeze, freeze, logits_of
from onsight.training.phases import Phase, from_scratch, phase_at, plan_phases
from onsight.training.schedules import judge_epoch, rate_factor, restart_judge
from onsight.training.shared_run import continued_by, newest_checkpoint
from onsight.training.state import State, new_state, part
from onsight.training.steps import Step, assign_variables, make_optimizer, make_step
from onsight.training.teacher import Teacher, inherit_weights
from onsight.training.tensorboard import EventLog
from onsight.training.time_budget import steps_in
from onsight.training.zero_weights import UPDATES, Masks

if TYPE_CHECKING:
    import keras

SHOWN_EVERY = 0.5  # seconds between two updates of the display
LOGGED_EVERY = 2.0  # seconds between two tick lines of history.jsonl
EARLY = 0.25  # share of the epochs that train on images of `early_size`


def fit(
    run: Run,
    spec: TrainSpec,
    training: Examples,
    validation: Examples,
    show: Reporter,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    teacher: Teacher | None = None,
) -> None:
    """Train from the newest checkpoint of the run, or from the start, and write `model/` last.

    Raises:
        RunError: another process trains in this run.
        TrainingError: the loss is no longer finite, or the disk or the memory is full. Older checkpoints stay valid.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP was received; the state has been saved.
    """
    with run.locked(), explained(run, spec), signals() as received:
        loop = Loop(run, spec, training, validation, show, received, callbacks, teacher)
        if not loop.phase.head_only:
            show.note("compiling", "the training step, once")
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
        if signal := loop.ranks.largest(*received[:1] or [0]):
            # Too late to stop this training, but nothing should follow it.
            raise Interrupted(f"Stopped by {cause(signal)}; training had just finished: {run.folder}", 128 + signal)


class Loop:
    """One training in progress."""

    def __init__(
        self,
        run: Run,
        spec: TrainSpec,
        training: Examples,
        validation: Examples,
        show: Reporter,
        received: list[int],
        callbacks: Sequence[keras.callbacks.Callback],
        teacher: Teacher | None,
    ) -> None:
        import keras

        self.run, self.spec = run, spec
        self.show, self.received = show, received
        self.ranks = here()
        self.wishes = Wishes(self.ranks)
        self.batch_size = min(spec.batch_size, len(training.labels))
        self.answered = max(self.batch_size, answered_at_once(spec.image_size))  # images per batch in validation
        self.steps = steps_per_epoch(len(training.labels), self.batch_size)
        self.examples = training, validation
        weighted = spec.class_weight == "balanced"
        self.class_weights = balanced_weights(training.labels, len(run.classes)) if weighted else None
        self.model = build(spec, len(run.classes))
        self.model.stop_training = False  # Keras callbacks set it
        check_freeze(spec, len(self.model.layers))
        self.phases = plan_phases(spec)
        self.early = round(spec.epochs * EARLY) if spec.early_size else 0  # epochs of smaller images
        self.teacher = teacher
        self.masks = Masks(self.model, spec.sparsity)
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=self.model)
        self.state = new_state()
        self.best: dict[str, np.ndarray] = {}  # the weights of the best epoch, if early stopping judges epochs
        self.deadline = math.inf
        self.began = self.saved = self.shown = self.logged = self.started = time.perf_counter()
        if checkpoint := newest_checkpoint(self.ranks, run.checkpoints):
            self.restore(checkpoint)
        else:
            self.begin()
        self.events = EventLog(run.folder / "tensorboard" if self.ranks.first else None, self.state["epoch"])

    # Starting, and continuing from a checkpoint -----------------------------------------------------------------------

    def begin(self) -> None:
        """Set the initial weights, enter the first phase, and save a checkpoint, so that this run can be resumed."""
        training, _ = self.examples
        if not from_scratch(self.spec):
            load(self.model, self.spec.weights)
        elif self.teacher and (self.spec.sparsity or self.spec.channels):
            inherit_weights(self.model, self.teacher.run)
        else:
            order = np.random.default_rng([self.spec.seed, 3]).permutation(training.chosen)
            prepare_model(self.model, training.images, order)
        self.enter(self.phases[0])
        self.checkpoint()
        self.feed()

    def enter(self, phase: Phase) -> None:
        """Begin a phase: freeze its layers, and make its optimizer and its training step."""
        spec, self.phase = self.spec, phase
        if not from_scratch(spec):
            self.show.note("phase", str(phase))
        optimizer = make_optimizer(spec.optimizer, phase.learning_rate, spec.weight_decay)
        self.model.optimizer = optimizer  # for Keras callbacks that use it
        if phase.frozen is not None:
            freeze(self.model, phase.frozen)
        if phase.head_only:
            self.step: Step = HeadFit(self.model, optimizer, starts_fresh(self.run))
            return
        network = at_any_size(self.model, spec.early_size) if spec.early_size else self.model
        loss = Loss(spec.label_smoothing, self.class_weights)
        self.step = make_step(network, optimizer, loss, spec.ghost_batch_size)

    def feed(self) -> None:
        """Set what the phase trains and validates on: images, or features of them."""
        self.training, self.validation = self.examples
        if self.phase.head_only:
            report = partial(self.report, "computing features")
            self.training, self.validation = featured(self.model, self.spec, self.examples, report)

    def report(self, work: str, done: int, of: int) -> None:
        """Show the progress of work before the first step or after the last one, and stop if a signal was received."""
        self.show.work(work, done, of)
        if self.received:
            raise interruption(self.run, self.state, self.spec.epochs, self.received[0])

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the newest valid checkpoint, and drop later epochs from history.jsonl."""
        self.state = State(**checkpoint.state)  # type: ignore[typeddict-item]  # as `checkpoint` saved it
        self.best = part(checkpoint, "best.")
        if masks := part(checkpoint, "mask."):
            self.masks.place({int(number): mask for number, mask in masks.items()})
        try:
            assign_variables(self.model, "model", checkpoint.arrays)  # first: features are computed from these weights
            self.enter(phase_at(self.phases, self.state["epoch"]))
            before = phase_at(plan_phases(TrainSpec(**self.run.spec)), self.state["epoch"])
            if before.head_only == self.phase.head_only:
                self.step.restore(checkpoint.arrays)
            else:  # the new number of epochs puts this epoch into a phase of other layers
                restart_judge(self.state["judge"])
        except (KeyError, ValueError) as error:
            version = self.run.record["environment"]["onsight"]
            raise RunError(
                f"{checkpoint.folder} does not fit this version's {self.spec.model} ({error}). Continue with Onsight "
                f"{version}, which made it, or train again from the start."
            ) from None
        if self.spec.epochs != self.run.spec["epochs"]:  # --resume RUN --epochs N
            self.state["stopped"], self.state["total"], self.state["judge"]["waited"] = False, None, 0
            self.checkpoint()
            self.record_epochs("chosen when the run was resumed")
        where = f"epoch {self.state['epoch'] + 1}, step {self.state['step']}"
        if warning := continued_by(self.ranks, self.run, where):
            self.show.note("warning", warning)
        self.feed()
        self.run.rewrite_history(self.state["history"])
        self.show.note("resuming", f"{self.run.folder} at {where}, from checkpoint {checkpoint.folder.name}")

    def fit_into(self, budget: float) -> None:
        """Set the number of steps, and with it the schedule, so that training ends within `budget` seconds."""
        total = steps_in(self, budget)
        epochs = -(-total // self.steps)
        self.state["total"] = total
        self.spec = self.spec.model_copy(update={"epochs": epochs})
        self.phases = plan_phases(self.spec)
        self.phase = self.phases[0]
        self.record_epochs(f"{total / self.steps:.2f} fit into {self.spec.time_budget}")
        self.show.note("epochs", f"{total / self.steps:.2f}  (what fits into {budget:g} s: {total:,} steps)")
        self.checkpoint()

    def record_epochs(self, reason: str) -> None:
        """Write to spec.json that training takes another number of epochs than it began with, and why."""
        self.run.record["reasons"] = self.run.record.get("reasons", {}) | {"epochs": reason}
        self.run.record["phases"] = [str(phase) for phase in self.phases]
        self.run.update_spec(**self.spec.model_dump(include={"epochs", "time_budget", "patience"}))

    # An epoch ---------------------------------------------------------------------------------------------------------

    def epoch(self) -> None:
        """Train one epoch, or the rest of it, then validate and judge it."""
        state = self.state
        self.callbacks.on_epoch_begin(state["epoch"])
        self.started = time.perf_counter() - state["seconds"]
        if isinstance(self.step, HeadFit):
            self.fit_head(self.step)
            return
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
            signal, late = self.wishes.agree(*self.received[:1] or [0], now > self.deadline)
            if signal or now - self.saved > self.spec.checkpoint_seconds:
                self.count(*pending)
                pending = None
                self.checkpoint()
            if signal:
                raise interruption(self.run, state, self.spec.epochs, signal)
            if late:  # steps take longer than they did when they were timed
                state["stopped"] = True
                break
        if pending:
            self.count(*pending)
        self.end_epoch()

    def fit_head(self, step: HeadFit) -> None:
        """Fit the head at once, as the last epoch of its phase."""
        state, labels = self.state, self.training.labels
        head = step.fit(self.training, self.spec.seed, self.class_weights)
        if found := head.out_of_fold(labels):
            right, n = percent(found["out_of_fold_accuracy"]), found["out_of_fold_n"]
            self.show.note("head", f"C {head.strength:g}; {right} of {n:,} training images are right out of fold")
        logits = step.logits(self.training.images)
        state["loss_sum"] = len(labels) * cross_entropy(logits, labels)
        state["correct"], state["seen"] = int((logits.argmax(axis=1) == labels).sum()), len(labels)
        state["epoch"] = self.phase.stop - 1
        self.end_epoch()

    def plan(self, epoch: int) -> Plan:
        """Return the order and the augmentation of an epoch, counted from 0."""
        plan = plan_epoch(self.training, self.spec.augmentation, self.spec.seed, epoch)
        return plan._replace(side=self.spec.early_size) if epoch < self.early else plan

    def outcomes(self, plan: Plan, rates: np.ndarray, start: int) -> Iterator[tuple[Any, Any]]:
        """Train on the batches of an epoch from step `start` on; yield the loss and the number of hits of each."""
        trained = partial(self.learn, self.teacher) if self.teacher else self.step.epoch
        return trained(self.training, plan, rates, self.batch_size, start)

    def learn(
        self, teacher: Teacher, examples: Examples, plan: Plan, rates: np.ndarray, batch_size: int, start: int
    ) -> Iterator[tuple[Any, Any]]:
        """Do what `Step.epoch` does, with a teacher's answers for each batch, and with masks if weights are pruned."""
        batches = ahead(training_batches(examples, plan, batch_size, start))
        for step, (images, labels) in enumerate(batches, start=start):
            if self.spec.sparsity:
                self.prune(step)
            taught = teacher.taught(images, examples, plan, step * batch_size)
            yield self.step.train(images, labels, rates[step], taught, self.masks.placed)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step of this epoch."""
        taken = (self.state["epoch"] - self.phase.start) * self.steps + step
        length = self.state["total"] or (self.phase.stop - self.phase.start) * self.steps
        return self.phase.learning_rate * rate_factor(self.spec.schedule, min(1, taken / length), self.state["judge"])

    def prune(self, step: int) -> None:
        """Choose the zeros again, at regular intervals, from this step of the epoch on."""
        taken, every = self.state["epoch"] * self.steps + step, self.spec.epochs * self.steps
        if taken % max(1, every // UPDATES) == 0:
            self.step.sync()
            self.masks.update(taken / every)

    def count(self, loss: Any, correct: Any) -> None:
        """Add one batch to the totals of the epoch. A loss that is not finite ends the training."""
        loss = float(loss)
        if not math.isfinite(loss):
            raise diverged(f"The loss became {loss}", self.run, self.state, self.spec)
        self.state["loss_sum"] += loss * self.batch_size
        self.state["correct"] += int(correct)
        self.state["seen"] += self.batch_size

    def end_epoch(self) -> None:
        """Validate and judge the epoch, write its line, enter the next phase if it begins, and save a checkpoint."""
        state = self.state
        self.step.sync()
        row = self.judged_row()
        state["history"].append(row)
        self.run.append_history(row)
        self.events.write(row)
        self.show.epoch({**row, "epochs": self.spec.epochs, "seconds_left": self.seconds_left(row)})
        self.callbacks.on_epoch_end(state["epoch"], {key: row[key] for key in row if key not in ("event", "epoch")})
        state["stopped"] |= bool(self.ranks.largest(int(self.model.stop_training)))
        state.update({"epoch": state["epoch"] + 1, "step": 0, "loss_sum": 0.0, "correct": 0, "seen": 0, "seconds": 0.0})
        phase = phase_at(self.phases, state["epoch"])
        if phase is not self.phase and not state["stopped"]:
            restart_judge(state["judge"])
            self.enter(phase)
            self.checkpoint()
            self.feed()
        # An epoch of a small set takes a fraction of a second: it need not be saved each time.
        if time.perf_counter() - self.saved > self.spec.checkpoint_seconds / 10:
            self.checkpoint()

    def judged_row(self) -> dict[str, Any]:
        """Return the line of history.jsonl of the epoch that has just ended, once validation has judged it."""
        state, spec = self.state, self.spec
        # Before the epoch is judged. A head that is fitted at once has no learning rate.
        learning_rate = 0.0 if self.phase.head_only else self.learning_rate(state["step"] - 1)
        seconds = time.perf_counter() - self.started
        row: dict[str, Any] = {
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
            if row["epoch"] == self.early:  # epochs of larger images follow: judge them on their own
                restart_judge(state["judge"])
        if isinstance(self.step, HeadFit) and self.step.fitted:
            row |= self.step.fitted.out_of_fold(self.training.labels)
        row["learning_rate"] = learning_rate
        row["images_per_second"] = state["seen"] / max(seconds, 1e-9)
        row["seconds"] = time.perf_counter() - self.started
        return row

    def seconds_left(self, row: dict[str, Any]) -> float:
        """Return the seconds until the phase ends, if its epochs take as long as the last one."""
        if self.state["stopped"]:
            return 0.0
        epochs = (self.state["total"] or self.phase.stop * self.steps) / self.steps
        return float(row["seconds"] * max(0.0, epochs - row["epoch"]))

    def validate(self) -> tuple[float, float]:
        """Return the mean cross entropy on the validation images, classes weighted as in training, and the accuracy."""
        logits, labels = self.validation_logits(), self.validation.labels
        weights = None if self.class_weights is None else self.class_weights[labels]
        loss = cross_entropy(logits, labels, weights)
        if not math.isfinite(loss):
            raise diverged(f"The validation loss became {loss}", self.run, self.state, self.spec)
        return loss, int((logits.argmax(axis=1) == labels).sum()) / len(labels)

    def validation_logits(self) -> np.ndarray:
        """Return the logits (n, classes) float64 of the validation images."""
        if not len(self.validation.labels):
            return np.zeros((0, len(self.run.classes)))
        return logits_of(self.step.logits, self.validation, self.answered)

    def tick(self, now: float) -> None:
        """Show the progress of the epoch."""
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

    # Saving and stopping ----------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Save everything that the next step depends on."""
        self.saved = time.perf_counter()
        if not self.ranks.first:
            return
        self.state["seconds"] = time.perf_counter() - self.started if self.state["step"] else 0.0
        arrays = self.step.arrays()
        for array in arrays.values():
            if not np.isfinite(array).all():
                raise diverged("A weight is no longer finite", self.run, self.state, self.spec)
        best = {f"best.{name}": array for name, array in self.best.items()}
        masks = {f"mask.{name}": array for name, array in self.masks.arrays().items()}
        save_checkpoint(self.run.checkpoints, arrays | best | masks, dict(self.state))
        self.saved = time.perf_counter()

    def finish(self) -> None:
        """Write `model/`: with the weights of the best epoch if early stopping judged epochs, else with the last."""
        if self.best and self.spec.patience:
            self.step.restore(self.step.arrays() | self.best)
            best = self.state["judge"]["best_epoch"]
            self.show.note("kept", f"the weights of epoch {best}, the best on validation")
        self.step.sync()
        training, validation = self.examples
        held_out = self.held_out_logits()
        if not self.ranks.first:
            return
        features = self.training if self.phase.head_only else None
        report = partial(self.report, "computing features")
        likeness = likeness_of(self.model, self.spec, training, features, report)
        judged = training, validation, held_out
        write_model(self.run, self.spec, self.model, *judged, likeness, self.answered, self.show)

    def held_out_logits(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return logits (n, classes) float64 of images that the weights were not fitted to, and their labels (n,).

        They are the validation images and, if only a head was fitted, the training images out of fold. None if training
        computes less exactly than the finished model.
        """
        if self.spec.precision != "float32" and self.spec.freeze != "all":
            return None
        logits, labels = self.validation_logits(), self.validation.labels
        if not isinstance(self.step, HeadFit):
            return logits, labels
        # A process that resumed after the fit has to repeat it.
        head = self.step.fitted or self.step.fit(self.training, self.spec.seed, self.class_weights)
        return (
            np.concatenate([head.logits, logits]),
            np.concatenate([self.training.labels[head.held_out], labels]),
        )
