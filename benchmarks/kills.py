"""Kill a worker of a training by two processes, again and again, and compare the final weights with the unbroken run's.

    python benchmarks/kills.py --count 20                                by hand: SIGKILL to either process in turn
    python benchmarks/kills.py --count 20 --on ray://127.0.0.1:10001     Ray starts the processes again by itself

Both use the toy images. With --on, the cluster must run on this machine, because its processes are found in /proc.
"""

import argparse
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = shlex.split(
    "train toy --model mlp --epochs 40 --batch-size 16 --optimizer sgd --learning-rate 0.01 --seed 1 "
    "--checkpoint-seconds 0.2 --quiet --backend jax"
)
LIMIT = 300  # seconds without a new checkpoint, after which something is wrong


def start(runs, *words):
    environment = os.environ | {"ONSIGHT_RUNS": str(runs), "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "onsight", *WORDS, *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def start_two(runs):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    joining = ("--or-resume", "--coordinator", address, "--processes", "2", "--rank")
    return [start(runs, *joining, str(rank)) for rank in range(2)]


def saved(runs):
    """Return the number of the newest checkpoint, 0 before the first."""
    return max((int(path.name) for path in runs.glob("*/checkpoints/[0-9]*") if path.name.isdigit()), default=0)


def weights(runs):
    (path,) = runs.glob("*/model/model.json")
    return json.loads(path.read_text())["weights_sha256"]


def wait_for_steps(runs, since, rng):
    """Wait until training has gone on after checkpoint `since`, then a random time; return whether it still runs."""
    limit = time.monotonic() + LIMIT
    while saved(runs) <= since + 1 and not any(runs.glob("*/model")):
        if time.monotonic() > limit:
            raise SystemExit(f"no new checkpoint within {LIMIT} s")
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.6))
    return not any(runs.glob("*/model"))


def kill_by_hand(runs, count, rng):
    killed = 0
    while not any(runs.glob("*/model")):
        two, since = start_two(runs), saved(runs)
        if killed < count and wait_for_steps(runs, since, rng):
            two[killed % 2].kill()
            killed += 1
        for process in two:
            process.communicate(timeout=LIMIT)
        print(
            f"killed {killed}, checkpoint {saved(runs)}, exit codes {[process.returncode for process in two]}",
            flush=True,
        )
    return killed


def workers(runs):
    """Return the processes that Ray has started for the runs in a folder: rank -> process id."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            if "--rank" in words and f"ONSIGHT_RUNS={runs}" in (folder / "environ").read_bytes().decode().split("\0"):
                found[int(words[words.index("--rank") + 1])] = int(folder.name)
        except OSError:
            continue
    return found


def kill_by_ray(runs, count, rng, address):
    launcher, killed, since = start(runs, "--on", address, "--workers", "2"), 0, 0
    while killed < count and wait_for_steps(runs, since, rng):
        since = saved(runs)
        before = workers(runs)
        os.kill(before[killed % 2], signal.SIGKILL)
        killed += 1
        print(f"killed {killed}, checkpoint {since}", flush=True)
        while set(before.values()) & set(workers(runs).values()):
            time.sleep(0.1)
    _, text = launcher.communicate(timeout=2 * LIMIT)
    if launcher.returncode:
        raise SystemExit(text)
    return killed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--on", default=None)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        unbroken, broken = (Path(folder).resolve() / name for name in ("unbroken", "broken"))
        for process in start_two(unbroken):
            process.communicate(timeout=LIMIT)
        killed = kill_by_ray(broken, asked.count, rng, asked.on) if asked.on else kill_by_hand(broken, asked.count, rng)
        same = weights(unbroken) == weights(broken)
        print(f"{killed} kills: the final weights are {'the same' if same else 'NOT THE SAME'}: {weights(broken)[:12]}")
        sys.exit(not same)


if __name__ == "__main__":
    main()
