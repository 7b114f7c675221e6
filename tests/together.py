"""Start several processes that train together, on this machine only, and wait for them within bounded time."""

import os
import socket
import subprocess
import sys
import time

LIMIT = 200  # seconds, after which a process is killed and the test fails


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(words, processes=2, **environment):
    """Start `onsight WORDS` in several processes that train together."""
    address = f"127.0.0.1:{free_port()}"
    joining = ["--backend", "jax", "--coordinator", address, "--processes", str(processes)]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "onsight", *map(str, words), *joining, "--rank", str(rank)],
            env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


def ends(started):
    """Return (exit code, standard output, standard error) of each process."""
    limit = time.monotonic() + LIMIT
    try:
        outputs = [process.communicate(timeout=max(1, limit - time.monotonic())) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


def wait_for_checkpoint(runs, number, started):
    """Wait until checkpoint `number`, or a later one, of the only run exists."""
    limit = time.monotonic() + LIMIT
    while not any(int(path.name) >= number for path in runs.glob("*/checkpoints/[0-9]*") if path.name.isdigit()):
        assert time.monotonic() < limit
        assert all(process.poll() is None for process in started), ends(started)
        time.sleep(0.02)
