"""The networks of `keras.applications` whose ImageNet weights Keras publishes, each as one flat network from uint8.

The preprocessing of each family is part of its network. Nothing is downloaded here: a network is built with new
weights, and `features.initial_weights.load` sets the published ones. Batch norm is that of `onsight.models.layers`, so
a network can also be trained from scratch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from onsight.models.layers import BatchNormalization

MOMENTUM = 0.9  # of batch norm; the families' 0.99 and 0.999 suit ImageNet's hundreds of thousands of steps


def mobilenetv2(image_size: int, num_classes: int) -> keras.Model:
    """Return MobileNetV2 of width 1.0 (Sandler et al. 2018, "Inverted Residuals and Linear Bottlenecks")."""
    return assemble("mobilenetv2", keras.applications.MobileNetV2, image_size, num_classes, rescale=True)


def mobilenetv3_small(image_size: int, num_classes: int) -> keras.Model:
    """Return MobileNetV3 small, width 1.0, up to its last map (Howard et al. 2019, "Searching for MobileNetV3")."""
    return assemble("mobilenetv3_small", keras.applications.MobileNetV3Small, image_size, num_classes)


def mobilenetv3_large(image_size: int, num_classes: int) -> keras.Model:
    """Return MobileNetV3 large, width 1.0, up to its last map (Howard et al. 2019, "Searching for MobileNetV3")."""
    return assemble("mobilenetv3_large", keras.applications.MobileNetV3Large, image_size, num_classes)


def efficientnetv2_b0(image_size: int, num_classes: int) -> keras.Model:
    """Return EfficientNetV2-B0 (Tan and Le 2021, "EfficientNetV2: Smaller Models and Faster Training")."""
    return assemble("efficientnetv2_b0", keras.applications.EfficientNetV2B0, image_size, num_classes)


def efficientnetv2_b1(image_size: int, num_classes: int) -> keras.Model:
    """Return EfficientNetV2-B1 (Tan and Le 2021)."""
    return assemble("efficientnetv2_b1", keras.applications.EfficientNetV2B1, image_size, num_classes)


def efficientnetv2_b2(image_size: int, num_classes: int) -> keras.Model:
    """Return EfficientNetV2-B2 (Tan and Le 2021)."""
    return assemble("efficientnetv2_b2", keras.applications.EfficientNetV2B2, image_size, num_classes)


def efficientnetv2_b3(image_size: int, num_classes: int) -> keras.Model:
    """Return EfficientNetV2-B3 (Tan and Le 2021)."""
    return assemble("efficientnetv2_b3", keras.applications.EfficientNetV2B3, image_size, num_classes)


def resnet50v2(image_size: int, num_classes: int) -> keras.Model:
    """Return ResNet-50 V2 (He et al. 2016, "Identity Mappings in Deep Residual Networks")."""
    return assemble("resnet50v2", keras.applications.ResNet50V2, image_size, num_classes, rescale=True)


def inceptionv3(image_size: int, num_classes: int) -> keras.Model:
    """Return Inception v3 (Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision")."""
    return assemble("inceptionv3", keras.applications.InceptionV3, image_size, num_classes, rescale=True)


def convnext_tiny(image_size: int, num_classes: int) -> keras.Model:
    """Return ConvNeXt-T (Liu et al. 2022, "A ConvNet for the 2020s")."""
    return assemble("convnext_tiny", keras.applications.ConvNeXtTiny, image_size, num_classes)


def assemble(
    name: str, family: Callable[..., keras.Model], image_size: int, num_classes: int, *, rescale: bool = False
) -> keras.Model:
    """Return a family's network without its top, with global average pooling and a new dense head.

    The network is copied layer by layer, for two reasons. Keras numbers unnamed layers by how many the process has
    created, so the names in a weights file would differ from process to process. And nested models become plain layers,
    which folding, conversion and the layer table can handle.

    Args:
        name: name of the network.
        family: the function of `keras.applications`.
        image_size: side of the images in pixels.
        num_classes: number of outputs of the head.
        rescale: whether to scale images to -1..1 first. This is the `preprocess_input` of the families whose networks
            do not preprocess images themselves.
    """
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(inputs) if rescale else inputs
    original = family(include_top=False, weights=None, input_tensor=x, pooling="avg")
    number = {id(layer): index for index, layer in enumerate(original.layers)}

    def copy(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation such as `x + 3` has no state
        if isinstance(layer, keras.Sequential):
            return [copy(inner) for inner in layer.layers]
        config = layer.get_config()
        if re.fullmatch(rf"{unnamed(layer)}(_\d+)?", layer.name):
            config["name"] = f"{unnamed(layer)}_at{number[id(layer)]}"
        if type(layer).__name__ == "LayerScale":
            return LayerScale(config["init_values"], name=config["name"], dtype=config["dtype"])
        if type(layer) is layers.Conv2D and layer.groups == layer.filters > 1:
            return depthwise(config)
        if type(layer) is keras.layers.BatchNormalization:
            return BatchNormalization.from_config(config | {"momentum": MOMENTUM})
        return type(layer).from_config(config)

    def call(layer: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(layer, list):
            return layer(*args, **options)
        (x,) = args
        for inner in layer:
            x = inner(x)
        return x

    features = keras.models.clone_model(original, clone_function=copy, call_function=call)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(features.output)
    return keras.Model(features.inputs[0], logits, name=name)


@keras.saving.register_keras_serializable(package="onsight")
class LayerScale(layers.Layer):  # type: ignore[misc]  # Keras exports it untyped
    """A learnt factor per channel, as in `keras.applications`' ConvNeXt; there, the weight has no name."""

    def __init__(self, init_values: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init_values = init_values

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the factors, (channels,)."""
        start = keras.initializers.Constant(self.init_values)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=start, name="gamma")

    def call(self, inputs: Any) -> Any:
        """Return the inputs, (batch, H, W, channels), with each channel multiplied by its factor."""
        return inputs * self.gamma

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, for `from_config`."""
        return {**super().get_config(), "init_values": self.init_values}


def depthwise(config: dict[str, Any]) -> keras.layers.DepthwiseConv2D:
    """Return a convolution of one filter per channel, given as one of as many groups, as a depthwise convolution.

    Keras compiles groups by XLA on TensorFlow, and tf2onnx cannot convert that. The kernel has the same numbers in the
    same order: (height, width, channels, 1) instead of (height, width, 1, channels).
    """
    same = ("name", "dtype", "kernel_size", "strides", "padding", "dilation_rate", "use_bias")
    initializer = config["kernel_initializer"]
    return layers.DepthwiseConv2D(**{key: config[key] for key in same}, depthwise_initializer=initializer)


def unnamed(layer: keras.layers.Layer) -> str:
    """Return Keras' default name for a layer of this class, without a number: the class name in snake case."""
    words = re.sub("(.)([A-Z][a-z0-9]+)", r"\1_\2", type(layer).__name__)
    return re.sub("([a-z])([A-Z])", r"\1_\2", words).lower()
