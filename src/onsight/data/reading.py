"""`Reading`: how the images at a path become a data set, as far as the user says it. Imports no NumPy."""

from __future__ import annotations

import csv
import io
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from onsight.core.errors import DataError, SpecError, unknown_name
from onsight.core.files import expanded

Layout = Literal["parts", "classes"]


class LabelsFile(NamedTuple):
    """A labels.csv, or its beginning: it grows after a run was trained with it."""

    path: Path
    size: int | None = None  # bytes that count; None: all
    sha256: str = ""  # of these bytes; empty: they are not checked


class Reading(NamedTuple):
    """How a data set is read. Whatever is left out is found from the data."""

    layout: Layout | None = None  # what the top folders are: the parts (train, test), or the classes
    classes: tuple[str, ...] = ()  # use these classes only; empty: all
    exclude: tuple[str, ...] = ()  # leave these classes out
    path_column: str | None = None  # the column of a CSV that holds the paths, or of a Parquet file with the images
    label_column: str | None = None  # the column of a CSV or Parquet file that holds the labels
    labels: LabelsFile | None = None  # corrects and adds labels

    def check_fit(self, data: str, kind: str, *, layout: bool = False, columns: bool = False) -> None:
        """Raise SpecError if there is a layout or there are columns, and this kind of data has none."""
        if self.layout and not layout:
            raise SpecError(f"--layout is for folders and zips, but '{data}' is {kind}: leave it out.")
        if (self.path_column or self.label_column) and not columns:
            raise SpecError(
                f"--path-column and --label-column are for CSVs and Parquet, but '{data}' is {kind}: leave them out."
            )

    def chosen(self, known: Sequence[str], where: str) -> tuple[str, ...]:
        """Return the classes among `known` that are used, in their order; `where` begins the error message.

        Raises:
            DataError: A name is no class of the data set, or fewer than two classes stay.
        """
        if not self.classes and not self.exclude:
            return tuple(known)
        only, without = ([unicodedata.normalize("NFC", name) for name in each] for each in (self.classes, self.exclude))
        for name in [*only, *without]:
            if name not in known:
                raise DataError(f"{where}: {unknown_name('class', name, known)}")
        stay = tuple(name for name in known if (not only or name in only) and name not in without)
        if len(stay) < 2:
            asked = " and ".join(flag for flag, names in (("--classes", only), ("--exclude", without)) if names)
            kept = f"only '{stay[0]}'" if stay else "no class"
            raise DataError(f"{where}: {asked} would leave {kept}: a classifier needs at least two classes")
        return stay


AUTOMATIC = Reading()
SHARDS = (".tar", ".parquet")  # the suffixes of files that hold many images each


def names_shards(data: str | Path) -> bool:
    """Return whether a path or address is that of a shard or a pattern of shards, as photos-{000..019}.tar is."""
    return str(data).lower().endswith(SHARDS) and not expanded(data).is_dir()


def names_in(text: str) -> tuple[str, ...]:
    """Return the names in a list with commas; a name that contains a comma is in double quotes.

    >>> names_in('cat, dog,"bird, tame"')
    ('cat', 'dog', 'bird, tame')
    """
    cells = next(csv.reader([text], skipinitialspace=True), [])
    return tuple(name for cell in cells if (name := cell.strip()))


def listed(names: Iterable[str]) -> str:
    """Return names as the list that `names_in` reads."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


def exclude_flag(names: Iterable[str]) -> str:
    """Return the flag that leaves these classes out, as it is typed in a shell.

    >>> exclude_flag(["cat", "sea lion"])
    "--exclude 'cat,sea lion'"
    """
    return f"--exclude {shlex.quote(listed(names))}"


def add_or_exclude(names: Sequence[str], known: Sequence[str], already: Iterable[str] = ()) -> str:
    """Return what helps when some of the `known` classes have too few images; others are left out `already`.

    >>> add_or_exclude(["cat"], ["bird", "cat", "dog"], already=["ant"])
    'add images, or leave the class out: --exclude ant,cat'
    """
    if len(known) - len(names) < 2:
        return "add images"
    out = exclude_flag([*already, *names])
    return f"add images, or leave the {'class' if len(names) == 1 else 'classes'} out: {out}"
