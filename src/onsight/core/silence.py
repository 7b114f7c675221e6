"""Context managers that silence libraries. Each one silences another channel, because libraries use different ones.

`backend.without_lines` drops only some lines of standard error.
"""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

LOGGERS = ("absl", "coremltools", "tensorflow", "tf2onnx")  # of the libraries that convert models


@contextmanager
def without_stderr() -> Iterator[None]:
    """Drop what the process writes to file descriptor 2: also the output of C++ code, which no log level silences."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@functools.cache
def silence_libtiff() -> None:
    """Stop libtiff from writing a line to standard error for each damaged file: Pillow raises an error for it anyway.

    Pillow has no setting for this, so the function of the library is called that Pillow has loaded. Where it cannot be
    found, the lines stay.
    """
    import PIL
    from PIL import _imaging  # noqa: F401 - loads the library

    found = {str(path) for path in Path(PIL.__file__).parent.glob(".dylibs/libtiff*")}
    with suppress(OSError):
        found |= {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libtiff" in line}
    for path in found:
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)


@contextmanager
def without_python_output() -> Iterator[None]:
    """Drop what Python code writes to `sys.stdout` and `sys.stderr`, such as progress bars and greetings."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


@contextmanager
def without_logs() -> Iterator[None]:
    """Drop Python warnings, and log messages of `LOGGERS` below errors: they are about the converter, not the model."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
