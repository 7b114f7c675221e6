"""`onsight train --on ray://HOST:PORT`: train on the nodes of a Ray cluster.

Ray only places processes and watches them. On each node it starts the same command that SLURM or a user would start, so
a training on Ray is no other training. After a failure, all processes are started again and continue from the newest
checkpoint.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from onsight.core.errors import Interrupted, OnsightError, SpecError, TrainingError
from onsight.core.progress import Reporter
from onsight.core.ray_cluster import connected
from onsight.core.text import count
from onsight.data.load import DATASETS
from onsight.reporting.commands import PATHS, command_for
from onsight.runs.run import runs_folder
from onsight.spec import TrainSpec
from onsight.training.interruptions import cause, signals

RESTARTS = 20  # as many times a training is started again
STARTED_WITHIN = 120.0  # seconds in which the cluster must have room
ENDED_WITHIN = 60.0  # seconds that workers have to save the training when they are stopped
PASSED_ON = ("ONSIGHT_DATA", "ONSIGHT_IMPORT")


class Ended(NamedTuple):
    """How the process of a worker has ended."""

    code: int
    out: str


class Worker:
    """Runs on a node of the cluster and starts one process there."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def address(self) -> str:
        """Return an address at which the other nodes reach this one, with a free port."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def run(self, words: list[str], environment: dict[str, str]) -> Ended:
        """Run `onsight WORDS` to its end. Its standard error goes to Ray, which shows it to the user."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "onsight", *words],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        out, _ = self.process.communicate()
        return Ended(self.process.returncode, out)

    def stop(self) -> None:
        """Ask the process to save the training and to end."""
        if self.process:
            self.process.send_signal(signal.SIGTERM)


def train_on(
    address: str, workers: int, words: list[str], *, or_resume: bool = False, reporter: Reporter | None = None
) -> str:
    """Train on `workers` nodes of a Ray cluster and return the folder of the run, as the nodes see it.

    Args:
        address: of the cluster (`core.ray_cluster`).
        workers: the number of processes, one per node as long as there are enough nodes.
        words: the command, as `command` returns it.
        or_resume: continue the run of the same options, if there is one.
        reporter: receives the progress.

    Raises:
        SpecError: there is no such cluster, or it has no room.
        TrainingError: the training has failed too often.
        Interrupted: a signal was received, and the training has been saved.
    """
    show = reporter or Reporter()
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment["ONSIGHT_RUNS"] = str(runs_folder().resolve())
    with connected(address, show_workers=True) as ray, signals() as received:
        bundle, strategy = resources(ray.nodes(), workers)
        show.note("ray", f"{count(workers, 'worker')} with {bundle} each on {address}")
        for attempt in range(RESTARTS + 1):
            again = ["--or-resume"] if (attempt or or_resume) and "--resume" not in words else []
            ended = run_once(ray, bundle, strategy, workers, [*words, *again], environment, received)
            if received:
                text = f"Stopped by {cause(received[0])}. Continue with the same command and --or-resume."
                raise Interrupted(text, 128 + received[0])
            codes = [each.code if each else None for each in ended]
            if set(codes) == {0}:
                return str(ended[0].out.strip().splitlines()[-1])  # type: ignore[union-attr]
            if OnsightError.exit_code in codes:
                raise SpecError("The training cannot start on the cluster; the lines above have the reason.")
            show.note("restart", f"{attempt + 1} of at most {RESTARTS}: the workers ended with {codes}")
    raise TrainingError(
        f"The training on {address} has failed {RESTARTS + 1} times. What was saved is kept: give the same command and "
        "--or-resume once the cause, which the lines above show, is gone."
    )


