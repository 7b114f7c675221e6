import numpy as np
import pytest

from onsight.core.backend import to_numpy

pytestmark = pytest.mark.backend
RNG = np.random.default_rng(0)


def updated(value: np.ndarray, gradients: list[np.ndarray], path: str = "kernel", **settings: float) -> np.ndarray:
    import keras

    from onsight.training.optimizers import Muon

    variable = keras.Variable(value.astype(np.float32), name=path)
    optimizer = Muon(0.1, **settings)
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


def test_muon_updates_every_convolution_of_a_network():
    from onsight.models.registry import build_model
    from onsight.training.optimizers import Muon

    model, optimizer = build_model("whitened", 32, 10), Muon()
    optimizer.build(model.trainable_variables)
    owned = zip(model.trainable_variables, optimizer.adam_velocities, strict=True)
    muons = {variable.path for variable, velocity in owned if velocity is None}
    assert muons == {f"conv{number}{part}/kernel" for number in "123" for part in "ab"}
