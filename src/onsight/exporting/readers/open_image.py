"""Open an image file as the input of a model, with Pillow and NumPy alone."""

import numpy as np
from PIL import Image, ImageOps


def open_image(path: str, size: int, fit: str) -> np.ndarray:
    """Return an image file as (size, size, 3) uint8 RGB.

    `fit` is "cut" for the centre square of the image, or "pad" for all of it on a grey square.
    """
    with Image.open(path) as file:
        if file.format in ("JPEG", "MPO"):  # of more than 25 million pixels: decode at 1/2 or 1/4
            scale = 1
            while -(-file.width // scale) * -(-file.height // scale) > 25_000_000:
                scale *= 2
            file.draft(None, (file.width // scale, file.height // scale))
        image = ImageOps.exif_transpose(file)  # phones store photos sideways
    if image.mode.startswith(("I", "F")):  # grey of more than 8 bits, which convert() would cut off
        white = 1 if image.mode == "F" else 65535
        image = Image.fromarray(np.rint(np.asarray(image) * (255 / white)).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    image = image.convert("RGB")

    if fit == "cut":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    longer = max(image.size)
    width, height = (max(1, (2 * side * size + longer) // (2 * longer)) for side in image.size)
    image = image.resize((width, image.height), Image.Resampling.BILINEAR)  # the columns first; Pillow smooths
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    square = Image.new("RGB", (size, size), (128, 128, 128))
    square.paste(image, ((size - width) // 2, (size - height) // 2))
    return np.asarray(square)
