"""Several processes, on one machine or many, that train one network together with JAX.

Each process (a rank) takes its share of every batch, and JAX adds up the gradients over all devices. The order of the
images and their augmentation follow from (seed, epoch, index), so no process has to tell another one what to train on.
Only the first process writes the run. What could differ between the processes, such as the initial weights, a signal
or a clock, is told or agreed on here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from onsight.core.backend import set_environment
from onsight.core.errors import OnsightError, SpecError, TrainingError

if TYPE_CHECKING:
    import numpy as np

LAUNCHED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")  # the number of processes that srun or mpirun started
LEAVE_WITHIN = 10.0  # seconds that a process waits at its end for the others to end, too
LOCAL = ("127.0.0.1", "localhost")


# Joining and leaving -------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a process stands among those that train together. With None, JAX asks SLURM or Open MPI."""

    coordinator: str | None  # host:port, where the first process listens
    processes: int | None
    rank: int | None


def find_place(coordinator: str | None, processes: int | None, rank: int | None) -> Place | None:
    """Return the place of this process as flags or a launcher give it, or None if it trains alone.

    Raises:
        SpecError: the flags do not say enough, or contradict each other.
    """
    if processes is None and rank is None:
        started = next((int(os.environ[name]) for name in LAUNCHED if name in os.environ), 1)
        if started > 1:
            return Place(coordinator, None, None)
    if processes == 1 or (coordinator is None and processes is None and rank is None):
        return None
    if coordinator is None or processes is None or rank is None:
        given = {"--coordinator": coordinator, "--processes": processes, "--rank": rank}
        missing = [flag for flag, value in given.items() if value is None]
        raise SpecError(
            f"Processes that train together need --coordinator HOST:PORT, --processes N and --rank R; "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing."
        )
    if not 0 <= rank < processes:
        raise SpecError(f"--rank {rank} is not one of {processes} processes: ranks are 0 to {processes - 1}.")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise SpecError(f"--coordinator {coordinator} is not an address: give HOST:PORT, such as 10.0.0.1:3456.")
    return Place(coordinator, processes, rank)


def join(place: Place, backend: str | None) -> None:
    """Connect this process with the others. It must happen before Keras or JAX compute anything.

    Raises:
        SpecError: the backend cannot train in several processes, or the others cannot be reached.
    """
    if (backend or os.environ.get("KERAS_BACKEND")) != "jax":
        raise SpecError(
            f"Several processes train together on JAX only, not on {backend or 'the default backend'}: add "
            "--backend jax. To train in each process by itself: --processes 1."
        )
    set_environment("jax")
    import jax

    host = str(place.coordinator).rpartition(":")[0]
    try:
        jax.distributed.initialize(*place, coordinator_bind_address=place.coordinator if host in LOCAL else None)
    except (RuntimeError, ValueError) as error:
        raise SpecError(
            f"Process {place.rank} did not reach the others at {place.coordinator} ({str(error).splitlines()[0]}). "
            "All processes must be started within five minutes, with the same --coordinator and --processes."
        ) from None
    here().meet()
    show = sys.excepthook

    def ended_by(*error: Any) -> None:  # a bug: other errors are shown by __main__
        show(*error)
        leave(1)

    sys.excepthook = ended_by


def leave(code: int) -> None:
    """Prepare the end of this process: wait for the others to end, too. If they do not, end at once with `code`.

    JAX would wait for five minutes, and the other processes would wait for this one all the while.
    """
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    clock = threading.Timer(LEAVE_WITHIN, end)
    clock.daemon = True
    clock.start()
    jax.distributed.shutdown()
    clock.cancel()


@contextlib.contextmanager
def others_explained() -> Iterator[None]:
    """Turn the error of a collective operation, when another process has ended, into one that says so."""
    try:
        yield
    except OnsightError:
        raise
    except Exception as error:
        # JAX has no type for it. Gloo connects CPUs, NCCL GPUs.
        if here().size == 1 or not any(word in str(error) for word in ("Gloo", "NCCL", "oordination", "UNAVAILABLE")):
            raise
        raise TrainingError(
            "Another process of this training has ended, or is half an hour behind. Its own output has the reason. "
            "Start all of them again: --resume or --or-resume continues from what was saved. This process saw: "
            f"{str(error).splitlines()[0][:200]}"
        ) from error


