"""check(data): what is wrong with a data set, before anything is trained on it. No image is ever touched.

A finding is a dict: `kind`; `severity`, which is "error" (figures would be false, or training refused), "warning" or
"note"; `count` of images (of classes, for classes); `text` and `advice`; and `items`, each the names of one or two
`images` and a `note`, surest first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onsight.checks import page
from onsight.checks.copies import IDENTICAL, find_copies, links
from onsight.checks.keep_list import keep, write_keep_list
from onsight.checks.measures import Facts, known_facts, load_facts, measure
from onsight.core.files import check_target, make_folder, now, write_atomic, write_json
from onsight.core.progress import Reporter
from onsight.data.dataset import Dataset
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import Pixels, load_pixels, median_side
from onsight.display.reporters import make_reporter

SEVERITIES = ("error", "warning", "note")
PARTS = ("test", "validation", "train")  # a copy in a later one leaks into an earlier one
ITEMS = 1_000  # of a finding in check.json
TINY_SHARE, TINY = 0.25, 16  # of the median shorter side; pixels
ODD = 3.0  # longer side to shorter side
BLANK = 2.0  # grey levels of standard deviation
DARK = 25.0  # grey levels in the mean
GREY = 2.0  # levels between the strongest and the weakest channel
UNEVEN = 3.0  # images of the largest class to those of the smallest

Finding = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        folder: holds check.json and check.html.
        record: the content of check.json.
    """

    folder: Path
    record: dict[str, Any] = field(repr=False)

    @property
    def findings(self) -> list[Finding]:
        """The findings, worst first."""
        return list(self.record["findings"])

    @property
    def has_errors(self) -> bool:
        """Whether one of the findings is an error."""
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
    reporter: Reporter | None = None,
) -> Check:
    """Look for what is wrong with a data set; write check.json and check.html.

    Args:
        data: a data set's name, or a folder, zip or CSV of images.
        data_dir: where the named data set lies.
        out: the folder to write to; by default checks/<name of the data set>.
        keep_list: a file to write the names of the images to that are worth keeping (see `keep`).
        reporter: where progress goes.

    Raises:
        SpecError: there is no such data set, or no place for what is written.
        DataError: it cannot even be listed.
    """
    if keep_list is not None:
        check_target(keep_list)
    with reporter or make_reporter() as show:
        dataset = load_dataset(data, data_dir, show.work, complete=False)
        folder = out or Path("checks") / (re.sub(r"[^A-Za-z0-9._]+", "-", dataset.name).strip("-.") or "data")
        make_folder(folder)
        pixels = load_pixels(dataset, 64 if median_side(dataset) >= 64 else 32, show.work, pass_over_all=True)
        facts = measure(dataset, pixels, show.work)
        findings = find(dataset, facts)
        kept = keep(dataset, facts)
        record = describe(dataset, findings) | {"data": str(data), "kept": int(kept.sum())}
        write_json(folder / "check.json", record)
        show.note("drawing          check.html")
        write_atomic(folder / "check.html", page.render(record, dataset, pixels))
        if keep_list is not None:
            write_keep_list(keep_list, [dataset.names[index] for index in np.flatnonzero(kept).tolist()])
    return Check(folder, record)


