"""The sections of a report that show single answers: thumbnails, map, confusion matrix, mistakes, suspected labels."""

from __future__ import annotations

import contextlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from onsight.core.evaluation_records import FeatureMap, LabelErrors, Metrics, Mistakes, Thumbnails
from onsight.core.text import short
from onsight.data.labels import COLUMNS, NONE
from onsight.display.page import data_uri
from onsight.metrics.scores import mistaken
from onsight.runs.run import read_object

MATRIX = 25  # largest number of classes for a confusion matrix; with more, the most confused pairs are listed
PAIRS = 40  # listed at most
SUSPECTS = 48  # shown at most
FORMATS = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png", b"RIFF": "webp"}  # by the first bytes


def thumbnails(folder: Path) -> dict[str, Any] | None:
    """Return the sprite sheet of thumbnails as the page embeds it, and the JSON that the script of the page reads."""
    index, source = read_object(folder / "thumbnails.json", Thumbnails), image(folder / "thumbnails.jpg")
    if index is None or source is None:
        return None
    side, columns = int(index["side"]), int(index["columns"])
    cells: dict[str, list[int]] = {}
    for at, pair in enumerate(zip(index["label"][: index["cells"]], index["predicted"][: index["cells"]], strict=True)):
        cells.setdefault("{:d},{:d}".format(*pair), []).append(at)
    samples = [int(at) for at in index["samples"]]
    paths = [short(path, 200) for path in index["path"]]
    island = {"side": side, "columns": columns, "cells": cells, "path": paths, "probability": index["probability"]}
    return {
        "source": source,
        "side": side,
        "columns": columns,
        "width": side * columns,
        "height": side * math.ceil(len(paths) / columns),
        "cells": cells,
        "places": {str(path): at for at, path in enumerate(index["path"])},
        "samples": [(at, index["label"][at]) for at in sorted(samples, key=lambda at: (index["label"][at], at))],
        "island": island_json(island),
    }


def feature_map(folder: Path, sprite: dict[str, Any] | None, classes: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the map of the images by their features: what the page says of it, and the JSON that its script reads."""
    found = read_object(folder / "map.json", FeatureMap)
    if found is None or not found["path"]:
        return None
    places = (sprite or {}).get("places", {})
    island = {
        "classes": [short(name) for name in classes],
        "path": [short(path, 200) for path in found["path"]],
        "place": [places.get(path, -1) for path in found["path"]],
        **{key: found[key] for key in ("label", "predicted", "x", "y")},
    }
    return {"shown": len(found["path"]), "n": found["n"], "method": found["method"], "island": island_json(island)}


def island_json(value: Any) -> Markup:
    """Return JSON that is safe in a script element: nothing in it can end the element or start a comment."""
    text = json.dumps(value, separators=(",", ":"))  # ASCII only
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def confusion(metrics: Metrics, sprite: dict[str, Any] | None) -> dict[str, Any]:
    """Return the confusion matrix as rows of cells (no rows for many classes), and the most confused pairs."""
    classes = [short(row["class"]) for row in metrics["per_class"]]
    titles = [short(row["class"], 200) for row in metrics["per_class"]]
    support = np.array([row["support"] for row in metrics["per_class"]])
    true, said, wrong = mistaken(metrics)
    have = set(sprite["cells"]) if sprite else set()
    worst = np.argsort(-wrong, kind="stable")[:PAIRS]
    pairs = [
        {"cell": f"{i},{j}", "true": classes[i], "said": classes[j], "n": n, "share": n / int(support[i]),
         "opens": f"{i},{j}" in have}
        for i, j, n in np.stack([true, said, wrong], axis=1)[worst].tolist()
    ]  # fmt: skip
    rows = []
    if len(classes) <= MATRIX:
        counts = np.asarray(metrics["confusion"], np.int64)  # (C, C)
        share = counts / np.maximum(support[:, None], 1)
        most = float((wrong / support[true]).max(initial=0.0))
        for i, name in enumerate(classes):
            # A power below 1, so that one mistake in fifty stays visible next to one in three.
            shade = [(share[i, j] / most) ** 0.7 if i != j and most else 0.0 for j in range(len(counts))]
            rows.append(
                (
                    name,
                    titles[i],
                    [
                        {
                            "n": n,
                            "cell": f"{i},{j}",
                            "right": i == j,
                            "shade": round(3 + 47 * shade[j]) if n and i != j else 0,
                            "opens": f"{i},{j}" in have,
                        }
                        for j, n in enumerate(counts[i].tolist())
                    ],
                )
            )
    return {
        "classes": classes,
        "titles": titles,
        "rows": rows,
        "pairs": pairs,
        "wrong": int(wrong.sum()),
        "first": pairs[:1],
    }


def mistakes(folder: Path, classes: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the most confident mistakes with their heat maps."""
    index = read_object(folder / "heatmaps" / "index.json", Mistakes)
    if index is None:
        return None
    shown = []
    for each in index["mistakes"]:
        source = image(folder / "heatmaps" / each["file"]) if re.fullmatch(r"\d+\.jpg", each["file"]) else None
        if source:
            label, said = classes[each["label"]], classes[each["predicted"]]
            shown.append(each | {"source": source, "pair": (label, said), "true": short(label), "said": short(said)})
    return {"method": index["method"], "shown": shown} if shown else None


def suspects(folder: Path, sprite: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the suspected label errors, each with its image if `label_errors/` or the sprite sheet has it."""
    found = read_object(folder / "label_errors.json", LabelErrors)
    if found is None:
        return None
    shown = []
    for each in found["suspects"][:SUSPECTS]:
        name = Path(str(each.get("thumbnail", ""))).name  # without its folders, which could lead out of the run
        at = (sprite or {}).get("places", {}).get(each["path"])
        pair = each["label"], each["suggested"]
        named = {"pair": pair, "true": short(pair[0]), "said": short(pair[1])}
        shown.append({**each, **named, "source": image(folder / "label_errors" / name), "at": at})
    pictures = any(each["source"] or each["at"] is not None for each in shown)
    doubt = "The model may be wrong instead."
    return {"not_listed": [], "runs": 1, "expected": doubt, **found, "shown": shown, "pictures": pictures}


def collection(name: str, classes: tuple[str, ...], *sections: dict[str, Any] | None) -> Markup | None:
    """Return what the page needs to write a labels.csv about the images of these sections, or None if there are none.

    Each image gets a `place`, its number in the list; one that is in both sections has one place. The images of other
    evaluations than "test" are not in the data set of the run.
    """
    shown = [each for section in sections if section for each in section["shown"]]
    if name != "test" or not shown:
        return None
    places = {path: place for place, path in enumerate(dict.fromkeys(each["path"] for each in shown))}
    items: dict[str, tuple[str, ...]] = {}
    for each in shown:
        each["place"] = places[each["path"]]
        items.setdefault(each["path"], (each["path"], *each["pair"]))
    return island_json({"classes": classes, "none": NONE, "columns": COLUMNS, "items": [*items.values()]})


def image(path: Path) -> str | None:
    """Return an image file as a data URI; None if it does not exist or its first bytes are not those of an image."""
    with contextlib.suppress(OSError):
        content = path.read_bytes()
        for start, kind in FORMATS.items():  # a run may come from a stranger, with any content in its files
            if content.startswith(start):
                return data_uri(f"image/{kind}", content)
    return None
