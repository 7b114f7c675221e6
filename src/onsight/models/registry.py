"""The registry of networks: a name, what it is good for, and the function that builds it.

A function takes (image_size, num_classes) and returns a `keras.Model` from uint8 RGB (batch, image_size, image_size, 3)
to the logits (batch, num_classes) of a float32 dense layer named `logits`. It normalises inside, and names every layer.
Listing the registry imports no Keras.
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

    function: str  # "module:function" inside this package, or of a user's own wherever it is
    description: str
    smallest: int  # image size in pixels
    largest: int  # beyond it, its dense layers would take gigabytes
    default_size: int  # images are not enlarged beyond it unless the user says so
    prepare: str = ""  # "module:function" of `prepare_model`'s arguments: sets weights from data
    normed: bool = False  # whether a norm follows each convolution, or its sum, so that Muon may rescale kernels
    build: Callable[[int, int], keras.Model] | None = None  # the function itself, where it is a user's own


def _group(module: str, sizes: tuple[int, int, int], descriptions: dict[str, str], **more: Any) -> dict[str, Entry]:
    """Return the entries of a file of networks: its smallest, largest and default size, and what each is good for."""
    return {name: Entry(f"{module}:{name}", text, *sizes, **more) for name, text in descriptions.items()}


SMALL, PHOTOS = (16, 1024, 96), (32, 1024, 224)
MODELS: dict[str, Entry] = {
    **_group("mlp", (8, 128, 32), {"mlp": "two dense layers: the ANN baseline, near 50 % on CIFAR-10"}),
    **_group("cnn", (22, 256, 64), {"cnn": "the tutorials' small CNN: 161,098 parameters at 32 px and 10 classes"}),
    **_group("cnn", (16, 256, 96), {"cnn_dropout": "conv-conv-pool stages with batch norm, dropout and L2"}),
    **_group(
        "cnn",
        (8, 1024, 96),
        {
            "cnn_compact": "three stages that pool early: the most accuracy for the time on a CPU",
            "micro": "the same, narrower, for microcontrollers: less than 100 kB as int8",
        },
        normed=True,
    ),
    **_group(
        "resnet",
        SMALL,
        {
            "resnet20": "He et al. 2015 for CIFAR: 0.27 million parameters",
            "resnet32": "the same, deeper: 0.46 million parameters",
            "resnet56": "deeper still: 0.85 million parameters, three times the time",
        },
        normed=True,
    ),
    **_group(
        "resnet",
        SMALL,
        {"wide_resnet16_4": "Zagoruyko and Komodakis 2016: wide and accurate; slow on a CPU"},
        normed=True,
    ),
    **_group(
        "vgg",
        SMALL,
        {
            "vgg11": "Simonyan and Zisserman 2014, batch-normed: plain and large, 9.2 million parameters",
            "vgg16": "the same with 13 convolutions: 14.7 million parameters",
        },
        normed=True,
    ),
    **_group(
        "inception",
        SMALL,
        {"inception_cifar": "Zhang et al. 2017: 1x1 beside 3x3, 1.65 million parameters"},
        normed=True,
    ),
    **_group(
        "mobilenet", SMALL, {"mobilenet_cifar": "Howard et al. 2017: few multiply-adds for 3.2 million"}, normed=True
    ),
    **_group(
        "convnext",
        SMALL,
        {"convnext_cifar": "after Liu et al. 2022: layer norms, 7x7 depthwise; many epochs"},
        normed=True,  # by layer norms; that Muon suits it was measured (docs/decisions.md)
    ),
    **_group(
        "whitened",
        (17, 1024, 96),
        {
            "whitened": "the fastest published recipe's: 1.97 million parameters",
            "whitened_wide": "the same, wider: more accuracy for more time",
        },
        prepare="whitened:whiten",
        normed=True,
    ),
    **_group(
        "pretrained",
        PHOTOS,
        {
            "mobilenetv2": "pretrained, 2.3 million parameters: runs everywhere",
            "mobilenetv3_small": "pretrained, 0.9 million parameters: the smallest and quickest",
            "mobilenetv3_large": "pretrained, 3.0 million parameters: quick, and better than v2",
            "efficientnetv2_b0": "pretrained, 5.9 million parameters: the default for photos",
            "efficientnetv2_b1": "pretrained, 6.9 million parameters: B0, deeper",
            "efficientnetv2_b2": "pretrained, 8.8 million parameters: B0, deeper and wider",
            "efficientnetv2_b3": "pretrained, 12.9 million parameters: the best of the family here",
            "resnet50v2": "pretrained, 23.6 million parameters: the classic",
            "convnext_tiny": "pretrained, 27.8 million parameters: the largest and slowest",
        },
    ),
    **_group("pretrained", (75, 1024, 224), {"inceptionv3": "pretrained, 21.8 million parameters: Inception"}),
}


def check_size(name: str, image_size: int) -> None:
    """Raise SpecError where network `name` cannot take images of `image_size`."""
    if name not in MODELS:
        raise SpecError(unknown_name("model", name, MODELS))
    smallest, largest = MODELS[name].smallest, MODELS[name].largest
    if not smallest <= image_size <= largest:
        raise SpecError(
            f"{name} takes images of {smallest} to {largest} px, and image_size is {image_size}. "
            "Take another --image-size, or another model."
        )


def usual_size(name: str) -> int:
    """Return 32, the side of the usual small images, or the nearest to it that network `name` takes."""
    return min(max(32, MODELS[name].smallest), MODELS[name].largest) if name in MODELS else 32


def build_model(name: str, image_size: int, num_classes: int, channels: float = 0.0) -> keras.Model:
    """Return a new network: uint8 RGB (batch, image_size, image_size, 3) in, float32 logits (batch, num_classes) out.

    Args:
        name: of the registry.
        image_size: pixels a side.
        num_classes: at least two.
        channels: share of the channels to leave out, where that can be.

    Raises:
        SpecError: the name is unknown, the images are too small for it, there are fewer than two classes, or it has
            no channels that can be left out.
    """
    check_size(name, image_size)
    if num_classes < 2:
        raise SpecError(f"A classifier needs at least two classes, and num_classes is {num_classes}.")
    model: keras.Model = builder(name)(image_size, num_classes)
    if MODELS[name].build and hasattr(model, "name"):  # without one it is no model, which `own.check_network` tells
        model.name = name  # by which it is looked up again
    if channels:
        from onsight.models.remove_channels import narrowed

        model = narrowed(model, channels)
    return model


def builder(name: str) -> Callable[[int, int], keras.Model]:
    """Return the function that builds the network `name`."""
    return MODELS[name].build or _function(MODELS[name].function)


def prepare_model(model: keras.Model, images: np.ndarray, order: np.ndarray) -> None:
    """Set the weights that a network takes from data before it trains, if it has such.

    Args:
        model: new, from `build_model`.
        images: (all, H, W, 3) uint8, may be memory-mapped.
        order: indices of the training images among them, shuffled: as many of the first as are needed are read.
    """
    if MODELS[model.name].prepare:
        _function(MODELS[model.name].prepare)(model, images, order)


def _function(reference: str) -> Callable[..., Any]:
    module, function = reference.split(":")
    found: Callable[..., Any] = getattr(import_module(f".{module}", __package__), function)
    return found


def classifier(model: keras.Model, temperature: float = 1.0) -> keras.Model:
    """Return `model` (to logits) with temperature and softmax on top, in float32, sharing its weights."""
    import keras

    logits = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(model.output)
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(logits)
    return keras.Model(model.input, probabilities, name=model.name)


def layer_table(model: keras.Model) -> list[dict[str, Any]]:
    """Return one row a layer: name, type, output_shape (without the batch), parameters, multiply_adds (for an image).

    Of the multiply-adds those of the kernels are counted, as papers do: each number of a convolution's or a dense
    layer's kernel takes part once at each position of the output. Biases, norms and activations are left out.
    """
    rows = []
    for layer in model.layers:
        shape = list(layer.output.shape[1:])
        # "kernel" of Conv2D, DepthwiseConv2D and Dense; SeparableConv2D has two.
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
