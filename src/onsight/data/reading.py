"""`Reading`: how the images at a path become a data set, as far as the user says it. Imports no NumPy."""

from __future__ import annotations

import csv
import io
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from onsight.core.errors import DataError, unknown_name

Layout = Literal["parts", "classes"]


class Reading(NamedTuple):
    """How a data set is read. Whatever is left out is found from the data."""

    layout: Layout | None = None  # what the top folders are: the parts (train, test), or the classes
    classes: tuple[str, ...] = ()  # use these classes only; empty: all
    exclude: tuple[str, ...] = ()  # leave these classes out
    path_column: str | None = None  # the column of a CSV that holds the paths
    label_column: str | None = None  # the column of a CSV that holds the labels

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
