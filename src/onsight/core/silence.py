"""Context managers that silence libraries. Each one silences another channel, because libraries use different ones.

`backend.without_lines` drops only some lines of standard error.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

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
