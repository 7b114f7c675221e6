"""Copy classified images into one sub-folder per class. Nothing is moved, and nothing is overwritten."""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from onsight.core.errors import SpecError
from onsight.core.files import alone, make_folder, sync_folder
from onsight.inference.predict import Prediction

UNSURE = "unsure"  # the sub-folder of images whose answer is unsure
LONGEST = 100  # characters of the name of a sub-folder
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # names that Windows keeps for itself


class Sorter:
    """A new folder for copies of images.

    Attributes:
        folder: its path.
        counts: the number of images copied into each sub-folder.
    """

    def __init__(self, folder: Path, images: Sequence[str]) -> None:
        """Check that `folder` can take copies of `images`, which are words of the command line.

        Raises:
            SpecError: the folder holds something, or lies in a folder whose images are classified, or an image comes
                from standard input.
        """
        self.folder, self.counts = folder, Counter[str]()
        self.taken: Counter[Path] = Counter()
        if "-" in images:
            raise SpecError("--sort-into copies files, but an image from standard input is none: give a file.")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise SpecError(f"--sort-into {folder} exists and is not an empty folder. Name a new one.")
        for image in images:
            root = searched(image)
            if root is not None and folder.resolve().is_relative_to(root.resolve()):
                raise SpecError(
                    f"--sort-into {folder} lies in {root}, whose images are classified: the copies would be among them "
                    "the next time. Name a folder elsewhere."
                )

    def copied(self, predictions: Iterable[Prediction], classes: Sequence[str]) -> Iterator[Prediction]:
        """Yield the predictions unchanged, and copy the image of each that has an answer.

        The folder appears when all images are copied, so a command that was killed can be given again.
        """
        names = folder_names(classes)
        folder = self.folder.resolve()
        apart = folder.with_name(f".{folder.name}.partial")
        make_folder(apart)
        with alone(apart / ".lock", f"sorting images into {self.folder}"):
            try:
                made = apart / "copies"
                shutil.rmtree(made, ignore_errors=True)  # a killed command has left it
                make_folder(made)
                for prediction in predictions:
                    if prediction.label is not None:
                        name = UNSURE if prediction.unsure else names[prediction.label]
                        if name not in self.counts:
                            make_folder(made / name)
                        self.copy(Path(prediction.source), made / name)
                        self.counts[name] += 1
                    yield prediction
                if hasattr(os, "sync"):
                    os.sync()  # one for all copies, before the folder has its name
                if folder.exists():
                    folder.rmdir()  # it was empty
                made.rename(folder)
                sync_folder(folder.parent)
            finally:
                shutil.rmtree(apart, ignore_errors=True)

    def copy(self, image: Path, folder: Path) -> None:
        """Copy an image into a folder. If its name is taken, the copy gets a number: cat-2.jpg."""
        wanted = folder / image.name
        while True:
            self.taken[wanted] += 1
            number = self.taken[wanted]
            target = wanted if number == 1 else wanted.with_name(f"{image.stem}-{number}{image.suffix}")
            try:
                with open(image, "rb") as source, open(target, "xb") as file:  # x: never overwrites
                    shutil.copyfileobj(source, file)
            except FileExistsError:
                continue
            shutil.copystat(image, target)
            return


def searched(word: str) -> Path | None:
    """Return the folder that is searched for images with all of its sub-folders, or None."""
    if os.path.isdir(word):
        return Path(word)
    if os.path.exists(word) or "**" not in word:
        return None
    parts = Path(word).parts
    return Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])


def folder_names(classes: Sequence[str]) -> dict[str, str]:
    """Return a name for the sub-folder of each class: valid on every system, not hidden, and different from all others.

    >>> folder_names(["cat", "Cat", "a/b", "..", "con", "unsure"])
    {'cat': 'cat', 'Cat': 'Cat-2', 'a/b': 'a_b', '..': '_', 'con': 'con_', 'unsure': 'unsure-2'}
    """
    names: dict[str, str] = {}
    taken = {UNSURE}
    for label in classes:
        safe = "".join("_" if letter in '<>:"/\\|?*' or not letter.isprintable() else letter for letter in label)
        safe = re.sub(r"^[.\s]+", "_", safe[:LONGEST]).rstrip(". ") or "_"
        safe += "_" if RESERVED.match(safe) else ""
        name, number = safe, 1
        while name.casefold() in taken:
            number += 1
            name = f"{safe}-{number}"
        taken.add(name.casefold())
        names[label] = name
    return names
