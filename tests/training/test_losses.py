import numpy as np
import pytest

from onsight.models.registry import build_model
from onsight.training.losses import Loss, balanced_weights
from onsight.training.steps import make_optimizer, make_step

pytestmark = pytest.mark.backend
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (16, 22, 22, 3), np.uint8)
LABELS = RNG.integers(0, 3, 16).astype(np.int32)


def test_class_weights_multiply_the_loss_of_each_image():
    from sklearn.utils.class_weight import compute_class_weight

    many = np.repeat([0, 1, 2], (12, 3, 5))
    weights = balanced_weights(many, 3)
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=many), rtol=1e-6)
    assert balanced_weights(many, 4)[3] == 20 / 4  # a class without images gets the weight of a class with one
    optimizer = make_optimizer("sgd", 1e-3, 0.0)
    model = build_model("mlp", 22, 3)
    step = make_step(model, optimizer, Loss(class_weights=weights))
    logits = step.logits(IMAGES).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    each = -log_p[np.arange(len(LABELS)), LABELS]
    loss, _ = step.train(IMAGES, LABELS, 0.0)
    assert float(loss) == pytest.approx((each * weights[LABELS]).mean(), rel=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_with_and_without_label_smoothing(smoothing):
    logits = RNG.standard_normal((4, 3)).astype(np.float32)
    labels = np.array([0, 2, 1, 1], np.int32)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    assert float(Loss(smoothing).cross_entropy(labels, logits)) == pytest.approx(
        -(target * log_p).sum(1).mean(), rel=1e-5
    )
