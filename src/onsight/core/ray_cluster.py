"""The connection with a Ray cluster, for commands with `--on`."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from onsight.core.errors import SpecError

SPECIAL = {"ray": None, "ray://auto": "auto"}  # address -> what Ray calls it


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
