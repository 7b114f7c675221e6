import gc
import logging
import os
import subprocess
import sys

import pytest

from onsight.core.backend import (
    choose_backend,
    choose_precision,
    environment,
    use_backend,
    without_garbage_collection,
    without_lines,
)
from onsight.core.errors import SpecError

pytestmark = pytest.mark.backend


def in_a_new_process(code: str, **environ: str) -> str:
    env = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"} | environ
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    return done.stdout.strip()


def test_choices_have_a_reason():
    code = "from onsight.core.backend import choose_backend; print(choose_backend())"
    assert "faster backend on a CPU" in in_a_new_process(code)
    assert "KERAS_BACKEND is set to it" in in_a_new_process(code, KERAS_BACKEND="jax")


def test_a_late_or_unsupported_backend_is_refused():
    import keras

    other = "jax" if keras.config.backend() == "tensorflow" else "tensorflow"
    with pytest.raises(SpecError, match=f"--backend {other} comes too late"):
        choose_backend(other)
    with pytest.raises(subprocess.CalledProcessError) as error:
        in_a_new_process("from onsight.core.backend import choose_backend; choose_backend()", KERAS_BACKEND="torch")
    assert "not installed or not supported" in error.value.stderr


def test_environment_names_what_results_depend_on():
    found = environment()
    assert found["backend"] in ("tensorflow", "jax")
    assert all(found.values())
    assert "cores" in found["machine"]


def test_starting_keras_prints_nothing_and_collects_no_garbage():
    code = (
        "import gc, os; from onsight.core.backend import use_backend; collected = []\n"
        "gc.callbacks.append(lambda phase, info: collected.append(phase)); use_backend()\n"
        "print(len(collected), gc.isenabled()); os.write(2, b'mine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "mine"
    collections, enabled = done.stdout.split()
    assert int(collections) < 20  # otherwise 1,400 on JAX, 2,200 on TensorFlow
    assert enabled == "True"


def test_garbage_collection_stays_off_if_it_was():
    gc.disable()
    try:
        with without_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_parts_of_a_batch_share_the_cores_only_if_they_keep_all_of_them_busy():
    program = (
        "from onsight.core import backend; backend.use_backend('tensorflow'); backend.cores = lambda: 4\n"
        "import tensorflow as tf; threads = tf.config.threading\n"
        "for parts in (1, 3, 4):\n"
        "    backend.share_cores(parts)\n"
        "    print(threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads())\n"
        "tf.zeros(1) + 1; backend.share_cores(4)\n"
    )
    assert in_a_new_process(program, KERAS_BACKEND="tensorflow").split("\n") == ["0 0", "0 0", "1 4"]


def test_only_unwanted_lines_are_dropped(capfd):
    with without_lines("chatter"):
        os.write(2, b"a problem\nsome chatter of no use\nanother problem\n")
    assert capfd.readouterr().err == "a problem\nanother problem\n"


@pytest.mark.parametrize(("flags", "precision"), [({"avx2"}, "float32"), ({"avx2", "amx_bf16"}, "bfloat16")])
def test_precision_follows_the_processor(monkeypatch, flags, precision):
    monkeypatch.setattr("onsight.core.backend.processor_flags", lambda: flags)
    choice = choose_precision("tensorflow")
    assert choice.value == precision
    assert "processor" in choice.reason


def test_several_models_in_a_process_cause_no_warning():
    use_backend()
    (unwanted,) = logging.getLogger("tensorflow").filters
    words = "5 out of the last 5 calls to %s triggered tf.function retracing.", "something else about %s"
    assert [bool(unwanted(logging.LogRecord("", 30, "", 1, text, ("f",), None))) for text in words] == [False, True]