def command(spec: TrainSpec | None, resume: Path | None) -> list[str]:
    """Return the words of the command that each worker runs, with absolute paths.

    Args:
        spec: what to train; with `resume`, the options that change.
        resume: the run to continue.

    Raises:
        SpecError: the training would not run on JAX.
    """
    asked = spec.model_dump(mode="json", exclude_unset=True) if spec else {}
    if resume:
        return ["train", *shlex.split(command_for({**asked, "data": "", "resume": resume.resolve()}))[3:]]
    if asked.get("backend") != "jax":
        raise SpecError("Several processes train together on JAX only: add --backend jax.")
    for name in {*PATHS} & {*asked}:
        value = str(asked[name])
        if value not in DATASETS and os.path.exists(value):
            asked[name] = os.path.abspath(value)
    return shlex.split(command_for(asked))[1:]


def resources(nodes: Sequence[dict[str, Any]], workers: int) -> tuple[dict[str, float], str]:
    """Return what each worker asks of the cluster, and Ray's strategy to place them.

    A worker takes a whole node with all its GPUs, if there are enough nodes; else one core.

    Raises:
        SpecError: the cluster is too small.
    """
    alive = sorted(
        (
            (each["Resources"].get("GPU", 0.0), each["Resources"].get("CPU", 0.0))
            for each in nodes
            if each["Alive"] and each["Resources"].get("CPU")
        ),
        reverse=True,
    )
    cores = sum(cpus for _, cpus in alive)
    if workers < 1 or workers > max(cores, len(alive)):
        raise SpecError(
            f"--workers {workers} does not fit the cluster, which has {count(len(alive), 'node')} with "
            f"{count(int(cores), 'core')}. Choose 1 to {int(cores)}."
        )
    if workers <= len(alive):
        used = alive[:workers]
        gpus, cpus = (min(each) for each in zip(*used, strict=True))
        return {"CPU": cpus} | ({"GPU": gpus} if gpus else {}), "STRICT_SPREAD"
    if alive[0][0]:
        raise SpecError(f"--workers {workers}: a worker takes all GPUs of a node, and there are {len(alive)} nodes.")
    return {"CPU": 1.0}, "SPREAD"


def run_once(
    ray: Any,
    bundle: dict[str, float],
    strategy: str,
    workers: int,
    words: list[str],
    environment: dict[str, str],
    received: list[int],
) -> list[Ended | None]:
    """Start all workers, wait until all have ended, and return how; None for one that was lost with its node.

    Raises:
        SpecError: the cluster has no room.
    """
    group = ray.util.placement_group([bundle] * workers, strategy=strategy)
    if not group.wait(STARTED_WITHIN):
        ray.util.remove_placement_group(group)
        raise SpecError(f"The cluster had no room for {workers} workers with {bundle} within {STARTED_WITHIN:g} s.")
    place = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
    kind = ray.remote(Worker).options(
        num_cpus=bundle["CPU"], num_gpus=bundle.get("GPU", 0), max_concurrency=2, scheduling_strategy=place(group)
    )
    started = [kind.remote() for _ in range(workers)]
    try:
        coordinator = ray.get(started[0].address.remote(), timeout=STARTED_WITHIN)
        joining = ["--coordinator", coordinator, "--processes", str(workers), "--rank"]
        running = [worker.run.remote([*words, *joining, str(rank)], environment) for rank, worker in enumerate(started)]
        return watch(ray, started, running, received)
    finally:
        for worker in started:
            ray.kill(worker)
        ray.util.remove_placement_group(group)


def watch(ray: Any, workers: list[Any], running: list[Any], received: list[int]) -> list[Ended | None]:
    """Wait until all workers have ended. If a signal comes or one fails, the others are stopped: they save first."""
    found: dict[Any, Ended | None] = {}
    left, stopping = list(running), False
    while left:
        done, left = ray.wait(left, timeout=ENDED_WITHIN if stopping else 0.5)
        for each in done:
            try:
                found[each] = ray.get(each)
            except ray.exceptions.RayError:
                found[each] = None
        if stopping and not done:
            break
        failed = any(each is None or each.code for each in found.values())
        if left and not stopping and (failed or received):
            stopping = True
            for worker in workers:
                worker.stop.remote()
    return [found.get(each) for each in running]
