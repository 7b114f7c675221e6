"""check(data): find what is wrong with a data set before training on it. No image is changed.

A finding is a dict: `kind`; `severity`, which is "error" (metrics would be false, or training is refused), "warning" or
"note"; `count`, the number of images (of classes, in a finding about classes); `text`; `advice`; and `items`, the most
certain first, each with `pictures`, the names of one or two images (none in a finding about classes), and a `note`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onsight.checks import page
from onsight.checks.classes import emptied, missing, parts_of, too_small, uneven
from onsight.checks.copy_findings import copy_findings
from onsight.checks.findings import finding
from onsight.checks.keep_list import keep, write_keep_list
from onsight.checks.meaning import compare_by_meaning
from onsight.checks.measures import Facts, known_facts, load_facts, load_small, measure
from onsight.core.files import check_target, make_folder, now, write_atomic, write_json
from onsight.core.progress import Reporter
from onsight.core.records import CheckRecord, CheckSummary, Finding
from onsight.core.text import count
from onsight.data.dataset import Dataset
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import Pixels
from onsight.data.reading import AUTOMATIC, Reading
from onsight.data.split import TEST_SHARE
from onsight.display.reporters import make_reporter
from onsight.metrics.intervals import share_interval

SEVERITIES = ("error", "warning", "note")
ITEMS = 1_000  # most items of a finding in check.json
TINY_SHARE, TINY = 0.25, 16  # an image with a shorter side below this share of the median, or these pixels, is tiny
ODD = 3.0  # least ratio of the longer to the shorter side of an oddly shaped image
BLANK = 2.0  # a blank image has a standard deviation below this, in grey levels
DARK = 25.0  # a dark image has a mean below this, in grey levels
GREY = 2.0  # a grey image has a mean difference between its strongest and weakest channel below this
SURE, WIDE, WANTED = 0.9, 0.2, 0.1  # an accuracy, and widths of its 95 % interval: too wide to say anything, and useful


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        folder: the folder with check.json and check.html.
        record: the content of check.json.
    """

    folder: Path
    record: CheckRecord = field(repr=False)

    @property
    def findings(self) -> list[Finding]:
        """The findings, worst first."""
        return list(self.record["findings"])

    @property
    def has_errors(self) -> bool:
        """Whether any finding is an error."""
        return bool(self.record["counts"]["errors"])

    def __str__(self) -> str:
        return "\n".join(lines(self.record))

    def _repr_html_(self) -> str:
        from onsight.display import notebook

        return notebook.check(self.record)


def check(
    data: str | Path,
    *,
    data_dir: Path | None = None,
    out: Path | None = None,
    keep_list: Path | None = None,
    reading: Reading = AUTOMATIC,
    features: bool | None = None,
    on: str | None = None,
    reporter: Reporter | None = None,
) -> Check:
    """Find what is wrong with a data set; write check.json and check.html.

    Args:
        data: the name of a data set, or a folder, zip, CSV, shards or address of images.
        data_dir: the folder that holds the named data set.
        out: the folder to write to; by default checks/<name of the data set>.
        keep_list: the file to write the names of the images worth keeping to (see `keep`); None writes none.
        reading: how the images become a data set, as for training: the layout, the classes, the columns of a CSV.
        features: whether to look for wrong labels, images of one scene, and odd images by the features of a pretrained
            network; None: if the images are photos and its weights and Keras are installed (`checks.meaning`).
        on: who decodes the images: None for this machine, "ray" for the Ray cluster here, or ray://HOST:PORT. All
            machines see the images and the cache (ONSIGHT_CACHE).
        reporter: shows the progress.

    Raises:
        SpecError: the data set does not exist, or the results cannot be written where they should be.
        DataError: the images of the data set cannot be listed.
    """
    if keep_list is not None:
        check_target(keep_list)
    with reporter or make_reporter() as show:
        dataset = load_dataset(data, data_dir, show.work, reading=reading, complete=False)
        folder = out or Path("checks") / (re.sub(r"[^A-Za-z0-9._]+", "-", dataset.name).strip("-.") or "data")
        make_folder(folder)
        pixels = load_small(dataset, show.work, on=on)
        facts = measure(dataset, pixels, show.work)
        kept = keep(dataset, facts)
        findings = [*find(dataset, facts), *too_small(dataset, pixels)]
        by_meaning, source = compare_by_meaning(dataset, facts, features, show)
        findings += by_meaning
        if keep_list is not None:
            findings += emptied(dataset, pixels, kept)
        findings.sort(key=lambda each: SEVERITIES.index(each["severity"]))
        record = describe(dataset, findings)
        record["data"], record["kept"] = str(data), int(kept.sum())
        if source:
            record["features"] = source
        write_json(folder / "check.json", record)
        show.note("drawing", "check.html")
        write_atomic(folder / "check.html", page.render(record, dataset, pixels))
        if keep_list is not None:
            write_keep_list(keep_list, [dataset.names[index] for index in np.flatnonzero(kept).tolist()])
    return Check(folder, record)


