"""The backend is chosen, with its reason, before Keras is imported: afterwards it can no longer change."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from onsight.core.errors import SpecError
from onsight.core.files import cache_folder

if TYPE_CHECKING:
    import numpy as np


BACKENDS = ("tensorflow", "jax")
GREETINGS = ("oneDNN custom operations are on", "All log messages before absl::InitializeLog")  # TensorFlow's
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # ours -> Keras' dtype policy


class Choice(NamedTuple):
    """A value and why it was taken."""

    value: str
    reason: str


def choose_backend(requested: str | None = None) -> Choice:
    """Return which of `BACKENDS` Keras is to run on, and why. Imports no framework.

    Raises:
        SpecError: the name is unknown, it is not installed, or Keras already runs on another.
    """
    installed = [name for name in BACKENDS if find_spec(name)]
    if not installed or not find_spec("keras"):
        raise SpecError(
            "No Keras backend is installed. Install one: pip install 'onsight[tensorflow]' (fastest on a CPU) "
            "or pip install 'onsight[jax]'."
        )
    if "keras" in sys.modules:
        import keras

        choice = Choice(keras.config.backend(), "Keras was already imported with it")
        if requested and requested != choice.value:
            raise SpecError(
                f"Keras already runs on {choice.value} in this process, so --backend {requested} comes too late. "
                "Start a new process, or set KERAS_BACKEND before importing Keras."
            )
    elif requested:
        choice = Choice(requested, "asked for")
    elif os.environ.get("KERAS_BACKEND"):
        choice = Choice(os.environ["KERAS_BACKEND"], "KERAS_BACKEND says so")
    elif "jax" in installed and any(find_spec(plugin) for plugin in ("jax_cuda12_plugin", "jax_cuda13_plugin")):
        choice = Choice("jax", "JAX with a GPU plugin is installed")
    elif "tensorflow" in installed:
        choice = Choice("tensorflow", "the faster one on a CPU")
    else:
        choice = Choice("jax", "the only one installed")
    if choice.value not in installed:
        raise SpecError(
            f"Backend '{choice.value}' ({choice.reason}) is not installed or not supported. "
            f"Installed: {', '.join(installed)}. Onsight runs on: {', '.join(BACKENDS)}."
        )
    return choice


def choose_precision(backend: str) -> Choice:
    """Return the precision of training that is faster on this machine, and why.

    The evidence, images a second of a training step in float32 and in bfloat16: TensorFlow on a Xeon with AMX, wide
    network, 420 and 790; on an AMD EPYC with avx512_bf16, wide 600 and 910, `cnn_compact` 3,100 and 4,300, `cnn` 5,200
    and 6,900; JAX on the Xeon, small network, 1,000 and 850. On an AMD EPYC without: docs/decisions.md.
    """
    if backend == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return Choice("bfloat16", f"this machine has a {jax.devices()[0].device_kind}")
        return Choice("float32", "JAX computes bfloat16 more slowly on a CPU")
    native = {"amx_bf16", "avx512_bf16"} & processor_flags()
    if native:
        return Choice("bfloat16", f"this processor has {', '.join(sorted(native))}")
    return Choice("float32", "this processor has no bfloat16 arithmetic, so that it would be slower")


def processor_flags() -> set[str]:
    """Return what the processor can do, in Linux's words; empty where the system does not say."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next((set(line.split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return set()


def use_backend(requested: str | None = None) -> Choice:
    """Choose a backend and import Keras with it."""
    choice = choose_backend(requested)
    set_environment(choice.value)
    with without_lines(*GREETINGS):
        import keras  # noqa: F401

    return choice


def set_environment(backend: str) -> None:
    """Set what Keras and its backend read when they are imported."""
    os.environ["KERAS_BACKEND"] = backend
    # TensorFlow greets every process with notes and warnings about the processor; errors stay on.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # It takes oneDNN's convolutions by itself only where there is AVX-512; with AVX2 a training step gains 1.5x too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # What JAX compiled once it finds again, in any later process: building a network took 7 s instead of 17 to 24, its
    # first step 1.7 instead of 8 to 14 (cnn_compact, two cores; most of it is compiling). Keyed by program and machine.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    logging.getLogger("tensorflow").addFilter(not_of_retracing)


def not_of_retracing(record: logging.LogRecord) -> bool:
    """Return whether a line of TensorFlow's log is none of its long warnings that several models were compiled."""
    return "triggered tf.function retracing" not in record.getMessage()


@contextlib.contextmanager
def without_lines(*unwanted: str) -> Iterator[None]:
    """Keep lines with such words from standard error, C++'s too, which no log level silences. The others come after."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            written.seek(0)
            for line in written.read().splitlines(keepends=True):
                if not any(words.encode() in line for words in unwanted):
                    os.write(2, line)


def to_numpy(variable: Any) -> np.ndarray:
    """Return a copy of a Keras variable.

    By way of a tensor and `asarray`: NumPy 2 warns where Keras' and TensorFlow's `__array__` are asked for a copy.
    """
    import numpy as np
    from keras import ops

    return np.array(np.asarray(ops.convert_to_tensor(variable)))


@contextlib.contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Build layers in a precision of `PRECISIONS`, whatever the user's own policy is, and give that back."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(PRECISIONS[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def environment() -> dict[str, str]:
    """Return the versions and the machine that a figure depends on, as a run records them."""
    import platform
    from importlib.metadata import version

    import keras

    backend = keras.config.backend()
    package = "tensorflow-cpu" if backend == "tensorflow" and find_spec_version("tensorflow-cpu") else backend
    return {
        "onsight": version("onsight"),
        "keras": keras.__version__,
        "backend": backend,
        "backend_version": find_spec_version(package) or "unknown",
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {processor()}",
    }


def find_spec_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Return the processor's name as the system gives it, or "unknown processor"."""
    import platform

    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return (names[0] if names else platform.processor()) or "unknown processor"
