"""The compiled training step of each backend. Nearly all code that differs between the backends is here.

Keras' own `fit` cannot start in the middle of an epoch, and it wraps every batch in a data set of its backend. A step
that is called from a plain loop can start anywhere and needs no such wrapping. On an accelerator, JAX keeps the images
in device memory and mirrors and shifts them inside the step, so the host only calls the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from onsight.core.backend import to_numpy
from onsight.core.threads import cores
from onsight.data.batches import Examples, Plan, ahead, shares, steps_per_epoch, training_batches
from onsight.training.distributed import here

if TYPE_CHECKING:
    import keras

    from onsight.training.losses import Loss


class Step(Protocol):
    """A network with its optimizer, ready to train."""

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        learning_rate: float,
        taught: np.ndarray | None = None,
        masks: list[Any] | None = None,
    ) -> tuple[Any, Any]:
        """Update the weights; return the batch's mean loss (without penalties) and its number of right answers.

        Both are scalars, and reading them waits for the device.

        Args:
            images: (batch, H, W, 3) uint8; of several processes, each gives its share of the batch.
            labels: (batch,) int32.
            learning_rate: of this step.
            taught: (batch, classes) float32, a teacher's probabilities.
            masks: for each trainable variable the mask by which it is multiplied afterwards, or None.
        """

    def epoch(
        self, examples: Examples, plan: Plan, rates: np.ndarray, batch_size: int, start: int
    ) -> Iterator[tuple[Any, Any]]:
        """Train on each batch of an epoch from step `start` on; yield what `train` returns for it.

        rates: (steps,) float32, the learning rate of each step of the epoch.
        """

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits (batch, classes) float32 at inference. Nothing changes."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Return copies of all numbers that the next step depends on."""

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from the numbers that `arrays` returned."""

    def sync(self) -> None:
        """Write the newest weights into the Keras model, if they are kept elsewhere during training."""

    def take(self) -> None:
        """Continue from the values of the Keras variables, if training keeps its own copies of them."""


def make_optimizer(name: str, learning_rate: float, weight_decay: float) -> keras.optimizers.Optimizer:
    """Return the optimizer `name`. Weight decay is decoupled and does not apply to biases and batch norms.

    With Muon, it does not apply to the kernels of convolutions either, because Muon sets their norm itself. `muon_sgd`
    has the published weight decay of biases and the head instead.
    """
    import keras

    if name == "sgd":
        optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True, weight_decay=weight_decay or None)
    elif name == "muon":
        from onsight.training.optimizers import Muon

        optimizer = Muon(learning_rate, adam_weight_decay=weight_decay or None)
    elif name == "muon_sgd":
        from onsight.training.optimizers import MuonSGD

        optimizer = MuonSGD(learning_rate)
    elif name == "adamw":
        optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    else:
        optimizer = keras.optimizers.Adam(learning_rate)
    if name != "adam":
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def make_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, loss: Loss, ghost_batch_size: int | None = None
) -> Step:
    """Return the training step for the backend that Keras runs on.

    With a `ghost_batch_size`, the network computes each of the `parts_of` a batch by itself, so that batch norm takes
    its statistics from a part: Hoffer, Hubara and Soudry 2017, "Train longer, generalize better". Gradients are those
    of the whole batch.
    """
    import keras

    optimizer.build(model.trainable_variables)
    kind = {"tensorflow": TensorFlowStep, "jax": JaxStep}[keras.config.backend()]
    return kind(model, optimizer, loss, ghost_batch_size)


def parts_of(batch_size: int, ghost_batch_size: int | None) -> int:
    """Return in how many equal parts a batch is computed: as many as have `ghost_batch_size` images each, or more.

    Part i has every parts-th image from i on.
    """
    most = batch_size // (ghost_batch_size or batch_size)
    return next((parts for parts in range(most, 1, -1) if batch_size % parts == 0), 1)


def assign_variables(owned: Any, owner: str, arrays: dict[str, np.ndarray]) -> None:
    """Set all variables of a model or an optimizer from the arrays that `Step.arrays` returned."""
    for number, variable in enumerate(owned.variables):
        variable.assign(arrays[f"{owner}.{number:05d}"])


class Variables(Step):
    """Access to all variables by number: names may differ between processes, but the order does not."""

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer

    def epoch(
        self, examples: Examples, plan: Plan, rates: np.ndarray, batch_size: int, start: int
    ) -> Iterator[tuple[Any, Any]]:
        for rate, batch in zip(rates[start:], ahead(training_batches(examples, plan, batch_size, start)), strict=True):
            yield self.train(*batch, rate)

    def sync(self) -> None:
        """Do nothing: the Keras variables themselves are trained."""

    def take(self) -> None:
        """Do nothing: the next step uses the values of the Keras variables."""

    def arrays(self) -> dict[str, np.ndarray]:
        self.sync()
        owners = {"model": self.model, "optimizer": self.optimizer}
        return {
            f"{owner}.{number:05d}": to_numpy(variable)
            for owner, owned in owners.items()
            for number, variable in enumerate(owned.variables)
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        assign_variables(self.model, "model", arrays)
        assign_variables(self.optimizer, "optimizer", arrays)


class TensorFlowStep(Variables):
    """The step as one `tf.function`. It updates the variables in place.

    The parts of a batch do not depend on each other, so TensorFlow computes them side by side.
    """

    def __init__(
        self, model: keras.Model, optimizer: keras.optimizers.Optimizer, loss: Loss, ghost_batch_size: int | None = None
    ) -> None:
        import tensorflow as tf

        super().__init__(model, optimizer)
        trainable = [variable.value for variable in model.trainable_variables]

        def split(array: Any, count: int) -> Any:
            if array is None or count == 1:
                return [array] * count
            # A slice with a step, array[first::count], is read element by element: ten times as slow.
            return tf.unstack(tf.reshape(array, (-1, count, *array.shape[1:])), axis=1)

        def losses_of(images: Any, labels: Any, taught: Any) -> tuple[Any, Any]:
            logits = model(images, training=True)
            hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels)
            return loss(labels, logits, taught), tf.math.count_nonzero(hits, dtype=tf.int32)

        def train(images: Any, labels: Any, learning_rate: Any, taught: Any, masks: Any) -> tuple[Any, Any]:
            optimizer.learning_rate.assign(learning_rate)
            with tf.GradientTape() as tape:
                count = parts_of(images.shape[0], ghost_batch_size)
                parts = zip(*(split(each, count) for each in (images, labels, taught)), strict=True)
                means, hits = zip(*(losses_of(*part) for part in parts), strict=True)
                mean = tf.add_n(means) / len(means)
                penalised = tf.add_n([mean, *model.losses])
            optimizer.apply(tape.gradient(penalised, trainable))
            for variable, mask in zip(trainable, masks or (), strict=masks is not None):
                if mask is not None:
                    variable.assign(variable * mask)
            return mean, tf.add_n(hits)

        def infer(images: Any) -> Any:
            each = images.shape[0] // cores()  # for a batch norm that is not in training, any parts will do
            count = parts_of(images.shape[0], each) if ghost_batch_size else 1
            parts = [model(part, training=False) for part in split(images, count)]
            return tf.reshape(tf.stack(parts, axis=1), (images.shape[0], -1))

        self._train = tf.function(train, autograph=False)
        self._logits = tf.function(infer, autograph=False)

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        learning_rate: float,
        taught: np.ndarray | None = None,
        masks: list[Any] | None = None,
    ) -> tuple[Any, Any]:
        loss, correct = self._train(images, labels, np.float32(learning_rate), taught, masks)
        return loss, correct

    def logits(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._logits(images))


class JaxStep(Variables):
    """The step as one `jax.jit`. The state is a tuple of arrays, which each step donates to the next.

    If there are several devices, of this process or of several, each holds the whole state and computes its share of
    the batch, and XLA adds up the gradients. Keras' DataParallel does the same, but needs a process-wide setting and
    variables that Keras holds.
    """

    def __init__(
        self, model: keras.Model, optimizer: keras.optimizers.Optimizer, loss: Loss, ghost_batch_size: int | None = None
    ) -> None:
        import jax
        import jax.numpy as jnp
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        super().__init__(model, optimizer)
        self.ranks = here()
        rate = next(i for i, variable in enumerate(optimizer.variables) if variable is optimizer._learning_rate)
        mesh = Mesh(np.array(jax.devices()), ("batch",))
        self._everywhere, self._shared = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in ((), ("batch",)))
        self._resident: tuple[Any, Any] | None = None  # the training images and their labels, on the devices
        self.on_device = jax.default_backend() != "cpu"  # on a CPU, the images are in its memory already

        def train(state: Any, images: Any, labels: Any, learning_rate: Any, taught: Any, masks: Any) -> Any:
            trainable, others, slots = state

            def objective(trainable: Any) -> Any:
                def one(others: Any, part: Any) -> Any:
                    logits, others, losses = model.stateless_call(
                        trainable, others, part, training=True, return_losses=True
                    )
                    return others, (logits, losses)

                count = parts_of(len(images), ghost_batch_size)
                updated, logits, losses = _in_parts(one, others, images, count)
                mean = loss(labels, logits, taught)
                return mean + sum(losses), (mean, logits, updated)

            (_, (mean, logits, others)), gradients = jax.value_and_grad(objective, has_aux=True)(trainable)
            slots = [learning_rate if i == rate else slot for i, slot in enumerate(slots)]
            trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
            if masks is not None:
                trainable = [
                    value if mask is None else value * mask for value, mask in zip(trainable, masks, strict=True)
                ]
            return (trainable, others, slots), mean, jnp.sum(jnp.argmax(logits, -1) == labels)

        def train_resident(
            state: Any, position: Any, images: Any, labels: Any, plan: Plan, rates: Any, *fixed: int
        ) -> Any:
            batch_size, reach, side = fixed
            chosen = jax.lax.dynamic_slice_in_dim(plan.order, position * batch_size, batch_size)
            chosen = jax.lax.with_sharding_constraint(chosen, self._shared)
            changed = _moved(images[chosen], plan.draws.mirrored[chosen], plan.draws.shifts[chosen], reach)
            changed = changed if side == images.shape[1] else _shrunk(changed, side)
            state, mean, correct = train(state, changed, labels[chosen], rates[position], None, None)
            return state, mean, correct, position + 1

        whole = {"out_shardings": self._everywhere}  # every process can read what every device has
        self._train = jax.jit(train, donate_argnums=0, **whole)
        self._train_resident = jax.jit(train_resident, donate_argnums=(0, 1), static_argnums=(6, 7, 8), **whole)
        self._logits = jax.jit(
            lambda trainable, others, images: model.stateless_call(trainable, others, images, training=False)[0],
            **whole,
        )
        self.take()

    def _owned(self) -> tuple[list[Any], list[Any], list[Any]]:
        return (self.model.trainable_variables, self.model.non_trainable_variables, self.optimizer.variables)

    def take(self) -> None:
        """Continue from the values of the Keras variables, with several processes from those of the first."""
        # Copies, because the step donates the memory of its arguments, and the Keras variables must keep theirs.
        copies = {
            f"{kind}.{number}": np.array(variable.value)
            for kind, owned in enumerate(self._owned())
            for number, variable in enumerate(owned)
        }
        told = self.ranks.told_arrays(copies)
        self._state = tuple(
            [_placed(told[f"{kind}.{number}"], self._everywhere) for number in range(len(owned))]
            for kind, owned in enumerate(self._owned())
        )

    def sync(self) -> None:
        for owned, values in zip(self._owned(), self._state, strict=True):
            for variable, value in zip(owned, values, strict=True):
                variable.assign(np.array(value))

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        super().restore(arrays)
        self.take()

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        learning_rate: float,
        taught: np.ndarray | None = None,
        masks: list[Any] | None = None,
    ) -> tuple[Any, Any]:
        images, labels, taught = _placed((images, labels, taught), self._spread(len(labels) * self.ranks.size))
        masks = _placed(masks, self._everywhere)
        self._state, loss, correct = self._train(self._state, images, labels, np.float32(learning_rate), taught, masks)
        return loss, correct

    def epoch(
        self, examples: Examples, plan: Plan, rates: np.ndarray, batch_size: int, start: int
    ) -> Iterator[tuple[Any, Any]]:
        """Do what the base class does, with images that stay on the device if they fit into its memory.

        Augmentation that does more than mirror, shift and shrink images is done by NumPy and Pillow, so its images come
        from the host.
        """
        kept = self._keep(examples) if self.on_device and plan.draws.only_move else None
        if kept is None:
            rank, count = self.ranks
            yield from super().epoch(examples, plan.share(rank, count, batch_size), rates, batch_size // count, start)
            return
        fixed = batch_size, int(np.abs(plan.draws.shifts).max(initial=0)), plan.side or examples.images.shape[1]
        plan = plan._replace(order=plan.order.astype(np.int32), side=None)
        position, plan, shown = _placed((np.int32(start), plan, rates), self._everywhere)
        for _ in range(start, steps_per_epoch(len(examples.labels), batch_size)):
            self._state, loss, correct, position = self._train_resident(
                self._state, position, *kept, plan, shown, *fixed
            )
            yield loss, correct

    def _keep(self, examples: Examples) -> tuple[Any, Any] | None:
        """Copy the training images to the devices, once; return None if they would fill over a third of the memory."""
        import jax

        if self._resident is None:
            statistics = jax.local_devices()[0].memory_stats() or {}
            room = statistics.get("bytes_limit", np.inf)
            if len(examples.labels) * examples.images[0].nbytes > room / 3:
                return None
            images = examples.images[examples.chosen], examples.labels.astype(np.int32)
            self._resident = _placed(images, self._everywhere)
        return self._resident

    def logits(self, images: np.ndarray) -> np.ndarray:
        spread = self._spread(len(images))
        mine = self.ranks.share(images) if spread is self._shared else images
        return np.asarray(self._logits(self._state[0], self._state[1], _placed(mine, spread)))

    def _spread(self, rows: int) -> Any:
        """Return how a batch lies on the devices: in equal shares or, if it cannot be divided, whole on each."""
        return self._shared if rows % self._shared.num_devices == 0 else self._everywhere


def _in_parts(one: Any, others: Any, images: Any, count: int) -> tuple[Any, Any, list[Any]]:
    """Call `one` with each of `count` parts of the images in turn, and with the state that the part before returned.

    Return the last state, the logits (batch, classes) in the order of the images, and the penalties.
    """
    import jax

    if count == 1:
        others, (logits, losses) = one(others, images)
        return others, logits, losses
    parts = images.reshape(-1, count, *images.shape[1:]).swapaxes(0, 1)
    others, (logits, losses) = jax.lax.scan(one, others, parts)
    return others, logits.swapaxes(0, 1).reshape(len(images), -1), [each[-1] for each in losses]


def _placed(arrays: Any, sharding: Any) -> Any:
    """Copy arrays to the devices. Of what the devices share, each process gives its part."""
    import jax

    return jax.tree.map(lambda each: jax.make_array_from_process_local_data(sharding, np.asarray(each)), arrays)


def _moved(images: Any, mirrored: Any, shifts: Any, reach: int) -> Any:
    """Do in a compiled step what `imaging.augment.move` does. The images are the same, bit for bit."""
    import jax
    import jax.numpy as jnp

    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "reflect") if reach else images

    def one(image: Any, mirror: Any, shift: Any) -> Any:
        top, left = reach - shift.astype(jnp.int32)
        view = jax.lax.dynamic_slice(image, (top, left, 0), images.shape[1:])
        return jnp.where(mirror, view[:, ::-1], view)

    return jax.vmap(one)(padded, mirrored, shifts)


def _shrunk(images: Any, side: int) -> Any:
    """Do in a compiled step what `data.batches.shrink` does. Means between two levels may be rounded differently."""
    import jax.numpy as jnp

    share = shares(images.shape[1], side)
    means = jnp.einsum("sh,nhwc,tw->nstc", share, images.astype(jnp.float32), share, precision="highest")
    return jnp.rint(means).astype(jnp.uint8)