def describe(dataset: Dataset, findings: list[Finding]) -> CheckRecord:
    """Return the content of check.json: facts about the data, counts, and the findings with at most 1,000 items each.

    `check` adds `data`, `kept` and `features`.
    """
    totals = summary(findings, True)["counts"]
    table = {
        name: {
            part: int(np.count_nonzero(dataset.labels[dataset.parts == part] == label)) for part in parts_of(dataset)
        }
        for label, name in enumerate(dataset.classes)
    }
    return {
        "schema": 1,
        "created": now(),
        "name": dataset.name,
        "provenance": dataset.provenance,
        "fingerprint": dataset.fingerprint,
        "counts": {"pictures": len(dataset), "classes": len(dataset.classes), **totals},
        "classes": table,
        "findings": [{**each, "items": each["items"][:ITEMS]} for each in findings],
    }


def lines(record: CheckRecord) -> Iterator[str]:
    """Yield a check as lines of text: a heading, then each finding with an example and advice."""
    counts = record["counts"]
    found = ", ".join(
        f"{counts[f'{severity}s']} {severity}{'' if counts[f'{severity}s'] == 1 else 's'}" for severity in SEVERITIES
    )
    yield f"{record['name']}: {counts['pictures']:,} images in {counts['classes']:,} classes; {found}"
    for each in record["findings"]:
        yield ""
        yield f"{each['severity']:<8} {each['text']}"
        for item in each["items"][:1]:
            names = " and ".join(item["pictures"])
            yield f"         for example {names}" + (f" ({item['note']})" if names and item["note"] else item["note"])
        yield f"         {each['advice']}"
    if not record["findings"]:
        yield "No problems found."


def find(dataset: Dataset, facts: Facts, used: NDArray[np.bool_] | None = None) -> list[Finding]:
    """Return the findings about the `used` images, worst first; `used` is (n,), by default all images."""
    used = np.ones(len(dataset), bool) if used is None else used
    found = [
        *_listed(dataset),
        *_broken(dataset, facts, used),
        *missing(dataset, facts, used),
        *copy_findings(dataset, facts, used & facts.readable),
        *_too_few(dataset, used & facts.readable),
        *uneven(dataset, facts, used & facts.readable),
        *_single(dataset, facts, used & facts.readable),
    ]
    return sorted(found, key=lambda each: SEVERITIES.index(each["severity"]))


def summary(findings: list[Finding], complete: bool) -> CheckSummary:
    """Return the content of a run's check.json: the findings without items.

    `complete` says whether every kind of problem was searched for.
    """
    counts = {f"{severity}s": sum(each["severity"] == severity for each in findings) for severity in SEVERITIES}
    return {
        "schema": 1,
        "complete": complete,
        "counts": counts,
        "findings": [without_items(each) for each in findings],
    }


def findings_for_training(dataset: Dataset, pixels: Pixels, used: NDArray[np.bool_]) -> tuple[list[Finding], bool]:
    """Return the findings about the images `used` for training, and whether they are complete.

    They are complete if an earlier `check` measured the same data. Otherwise they are those that need no extra work:
    unreadable images, classes without images, imbalance, and exact copies with their leaks and conflicting labels.
    """
    facts = load_facts(dataset)
    return find(dataset, facts or known_facts(dataset, pixels), used), facts is not None


def without_items(each: Finding) -> Finding:
    """Return a finding without its items."""
    found = each.copy()
    found.pop("items", None)
    return found


def _listed(dataset: Dataset) -> Iterator[Finding]:
    """Yield the findings about what was listed: lines of a CSV that stand for no image, and folders without a part."""
    if dataset.unusable:
        yield finding(
            "unusable line", "error", len(dataset.unusable),
            f"{count(len(dataset.unusable), 'line')} of the CSV cannot be used.",
            "Repair or remove them. They count as unreadable images, of which training skips a few.",
            [([], f"{place}: {reason}") for place, reason in dataset.unusable.items()],
        )  # fmt: skip
    for text in dataset.notes:
        yield finding("layout", "note", 0, f"{text}.", "Nothing has to be done if this is what you want.", [])


def _broken(dataset: Dataset, facts: Facts, used: NDArray[np.bool_]) -> Iterator[Finding]:
    items = [([dataset.names[index]], reason) for index, reason in sorted(facts.broken.items()) if used[index]]
    if items:
        yield finding(
            "unreadable", "error", len(items), f"{count(len(items), 'image')} cannot be read.",
            "Repair or remove them. Training skips unreadable images up to 1 % of the data (at least 3), and stops if "
            "there are more.", items,
        )  # fmt: skip