def describe(dataset: Dataset, findings: list[Finding]) -> dict[str, Any]:
    """Return what check.json says: of which data, how much was found, and the findings with at most 1,000 items."""
    totals = summary(findings, True)["counts"]
    table = {
        name: {part: int(np.count_nonzero(dataset.labels[dataset.parts == part] == label)) for part in _parts(dataset)}
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


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield a check as text: a heading, then each finding with its count, an example and what to do."""
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
        yield "Nothing was found."


def find(dataset: Dataset, facts: Facts, used: NDArray[np.bool_] | None = None) -> list[Finding]:
    """Return the findings about the images that are `used`, (n,), by default all; worst first."""
    used = np.ones(len(dataset), bool) if used is None else used
    found = [
        *_broken(dataset, facts, used),
        *_missing(dataset, facts, used),
        *_copies(dataset, facts, used & facts.readable),
        *_uneven(dataset, facts, used & facts.readable),
        *_single(dataset, facts, used & facts.readable),
    ]
    return sorted(found, key=lambda each: SEVERITIES.index(each["severity"]))


def summary(findings: list[Finding], complete: bool) -> dict[str, Any]:
    """Return what a run's check.json says: the findings without items, and whether all was looked for."""
    counts = {f"{severity}s": sum(each["severity"] == severity for each in findings) for severity in SEVERITIES}
    kept = ("kind", "severity", "count", "text", "advice")
    return {
        "schema": 1,
        "complete": complete,
        "counts": counts,
        "findings": [{key: each[key] for key in kept} for each in findings],
    }


def findings_for_training(dataset: Dataset, pixels: Pixels, used: NDArray[np.bool_]) -> tuple[list[Finding], bool]:
    """Return the findings that an earlier check of the same data allows, and True; else those that cost nothing."""
    facts = load_facts(dataset)
    return find(dataset, facts or known_facts(dataset, pixels), used), facts is not None


def _finding(
    kind: str, severity: str, count: int, text: str, advice: str, items: Iterable[tuple[list[str], str]]
) -> Finding:
    shown = [{"pictures": names, "note": note} for names, note in items]
    return {"kind": kind, "severity": severity, "count": count, "text": text, "advice": advice, "items": shown}


def _broken(dataset: Dataset, facts: Facts, used: NDArray[np.bool_]) -> Iterator[Finding]:
    items = [([dataset.names[index]], reason) for index, reason in sorted(facts.broken.items()) if used[index]]
    if items:
        yield _finding(
            "unreadable", "error", len(items), f"{_number(len(items), 'image')} cannot be read.",
            "Mend or remove them. Training passes over up to 1 %, and no more.", items,
        )  # fmt: skip


def _missing(dataset: Dataset, facts: Facts, used: NDArray[np.bool_]) -> Iterator[Finding]:
    lacking = []
    for part in _parts(dataset):
        there = set(dataset.labels[used & facts.readable & (dataset.parts == part)].tolist())
        what = f"no {part} images" if part else "no images"
        lacking += [f"{what} of {name}" for label, name in enumerate(dataset.classes) if label not in there]
    if lacking:
        yield _finding(
            "missing class", "error", len(lacking), f"{_number(len(lacking), 'class')} without images in a part.",
            "Add images, or remove the class everywhere: it cannot be learnt, or cannot be judged.",
            [([], each) for each in lacking],
        )  # fmt: skip


def _uneven(dataset: Dataset, facts: Facts, used: NDArray[np.bool_]) -> Iterator[Finding]:
    part = "train" if "train" in dataset.parts else ""
    counts = np.bincount(dataset.labels[used & (dataset.parts == part)], minlength=len(dataset.classes))
    there = np.flatnonzero(counts)  # classes without images are a finding of their own
    if not len(there):
        return
    least, most = int(there[counts[there].argmin()]), int(counts.argmax())
    if counts[most] >= UNEVEN * counts[least]:
        smallest = there[counts[there] * UNEVEN <= counts[most]]
        yield _finding(
            "imbalance", "warning", len(smallest),
            f"The classes are uneven: {counts[most]:,} images of {dataset.classes[most]}, {counts[least]:,} of "
            f"{dataset.classes[least]}.",
            "Collect more of the small classes or train with --class-weight balanced, and judge by each class's "
            "recall: accuracy hides them.",
            [([], f"{dataset.classes[label]}: {_number(int(counts[label]), 'image')}")
             for label in smallest[np.argsort(counts[smallest], kind="stable")].tolist()],
        )  # fmt: skip


def _single(dataset: Dataset, facts: Facts, used: NDArray[np.bool_]) -> Iterator[Finding]:
    """Yield what is wrong with images one by one."""

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
         "{} blank: nothing but one colour.", "Remove them: they teach one of the classes to mean nothing."),
        ("tiny", "warning", tiny, shorter, size,
         f"{{}} tiny, where the median shorter side is {usual:.0f} pixels.",
         "Replace them by larger ones: enlarged they are blurs."),
        ("dark", "note", dark, facts.brightness, lambda i: f"brightness {facts.brightness[i]:.0f} of 255",
         "{} very dark.", "Look whether they show what their label says."),
        ("odd shape", "note", odd, -(longer / np.maximum(shorter, 1)), size,
         "{} three times as long as wide, or more.", "Crop them to what matters: only the middle square is used."),
        ("turned", "note", turned, facts.orientation, lambda i: f"EXIF orientation {facts.orientation[i]}",
         "{} stored turned, with an EXIF mark that says how.",
         "Onsight sets them upright; other programs may not. Nothing has to be done for Onsight."),
    ):  # fmt: skip
        if count := int(mask.sum()):
            verb = "image is" if count == 1 else "images are"
            yield _finding(kind, severity, count, text.format(f"{count:,} {verb}"), advice, items(mask, order, note))
    yield from _grey(dataset, facts, used & ~blank, items)


