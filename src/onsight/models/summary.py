"""The text that `onsight models NAME` prints: description and layer table of a network."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator

from onsight.models.registry import MODELS, build_model, builder, check_size, layer_table, usual_size


def model_lines(name: str, image_size: int | None = None, num_classes: int = 10) -> Iterator[str]:
    """Yield the network's description, then a table of name, type, output shape, parameters, multiply-adds per layer.

    Args:
        name: name in the registry.
        image_size: side of the images in pixels; by default 32, or the nearest side that the network takes.
        num_classes: number of classes.

    Raises:
        SpecError: the network does not exist, or does not take images of this size.
    """
    from onsight.core.backend import use_backend

    size = image_size or usual_size(name)
    check_size(name, size)
    use_backend()
    model = build_model(name, size, num_classes)
    rows = layer_table(model)
    entry = MODELS[name]
    yield f"{name}: {entry.description}"
    yield ""
    yield inspect.getdoc(builder(name)) or "(the function has no docstring)"
    yield ""
    yield f"It takes images of {entry.smallest} to {entry.largest} px, by default up to {entry.default_size} px."
    yield f"Its layers with images of {size} px and {num_classes} classes; multiply-adds are per image:"
    yield ""
    cells = [("layer", "type", "output", "parameters", "multiply-adds")]
    for row in rows:
        shape = " x ".join(map(str, row["output_shape"]))
        counts = (f"{row[key]:,}" if row[key] else "" for key in ("parameters", "multiply_adds"))
        cells.append((row["name"], row["type"], shape, *counts))
    total, trained = model.count_params(), sum(math.prod(weight.shape) for weight in model.trainable_weights)
    cells.append(("total", "", "", f"{total:,}", f"{sum(row['multiply_adds'] for row in rows):,}"))
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    for line in cells:
        words = [cell.ljust(width) for cell, width in zip(line[:3], widths[:3], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(line[3:], widths[3:], strict=True)]
        yield "  ".join(words + numbers).rstrip()
    yield ""
    yield f"{trained:,} parameters are trained; all parameters take {4 * total / 1e6:.1f} MB in float32."
