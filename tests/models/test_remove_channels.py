import keras
import numpy as np
import pytest
from keras import layers

from onsight.core.backend import to_numpy
from onsight.core.errors import SpecError
from onsight.models.layers import BatchNormalization
from onsight.models.registry import MODELS, build_model
from onsight.models.remove_channels import inherit, kept_counts, narrowed, removable

RNG = np.random.default_rng(0)


def outputs(model):
    images = np.random.default_rng(1).integers(0, 256, (4, *model.input_shape[1:]), dtype=np.uint8)
    return np.asarray(model.predict_on_batch(images))


def stirred(model):
    for weight in model.weights:
        low = 0.5 if "variance" in weight.name or "gamma" in weight.name else -0.5
        weight.assign(RNG.uniform(low, 1.0, weight.shape).astype(np.float32) / np.sqrt(np.prod(weight.shape[:-1]) or 1))
    return model


def silence(model, small):
    """Set weights so that the channels that `small` lacks are always zero."""
    for name, (layer, followers) in removable(model).items():
        count = layer.kernel.shape[-1]
        gone = RNG.permutation(count)[small.get_layer(name).kernel.shape[-1] :]
        kernel, *rest = [to_numpy(weight) for weight in layer.weights]
        kernel[..., gone] = 0
        for array in rest:
            array[gone] = 0
        layer.set_weights([kernel, *rest])
        for follower in followers:
            if isinstance(follower, layers.BatchNormalization):
                index = (np.arange(follower.moving_mean.shape[0] // count)[:, None] * count + gone).ravel()
                for weight in (follower.beta, follower.moving_mean):
                    array = to_numpy(weight)
                    array[index] = 0
                    weight.assign(array)
    return model


# The other networks have the same kinds of layers; their tests are marked slow.
QUICK = ("cnn", "cnn_compact", "resnet20", "mobilenet_cifar")
SIZES = {"inceptionv3": 75}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_removing_silent_channels_does_not_change_the_outputs_of_any_network(name):
    """The narrower network has the same outputs, so all other weights were moved to their right places."""
    size = SIZES.get(name, 32)
    small = build_model(name, size, 3, channels=0.5)
    full = silence(stirred(build_model(name, size, 3)), small)
    assert small.count_params() < full.count_params()
    inherit(small, full)
    np.testing.assert_allclose(outputs(small), outputs(full), rtol=1e-4, atol=1e-4)
    assert [layer.name for layer in small.layers] == [layer.name for layer in full.layers]
    for layer in full.layers:
        flags = [weight.trainable for weight in small.get_layer(layer.name).weights]
        assert flags == [weight.trainable for weight in layer.weights]


@pytest.mark.parametrize(
    ("widths", "share", "kept"),
    [
        ([16, 16, 16], 0.5, [8, 8, 8]),
        ([32, 32, 64, 64, 128, 128], 0.5, [25, 25, 36, 36, 51, 51]),
        ([32, 32, 64, 64, 128, 128], 0.75, [13, 13, 18, 18, 25, 25]),
        ([8, 512], 0.5, [8, 252]),  # no layer gets more channels than it had
        ([1, 3], 0.9, [1, 1]),  # every layer keeps at least one channel
    ],
)
def test_wide_layers_lose_the_most_channels(widths, share, kept):
    assert kept_counts(widths, share) == kept


def test_the_last_convolutions_of_residual_blocks_keep_their_channels():
    found = removable(build_model("resnet20", 32, 3))
    assert set(found) == {f"block{stage}_{block}_1_conv" for stage in (1, 2, 3) for block in (1, 2, 3)}


def test_channels_before_depthwise_convolutions_and_batch_norms_of_flat_maps_are_removed():
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255, name="normalise")(image)
    x = layers.Conv2D(6, 3, name="conv")(x)
    x = BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Flatten(name="flatten")(x)
    x = BatchNormalization(name="flat_norm")(x)
    full = stirred(keras.Model(image, layers.Dense(3, name="logits")(x), name="tried"))
    small = narrowed(full, 0.5)
    inherit(small, full)
    # The same network, with its weakest channels multiplied by zero in the head.
    strongest = np.linalg.norm(to_numpy(full.get_layer("conv").kernel).reshape(-1, 6), axis=0)
    norm = full.get_layer("norm")
    strongest *= np.abs(to_numpy(norm.gamma)) / np.sqrt(to_numpy(norm.moving_variance) + norm.epsilon)
    gone = np.argsort(strongest)[:3]
    head = full.get_layer("logits")
    kernel = to_numpy(head.kernel).reshape(-1, 6, 3)
    kernel[:, gone] = 0
    head.kernel.assign(kernel.reshape(-1, 3))
    np.testing.assert_allclose(outputs(small), outputs(full), rtol=1e-5, atol=1e-5)


def test_a_network_without_removable_channels_is_refused():
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = layers.Conv2D(4, 3, padding="same", name="conv")(layers.Rescaling(1 / 255)(image))
    x = layers.Add()([x, layers.Conv2D(4, 1, name="skip")(layers.Rescaling(1 / 255)(image))])
    model = keras.Model(image, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x)), name="tried")
    with pytest.raises(SpecError, match="tried has no channels that can be removed"):
        narrowed(model, 0.5)