# Agreeing ------------------------------------------------------------------------------------------------------------


class Ranks(NamedTuple):
    """The processes that train together, and which of them this one is. One process agrees with itself."""

    rank: int
    size: int  # the number of processes

    @property
    def first(self) -> bool:
        """Whether this process writes the run and shows the progress."""
        return self.rank == 0

    def meet(self) -> None:
        """Connect all devices now, when all processes are here: Gloo waits only 30 s for the last one to connect."""
        if self.size == 1:
            return
        from jax.experimental import multihost_utils

        sys.stdout.flush()
        before = os.dup(1)
        os.dup2(2, 1)  # Gloo greets on standard output, which is for answers
        try:
            multihost_utils.sync_global_devices("onsight")
        finally:
            os.dup2(before, 1)
            os.close(before)

    def told(self, data: bytes = b"") -> bytes:
        """Return the `data` of the first process."""
        import numpy as np

        if self.size == 1:
            return data
        from jax.experimental.multihost_utils import broadcast_one_to_all

        size = int(broadcast_one_to_all(np.frombuffer(len(data).to_bytes(8), np.uint8)).view(">u8")[0])
        sent = np.frombuffer(data, np.uint8) if self.first else np.zeros(size, np.uint8)
        return bytes(broadcast_one_to_all(sent).data)

    def told_arrays(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the arrays of the first process, to the bit: a sum with zeros would turn -0.0 into 0.0."""
        if self.size == 1:
            return arrays
        from safetensors.numpy import load, save

        return load(self.told(save(arrays) if self.first else b""))

    def gathered(self, text: str) -> list[str]:
        """Return the text of each process."""
        import numpy as np
        from jax.experimental.multihost_utils import process_allgather

        data = np.frombuffer(text.encode(), np.uint8)
        sizes = process_allgather(np.int32(len(data))).tolist()
        rows = process_allgather(np.pad(data, (0, max(sizes) - len(data))))
        return [bytes(row[:size].data).decode() for row, size in zip(rows, sizes, strict=True)]

    def largest(self, value: int) -> int:
        """Return the largest `value` that any process has, once all have come here."""
        if self.size == 1:
            return value
        import numpy as np
        from jax.experimental.multihost_utils import process_allgather

        return int(process_allgather(np.int32(value)).max())

    def share(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's part of the rows, which divide by the number of processes."""
        size = len(rows) // self.size
        return rows[self.rank * size : (self.rank + 1) * size]


def here() -> Ranks:
    """Return the processes that this one has joined. JAX is not imported."""
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return Ranks(0, 1)
    return Ranks(jax.process_index(), jax.process_count())


class Wishes:
    """What any process may ask of all at any step. The answer comes one step later, so that no step waits for it.

    All processes must ask at the same steps.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._asked: Any = None

    def agree(self, *wishes: int) -> tuple[int, ...]:
        """Return for each wish the largest number that any process had a step ago; with one process, these numbers."""
        if self.ranks.size == 1:
            return wishes
        import jax
        import numpy as np

        largest, shared = _largest()
        mine = np.tile(np.array(wishes, np.int32), (jax.local_device_count(), 1))
        before, self._asked = self._asked, largest(jax.make_array_from_process_local_data(shared, mine))
        return (0,) * len(wishes) if before is None else tuple(np.asarray(before).tolist())


@functools.cache
def _largest() -> tuple[Any, Any]:
    """Return a compiled function that reduces the rows of all devices to their largest, and how the rows are spread."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("device",))
    everywhere, shared = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in ((), ("device",)))
    return jax.jit(lambda rows: rows.max(axis=0), out_shardings=everywhere), shared
