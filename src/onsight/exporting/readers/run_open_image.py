"""Open image files with open_image.py, in a process that does not import Onsight.

    python run_open_image.py FOLDER SIZE FIT

The pixels of each file in FOLDER are written to FILE.npy beside it. A file that cannot be opened is passed over.
"""

import runpy
import sys
from pathlib import Path

import numpy as np


def main() -> None:
    """Run as the module docstring describes."""
    folder, size, fit = sys.argv[1:]
    open_image = runpy.run_path(str(Path(__file__).with_name("open_image.py")))["open_image"]
    for path in sorted(Path(folder).iterdir()):
        try:
            pixels = open_image(path, int(size), fit)
        except Exception as error:  # Pillow raises nearly every type of exception for odd files
            sys.stderr.write(f"{path.name}: {error}\n")
        else:
            np.save(f"{path}.npy", pixels)


if __name__ == "__main__":
    main()
