"""One run that several processes train: what must be alike in them, and what only the first one reads and writes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from onsight.core import errors
from onsight.core.errors import DataError, OnsightError, SpecError
from onsight.core.records import DatasetRecord, SpecRecord
from onsight.core.text import count
from onsight.reporting.commands import PATHS
from onsight.runs.run import Run
from onsight.training.checkpoints import Checkpoint, checkpoint_folders, load_checkpoint
from onsight.training.distributed import Ranks

if TYPE_CHECKING:
    from onsight.spec import TrainSpec

T = TypeVar("T")


def check_shared(spec: TrainSpec, ranks: Ranks, images: int) -> None:
    """Check that the processes can share the training of a resolved spec on `images` training images.

    Raises:
        SpecError: they cannot; the message says what can be done.
    """
    if ranks.size == 1:
        return
    import jax

    devices = jax.device_count()
    batch = min(spec.batch_size, images)
    if spec.backend != "jax":
        raise SpecError(f"Several processes train together on JAX only, and this run is trained on {spec.backend}.")
    alone = "Train it in one process (--processes 1)."
    if spec.teacher:
        raise SpecError(f"Distilling and pruning do not share their work between {ranks.size} processes. {alone}")
    if spec.freeze == "all":
        raise SpecError(
            f"freeze=all fits only a head, at once, which {ranks.size} processes cannot share. {alone} Or train more "
            "layers: --epochs N, or --weights none."
        )
    if batch % devices:
        below = batch // devices * devices
        sizes = " or ".join(f"--batch-size {size}" for size in (below, below + devices) if 0 < size <= images)
        why = "" if batch == spec.batch_size else f" (there are {count(images, 'training image')})"
        raise SpecError(
            f"Batches of {batch:,}{why} cannot be shared equally by {ranks.size} processes with {devices} devices. "
            f"Choose {sizes or 'fewer processes'}."
        )


def check_alike(ranks: Ranks, record: SpecRecord, members: DatasetRecord) -> None:
    """Check that all processes have the same images in the same parts, and the same settings.

    Raises:
        DataError: the images differ.
        SpecError: the settings differ, for example because the machines do.
    """
    if ranks.size == 1:
        return
    settings = {name: value for name, value in record["spec"].items() if name not in PATHS}
    data = {name: members.get(name) for name in ("classes", "counts", "digests")}
    facts = [json.loads(text) for text in ranks.gathered(json.dumps([settings, data]))]
    for rank, (other_settings, other_data) in enumerate(facts):
        first_settings, first_data = facts[0]
        if other_data != first_data:
            numbers = [
                count(sum(sum(part.values()) for part in data["counts"].values()), "image")
                for data in (other_data, first_data)
            ]
            raise DataError(
                f"Process {rank} sees other data than process 0: {numbers[0]} against {numbers[1]}, and classes, parts "
                "or contents differ. Give all processes the same files: a shared folder, or exact copies."
            )
        if differing := [name for name in first_settings if other_settings.get(name) != first_settings[name]]:
            name = differing[0]
            raise SpecError(
                f"Process {rank} would train with {name}={other_settings.get(name)}, process 0 with "
                f"{first_settings[name]}. Give all processes the same options; where machines differ, name the option: "
                f"--{name.replace('_', '-')} {first_settings[name]}"
            )


class RunElsewhere(Run):
    """The run of processes other than the first: what they know of its folder. They write nothing into it."""

    def __init__(self, folder: Path, record: SpecRecord, dataset: DatasetRecord) -> None:
        self.folder, self.record, self.spec = folder, record, record["spec"]
        self.dataset = dataset

    def append_history(self, line: dict[str, Any]) -> None:
        """Write nothing: the first process does."""

    def rewrite_history(self, lines: list[dict[str, Any]]) -> None:
        """Write nothing: the first process does."""

    def update_spec(self, **fields: Any) -> None:
        """Continue with other choices, which the first process records."""
        self.record["spec"] = self.spec = self.spec | fields

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock nothing: the first process does."""
        yield


def from_first(ranks: Ranks, make: Callable[[], T], pack: Callable[[T], Any], unpack: Callable[[Any], T]) -> T:
    """Return what `make` returns in the first process, on all of them. Its errors, too, are raised on all.

    Args:
        ranks: the processes.
        make: called in the first process only.
        pack: turns its result into what JSON can hold.
        unpack: turns that into a result for the other processes.
    """
    if ranks.size == 1:
        return make()
    if not ranks.first:
        kind, packed = json.loads(ranks.told())
        if kind:
            raise getattr(errors, kind)(packed)
        return unpack(packed)
    try:
        made = make()
    except OnsightError as error:
        ranks.told(json.dumps([type(error).__name__, str(error)]).encode())
        raise
    ranks.told(json.dumps(["", pack(made)]).encode())
    return made


def pack_run(run: Run) -> Any:
    """Return what the other processes must know of a run."""
    return [str(run.folder), run.record, run.dataset]


def unpack_run(packed: Any) -> Run:
    """Return the run that `pack_run` has described."""
    folder, record, dataset = packed
    return RunElsewhere(Path(folder), record, dataset)


def newest_checkpoint(ranks: Ranks, root: Path) -> Checkpoint | None:
    """Return the newest checkpoint below `root` that the first process finds, on all processes; None if there is none.

    Raises:
        RunError: there are checkpoints, but none is valid.
    """
    found: Checkpoint | None = from_first(
        ranks,
        lambda: load_checkpoint(root) if checkpoint_folders(root) else None,
        lambda checkpoint: checkpoint and [checkpoint.state, str(checkpoint.folder)],
        lambda packed: packed and Checkpoint({}, packed[0], Path(packed[1])),
    )
    if found is None or ranks.size == 1:
        return found
    return found._replace(arrays=ranks.told_arrays(found.arrays))


def continued_by(ranks: Ranks, run: Run, where: str) -> str | None:
    """Record that another number of processes continues a run, and return the warning about it; else return None."""
    before = run.record.get("processes", 1)
    if before == ranks.size:
        return None
    warning = (
        f"At {where}, {count(ranks.size, 'process', 'processes')} continued what {before} began. Sums over a batch "
        "are now rounded in another order, so the result is not bit for bit that of an unbroken training."
    )
    run.record["processes"] = ranks.size
    run.record["warnings"] = [*run.record.get("warnings", []), warning]
    run.update_spec()
    return warning
