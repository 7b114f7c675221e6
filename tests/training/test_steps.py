import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onsight.core.backend import to_numpy
from onsight.data.batches import Examples, plan_epoch, shrink, training_batches
from onsight.imaging.augment import draw, move
from onsight.models.registry import build_model
from onsight.training.losses import Loss
from onsight.training.network import at_any_size
from onsight.training.steps import _moved, _shrunk, make_optimizer, make_step, parts_of

pytestmark = pytest.mark.backend
BACKEND = os.environ["KERAS_BACKEND"]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (16, 22, 22, 3), np.uint8)
LABELS = RNG.integers(0, 3, 16).astype(np.int32)


def new_step(optimizer="adam", smoothing=0.0, decay=0.0, model="cnn", smallest=None):
    import keras

    keras.utils.set_random_seed(0)
    network = build_model(model, 22, 3)
    if smallest:
        network = at_any_size(network, smallest)
    return make_step(network, make_optimizer(optimizer, 1e-3, decay), Loss(smoothing))


def test_batch_norm_takes_its_statistics_from_parts_of_the_batch():
    model = build_model("cnn_compact", 22, 3)
    optimizer = make_optimizer("sgd", 1e-3, 0.0)
    whole, halves = (make_step(model, optimizer, Loss(), ghost) for ghost in (None, 8))

    def loss_of(step, images, labels):
        step.take()
        return float(step.train(images, labels, 0.0)[0])

    each = [loss_of(whole, IMAGES[i::2], LABELS[i::2]) for i in range(2)]
    assert loss_of(halves, IMAGES, LABELS) == pytest.approx(np.mean(each), rel=1e-4)
    assert loss_of(whole, IMAGES, LABELS) != pytest.approx(np.mean(each), rel=1e-4)
    halves.sync()
    whole.take()
    np.testing.assert_allclose(halves.logits(IMAGES), whole.logits(IMAGES), atol=1e-4)


def test_a_batch_is_divided_into_equal_parts():
    assert [parts_of(1000, ghost) for ghost in (None, 1000, 500, 250, 249)] == [1, 1, 2, 4, 4]
    assert [parts_of(batch, 250) for batch in (62, 499, 500, 750, 1001)] == [1, 1, 2, 3, 1]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_training_memorises_sixteen_images(optimizer):
    step = new_step(optimizer, smoothing=0.1, decay=1e-4, model="mlp")
    first = [float(value) for value in step.train(IMAGES, LABELS, 1e-3)]
    for _ in range(40):
        loss, correct = step.train(IMAGES, LABELS, 1e-3)
    assert float(loss) < first[0]
    assert int(correct) == 16
    assert (step.logits(IMAGES).argmax(axis=1) == LABELS).all()


def test_a_learning_rate_of_zero_changes_no_weight():
    step = new_step("sgd")
    before = [to_numpy(weight) for weight in step.model.trainable_weights]
    step.train(IMAGES, LABELS, 0.0)
    step.sync()
    for old, weight in zip(before, step.model.trainable_weights, strict=True):
        np.testing.assert_array_equal(old, to_numpy(weight))


@pytest.mark.parametrize(("optimizer", "shrunk"), [("sgd", "kernel"), ("adamw", "kernel"), ("muon", "logits/kernel")])
def test_weight_decay_applies_to_kernels_only(optimizer, shrunk):
    """With Muon, it applies only to the kernel of the head, because Muon sets the norm of convolution kernels."""
    with_decay, without = (new_step(optimizer, decay=decay, model="cnn_compact") for decay in (0.5, 0.0))
    for step in (with_decay, without):
        step.train(IMAGES, LABELS, 0.1)
        step.sync()
    for mine, other in zip(with_decay.model.trainable_weights, without.model.trainable_weights, strict=True):
        same = np.array_equal(to_numpy(mine), to_numpy(other))
        assert same != mine.path.endswith(shrunk), mine.path


def test_a_restored_step_continues_bit_for_bit():
    step = new_step()
    for _ in range(3):
        step.train(IMAGES, LABELS, 1e-3)
    saved = step.arrays()
    expected = [float(step.train(IMAGES, LABELS, 1e-3)[0]) for _ in range(3)]
    other = new_step()
    other.train(IMAGES, LABELS, 1e-2)
    other.restore(saved)
    assert [float(other.train(IMAGES, LABELS, 1e-3)[0]) for _ in range(3)] == expected
    for name, array in step.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)


def test_dropout_and_penalties_are_part_of_the_step():
    step = new_step(model="cnn_dropout")
    # With the same weights and images, every dropout mask gives another loss.
    losses = {float(step.train(IMAGES, LABELS, 0.0)[0]) for _ in range(3)}
    assert len(losses) == 3
    before = np.linalg.norm(to_numpy(step.model.get_layer("conv1a").kernel))
    assert before > 0


@pytest.fixture
def examples():
    return Examples(IMAGES, np.array([3, 1, 0, 5, 7, 9, 11, 15, 14, 13]), LABELS[:10])


