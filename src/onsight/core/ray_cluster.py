"""The connection with a Ray cluster, for commands with `--on`."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

from onsight.core.errors import OnsightError, SpecError

SPECIAL = {"ray": None, "ray://auto": "auto"}  # address -> what Ray calls it
RETRIES = 5  # of a task whose machine or process died
AHEAD = 2  # tasks per core that are handed over at once


class Lost(NamedTuple):
    """The result of a task that no machine could finish."""

    reason: str


@contextlib.contextmanager
def connected(address: str, *, show_workers: bool) -> Iterator[Any]:
    """Connect with a Ray cluster; yields the module `ray`.

    Args:
        address: ray://HOST:PORT; ray://auto on a node of the cluster; or ray for the cluster of this machine, which is
            started if there is none.
        show_workers: whether the standard error of the workers is shown here.

    Raises:
        SpecError: Ray is not installed, or no cluster answers at this address.
    """
    if address not in SPECIAL and not address.startswith("ray://"):
        raise SpecError(
            f"--on {address} names no cluster: give ray://HOST:PORT, ray://auto on a node of the cluster, or ray for "
            "this machine."
        )
    if not find_spec("ray"):
        raise SpecError("--on needs Ray, which is not installed. Install it: pip install 'onsight[scale]'")
    import ray

    logging.getLogger("ray.client_builder").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):  # they say less than the error
            ray.init(SPECIAL.get(address, address), log_to_driver=show_workers, logging_level="ERROR")
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise SpecError(
            f"No Ray cluster answers at {address} ({str(error).partition(chr(10))[0]}). If it asks for a token, this "
            "machine needs the same RAY_AUTH_MODE and token."
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def each_task(
    address: str, work: Callable[[Any, Any], Any], shared: Any, tasks: Sequence[Any]
) -> Iterator[tuple[int, Any]]:
    """Call `work(shared, task)` on the cores of a cluster; yield the number and the result of each task as it ends.

    What travels through Ray is `shared`, once per machine, the tasks and the results. A task whose machine dies is done
    by another one; if that happens six times, its result is `Lost`.

    Raises:
        SpecError: as `connected`; or a machine of the cluster has another version of Onsight.
        OnsightError: what `work` raises.
    """
    waiting = iter(range(len(tasks)))
    running: dict[Any, int] = {}
    with connected(address, show_workers=False) as ray:
        kept = ray.put(shared)
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(call)
        while True:
            most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))  # machines may come and go
            while len(running) < most and (number := next(waiting, None)) is not None:
                running[remote.remote(version("onsight"), work, [kept], tasks[number])] = number
            if not running:
                return
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            number = running.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, OnsightError):
                    raise error.cause from None
                raise  # a bug
            except ray.exceptions.RayError as error:
                reason = str(error).strip().partition("\n")[0]
                result = Lost(f"its machine died {RETRIES + 1} times ({reason})")
            yield number, result


def call(asked: str, work: Callable[[Any, Any], Any], shared: Sequence[Any], task: Any) -> Any:
    """Return `work(shared, task)`; runs on a machine of the cluster. The list keeps Ray from fetching `shared` anew."""
    if (mine := version("onsight")) != asked:
        raise SpecError(f"A machine of the cluster has onsight {mine}, expected {asked}: install it there.")
    return work(_fetched(shared[0]), task)


@lru_cache(maxsize=1)  # a process of the cluster does many tasks
def _fetched(shared: Any) -> Any:
    import ray

    return ray.get(shared)
