import numpy as np
import pytest

from onsight.core.backend import to_numpy

pytestmark = pytest.mark.backend


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("shape", [(8, 5, 5, 3), (4, 1, 1, 7), (2, 9, 4, 16)])
def test_batch_norm_equals_keras(shape, scale):
    import keras

    from onsight.models.layers import BatchNormalization

    rng = np.random.default_rng(0)
    x = (rng.standard_normal(shape) * 3 + 1).astype(np.float32)
    ours, theirs = (kind(momentum=0.8, scale=scale) for kind in (BatchNormalization, keras.layers.BatchNormalization))
    for layer in (ours, theirs):
        layer.build(shape)
    start = [rng.standard_normal(shape[-1:]).astype(np.float32) for _ in range(1 + scale)]
    for layer in (ours, theirs):
        layer.set_weights([*start, np.zeros(shape[-1], np.float32), np.ones(shape[-1], np.float32)])
    for training in (True, True, False):
        mine, other = (keras.ops.convert_to_numpy(layer(x, training=training)) for layer in (ours, theirs))
        np.testing.assert_allclose(mine, other, atol=1e-4)
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(to_numpy(mine), to_numpy(other), atol=1e-5)


def test_a_frozen_batch_norm_does_not_update_its_statistics():
    from onsight.models.layers import BatchNormalization

    layer = BatchNormalization()
    layer.build((2, 3, 3, 1))
    layer.trainable = False
    layer(np.full((2, 3, 3, 1), 9, np.float32), training=True)
    assert to_numpy(layer.moving_mean) == 0


@pytest.mark.parametrize(
    ("activation", "dtype", "tolerance"),
    [("silu", "float32", 1e-6), ("silu", "bfloat16", 0.02), ("gelu", "float32", 2e-6), ("gelu", "bfloat16", 0.02)],
)
def test_an_activation_and_its_gradient_equal_keras(activation, dtype, tolerance):
    import keras

    from onsight.models.layers import Activation

    x = keras.ops.cast(np.linspace(-12, 12, 2 * 3 * 3 * 4).reshape(2, 3, 3, 4), dtype)
    ours, theirs = (kind(activation, dtype=dtype) for kind in (Activation, keras.layers.Activation))
    expected = keras.ops.convert_to_numpy(keras.ops.cast(theirs(x), "float32"))
    for training in (True, False):
        found = keras.ops.convert_to_numpy(keras.ops.cast(ours(x, training=training), "float32"))
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        gradients = []
        for layer, options in ((ours, {"training": True}), (theirs, {})):
            with tf.GradientTape() as tape:
                tape.watch(x)
                total = tf.reduce_sum(layer(x, **options))
            gradients.append(np.asarray(tf.cast(tape.gradient(total, x), tf.float32)))
        assert gradients[0].max() > 1.05  # both are steeper than 1 for some positive numbers
        np.testing.assert_allclose(*gradients, atol=2 * tolerance)


@pytest.mark.parametrize(
    ("shape", "filters", "size"), [((3, 7, 7, 256), 256, 3), ((2, 4, 5, 300), 256, 3), ((3, 6, 5, 8), 12, 1)]
)
def test_a_convolution_with_our_gradients_equals_keras(shape, filters, size):
    import keras

    from onsight.models.layers import Conv2D

    rng = np.random.default_rng(0)
    x, wanted = (keras.ops.cast(rng.standard_normal((*shape[:3], c)), "bfloat16") for c in (shape[3], filters))
    options = {"padding": "same", "use_bias": False}
    ours, theirs = (kind(filters, size, dtype="mixed_bfloat16", **options) for kind in (Conv2D, keras.layers.Conv2D))
    # A processor without bfloat16 sums in bfloat16, too: there Keras' own gradient of the kernel is off by 3 %.
    exact = keras.layers.Conv2D(filters, size, dtype="float32", **options)
    for layer in (ours, theirs, exact):
        layer.build(shape)
    rounded = to_numpy(keras.ops.cast(keras.ops.cast(ours.kernel, "bfloat16"), "float32"))
    for layer in (ours, theirs, exact):
        layer.set_weights([rounded])
    found, expected = (to_numpy(keras.ops.cast(layer(x), "float32")) for layer in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=0.02)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        def gradients(layer, dtype):
            inputs = tf.cast(x, dtype)
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                total = tf.reduce_sum(layer(inputs) * tf.cast(wanted, dtype))
            return [to_numpy(tf.cast(each, "float32")) for each in tape.gradient(total, [inputs, layer.kernel.value])]

        of_image, of_kernel = gradients(ours, "bfloat16")
        expected_of_image, expected_of_kernel = gradients(theirs, "bfloat16")[0], gradients(exact, "float32")[1]
        np.testing.assert_allclose(of_image, expected_of_image, atol=0.01 * np.abs(expected_of_image).max())
        np.testing.assert_allclose(of_kernel, expected_of_kernel, atol=0.01 * np.abs(expected_of_kernel).max())
