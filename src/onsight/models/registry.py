"""The registry of networks: name, description, image sizes and building function of each, and functions on networks.

A function takes (image_size, num_classes) and returns a `keras.Model` from uint8 RGB (batch, image_size, image_size, 3)
to the logits (batch, num_classes) of a float32 dense layer named `logits`. The network normalises the images itself,
and every layer has a name. Listing the registry does not import Keras.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from onsight.core.errors import SpecError, unknown_name

if TYPE_CHECKING:
    import keras
    import numpy as np


class Entry(NamedTuple):
    """One network of the registry."""

    function: str  # "module:function": in this package, or in any module for a custom network
    description: str
    smallest: int  # image size in pixels
    largest: int  # with larger images, some networks' dense layers would take gigabytes
    default_size: int  # images are not enlarged beyond this size unless the user asks for it
    prepare: str = ""  # "module:function" that takes `prepare_model`'s arguments and sets weights from data
    normed: bool = False  # whether a norm follows each convolution or its sum, so that Muon may rescale kernels
    published_rates: bool = False  # whether the rates of `MuonSGD` fit: norms have no scale, the head starts small
    build: Callable[[int, int], keras.Model] | None = None  # the function itself, of a custom network


def group(module: str, sizes: tuple[int, int, int], descriptions: dict[str, str], **more: Any) -> dict[str, Entry]:
    """Return the entries of one module; `sizes` are the smallest, largest and default size of its networks."""
    return {name: Entry(f"{module}:{name}", text, *sizes, **more) for name, text in descriptions.items()}


IMAGE_SIZES = (32, 64, 96, 128, 160, 224)  # the default image size is one of these
SMALL, PHOTOS = (16, 1024, 96), (32, 1024, 224)
MODELS: dict[str, Entry] = {
    **group("mlp", (8, 128, 32), {"mlp": "two dense layers: the ANN baseline, about 50 % on CIFAR-10"}),
    **group("cnn", (22, 256, 64), {"cnn": "the tutorials' small CNN: 161,098 parameters at 32 px and 10 classes"}),
    **group("cnn", (16, 256, 96), {"cnn_dropout": "stages of two convolutions, with batch norm, dropout and L2"}),
    **group(
        "cnn",
        (8, 1024, 96),
        {
            "cnn_compact": "three stages that pool early: the best trade-off of accuracy and CPU time",
            "micro": "cnn_compact with fewer filters, for microcontrollers: less than 100 kB as int8",
        },
        normed=True,
    ),
    **group(
        "resnet",
        SMALL,
        {
            "resnet20": "ResNet for CIFAR (He et al. 2015): 0.27 million parameters",
            "resnet32": "a deeper resnet20: 0.46 million parameters",
            "resnet56": "deeper still: 0.85 million parameters, three times the time of resnet20",
        },
        normed=True,
    ),
    **group(
        "resnet",
        SMALL,
        {"wide_resnet16_4": "wide ResNet (Zagoruyko and Komodakis 2016): accurate, but slow on a CPU"},
        normed=True,
    ),
    **group(
        "vgg",
        SMALL,
        {
            "vgg11": "VGG-11 with batch norm (Simonyan and Zisserman 2014): plain and large, 9.2 million parameters",
            "vgg16": "VGG-16 with batch norm: 13 convolutions instead of 8, 14.7 million parameters",
        },
        normed=True,
    ),
    **group(
        "inception",
        SMALL,
        {"inception_cifar": "small Inception (Zhang et al. 2017): 1x1 and 3x3 in parallel, 1.65 million parameters"},
        normed=True,
    ),
    **group(
        "mobilenet",
        SMALL,
        {"mobilenet_cifar": "MobileNet (Howard et al. 2017): 3.2 million parameters, few multiply-adds"},
        normed=True,
    ),
    **group(
        "convnext",
        SMALL,
        {"convnext_cifar": "small ConvNeXt (after Liu et al. 2022): layer norm, 7x7 depthwise; needs many epochs"},
        normed=True,  # its norms are layer norms; measured to train well with Muon (docs/decisions/training.md)
    ),
    **group(
        "whitened",
        (17, 1024, 96),
        {
            "whitened": "the network of the fastest published CIFAR-10 recipe: 1.97 million parameters",
            "whitened_wide": "a wider and deeper whitened: more accurate, but slower",
        },
        prepare="whitened:whiten",
        normed=True,
        published_rates=True,
    ),
    **group(
        "efficientnet_lite",
        PHOTOS,
        {"efficientnet_lite0": "pretrained, 3.4 million parameters: the default for photos, made for int8"},
        normed=True,
    ),
    **group(
        "efficientnet_lite",
        (32, 1024, 240),
        {"efficientnet_lite1": "pretrained, 4.2 million parameters: a deeper Lite0"},
        normed=True,
    ),
    **group(
        "efficientnet_lite",
        (32, 1024, 260),
        {"efficientnet_lite2": "pretrained, 4.9 million parameters: a deeper and wider Lite0"},
        normed=True,
    ),
    **group(
        "pretrained",
        PHOTOS,
        {
            "mobilenetv2": "pretrained, 2.3 million parameters: runs everywhere",
            "mobilenetv3_small": "pretrained, 0.9 million parameters: the smallest and fastest",
            "mobilenetv3_large": "pretrained, 3.0 million parameters: fast, and better than mobilenetv2",
            "efficientnetv2_b0": "pretrained, 5.9 million parameters: more accurate than Lite0, a download",
            "efficientnetv2_b1": "pretrained, 6.9 million parameters: a deeper B0",
            "efficientnetv2_b2": "pretrained, 8.8 million parameters: a deeper and wider B0",
            "efficientnetv2_b3": "pretrained, 12.9 million parameters: the best of the EfficientNets here",
            "resnet50v2": "pretrained, 23.6 million parameters: the classic ResNet",
            "convnext_tiny": "pretrained, 27.8 million parameters: the largest and slowest",
        },
    ),
    **group("pretrained", (75, 1024, 224), {"inceptionv3": "pretrained, 21.8 million parameters: Inception v3"}),
}


def check_size(name: str, image_size: int) -> None:
    """Raise SpecError if `name` is unknown or its network cannot take images of `image_size` pixels per side."""
    if name not in MODELS:
        raise SpecError(unknown_name("model", name, MODELS))
    smallest, largest = MODELS[name].smallest, MODELS[name].largest
    if not smallest <= image_size <= largest:
        raise SpecError(
            f"{name} takes images of {smallest} to {largest} px, but image_size is {image_size}. "
            "Choose another --image-size or another model."
        )


def fitting_size(name: str, side: int) -> int:
    """Return the largest of `IMAGE_SIZES` that exceeds neither the images' `side` nor the network's default size."""
    return max((size for size in IMAGE_SIZES if size <= min(side, MODELS[name].default_size)), default=IMAGE_SIZES[0])


def usual_size(name: str) -> int:
    """Return 32, the usual side of small images in pixels, or the nearest side that network `name` takes."""
    return min(max(32, MODELS[name].smallest), MODELS[name].largest) if name in MODELS else 32


def build_model(name: str, image_size: int, num_classes: int, channels: float = 0.0) -> keras.Model:
    """Return a new network: uint8 RGB (batch, image_size, image_size, 3) in, float32 logits (batch, num_classes) out.

    Args:
        name: name in the registry.
        image_size: side of the images in pixels.
        num_classes: number of classes, at least two.
        channels: share of the removable channels to leave out.

    Raises:
        SpecError: the name is unknown, the network does not take images of this size, there are fewer than two
            classes, or channels should be left out of a network without removable ones.
    """
    check_size(name, image_size)
    if num_classes < 2:
        raise SpecError(f"A classifier needs at least two classes, but num_classes is {num_classes}.")
    model: keras.Model = builder(name)(image_size, num_classes)
    if MODELS[name].build and hasattr(model, "name"):  # without a name it is no model: `check_network` reports it
        model.name = name  # the key by which others look it up in the registry
    if channels:
        from onsight.models.remove_channels import narrowed

        model = narrowed(model, channels)
    return model


def builder(name: str) -> Callable[[int, int], keras.Model]:
    """Return the function that builds the network `name`."""
    return MODELS[name].build or _function(MODELS[name].function)


def prepare_model(model: keras.Model, images: np.ndarray, order: np.ndarray) -> None:
    """Set the weights that are computed from data before training, if the network has any.

    Args:
        model: a new network from `build_model`.
        images: (all, H, W, 3) uint8, may be memory-mapped.
        order: shuffled indices of the training images in `images`. Only as many of the first ones as needed are read.
    """
    if MODELS[model.name].prepare:
        _function(MODELS[model.name].prepare)(model, images, order)


def _function(reference: str) -> Callable[..., Any]:
    module, function = reference.split(":")
    found: Callable[..., Any] = getattr(import_module(f".{module}", __package__), function)
    return found


def classifier(model: keras.Model, temperature: float = 1.0, prototypes: np.ndarray | None = None) -> keras.Model:
    """Return `model` with temperature and softmax on top of its logits, both in float32; the weights are shared.

    With `prototypes`, (features, m) float32, the model has two outputs: the probabilities, and the distance of the
    features from the nearest prototype, (batch,) float32.
    """
    import keras

    logits = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(model.output)
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(logits)
    if prototypes is None:
        return keras.Model(model.input, probabilities, name=model.name)
    from onsight.models.layers import PrototypeDistance

    layer = PrototypeDistance(prototypes.shape[1], dtype="float32", name="distance")
    outputs = [probabilities, layer(model.get_layer("logits").input)]
    layer.prototypes.assign(prototypes)
    return keras.Model(model.input, outputs, name=model.name)


def layer_table(model: keras.Model) -> list[dict[str, Any]]:
    """Return one row per layer: name, type, output_shape (without the batch), parameters, multiply_adds (per image).

    As in papers, only the multiply-adds of kernels are counted: each weight of a convolution's or a dense layer's
    kernel is used once per position of the output. Biases, norms and activations are left out.
    """
    rows = []
    for layer in model.layers:
        shape = list(layer.output.shape[1:])
        # Conv2D, DepthwiseConv2D and Dense have one "kernel"; SeparableConv2D has two.
        kernels = sum(math.prod(weight.shape) for weight in layer.weights if weight.name.endswith("kernel"))
        rows.append(
            {
                "name": layer.name,
                "type": type(layer).__name__,
                "output_shape": shape,
                "parameters": layer.count_params(),
                "multiply_adds": math.prod(shape[:-1]) * kernels,
            }
        )
    return rows
