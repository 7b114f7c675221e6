"""`check` and `datasets`: the commands about images before training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

from onsight.checks import check as checks
from onsight.cli.app import DataDir, On, Quiet
from onsight.cli.output import say
from onsight.core.errors import DataError, unknown_name
from onsight.core.text import columns, count, plain
from onsight.data.load import DATASETS, load_dataset
from onsight.data.reading import LabelsFile, Layout, Reading, names_in
from onsight.display.reporters import make_reporter


def check(
    data: str,
    /,
    *,
    out: Path | None = None,
    keep_list: Path | None = None,
    strict: bool = False,
    features: bool | None = None,
    on: On = None,
    layout: Layout | None = None,
    classes: str = "",
    exclude: str = "",
    path_column: str | None = None,
    label_column: str | None = None,
    labels: Path | None = None,
    data_dir: DataDir = None,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the flag's name
    quiet: Quiet = False,
) -> None:
    """Find what is wrong with images before training: unreadable, duplicated, leaking, or with wrong labels.

    Parameters
    ----------
    data
        a named data set (`onsight datasets`), or a folder, zip, CSV, shards or address of images
    out
        folder for check.json and check.html (default: checks/ and the name of the data set)
    keep_list
        write the names of the images worth keeping to this file, for train --keep-list
    strict
        exit with code 1 if there are errors
    features
        look for wrong labels, images of one scene and odd images with a pretrained network (default: if the images are
        photos and the network's package is installed)
    layout
        what the top folders are, if both is possible: parts (train, test), or classes
    classes
        check only these classes: cat,dog,bird
    exclude
        leave these classes out: cat,dog
    path_column
        the column of a CSV that holds the paths, or of a Parquet file with the images, if it has no usual name
    label_column
        the column of a CSV or Parquet file that holds the labels, if it has no usual name
    labels
        a CSV that corrects labels and adds images, as for train
    format
        text for people, or check.json
    """
    reading = Reading(
        layout, names_in(classes), names_in(exclude), path_column, label_column, LabelsFile(labels) if labels else None
    )
    show = make_reporter(quiet)
    found = checks.check(
        data, data_dir=data_dir, out=out, keep_list=keep_list, reading=reading, features=features, on=on, reporter=show
    )
    if format == "json":
        say(json.dumps(found.record, ensure_ascii=False))
    else:
        for line in checks.lines(found.record):
            say(plain(line))
        say("")
        say(f"Page: {found.folder / 'check.html'}")
        if keep_list is not None:
            say(f"{found.record['kept']:,} images to keep: {keep_list}")
    if strict and found.has_errors:
        sys.exit(1)


def datasets(name: str | None = None, /, *, quiet: Quiet = False) -> None:
    """List the data sets that have a name, or fetch one. A folder, zip or CSV of your own needs none.

    Parameters
    ----------
    name
        fetch this data set into the cache now, if it is not on this machine, and check it
    """
    if name is not None:
        if name not in DATASETS:
            raise DataError(unknown_name("data set", name, DATASETS))
        with make_reporter(quiet) as show:
            found = load_dataset(name, progress=show.work)
        say(f"{found.provenance}: {count(len(found), 'image')} in {count(len(found.classes), 'class', 'classes')}")
        return
    for line in columns([(name, source.description) for name, source in DATASETS.items()]):
        say(line)
