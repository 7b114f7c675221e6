import numpy as np
import pytest

from onsight.core.backend import to_numpy

pytestmark = pytest.mark.backend
RNG = np.random.default_rng(0)


def updated(
    value: np.ndarray, gradients: list[np.ndarray], path: str = "kernel", kind: str = "Muon", **settings: float
) -> np.ndarray:
    import keras

    from onsight.training import optimizers

    variable = keras.Variable(value.astype(np.float32), name=path)
    optimizer = getattr(optimizers, kind)(0.1, **settings)
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient.astype(np.float32))])
    return to_numpy(variable)


def test_a_kernel_is_scaled_and_updated_by_an_orthogonal_matrix():
    kernel, gradient = RNG.standard_normal((2, 3, 3, 2, 5))
    moved = updated(kernel, [gradient], ns_steps=12)
    start = kernel * np.sqrt(5) / np.linalg.norm(kernel)
    step = (start - moved).reshape(-1, 5) / 0.1
    u, _, v = np.linalg.svd(gradient.reshape(-1, 5), full_matrices=False)
    singular = np.linalg.svd(step, compute_uv=False)
    assert (singular > 0.6).all()  # the quintic iteration ends anywhere between 0.7 and 1.2
    assert (singular < 1.3).all()
    assert (
        np.sum(step * (u @ v)) / np.linalg.norm(step) / np.sqrt(5) > 0.97
    )  # the direction of the nearest orthogonal matrix


def test_the_momentum_is_nesterov_momentum():
    kernel = RNG.standard_normal((3, 3, 4, 4))
    gradients = list(RNG.standard_normal((2, 3, 3, 4, 4)))
    start = kernel * 2 / np.linalg.norm(kernel)

    def orthogonal(x: np.ndarray) -> np.ndarray:
        x = x.reshape(-1, 4) / np.linalg.norm(x)
        for _ in range(3):
            inner = x.T @ x
            x = 3.4445 * x + x @ (-4.7750 * inner + 2.0315 * inner @ inner)
        return x.reshape(kernel.shape)

    first = start - 0.1 * orthogonal(gradients[0] * 1.6)
    velocity = gradients[0] * 0.6 + gradients[1]
    second = first * 2 / np.linalg.norm(first) - 0.1 * orthogonal(gradients[1] + 0.6 * velocity)
    np.testing.assert_allclose(updated(kernel, gradients), second, atol=1e-4)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6)])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_few_products_orthogonalise_as_keras_does(shape, steps):
    import keras

    from onsight.training.optimizers import Muon

    matrix, optimizer = np.random.default_rng(1).standard_normal(shape).astype(np.float32), Muon()
    expected = keras.optimizers.Muon(0.1).zeropower_via_newtonschulz5(keras.ops.convert_to_tensor(matrix), steps)
    found = optimizer.zeropower_via_newtonschulz5(keras.ops.convert_to_tensor(matrix), steps)
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), atol=1e-4)


@pytest.mark.parametrize(("path", "shape"), [("bias", (7,)), ("logits_kernel", (4, 3)), ("depthwise", (3, 3, 4, 1))])
def test_adamw_updates_all_other_variables_and_the_head_more_slowly(path, shape):
    value, gradient = RNG.standard_normal((2, *shape))
    moved = updated(value, [gradient], path=path, adam_lr_ratio=0.5, head_lr_ratio=0.2)
    rate = 0.01 if "logits" in path else 0.05
    np.testing.assert_allclose(moved, value - rate * np.sign(gradient), atol=1e-3)  # Adam's first step


@pytest.mark.parametrize(("path", "scale", "rate"), [("beta", 1, 0.053), ("logits_kernel", 256, 0.67)])
def test_muon_sgd_updates_biases_and_head_as_published(path, scale, rate):
    """The published update, at 0.1 / 0.24 of its rates, of a variable `scale` times as large, for a sum of losses."""
    value, *gradients = RNG.standard_normal((3, 6, 4)) * [[[1]], [[1e-3]], [[1e-3]]]
    large, momentum = value * scale, np.zeros_like(value)
    for gradient in gradients:
        step = gradient * 2000 / scale + 2e-6 * 2000 / rate * large
        momentum = 0.85 * momentum + step
        large = large - rate * 0.1 / 0.24 * (step + 0.85 * momentum)
    value = updated(value.reshape(-1), [g.reshape(-1) for g in gradients], path=path, kind="MuonSGD").reshape(6, 4)
    np.testing.assert_allclose(value, large / scale, rtol=1e-5, atol=1e-6)


def test_muon_sgd_limits_the_step_of_an_exploding_gradient():
    moved = updated(np.zeros(3), [np.array([1e7, -1e7, 1e-4])], path="beta", kind="MuonSGD")
    np.testing.assert_allclose(
        moved, [-0.1 * 1.85 * 3, 0.1 * 1.85 * 3, -0.1 * 1.85 * 1e-4 * 0.053 * 2000 / 0.24], rtol=1e-5
    )


def test_muon_sgd_updates_kernels_as_muon_does():
    kernel, *gradients = RNG.standard_normal((3, 3, 3, 4, 8))
    np.testing.assert_array_equal(updated(kernel, gradients, kind="MuonSGD"), updated(kernel, gradients))


@pytest.mark.parametrize(("kind", "with_velocity"), [("Muon", True), ("MuonSGD", False)])
def test_muon_updates_every_convolution_of_a_network(kind, with_velocity):
    from onsight.models.registry import build_model
    from onsight.training import optimizers

    model, optimizer = build_model("whitened", 32, 10), getattr(optimizers, kind)()
    optimizer.build(model.trainable_variables)
    muons = {variable.path for variable in model.trainable_variables if optimizer._is_kernel(variable)}
    assert muons == {f"conv{number}{part}/kernel" for number in "123" for part in "ab"}
    for variable, velocity in zip(model.trainable_variables, optimizer.adam_velocities, strict=True):
        assert (velocity is not None) == (with_velocity and variable.path not in muons)
