"""Heat maps of the mistakes of a run, written beside its evaluation, and of images that the user names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onsight.core.errors import ImageError, ModelFileError, SpecError
from onsight.core.extras import require
from onsight.core.files import check_target, write_atomic, write_json
from onsight.evaluation.thumbnails import jpeg
from onsight.imaging import decode
from onsight.inference.engines import Answer, EngineName, open_engine
from onsight.inference.heat_maps import MOST, enlarge, heat_maps, overlay
from onsight.inference.sources import Source, expand, opened
from onsight.models.registry import MODELS
from onsight.runs.run import Run, open_run

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

    from onsight.imaging.decode import ImageSource
    from onsight.imaging.fit import Fit

TILE = 112  # pixels per side of the images beside an evaluation
WORST = 24  # mistakes that are explained beside an evaluation
SHOWN = 224  # pixels per side of the images that `explain` draws, at least


def explain_mistakes(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    names: Sequence[str],
    answer: Answer,
    model: keras.Model | None = None,
) -> None:
    """Write `heatmaps/` into the folder of an evaluation: its mistakes, with heat maps of the answer and of the label.

    `index.json` has {"method", "mistakes": [{"file", "path", "label", "predicted", "probability",
    "probability_of_label"}]}, with labels as indices. Each JPEG holds three squares side by side: the image, the heat
    map of the answer, and the heat map of the label.

    Args:
        folder: of the evaluation.
        images: (n, H, W, 3) uint8, wrongly answered, the most confident mistake first.
        labels: (n,) integers.
        scores: (n, classes) probabilities.
        names: n paths.
        answer: returns probabilities, for occlusion.
        model: the Keras model, for Grad-CAM, if there is one.
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


def explain(
    run: str | Path | Run,
    images: Sequence[ImageSource],
    *,
    path: Path | None = None,
    top: int = 3,
    engine: EngineName = "auto",
) -> tuple[Figure, str]:
    """Return a figure of images with their heat maps and likeliest classes, and the name of the method.

    Args:
        run: the run, its folder, or `latest`.
        images: as `predict` takes them; at most 32.
        path: a .png or .svg file to write the figure to; None: no file.
        top: classes per answer.
        engine: what answers. Keras draws the heat maps (Grad-CAM) if it is installed, except with "litert" (occlusion).

    Raises:
        SpecError: the path has another suffix, or there are more than 32 images.
        ImageError: an image cannot be read.
    """
    from onsight.reporting import plot_style, plots

    require("matplotlib", "A drawing of heat maps")
    if path is not None:
        check_drawing(path)
        few(images)
    opened = open_run(run)
    answering, model = open_engine(opened, engine), None if engine == "litert" else keras_model(opened)
    names, decoded = read(images, answering.size, answering.fit)
    scores = answering.probabilities(decoded)
    maps, method = heat_maps(decoded, scores.argmax(axis=1), answering.probabilities, model)
    side = max(SHOWN, answering.size)
    figure = plots.explanations(
        [enlarge(image, side) for image in decoded],
        [overlay(image, heat, side) for image, heat in zip(decoded, maps, strict=True)],
        names,
        scores,
        opened.classes,
        heading=(f"Heat maps ({method})", "tinted: the parts that support the likeliest class most"),
        top=top,
    )
    if path is not None:
        plot_style.save(figure, path)
    return figure, method


def check_drawing(path: Path) -> None:
    """Raise SpecError, before anything is computed, if `explain` cannot draw into `path`."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise SpecError(f"Heat maps are written to a .png or .svg file, not to '{path.name}'.")
    check_target(path)


def few(images: Sequence[ImageSource]) -> list[tuple[str, Source]]:
    """Return the images with their names.

    Raises:
        SpecError: there are more than 32.
    """
    chosen = list(itertools.islice(expand(images), MOST + 1))
    if len(chosen) > MOST:
        raise SpecError(f"Heat maps are drawn of {MOST} images at most, but more were given.")
    return chosen


def read(images: Sequence[ImageSource], size: int, fit: Fit) -> tuple[list[str], np.ndarray]:
    """Return the file names of the images, and the images (n, size, size, 3) uint8, cut or padded as `fit` says.

    Raises:
        ImageError: an image cannot be read.
    """
    chosen = few(images)
    decoded = np.empty((len(chosen), size, size, 3), np.uint8)
    for number, (name, source) in enumerate(chosen):
        try:
            decoded[number] = decode.load(opened(source), size, fit)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None
    return [Path(name).name for name, _ in chosen], decoded


def keras_model(run: Run) -> keras.Model | None:
    """Return the Keras classifier of a run, for Grad-CAM; or None, so that occlusion explains it.

    None if Keras is not installed, if the network is a custom one that has not been registered in this process, or if
    this version builds another network than the run's.
    """
    try:
        return run.load_model() if run.spec.get("model") in MODELS else None
    except (SpecError, ModelFileError):
        return None