def _too_few(dataset: Dataset, used: NDArray[np.bool_]) -> Iterator[Finding]:
    """Yield a finding if the test images are too few for any figure: even 90 % would be known to ±10 points at best."""
    given = "test" in dataset.parts
    share = 1.0 if given else TEST_SHARE
    n = int(np.count_nonzero(used & (dataset.parts == "test"))) if given else round(TEST_SHARE * int(used.sum()))

    def width(n: int) -> float:
        low, high = share_interval(SURE * n, n)
        return high - low

    if not n or width(n) <= WIDE:
        return
    wanted = next(number for number in range(n, 10_000) if width(number) <= WANTED)
    source = "" if given else f" (15 % of {count(int(used.sum()), 'image')})"
    yield finding(
        "too small", "warning", n,
        f"Too small for any figure: an accuracy of 90 % on {count(n, 'test image')}{source} has an interval of about "
        f"±{50 * width(n):.0f} points.",
        f"Collect about {math.ceil(wanted / share / 10) * 10:,} {'test images' if given else 'images in all'}, for ±5 "
        "points. Until then, judge the model by looking at its answers.",
        [],
    )  # fmt: skip


def _single(dataset: Dataset, facts: Facts, used: NDArray[np.bool_]) -> Iterator[Finding]:
    """Yield the findings about single images, rather than pairs or classes."""

    def items(mask: NDArray[np.bool_], order: NDArray[Any], note: Any) -> list[tuple[list[str], str]]:
        index = np.flatnonzero(mask)
        return [([dataset.names[i]], note(i)) for i in index[np.argsort(order[index], kind="stable")].tolist()]

    def size(index: int) -> str:
        return f"{facts.sides[index, 0]} × {facts.sides[index, 1]}"

    shorter, longer = facts.sides.min(axis=1), facts.sides.max(axis=1)
    known = used & (shorter > 0)
    usual = np.median(shorter[known]) if known.any() else 0
    blank = used & (facts.contrast < BLANK)
    tiny = known & (shorter < usual) & (shorter < np.maximum(TINY, TINY_SHARE * usual))
    dark = used & (facts.brightness < DARK) & ~blank
    odd = known & (longer >= ODD * np.maximum(shorter, 1))
    turned = known & (facts.orientation > 1)
    for kind, severity, mask, order, note, text, advice in (
        ("blank", "warning", blank, facts.contrast, lambda i: f"contrast {facts.contrast[i]:.1f} of 255",
         "{} blank: a single colour.", "Remove them: the model would learn that a blank image means their class."),
        ("tiny", "warning", tiny, shorter, size,
         f"{{}} tiny; the median shorter side is {usual:.0f} pixels.",
         "Replace them with larger versions: enlarged, they are blurred."),
        ("dark", "note", dark, facts.brightness, lambda i: f"brightness {facts.brightness[i]:.0f} of 255",
         "{} very dark.", "Check that their content is visible and matches the label."),
        ("odd shape", "note", odd, -(longer / np.maximum(shorter, 1)), size,
         "{} at least three times as long as wide.",
         "By default only the centre square is used. Crop them to the object, or train with --fit pad."),
        ("turned", "note", turned, facts.orientation, lambda i: f"EXIF orientation {facts.orientation[i]}",
         "{} stored rotated or mirrored, with an EXIF tag that gives the orientation.",
         "Onsight turns them upright, so nothing has to be done. Other programs may not."),
    ):  # fmt: skip
        if found := int(mask.sum()):
            are = text.format(count(found, "image is", "images are"))
            yield finding(kind, severity, found, are, advice, items(mask, order, note))
    yield from _grey(dataset, facts, used & ~blank, items)


def _grey(dataset: Dataset, facts: Facts, used: NDArray[np.bool_], items: Any) -> Iterator[Finding]:
    grey = used & (facts.colour < GREY)
    coloured = used & (facts.colour >= GREY)
    if not grey.any() or not coloured.any():
        return
    rare, name, others = (grey, "grey", "colour") if grey.sum() <= coloured.sum() else (coloured, "colour", "grey")
    rare_count = int(rare.sum())
    per_class = np.bincount(dataset.labels[used], minlength=len(dataset.classes))
    share = np.bincount(dataset.labels[rare], minlength=len(dataset.classes)) / np.maximum(per_class, 1)
    most = int(share.argmax())
    yield finding(
        "grey", "note", rare_count,
        f"{count(rare_count, f'{name} image')} among {others} images ({rare_count / used.sum():.1%}); the "
        f"highest share is in {dataset.classes[most]} ({share[most]:.1%}).",
        "Check whether they are mostly of one class: a model may learn colour as a shortcut instead of the object.",
        items(rare, facts.colour, lambda i: f"in {dataset.classes[dataset.labels[i]]}"),
    )  # fmt: skip
