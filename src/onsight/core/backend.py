"""The Keras backend: its choice and the reason, and the precision of training.

The backend must be chosen before Keras is imported, because it cannot change afterwards.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from onsight.core.errors import SpecError
from onsight.core.files import cache_folder
from onsight.core.threads import cores

if TYPE_CHECKING:
    import numpy as np


BACKENDS = ("tensorflow", "jax")
GREETINGS = ("oneDNN custom operations are on", "All log messages before absl::InitializeLog")  # of TensorFlow
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # our name -> Keras's dtype policy


class Choice(NamedTuple):
    """A value and the reason for choosing it."""

    value: str
    reason: str


def installed_backends() -> list[str]:
    """Return which of `BACKENDS` are installed; none if Keras is not. Imports no framework."""
    return [name for name in BACKENDS if find_spec(name)] if find_spec("keras") else []


def choose_backend(requested: str | None = None) -> Choice:
    """Return which of `BACKENDS` Keras should run on, and why. Imports no framework.

    Raises:
        SpecError: the name is unknown, the backend is not installed, or Keras already runs on another backend.
    """
    installed = installed_backends()
    if not installed:
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
        choice = Choice(os.environ["KERAS_BACKEND"], "KERAS_BACKEND is set to it")
    elif "jax" in installed and any(find_spec(plugin) for plugin in ("jax_cuda12_plugin", "jax_cuda13_plugin")):
        choice = Choice("jax", "JAX with a GPU plugin is installed")
    elif "tensorflow" in installed:
        choice = Choice("tensorflow", "the faster backend on a CPU")
    else:
        choice = Choice("jax", "the only backend installed")
    if choice.value not in installed:
        raise SpecError(
            f"Backend '{choice.value}' ({choice.reason}) is not installed or not supported. "
            f"Installed: {', '.join(installed)}. Supported: {', '.join(BACKENDS)}."
        )
    return choice


def choose_precision(backend: str) -> Choice:
    """Return the precision that makes training faster on this machine, and why.

    Throughput of training steps in images per second, in float32 and in bfloat16:

    - TensorFlow on a Xeon with AMX: 420 and 790 (wide network)
    - TensorFlow on an AMD EPYC with avx512_bf16: 600 and 910 (wide), 3,100 and 4,300 (`cnn_compact`), 5,200 and 6,900
      (`cnn`)
    - JAX on the Xeon: 1,000 and 850 (small network)
    - TensorFlow on an AMD EPYC without avx512_bf16: docs/decisions/speed.md
    """
    if backend == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return Choice("bfloat16", f"this machine has a {jax.devices()[0].device_kind}")
        return Choice("float32", "bfloat16 is slower in JAX on a CPU")
    native = {"amx_bf16", "avx512_bf16"} & processor_flags()
    if native:
        return Choice("bfloat16", f"this processor has {', '.join(sorted(native))}")
    return Choice("float32", "this processor has no bfloat16 instructions, so bfloat16 would be slower")


def processor_flags() -> set[str]:
    """Return the feature flags of the processor as Linux names them; empty if the system does not report them."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next((set(line.split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return set()


def use_backend(requested: str | None = None) -> Choice:
    """Choose a backend and import Keras with it."""
    choice = choose_backend(requested)
    set_environment(choice.value)
    with without_lines(*GREETINGS), without_garbage_collection():
        import keras  # noqa: F401

    return choice


def share_cores(parts: int) -> None:
    """Let TensorFlow compute `parts` independent parts of a batch side by side, if they keep all cores busy.

    Each operation then has one thread, and as many operations run at a time as there are cores. Nobody waits for the
    slowest thread of an operation: a step of `fast` takes 0.94 of the time (docs/decisions/speed.md). TensorFlow takes
    this setting only before it computes for the first time.
    """
    import keras

    if keras.config.backend() != "tensorflow" or parts < max(2, cores()):
        return
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(cores())


def set_environment(backend: str) -> None:
    """Set the environment variables that Keras and its backend read when they are imported."""
    os.environ["KERAS_BACKEND"] = backend
    # TensorFlow starts every process with notes and warnings about the processor. Errors stay visible.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # By default TensorFlow uses oneDNN convolutions only with AVX-512. With AVX2 they make a training step 1.5x faster.
    # With JAX, Keras and litert-converter load TensorFlow only to convert models, and it would announce oneDNN.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1" if backend == "tensorflow" else "0")
    # Later processes reuse what JAX has compiled, keyed by program and machine. Building a network took 7 s instead of
    # 17 to 24 s, and its first step 1.7 s instead of 8 to 14 s (cnn_compact, two cores; most of it is compilation).
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    logging.getLogger("tensorflow").addFilter(is_not_about_retracing)


def is_not_about_retracing(record: logging.LogRecord) -> bool:
    """Return False for the long warning that TensorFlow logs when a process compiles several models, else True."""
    return "triggered tf.function retracing" not in record.getMessage()


@contextlib.contextmanager
def without_lines(*unwanted: str) -> Iterator[None]:
    """Drop lines that contain any of the `unwanted` words from standard error. The other lines appear at the end.

    This includes the lines of C++ code, which no log level silences.
    """
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


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Do not search for unreachable objects meanwhile: almost all objects that an import makes are kept.

    Importing Keras took 6.5 s of CPU time instead of 8.3 (TensorFlow, an AMD EPYC with AVX2, mean of two).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def to_numpy(variable: Any) -> np.ndarray:
    """Return a copy of a Keras variable as a NumPy array.

    The copy is made from a tensor and `asarray`, because NumPy 2 warns if it asks `__array__` of Keras or TensorFlow
    for a copy.
    """
    import numpy as np
    from keras import ops

    return np.array(np.asarray(ops.convert_to_tensor(variable)))


@contextlib.contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Build layers in a precision of `PRECISIONS`, then restore the dtype policy that the user has set."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(PRECISIONS[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def environment() -> dict[str, str]:
    """Return the versions and the machine that results depend on, as a run records them."""
    import platform
    from importlib.metadata import version

    import keras

    backend = keras.config.backend()
    package = "tensorflow-cpu" if backend == "tensorflow" and installed_version("tensorflow-cpu") else backend
    return {
        "onsight": version("onsight"),
        "keras": keras.__version__,
        "backend": backend,
        "backend_version": installed_version(package) or "unknown",
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {processor()}",
    }


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Return the processor's name as the system reports it, or "unknown processor"."""
    import platform

    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return (names[0] if names else platform.processor()) or "unknown processor"
