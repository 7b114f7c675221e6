#!/usr/bin/env python3
"""Compare a training by two processes with one core each with that by one process with both cores.

    python benchmarks/two_processes.py losses                     of one epoch on the digits, after every step's update
    python benchmarks/two_processes.py speed DATA [--rounds 3]    on 3,000 images of the official CIFAR-10 in DATA

Both have the same global batch. The losses are also compared with those of one process with two devices, which adds up
the same two halves of each batch. The speed is a ratio of interleaved rounds: the median epoch after the first.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 900  # seconds for one training


def start(runs, words, core=None, **environment):
    words = [sys.executable, "-m", "onsight", "train", *words, "--backend", "jax", "--quiet"]
    if core is not None:
        words = ["taskset", "-c", str(core), *words]
    environment = os.environ | {"ONSIGHT_RUNS": str(runs), "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"} | environment
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)


def history(processes, runs):
    """Return the epochs of the training that these processes do."""
    for process in processes:
        if process.wait(timeout=LIMIT):
            raise SystemExit("a training failed")
    (path,) = runs.glob("*/history.jsonl")
    return [row for row in map(json.loads, path.read_text().splitlines()) if row["event"] == "epoch"]


def by_one(words, **environment):
    with tempfile.TemporaryDirectory() as folder:
        return history([start(folder, words, **environment)], Path(folder))


def by_two(words):
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        joining = [*words, "--coordinator", address, "--processes", "2", "--rank"]
        return history([start(folder, [*joining, str(rank)], core=rank) for rank in range(2)], Path(folder))


def losses():
    for model, optimizer, rate in (("mlp", "sgd", "0.02"), ("cnn", "sgd", "0.001"), ("cnn_compact", "muon", "0.01")):
        words = f"digits --model {model} --optimizer {optimizer} --learning-rate {rate} --epochs 1 --batch-size 128"
        one, two = by_one(words.split())[0]["loss"], by_two(words.split())[0]["loss"]
        devices = by_one(words.split(), XLA_FLAGS="--xla_force_host_platform_device_count=2")[0]["loss"]
        print(
            f"{model}, {optimizer}: one process {one:.7f}, two processes {two:.7f}, difference {abs(two - one):.1e}; "
            f"one process with two devices: difference to two processes {abs(two - devices):.1e}",
            flush=True,
        )


def rate(epochs):
    return statistics.median(row["images_per_second"] for row in epochs[1:])


def speed(data, rounds):
    os.environ["ONSIGHT_DATA"] = str(data)
    words = ["cifar10", "--shots", "300", "--epochs", "4", "--batch-size", "128", "--checkpoint-seconds", "10000"]
    ratios = []
    for number in range(rounds):
        orders = (by_one, by_two) if number % 2 == 0 else (by_two, by_one)
        found = {each: rate(each(words)) for each in orders}
        ratios.append(found[by_two] / found[by_one])
        print(f"one {found[by_one]:,.0f}, two {found[by_two]:,.0f} images/s: {ratios[-1]:.3f}", flush=True)
    print(f"two processes to one: median {statistics.median(ratios):.3f} of {rounds} rounds")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["losses", "speed"])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    losses() if asked.what == "losses" else speed(asked.data, asked.rounds)


if __name__ == "__main__":
    main()
