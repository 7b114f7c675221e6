"""Heat maps of a run's mistakes, beside its evaluation, and of images that the user names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.errors import ModelFileError, SpecError
from onsight.core.files import check_target, write_atomic, write_json
from onsight.evaluation.thumbnails import jpeg
from onsight.inference.heat_maps import enlarge, heat_maps, overlay

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

    from onsight.inference.engines import Answer, EngineName
    from onsight.runs.run import Run
TILE = 112  # pixels a side of the images that are written beside an evaluation
WORST = 24  # mistakes explained beside an evaluation
MOST = 32  # images explained by one command


def explain_mistakes(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    names: Sequence[str],
    answer: Answer,
    model: keras.Model | None = None,
) -> None:
    """Write `heatmaps/` into an evaluation's folder: its surest mistakes, each with the heat of answer and of truth.

    `index.json` has {"method", "mistakes": [{"file", "path", "label", "predicted", "probability",
    "probability_of_label"}]}, labels as indices; each JPEG holds three squares side by side: the image, what spoke
    for the answer, what spoke for the true class.

    Args:
        folder: of the evaluation.
        images: (n, H, W, 3) uint8, the wrongly answered, surest first.
        labels: (n,) true classes.
        scores: (n, classes) probabilities.
        names: n paths.
        answer: the predictor, for occlusion.
        model: the Keras model, where there is one.
    """
    into = folder / "heatmaps"
    into.mkdir(exist_ok=True)
    for old in into.glob("*.jpg"):
        old.unlink()
    predicted = scores.argmax(axis=1)
    method, mistakes = "none", []
    if len(images):
        twice = np.concatenate([images, images])
        maps, method = heat_maps(twice, np.concatenate([predicted, labels]), answer, model)
        for i, (image, said, true) in enumerate(zip(images, *np.split(maps, 2), strict=True)):
            tiles = [enlarge(image, TILE), overlay(image, said, TILE), overlay(image, true, TILE)]
            file = f"{i + 1:02d}.jpg"
            write_atomic(into / file, jpeg(np.concatenate(tiles, axis=1)))
            mistakes.append(
                {
                    "file": file,
                    "path": names[i],
                    "label": int(labels[i]),
                    "predicted": int(predicted[i]),
                    "probability": float(scores[i, predicted[i]]),
                    "probability_of_label": float(scores[i, labels[i]]),
                }
            )
    write_json(into / "index.json", {"method": method, "mistakes": mistakes})


def explain(run: Any, sources: Sequence[Any], path: Path, top: int = 3, engine: EngineName = "auto") -> str:
    """Draw images with their heat maps and likeliest classes into `path` (.png or .svg); return the method's name.

    Args:
        run: the run, its folder, or `latest`.
        sources: what `predict` takes.
        path: the file to write.
        top: classes an answer.
        engine: what answers; the heat maps are Keras' where it can be had, except for "litert".

    Raises:
        SpecError: `path` ends in something else, or there are more than 32 images.
        ImageError: an image cannot be read.
    """
    from onsight.reporting import plot_style

    check_drawing(sources, path)
    figure, method = draw(run, sources, top, engine)
    plot_style.save(figure, path)
    return method


def check_drawing(sources: Sequence[Any], path: Path) -> None:
    """Raise SpecError, before anything is computed, where `explain` would for the file or so many images."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise SpecError(f"--explain writes .png or .svg, not '{path.name}'.")
    check_target(path)
    few(sources)


def few(sources: Sequence[Any]) -> list[tuple[str, Any]]:
    """Return the images of what `predict` takes with their names; raise SpecError for more than 32."""
    from onsight.inference.predict import expand

    chosen = list(itertools.islice(expand(sources), MOST + 1))
    if len(chosen) > MOST:
        raise SpecError(f"--explain draws at most {MOST} images, and more were given.")
    return chosen


def draw(run: Any, sources: Sequence[Any], top: int = 3, engine: EngineName = "auto") -> tuple[Figure, str]:
    """Return a figure of images with their heat maps and likeliest classes, and the method's name.

    Args:
        run: the run, its folder, or `latest`.
        sources: what `predict` takes.
        top: classes an answer.
        engine: what answers; the heat maps are Keras' where it can be had, except for "litert".

    Raises:
        SpecError: there are more than 32 images.
        ImageError: an image cannot be read.
    """
    from onsight.core.errors import ImageError
    from onsight.imaging import decode
    from onsight.inference.engines import open_engine
    from onsight.reporting import plots
    from onsight.runs.run import open_run

    chosen = few(sources)
    opened = open_run(run)
    answering, model = open_engine(opened, engine), None if engine == "litert" else keras_model(opened)
    size = answering.size
    images = np.empty((len(chosen), size, size, 3), np.uint8)
    for number, (name, source) in enumerate(chosen):
        try:
            images[number] = decode.load(source, size)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None
    scores = answering.probabilities(images)
    maps, method = heat_maps(images, scores.argmax(axis=1), answering.probabilities, model)
    side = max(224, size)
    figure = plots.explanations(
        [enlarge(image, side) for image in images],
        [overlay(image, heat, side) for image, heat in zip(images, maps, strict=True)],
        [Path(name).name for name, _ in chosen],
        scores,
        opened.classes,
        heading=(f"Where it looked ({method})", "the brighter, the more that part speaks for the first answer"),
        top=top,
    )
    return figure, method


def keras_model(run: Run) -> keras.Model | None:
    """Return a run's Keras classifier for Grad-CAM, or None, for occlusion to explain.

    None where no Keras is installed, the network is a user's own that has not been registered here, or this version
    builds another than the run's.
    """
    from onsight.models.registry import MODELS

    try:
        return run.load_model() if run.spec.get("model") in MODELS else None
    except (SpecError, ModelFileError):
        return None