def run_epoch(step, examples, start=0, batch_size=3):
    plan = plan_epoch(examples, "flip_shift", 0, epoch=1)
    rates = np.linspace(1e-3, 1e-4, len(examples.labels) // batch_size, dtype=np.float32)
    losses = [float(loss) for loss, _ in step.epoch(examples, plan, rates, batch_size, start)]
    step.sync()
    return losses, [to_numpy(weight) for weight in step.model.trainable_weights]


def test_an_epoch_trains_on_its_batches_from_a_given_step(examples):
    by_epoch, by_hand = new_step(model="mlp"), new_step(model="mlp")
    losses, _ = run_epoch(by_epoch, examples, start=1)
    batches = training_batches(examples, plan_epoch(examples, "flip_shift", 0, epoch=1), 3, start=1)
    rates = np.linspace(1e-3, 1e-4, 3, dtype=np.float32)[1:]
    assert losses == [float(by_hand.train(*batch, rate)[0]) for batch, rate in zip(batches, rates, strict=True)]
    assert len(losses) == 2


needs_jax = pytest.mark.skipif(BACKEND != "jax", reason="images stay on the device under JAX")


@needs_jax
def test_training_with_images_on_the_device_gives_the_same_result(examples):
    """Use the accelerator's path on the CPU: the epoch is the same, without transfers between its steps."""
    import jax

    resident = new_step(model="mlp")
    resident.on_device = True
    losses, weights = run_epoch(resident, examples)
    expected, by_host = run_epoch(new_step(model="mlp"), examples)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for mine, other in zip(weights, by_host, strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-4)
    steps = resident.epoch(examples, plan_epoch(examples, "flip_shift", 0, 2), np.ones(3, np.float32), 3, 0)
    next(steps)  # copies the plan of the epoch to the device
    with jax.transfer_guard("disallow"):
        assert len(list(steps)) == 2
        with pytest.raises(Exception, match="transfer"):  # the guard works
            resident._train(resident._state, IMAGES, LABELS, np.float32(1), None, None)


@needs_jax
@pytest.mark.parametrize("augmentation", ["flip_rotate_zoom", "shift_cutout"])
def test_images_with_other_augmentation_come_from_the_host(examples, augmentation):
    resident, by_host = new_step(model="mlp"), new_step(model="mlp")
    resident.on_device = True
    plan = plan_epoch(examples, augmentation, 0, 1)
    expected, losses = (
        [float(loss) for loss, _ in step.epoch(examples, plan, np.ones(3, np.float32), 3, 0)]
        for step in (by_host, resident)
    )
    assert losses == expected


@needs_jax
def test_the_compiled_step_does_not_communicate_with_the_host(examples):
    step = new_step(model="mlp")
    kept = step._keep(examples)
    plan = plan_epoch(examples, "flip_shift", 0, 1)
    plan = plan._replace(order=plan.order.astype(np.int32))
    arguments = step._state, np.int32(0), *kept, plan, np.ones(3, np.float32), 3, 2, 22
    text = step._train_resident.lower(*arguments).compile().as_text()
    assert "dot(" in text
    for way in ("infeed", "outfeed", "send(", "recv(", "callback"):
        assert way not in text


@needs_jax
@pytest.mark.parametrize("augmentation", ["none", "flip", "flip_shift"])
def test_images_are_moved_on_the_device_as_on_the_host(augmentation):
    draws = draw(augmentation, 16, 22, seed=0, epoch=1)
    reach = int(np.abs(draws.shifts).max())
    np.testing.assert_array_equal(_moved(IMAGES, draws.mirrored, draws.shifts, reach), move(IMAGES, draws))


@needs_jax
def test_images_are_shrunk_on_the_device_as_on_the_host(examples):
    found, expected = (np.asarray(small, int) for small in (_shrunk(IMAGES, 16), shrink(IMAGES, 16)))
    assert np.abs(found - expected).max() <= 1  # a mean between two levels may be rounded to either
    assert (found == expected).mean() > 0.99
    resident, by_host = (new_step(model="cnn_compact", smallest=16) for _ in range(2))
    resident.on_device = True
    plan = plan_epoch(examples, "flip", 0, 1)._replace(side=16)
    losses = [
        [float(loss) for loss, _ in step.epoch(examples, plan, np.ones(3, np.float32), 3, 0)]
        for step in (resident, by_host)
    ]
    assert resident._resident is not None
    np.testing.assert_allclose(*losses, rtol=1e-2)


SEVERAL_DEVICES = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import jax
from test_steps import IMAGES, LABELS, Examples, new_step, run_epoch
examples = Examples(IMAGES, np.arange(16), LABELS)
for batch_size in (3, 16):
    for on_device in (False, True):
        step = new_step(model="mlp")
        step.on_device = on_device
        losses, weights = run_epoch(step, examples, batch_size=batch_size)
        print(*losses, sum(float(np.abs(each).sum()) for each in weights), *step.logits(IMAGES).ravel()[:6])
        assert len(step._state[0][0].sharding.device_set) == jax.device_count() == int(sys.argv[2])
"""


@needs_jax
@pytest.mark.parametrize("devices", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_several_devices_share_each_batch(devices):
    """Batches of three cannot be divided among the devices, but training works anyway; batches of sixteen can be."""
    lines = subprocess.run(
        [sys.executable, "-c", SEVERAL_DEVICES, str(Path(__file__).parent), str(devices)],
        env=os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
        capture_output=True, text=True, check=True, timeout=200,
    ).stdout.splitlines()  # fmt: skip
    examples = Examples(IMAGES, np.arange(16), LABELS)
    for found, batch_size in zip(lines, (3, 3, 16, 16), strict=True):
        step = new_step(model="mlp")
        losses, weights = run_epoch(step, examples, batch_size=batch_size)
        expected = [*losses, sum(np.abs(each).sum() for each in weights), *step.logits(IMAGES).ravel()[:6]]
        np.testing.assert_allclose([float(word) for word in found.split()], expected, rtol=1e-3, atol=1e-4)
