"""How much memory a .tflite file needs in TensorFlow Lite Micro: `python -m onsight.exporting.arena < model.tflite`.

The library is tried with one arena after the other. It ends its process in some that are too small, so each trial is a
fork of a process that does nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, NoReturn

from onsight.core.errors import ExportError

STEP = 1024  # bytes, to which the size is rounded up
LARGEST = 256 << 20  # bytes, above which the search ends
REFUSED = 3  # exit code if no arena is large enough


def arena_size(content: bytes) -> int:
    """Return the size of the smallest arena in which TensorFlow Lite Micro can prepare a .tflite file, in bytes.

    Raises:
        ExportError: it cannot be prepared in an arena of any size, for example because of an operator.
    """
    done = subprocess.run([sys.executable, "-m", "onsight.exporting.arena"], input=content, capture_output=True)
    if done.returncode == REFUSED:
        raise ExportError("TensorFlow Lite Micro cannot run this network: it lacks one of its operators.")
    if done.returncode:
        why = (done.stderr.decode(errors="replace").strip() or "no message").splitlines()[-1]
        raise ExportError(f"TensorFlow Lite Micro could not be tried: {why}")
    return int(done.stdout)


def main() -> None:
    """Print the size for the file on standard input."""
    content = sys.stdin.buffer.read()
    low, high = 0, STEP
    while not fits(content, high):
        low, high = high, 2 * high
        if high > LARGEST:
            sys.exit(REFUSED)
    while high - low > STEP:
        middle = (low + high) // (2 * STEP) * STEP
        low, high = (low, middle) if fits(content, middle) else (middle, high)
    print(high)  # noqa: T201


def fits(content: bytes, size: int) -> bool:
    """Return whether TensorFlow Lite Micro can prepare a .tflite file in an arena of a size in bytes."""
    library = interpreter()
    trial = os.fork()
    if not trial:
        tried(library, content, size)
    return os.waitpid(trial, 0)[1] == 0


def interpreter() -> Any:
    """Return the library's class."""
    from tflite_micro.python.tflite_micro.runtime import Interpreter

    return Interpreter


def tried(library: Any, content: bytes, size: int) -> NoReturn:
    """Try an arena, and end with 0 if it is large enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        library.from_bytes(content, arena_size=size)
    except BaseException:
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
