import numpy as np
import pytest

from onsight.backend import to_numpy
from onsight.models import build_model
from onsight.steps import cross_entropy, make_head_step, make_optimizer, make_step

pytestmark = pytest.mark.backend
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (16, 22, 22, 3), np.uint8)
LABELS = RNG.integers(0, 3, 16).astype(np.int32)


def new_step(optimizer="adam", smoothing=0.0, decay=0.0, model="cnn"):
    import keras

    keras.utils.set_random_seed(0)
    return make_step(build_model(model, 22, 3), make_optimizer(optimizer, 1e-3, decay), smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy(smoothing):
    logits = RNG.standard_normal((4, 3)).astype(np.float32)
    labels = np.array([0, 2, 1, 1], np.int32)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    assert float(cross_entropy(labels, logits, smoothing)) == pytest.approx(-(target * log_p).sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_training_learns_sixteen_pictures_by_heart(optimizer):
    step = new_step(optimizer, smoothing=0.1, decay=1e-4, model="mlp")
    first = [float(value) for value in step.train(IMAGES, LABELS, 1e-3)]
    for _ in range(40):
        loss, correct = step.train(IMAGES, LABELS, 1e-3)
    assert float(loss) < first[0]
    assert int(correct) == 16
    assert (step.logits(IMAGES).argmax(axis=1) == LABELS).all()


def test_a_rate_of_zero_changes_no_weight():
    step = new_step("sgd")
    before = [to_numpy(weight) for weight in step.model.trainable_weights]
    step.train(IMAGES, LABELS, 0.0)
    step.sync()
    for old, weight in zip(before, step.model.trainable_weights, strict=True):
        np.testing.assert_array_equal(old, to_numpy(weight))


def test_weight_decay_shrinks_kernels_and_spares_the_rest():
    with_decay, without = (new_step("sgd", decay=decay, model="cnn_compact") for decay in (0.5, 0.0))
    for step in (with_decay, without):
        step.train(IMAGES, LABELS, 0.1)
        step.sync()
    for mine, other in zip(with_decay.model.trainable_weights, without.model.trainable_weights, strict=True):
        same = np.array_equal(to_numpy(mine), to_numpy(other))
        assert same != mine.path.endswith("kernel"), mine.path


def test_restoring_continues_bit_for_bit():
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
    # The same weights and pictures give another loss when dropout draws anew.
    losses = {float(step.train(IMAGES, LABELS, 0.0)[0]) for _ in range(3)}
    assert len(losses) == 3
    before = np.linalg.norm(to_numpy(step.model.get_layer("conv1a").kernel))
    assert before > 0


def test_a_head_learns_alone_and_goes_on_bit_for_bit():
    import keras

    model = build_model("cnn", 22, 3)
    before = {weight.path: to_numpy(weight) for weight in model.weights}
    features = RNG.standard_normal((16, model.get_layer("logits").kernel.shape[0])).astype(np.float32)
    step = make_head_step(model, make_optimizer("adamw", 1e-2, 1e-2), 0.0)
    losses = [float(step.train(features, LABELS, 1e-2)[0]) for _ in range(20)]
    assert losses[-1] < losses[0] / 2
    arrays = step.arrays()
    changed = {path for path, old in before.items() if not np.array_equal(old, to_numpy(by_path(model, path)))}
    assert changed == {"logits/kernel", "logits/bias"}
    answers = keras.Sequential([model.get_layer("logits")])(features)
    np.testing.assert_allclose(step.logits(features), np.asarray(answers), atol=1e-5)
    np.testing.assert_array_equal(step.logits(features[:, None]), step.logits(features))  # plain and mirrored: plain
    further = [float(step.train(features, LABELS, 1e-2)[0]) for _ in range(3)]
    other = make_head_step(build_model("cnn", 22, 3), make_optimizer("adamw", 1e-2, 1e-2), 0.0)
    other.restore(arrays)
    assert [float(other.train(features, LABELS, 1e-2)[0]) for _ in range(3)] == further


def by_path(model, path):
    return next(weight for weight in model.weights if weight.path == path)
