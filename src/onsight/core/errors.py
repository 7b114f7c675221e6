"""Every error that Onsight raises on purpose.

    OnsightError                exit code 2: the user can fix it
    ├── SpecError               a setting: an unknown name, a value out of range, two settings that exclude each other
    ├── DataError               the data set: a missing class, no images, a file of the wrong shape
    │   ├── ImageError          one image that cannot be used
    │   └── DownloadError       a file that could not be fetched whole
    ├── ModelFileError          a model folder that is not what it claims to be
    ├── RunError                a run: not found, not finished, in use, written by a newer version
    ├── ExportError             a format that cannot be made or read here
    │   └── ParityError         exit code 3: the outputs of an exported model differ from its source; it is not written
    └── TrainingError           exit code 1: training could not continue
        └── Interrupted         exit code 129, 130 or 143: stopped by a signal, everything saved

A message says what happened, with which value, what was expected and how to fix it. The command line prints
it without a traceback. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable

MOST_NAMED = 100  # of the known names, in a message about an unknown one


class OnsightError(Exception):
    """Base of all errors that Onsight raises on purpose."""

    exit_code = 2


class SpecError(OnsightError):
    """A setting has an unknown name or a value that cannot work."""


class DataError(OnsightError):
    """A data set cannot be used in its present state."""


class ImageError(DataError):
    """One image cannot be used; the message is the reason, without the path."""


class DownloadError(DataError):
    """A file could not be fetched whole."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason} {remedy}".strip())
        self.reason = reason  # the message without what to do about it


class ModelFileError(OnsightError):
    """A model folder is damaged, foreign or newer than this version."""


class RunError(OnsightError):
    """A run was not found, is not finished, is in use, or is newer than this version."""


class ExportError(OnsightError):
    """A format cannot be made or read: a package is missing, a converter failed, a file is foreign or damaged."""


class ParityError(ExportError):
    """The outputs of an exported model differ from those of its source."""

    exit_code = 3


class TrainingError(OnsightError):
    """Training could not continue; the last good state is kept."""

    exit_code = 1


class Interrupted(TrainingError):
    """Training was stopped by a signal, after saving its state."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown `name`, with the known names and the nearest of them.

    >>> unknown_name("model", "resnet", ["cnn", "resnet20"])
    "No model 'resnet'. Known: cnn, resnet20. Did you mean 'resnet20'?"
    """
    import difflib  # here, because it takes a few milliseconds and most commands need none of it

    known = list(known)
    others = f" and {len(known) - MOST_NAMED:,} more" if len(known) > MOST_NAMED else ""
    message = f"No {kind} '{name}'. Known: {', '.join(known[:MOST_NAMED])}{others}."
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"{message} Did you mean '{nearest[0]}'?" if nearest else message
