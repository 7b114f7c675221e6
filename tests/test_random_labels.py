"""An audit: a model that has memorised random labels is never credited for what it has seen, whatever the route.

The images are noise and their labels are random, so nothing can be learned from them that holds for other images: every
figure far above one in three counts images that the model, or one before it, has learned from. A new command that
trains or scores adds a line to ROUTES.
"""

from __future__ import annotations

import math
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

import onsight
from onsight.core.errors import OnsightError
from onsight.core.progress import Reporter
from onsight.data.labels import Row, append_rows
from onsight.metrics.predictions_csv import read_predictions
from onsight.spec import TrainSpec

pytestmark = pytest.mark.usefixtures("only_training")

QUIET = Reporter()
SLOW = pytest.mark.slow
STUDENT = {
    "model": "mlp",
    "epochs": 40,
    "batch_size": 32,
    "optimizer": "adam",
    "learning_rate": 3e-3,
    "augmentation": "none",
}
CLASSES = 3


class World:
    """Random labels, and a model that has memorised those of its training images."""

    def __init__(self, folder, count):
        rng = np.random.default_rng(0)
        self.folder, self.data = folder, folder / "noise"
        for number in range(CLASSES):
            (self.data / f"class{number}").mkdir(parents=True)
        for number, label in enumerate(rng.integers(0, CLASSES, count).tolist()):
            image = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(image).save(self.data / f"class{label}" / f"{number}.png")
        self.memoriser = self.train()

    def spec(self, **options):
        """Return a spec that memorises."""
        usual = {"data": str(self.data), "model": "mlp", "epochs": 40, "batch_size": 32, "optimizer": "adam",
                 "learning_rate": 3e-3, "augmentation": "none", "image_size": 8, "precision": "float32"}  # fmt: skip
        return TrainSpec(**{name: value for name, value in {**usual, **options}.items() if value is not None})

    def train(self, **options):
        return onsight.train(self.spec(**options), reporter=QUIET)

    def after(self, run, **options):
        """Train from the weights of a run."""
        return self.train(**{"weights": str(run.folder), "freeze": "none", "epochs": 3, **options})

    def pictures(self, run=None, part="train"):
        """Return the paths of all images, or of those of one part of a run."""
        if run is None:
            return sorted(self.data.rglob("*.png"))
        return [self.data / name for name in run.dataset["split"][part]]

    def folder_of(self, name, paths, suffix="png"):
        """Return a new folder with copies of images under other names, in another format if the suffix is another."""
        for number, path in enumerate(paths):
            target = self.folder / name / path.parent.name / f"{name}{number}.{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            if suffix == path.suffix[1:]:
                shutil.copy(path, target)
            else:
                with Image.open(path) as image:
                    image.save(target)
        return self.folder / name

    def keep_list(self, paths):
        file = self.folder / "keep.txt"
        file.write_text("".join(f"{path.relative_to(self.data).as_posix()}\n" for path in paths))
        return file

    def labels(self, folder):
        """Write a labels.csv that adds the images of a folder with their labels."""
        file = self.folder / f"{folder.name}.csv"
        rows = [Row(str(path), path.parent.name, "", "", "") for path in sorted(folder.rglob("*.*"))]
        append_rows(file, rows)
        return file


def credited(*runs):
    """Evaluate runs and return every accuracy that they report, with its number of images."""
    found = []
    for run in runs:
        row = run.model_epoch() or {}
        if row.get("val_accuracy") is not None:
            found.append(("validation", row["val_accuracy"], sum(run.dataset["counts"]["validation"].values())))
        if row.get("out_of_fold_accuracy") is not None:
            found.append(("out of fold", row["out_of_fold_accuracy"], row["out_of_fold_n"]))
        found += scored(run)
    return found


def scored(run, **options):
    metrics = onsight.evaluate(run, reporter=QUIET, **options).metrics
    found = [("evaluation", metrics["accuracy"], metrics["n"])]
    if other := metrics.get("without_copies"):
        found.append(("without copies", other["accuracy"], other["n"]))
    return found


def folds(run):
    onsight.evaluate(run, folds=2, reporter=QUIET)
    table = read_predictions(run.evaluation_folder("folds") / "predictions.csv")
    right = table.probabilities.argmax(axis=1) == table.labels
    return [("folds", float(right.mean()), len(right))]


def zipped(folder):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def curve(world):
    found = onsight.learning_curve(
        world.spec(weights=str(world.memoriser.folder), freeze="none", epochs=2, seed=1), sizes=[20, 60], seeds=1,
        reporter=QUIET,
    )  # fmt: skip
    return [("curve", point["accuracy"], point["n"]) for point in found.record["points"]]