def _grey(dataset: Dataset, facts: Facts, used: NDArray[np.bool_], items: Any) -> Iterator[Finding]:
    grey = used & (facts.colour < GREY)
    coloured = used & (facts.colour >= GREY)
    if not grey.any() or not coloured.any():
        return
    rare, name, others = (grey, "grey", "colour") if grey.sum() <= coloured.sum() else (coloured, "colour", "grey")
    count = int(rare.sum())
    per_class = np.bincount(dataset.labels[used], minlength=len(dataset.classes))
    share = np.bincount(dataset.labels[rare], minlength=len(dataset.classes)) / np.maximum(per_class, 1)
    most = int(share.argmax())
    yield _finding(
        "grey", "note", count,
        f"{_number(count, f'{name} image')} among {others} ones ({count / used.sum():.1%}); most in "
        f"{dataset.classes[most]} ({share[most]:.1%}).",
        "Look whether one class has most of them: a model learns such a short cut instead of the thing.",
        items(rare, facts.colour, lambda i: f"in {dataset.classes[dataset.labels[i]]}"),
    )  # fmt: skip


def _copies(dataset: Dataset, facts: Facts, used: NDArray[np.bool_]) -> Iterator[Finding]:
    """Yield leaks between parts, images under two labels, and copies."""
    copies = find_copies(facts, used)
    pairs = links(dataset, facts, copies)
    parts, labels = dataset.parts.tolist(), dataset.labels.tolist()

    def item(first: int, second: int, how: str) -> tuple[list[str], str]:
        names = [dataset.classes[labels[first]], dataset.classes[labels[second]]]
        place = f"{parts[first]} and {parts[second]}, " if parts[first] != parts[second] else ""
        return [dataset.names[first], dataset.names[second]], f"{place}{' and '.join(dict.fromkeys(names))}; {how}"

    for held, other in combinations(PARTS, 2):
        leaking = exact = 0
        for content, members in copies.groups.items():
            inside = sum(parts[index] == held for index in members)
            leaking += inside * any(parts[index] == other for index in copies.near(content))
            exact += inside * any(parts[index] == other for index in members)
        if leaking:
            total = int(np.count_nonzero(used & (dataset.parts == held)))
            where = f"the {'training' if other == 'train' else other} images"
            yield _finding(
                "leak", "error", leaking,
                f"{leaking:,} of {total:,} {held} images ({leaking / total:.2%}) with a copy among {where}, "
                f"{exact or 'none'} of them exact.",
                f"Remove those from {where}, or let a keep-list do it: else the figures reward remembering.",
                [item(one, two, how) if parts[one] == held else item(two, one, how)
                 for one, two, how in pairs if {parts[one], parts[two]} == {held, other}],
            )  # fmt: skip
    torn = sum(
        len(members)
        for content, members in copies.groups.items()
        if len({labels[index] for index in copies.near(content)}) > 1
    )
    if torn:
        yield _finding(
            "two labels", "error", torn, f"{torn:,} images are there again, or nearly, under another label.",
            "Decide which label is right and remove the others; a keep-list drops them all.",
            [item(*pair) for pair in pairs if labels[pair[0]] != labels[pair[1]]],
        )  # fmt: skip
    exact = sum(len(members) - 1 for members in copies.groups.values())
    if exact:
        yield _finding(
            "exact copy", "warning", exact,
            f"{_number(exact, 'image is an exact copy', 'images are exact copies')} of another one.",
            "Keep one of each, the others only count twice: a keep-list does.",
            [item(*pair) for pair in pairs if pair[2] == IDENTICAL],
        )  # fmt: skip
    near = copies.spare()
    if near:
        split = "" if "train" in parts else " A split made by chance puts one to train on and one to test on."
        yield _finding(
            "near copy", "warning", near,
            f"{_number(near, 'image is a near-copy', 'images are near-copies')} of another one.{split}",
            "Look at them, and keep one of each unless the differences matter to you: a keep-list does.",
            [item(*pair) for pair in pairs if pair[2] != IDENTICAL],
        )  # fmt: skip


def _parts(dataset: Dataset) -> list[str]:
    """Return the parts of a data set, training first; "" where there are none."""
    present = set(dataset.parts.tolist())
    return [part for part in ("train", "validation", "test", "") if part in present]


def _number(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + ('es' if one.endswith('s') else 's')}"
