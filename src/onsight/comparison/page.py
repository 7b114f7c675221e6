"""The HTML page of a comparison: one file without scripts that requests nothing from outside."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from onsight.comparison.comparison import (
    LEVEL,
    TESTS,
    ComparedPair,
    ComparedSpec,
    Comparison,
    file_size,
    methods_of,
    rough_count,
    with_commas,
)
from onsight.comparison.matching import Answers
from onsight.core.errors import ImageError, OnsightError
from onsight.core.text import chance, percent, plain, points, rough_duration
from onsight.display.page import data_uri, fill
from onsight.imaging import decode
from onsight.runs.images import load_own
from onsight.runs.run import Run, place
from onsight.spec import TrainSpec

PAIRS_WITH_IMAGES = 6  # most pairs shown with images; those of the best run come first
IMAGES_PER_SIDE = 12  # most images shown that only one of a pair classifies correctly, for each of the two
VISIBLE_ROWS = 25  # most visible rows of a table; the rest is folded


def render(found: Comparison, runs: Sequence[Run], answers: Answers, sides: list[ComparedSpec], common: bool) -> str:
    """Return the page, with the images on which the runs disagree as far as they can still be read."""
    filters: dict[str, Any] = {
        "percent": lambda share: percent(share).replace(" ", "\u00a0"),
        "points": points,
        "chance": chance,
        "name": lambda text: plain(str(text)),
        "rough_count": rough_count,
        "file_size": file_size,
        "rough_duration": rough_duration,
        "with_commas": with_commas,
    }
    chosen = [disagreement(pair, sides, answers) for pair in found.pairs[:PAIRS_WITH_IMAGES]]
    wanted = {name: label for each in chosen for half in each["halves"] for name, label, *_ in half["pictures"]}
    images, missing = find_images(runs[0], wanted)
    return fill(
        "compare.html.j2",
        filters,
        found=found,
        level=LEVEL,
        methods=methods_of(found.pairs),
        tests=TESTS,
        mixed=len({pair["test"] for pair in found.pairs}) > 1,
        sides=sides,
        accuracies=axis([(row["low"], row["high"]) for row in found.runs], 0.0, 1.0),
        differences=axis([(min(0.0, pair["low"]), max(0.0, pair["high"])) for pair in found.pairs], -1.0, 1.0),
        disagreements=chosen,
        images={name: data_uri("image/webp", data) for name, data in images.items()},
        missing=missing,
        folded=VISIBLE_ROWS,
        command=" ".join(["onsight compare", *(place(run) for run in runs), *(["--common"] if common else [])]),
        made=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    )


def disagreement(pair: ComparedPair, sides: list[ComparedSpec], answers: Answers) -> dict[str, Any]:
    """Return the images that only one of a pair classifies correctly, the clearest cases first.

    The clearest cases have the largest difference between the two probabilities of the label.
    """
    halves = []
    for mine, other in (pair["sides"], pair["sides"][::-1]):
        a, b = sides[mine]["middle"], sides[other]["middle"]
        only = np.flatnonzero(answers.right[a] & ~answers.right[b])
        clearest = only[
            np.argsort(answers.label_probability[b, only] - answers.label_probability[a, only], kind="stable")
        ][:IMAGES_PER_SIDE]
        halves.append(
            {
                "right": sides[mine]["name"],
                "wrong": sides[other]["name"],
                "count": len(only),
                "pictures": [
                    (
                        answers.names[i],
                        answers.classes[answers.labels[i]],
                        float(answers.label_probability[a, i]),
                        answers.classes[answers.predicted[b, i]],
                        float(answers.confidence[b, i]),
                    )
                    for i in clearest.tolist()
                ],
            }
        )
    return {"pair": pair, "halves": halves}


def find_images(run: Run, wanted: dict[str, str]) -> tuple[dict[str, bytes], str]:
    """Return small WebP files of the images `wanted` {name: class}, as far as the data set still has them.

    The second value is the reason why some are missing, or "". Nothing is downloaded.
    """
    found: dict[str, bytes] = {}
    try:
        spec, dataset = TrainSpec.recorded(run.spec), load_own(run, download=False)
    except (OnsightError, OSError) as error:
        return found, str(error)
    if spec.image_size is None:
        return found, f"{run.folder / 'spec.json'} has no image_size."
    numbers = {name: number for number, name in enumerate(dataset.names)}
    for name, label in wanted.items():
        number = numbers.get(name)
        if number is None or dataset.classes[dataset.labels[number]] != label:
            continue
        with contextlib.suppress(ImageError):
            source = dataset.images[number] if dataset.images is not None else dataset.read(number)
            found[name] = decode.thumbnail(decode.load(source, spec.image_size, spec.fit))
    missing = len(wanted) - len(found)
    return found, f"{missing:,} of {len(wanted):,} have been removed or have another label now." if missing else ""


def axis(intervals: Sequence[tuple[float, float]], least: float, most: float) -> dict[str, Any]:
    """Return an axis within `least` and `most` that covers every interval.

    Its keys are `ticks`, `decimals` (of their labels) and `place`, which maps a share to a position in percent.
    """
    known = [min(most, max(least, end)) for interval in intervals for end in interval if not math.isnan(end)]
    low, high = min(known, default=least), max(known, default=most)
    step = next(
        step for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / step <= 4
    )
    low = max(least, math.floor(low / step) * step)
    high = min(most, max(math.ceil(high / step) * step, low + step))
    ticks = [round(low + step * i, 6) for i in range(round((high - low) / step) + 1)]
    return {
        "ticks": ticks,
        "decimals": 1 if step < 0.01 else 0,
        "place": lambda share: f"{100 * min(1.0, max(0.0, (share - low) / (high - low))):.2f}",
    }