def tuned(world):
    spec = world.spec(weights=str(world.memoriser.folder), freeze="none", epochs=3, learning_rate=None, seed=1)
    study = onsight.tune(
        spec, trials=3, search={"learning_rate": (1e-4, 1e-2)}, study=world.folder / "study", reporter=QUIET
    )
    found = [("trial", trial.done.accuracy, study.record["validation"]) for trial in study.trials if trial.done]
    return [*found, *credited(study.run)]


def generations(world):
    half = world.pictures()[::2]
    middle = world.after(world.memoriser, data=str(world.folder_of("half", half)), seed=2)
    return credited(middle, world.after(middle, split_seed=3))


# A route takes the world and returns (what, accuracy, n) of all that is credited. It may also refuse.
ROUTES = {
    "weights": lambda w: credited(w.after(w.memoriser, seed=1)),
    "weights, another split": lambda w: credited(w.after(w.memoriser, split_seed=1)),
    "weights, head only": lambda w: credited(w.after(w.memoriser, freeze="all", epochs=None, seed=1)),
    "a file of weights": lambda w: credited(
        w.train(weights=str(w.memoriser.model_folder / "weights.safetensors"), freeze="none", epochs=3, split_seed=1)
    ),
    "weights of weights": generations,
    "teacher": lambda w: credited(onsight.distill(w.memoriser, TrainSpec(**STUDENT), reporter=QUIET)),
    "pruned": lambda w: credited(onsight.prune(w.memoriser, sparsity=0.3, epochs=3, reporter=QUIET)),
    "weights of a student": lambda w: credited(
        w.after(onsight.distill(w.memoriser, TrainSpec(**STUDENT), reporter=QUIET), split_seed=1)
    ),
    "folds": lambda w: folds(w.after(w.memoriser, seed=1)),
    "folds from scratch": lambda w: folds(w.train(epochs=10)),
    "data": lambda w: scored(w.memoriser, data=w.folder_of("copy", w.pictures(w.memoriser))),
    "data, with others": lambda w: scored(w.memoriser, data=w.folder_of("all", w.pictures())),
    "data, validation": lambda w: scored(w.memoriser, data=w.folder_of("val", w.pictures(w.memoriser, "validation"))),
    "data, in another format": lambda w: scored(w.memoriser, data=w.folder_of("bmp", w.pictures(w.memoriser), "bmp")),
    "data, in a zip": lambda w: scored(w.memoriser, data=zipped(w.folder_of("zip", w.pictures()[::3]))),
    "data, by a descendant": lambda w: scored(
        w.after(w.memoriser, data=str(w.folder_of("part", w.pictures()[::2])), epochs=1),
        data=w.folder_of("rest", w.pictures()[::3]),
    ),
    "shots": lambda w: credited(w.after(w.memoriser, shots=20, seed=1)),
    "weights of shots": lambda w: credited(w.after(w.train(shots=100, seed=5), seed=6)),
    "keep-list": lambda w: credited(w.after(w.memoriser, keep_list=w.keep_list(w.pictures()[::2]), seed=1)),
    "labels that add copies": lambda w: credited(w.train(labels=w.labels(w.folder_of("add", w.pictures(), "bmp")))),
    "seeds": lambda w: credited(
        *onsight.train_seeds(
            w.spec(weights=str(w.memoriser.folder), freeze="none", epochs=2, seed=1), seeds=2, reporter=QUIET
        )
    ),
    "learning curve": curve,
    "tune": tuned,
    "longer": lambda w: credited(onsight.resume(w.train(), epochs=41, reporter=QUIET)),
}  # fmt: skip
REFUSED = {  # routes that have nothing else to credit, and how they say so
    "folds": "no image can be held out",
    "data": "No image is left to score",
    "data, validation": "No image is left to score",
    "data, in another format": "No image is left to score",
}
FAST = (
    "weights",
    "weights, another split",
    "teacher",
    "folds",
    "data",
    "data, with others",
    "shots",
    "keep-list",
    "labels that add copies",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONSIGHT_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield World(tmp_path_factory.mktemp("random"), 600)


def test_the_memoriser_knows_what_it_has_seen_and_nothing_else(world):
    """Otherwise the audit would show nothing."""
    row = world.memoriser.model_epoch()
    assert row["accuracy"] > 0.95
    assert row["val_accuracy"] < 0.6


@pytest.mark.parametrize("name", [each if each in FAST else pytest.param(each, marks=SLOW) for each in ROUTES])
def test_random_labels_are_never_credited(world, name):
    if name in REFUSED:
        with pytest.raises(OnsightError, match=REFUSED[name]):
            ROUTES[name](world)
        return
    found = ROUTES[name](world)
    assert found
    for what, accuracy, n in found:
        luck = math.sqrt((1 - 1 / CLASSES) / CLASSES / n)
        assert accuracy <= 1 / CLASSES + 4 * luck, f"{what}: {accuracy:.1%} of {n} random labels"
