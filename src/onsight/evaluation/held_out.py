"""Which images are scored: none that the run or its ancestors have seen. And which of them have copies that it has."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from onsight.checks.copies import find_copies
from onsight.checks.measures import known_facts, load_facts
from onsight.core.errors import DataError
from onsight.core.files import located
from onsight.core.text import count
from onsight.data.dataset import Dataset
from onsight.data.pixel_cache import Pixels
from onsight.runs.images import RunImages, find_parts
from onsight.runs.run import Run
from onsight.runs.seen import seen_by, unknown_text


class ToScore(NamedTuple):
    """What an evaluation scores."""

    name: str  # of the evaluation
    parts: np.ndarray  # (n,) str, of which "test" is scored
    own: bool  # whether the data is the run's
    notes: list[str]  # sentences on what was left out, and on what is unknown


def images_to_score(run: Run, data: str | Path | None, dataset: Dataset, pixels: Pixels) -> ToScore:
    """Return which images of the data are scored.

    The run's test images are scored if they are in the data, even if it was moved. Otherwise it is other data, or the
    run's own data whose test images have changed or were added since: recognised by its path, or because it has all
    training images. Of either, images that the run or an ancestor has seen are left out, wherever they lie; of its own
    data, also those whose names it has seen.

    Raises:
        DataError: the run's test images are gone, or no image is left.
    """
    seen, split = seen_by(run, dataset, pixels), run.dataset["split"]
    if data is None or split["test"]:
        try:
            parts = find_parts(run, dataset, pixels, ["test"]).parts
        except DataError as error:
            if data is None:
                raise DataError(f"{error} To score the images that are there now: --data FOLDER.") from None
        else:
            unknown = [name for name in seen.unknown if name != run.name]  # it was divided from these images itself
            return unseen(run, ToScore("test", parts, True, []), pixels.among(seen.before), unknown)
    own = run.spec["data"] in (str(data), located(str(data)))
    with contextlib.suppress(DataError):
        own = own or bool(find_parts(run, dataset, pixels, ["train"]).parts.any())
    parts = dataset.parts if "test" in dataset.parts else np.full(len(dataset), "test")
    known = {*split["train"], *split["validation"]} if own else set()
    learned = pixels.among(seen.ever) | np.array([name in known for name in dataset.names])
    return unseen(run, ToScore(f"{dataset.name}-{dataset.fingerprint[:8]}", parts, own, []), learned, seen.unknown)


def unseen(run: Run, chosen: ToScore, learned: np.ndarray, unknown: Sequence[str]) -> ToScore:
    """Return `chosen` without the images that are `learned`, (n,) bool, and with notes on them and the `unknown`."""
    inside = chosen.parts == "test"
    learned = learned & inside
    notes = [unknown_text(unknown)] if unknown else []
    if learned.any():
        found, who = count(int(learned.sum()), "image"), f"{run.name}, or a run before it,"
        if np.array_equal(learned, inside):
            raise DataError(
                f"No image is left to score, because {who} has seen all of these: {found}. Evaluate it on images that "
                "it has not seen: --data FOLDER."
            )
        notes.append(f"{found} left out, because {who} has seen them.")
    return chosen._replace(parts=np.where(learned, "", chosen.parts), notes=notes)


def copies_of_learned(run: Run, images: RunImages, index: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return which images of `index` have copies among those that the run was trained or judged on, (n,) bool.

    And whether near-duplicates count, too: those that `check` has found in this data, also if they are only possibly
    copies.
    """
    dataset, pixels, _ = images
    measured = load_facts(dataset)
    facts = measured or known_facts(dataset, pixels)
    leaked = np.zeros(len(dataset), bool)
    with contextlib.suppress(DataError):  # other data has none of them, or its own were left out
        learned = find_parts(run, dataset, pixels, ("train", "validation")).parts != ""
        used = learned.copy()
        used[index] = True
        copies = find_copies(facts, used & facts.readable)
        for content, members in copies.groups.items():
            leaked[members] = any(learned[each] for each in copies.near(content))
    return leaked[index], measured is not None
