"""From a file to an answer: the code of the export's README must see the pixels that `predict` sees.

Export opens image files with that code (readers/open_image.py), in a process that does not import Onsight: files that
are drawn here, which become test vectors, and some of the run's own.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from onsight.core.errors import ParityError
from onsight.core.progress import Reporter
from onsight.core.spread import spread
from onsight.core.text import count, quoted
from onsight.data.dataset import Dataset
from onsight.display.page import TEMPLATES
from onsight.exporting.formats import READERS
from onsight.imaging import decode
from onsight.imaging.augment import GREY
from onsight.imaging.containers import file_format
from onsight.imaging.fit import DECODED, Fit
from onsight.models.model_file import ModelDescription

FILES = """\
## From an image file to the input

Open and scale images as this code does, or the model sees other pixels than in training and may answer otherwise.
OpenCV's `resize` and the canvas of a browser smooth less or not at all when they shrink an image, so they do not
replace it. Test your own code with the {count} small files in `vectors/files/`: in alphabetical order, their pixels are
the last {count} images of `vectors/pictures.npy`, and the answers the last {count} rows of `vectors/probabilities.npy`.

In Python, with Pillow and NumPy:

```python
{python}
image = open_image("vectors/files/sideways.jpg", {size}, "{fit}")
assert (image == np.load("vectors/pictures.npy")[{sideways}]).all()
```

In a browser (`file` is a File or a Blob):

```js
{script}
async function openImage(file) {{
  const bitmap = await decoded(file);
  return look(bitmap, bitmap.width, bitmap.height, {{ size: {size}, fit: "{fit}", grey: {grey} }});
}}
```

In another language, for example Kotlin, Swift or C++:

1. Decode the file at full size to 8-bit RGB: {decoded}.
2. {place}
3. Scale the columns from n to m pixels. With r = n / m and s = max(r, 1), column i of the result is centred on
   c = (i + 0.5) r. Column k of the image has the weight max(0, 1 - |k + 0.5 - c| / s). Divide the weights by their sum,
   round them to multiples of 2^-22, and add up the weighted columns. Add 0.5 and round down to a byte.
4. Scale the rows of that in the same way.{grey_step}

On Android, decode with `BitmapFactory` without `inSampleSize`, and turn the bitmap as `ExifInterface` says. On iOS,
draw the `CGImage` into a context of its own colour space, so that no colour is converted, and turn it as its
orientation says. In C++, decode JPEG with libjpeg-turbo and its defaults, and read the orientation from the EXIF data.
Do the scaling yourself: `createScaledBitmap`, `CGContext.draw` into a smaller context and `cv::resize` use other
weights. These three ways are not tested here; the vectors show whether yours is right.
"""
OWN = 32  # of the run's image files
WIDTH, HEIGHT = 150, 100  # of the drawn ones, in pixels


def drawn() -> dict[str, bytes]:
    """Return {name: content} of small image files of kinds that are easily read wrongly, in alphabetical order."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    waves = np.stack([np.cos(9 * x), np.sin(7 * y + 3 * x), np.cos(40 * x * y)], axis=2)
    scene = Image.fromarray(np.rint(127.5 + 127.5 * waves).astype(np.uint8))
    ring = scene.copy()
    ring.putalpha(Image.fromarray(np.rint(255 * np.clip(2 * np.hypot(x - 0.7, y - 0.5), 0, 1)).astype(np.uint8)))
    sideways, upside_down = Image.Exif(), Image.Exif()
    sideways[0x0112], upside_down[0x0112] = 6, 3  # EXIF orientations: turn right by 90 degrees, by 180 degrees
    return {
        "cmyk.jpg": _saved(scene.convert("CMYK"), "JPEG", quality=90),
        "grey.png": _saved(scene.convert("L").resize((21, 14)), "PNG"),
        "palette.gif": _saved(scene.quantize(64), "GIF"),
        "sideways.jpg": _saved(scene, "JPEG", quality=90, exif=sideways),
        "transparent.png": _saved(ring, "PNG"),
        "upside_down.webp": _saved(scene, "WEBP", quality=80, exif=upside_down),
    }


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def open_files(dataset: Dataset, chosen: np.ndarray, size: int, fit: Fit, show: Reporter) -> np.ndarray:
    """Open the drawn files and up to 32 of the chosen images of a data set, if those are files, by the README's code.

    HEIC is passed over, because Pillow alone does not read it.

    Returns:
        (n, size, size, 3) uint8, the pixels of the drawn files.

    Raises:
        ParityError: that code sees other pixels than `predict`, in a drawn file or in more than a tenth of the others.
    """
    own: dict[str, bytes] = {}
    if dataset.images is None:
        some = chosen[spread(len(chosen), OWN)].tolist()
        own = {dataset.names[index]: data for index in some if file_format(data := dataset.read(index)) != "HEIC"}
    vectors = drawn()
    files = vectors | own
    found = opened(files, size, fit)
    other = [name for name, data in files.items() if not np.array_equal(found[name], decode.load(data, size, fit))]
    if len(other) > len(own) / 10 or not vectors.keys().isdisjoint(other):
        raise ParityError(
            f"Nothing is written: the code of the README opens {quoted(other)} otherwise than predict, of "
            f"{count(len(files), 'image file')}. Save images as JPEG or PNG of 8 bits, or leave them out, and train "
            "again."
        )
    if other:
        show.note("other pixels", f"the code of the README opens {quoted(other)} otherwise than predict")
    return np.stack([found[name] for name in vectors])


def opened(files: dict[str, bytes], size: int, fit: Fit) -> dict[str, np.ndarray]:
    """Return {name: pixels} of image files, opened by the README's code; no pixels for what it cannot open."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        paths = {name: Path(scratch) / f"{number:02}" for number, name in enumerate(files)}
        for name, path in paths.items():
            path.write_bytes(files[name])
        words = [sys.executable, "-P", str(READERS / "run_open_image.py"), scratch, str(size), fit]
        subprocess.run(words, check=True, capture_output=True)
        for name, path in paths.items():
            pixels = path.with_suffix(".npy")
            found[name] = np.load(pixels, allow_pickle=False) if pixels.exists() else np.zeros(0, np.uint8)
    return found


def from_file(description: ModelDescription) -> str:
    """Return the section of README.md about opening image files, in Python, JavaScript and words."""
    names, fit, size = list(drawn()), description.fit, description.image_size
    places = {
        "cut": "Take the centre square: s = min(W, H) pixels from column (W - s) // 2 and row (H - s) // 2.",
        "pad": f"Take the whole image. Its longer side becomes {size} pixels; a side of n pixels becomes "
        f"max(1, (2 n {size} + l) // (2 l)), where l is the longer side.",
    }
    padding = (
        f"\n5. Place the h rows and w columns on a square of grey ({GREY}, {GREY}, {GREY}), from row "
        f"({size} - h) // 2 and column ({size} - w) // 2."
    )
    return FILES.format(
        count=len(names),
        sideways=names.index("sideways.jpg") - len(names),
        python=(READERS / "open_image.py").read_text("utf-8"),
        script=(TEMPLATES / "open_image.js").read_text("utf-8").strip(),
        size=size,
        fit=fit,
        grey=GREY,
        decoded=DECODED,
        place=places[fit],
        grey_step=padding if fit == "pad" else "",
    )
