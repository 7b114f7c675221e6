"""predict(run, images): answers for paths, folders, patterns, bytes, PIL images and arrays."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np

from onsight.core.errors import ImageError
from onsight.core.threads import AT_ONCE, each
from onsight.imaging import decode
from onsight.inference.engines import Answer, Answers, Engine, EngineName, doubts, open_engine
from onsight.inference.sources import Source, as_iterable, expand, opened
from onsight.inference.test_time_augmentation import mirrors, with_views
from onsight.runs.run import Run, open_run

if TYPE_CHECKING:
    from onsight.core.progress import Reporter
    from onsight.imaging.decode import ImageSource
    from onsight.imaging.fit import Fit

HELD = 256 << 20  # bytes of images that are in memory as they came, before they are decoded
SHOWN = 24  # images that a list of predictions keeps for display in a notebook


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        source: the path of the image, or "image 3" if it was given as bytes, PIL image or array.
        top: the likeliest classes with their probabilities, likeliest first; empty if the image is unreadable.
        error: why the image could not be read, else None.
        reason: why the answer is unsure: "close" if the probability of the likeliest class is below the model's
            threshold, "far" if the image is unlike the training images, None if the answer is not unsure.
        distance: how unlike the training images the image is, from 0 to 2; None if the model knows no distance.
        fit: how the model saw the image: its centre square ("cut"), or all of it on grey ("pad").
    """

    source: str
    top: tuple[tuple[str, float], ...]
    error: str | None = None
    reason: Literal["close", "far"] | None = None
    distance: float | None = None
    fit: Fit = field(default="cut", repr=False)

    @property
    def unsure(self) -> bool:
        """Whether the answer is unsure, for whatever reason."""
        return self.reason is not None

    @property
    def doubt(self) -> str:
        """Why the answer is unsure, in words; an empty string if it is not."""
        if self.reason == "far":
            return "unsure: unlike anything it was trained on"
        if self.reason == "close":
            return "unsure: " + " or ".join(name for name, _ in self.top[:2])
        return ""

    @property
    def label(self) -> str | None:
        """The likeliest class, or None if the image is unreadable."""
        return self.top[0][0] if self.top else None

    @property
    def probability(self) -> float | None:
        """The probability of the likeliest class, or None if the image is unreadable."""
        return self.top[0][1] if self.top else None

    def _repr_html_(self) -> str:
        from onsight.display import notebook

        return notebook.prediction(self)


class PredictionList(list[Prediction]):
    """Predictions in the order of their images. A notebook shows the first ones with their images.

    Attributes:
        images: the first 24 images, as they were given.
    """

    def __init__(self, predictions: Iterable[Prediction], images: Sequence[ImageSource]) -> None:
        super().__init__(predictions)
        self.images = images

    def _repr_html_(self) -> str:
        from onsight.display import notebook

        return notebook.predictions(self, self.images)


def predict(
    run: str | Path | Run,
    images: ImageSource | Iterable[ImageSource],
    *,
    top: int = 3,
    batch_size: int = 256,
    engine: EngineName = "auto",
    tta: bool = False,
) -> PredictionList:
    """Return one prediction per image, in order. A folder, pattern, shard or address stands for all images in it.

    Args:
        run: the run, its folder, or `latest`.
        images: one or more paths, folders, glob patterns, bytes, PIL images or uint8 arrays (H, W, 3); also shards
            (.tar or .parquet) and addresses, like s3://bucket/photos.
        top: the number of classes per prediction.
        batch_size: images per step; changes the speed only.
        engine: what answers: "litert" (no framework is imported), "keras", or "auto": LiteRT if it can answer.
        tta: test-time augmentation: combine six views of each image whose answer is not sure, or three if the run was
            trained without mirrored images.

    Raises:
        DataError: a path names no image. An unreadable image raises no error: its prediction holds the reason.
    """
    predictor = Predictor(run, batch_size, engine, tta)
    sources = expand(as_iterable(images))
    first = list(itertools.islice(sources, SHOWN))
    answers = predictor.answers(itertools.chain(first, sources), top)
    return PredictionList(answers, [shown(image) for _, image in first])


def shown(source: Source) -> ImageSource:
    """Return an image as a notebook can show it; no bytes if it cannot be read."""
    try:
        return opened(source)
    except ImageError:
        return b""


class Predictor:
    """The model of a run, loaded once for many images.

    Args:
        run: the run, its folder, or `latest`.
        batch_size: images per step; changes the speed only.
        engine: what answers, or its name.
        tta: test-time augmentation.
        threads: how many batches are worked on at once; None: one per core.
    """

    def __init__(
        self,
        run: str | Path | Run,
        batch_size: int = 256,
        engine: EngineName | Engine = "auto",
        tta: bool = False,
        threads: int | None = None,
    ) -> None:
        self.run = open_run(run)
        self.engine = open_engine(self.run, engine) if isinstance(engine, str) else engine
        # One thread, because `answers` has one per core already.
        self.answer: Callable[[np.ndarray], Answers] = partial(self.engine.answer, threads=1)
        if tta:
            self.answer = self._with_views(mirrors(self.run))
        self.batch_size = batch_size
        self.threads = threads
        self.reading = Lock()

    def stream(self, images: ImageSource | Iterable[ImageSource], *, top: int = 3) -> Iterator[Prediction]:
        """Yield one prediction per image, as soon as its batch is done."""
        yield from self.answers(expand(as_iterable(images)), top)

    def answers(self, sources: Iterator[tuple[str, Source]], top: int) -> Iterator[Prediction]:
        """Yield one prediction per item of `sources`, which `expand` yields."""
        cores = self.threads or os.cpu_count() or 1
        with ThreadPoolExecutor(cores) as workers:
            working: deque[tuple[list[tuple[str, Source]], Future[tuple[Answers, list[str | None]]]]] = deque()
            while batch := self._batch(sources):
                working.append((batch, workers.submit(self._work, batch)))
                if len(working) > cores:
                    yield from self._named(*working.popleft(), top)
            while working:
                yield from self._named(*working.popleft(), top)

    def _batch(self, sources: Iterator[tuple[str, Source]]) -> list[tuple[str, Source]]:
        """Return the next images: a batch, or fewer if they are large and in memory."""
        batch, held = [], 0
        for name, source in itertools.islice(sources, self.batch_size):
            batch.append((name, source))
            held += len(source) if isinstance(source, bytes) else 0
            if held > HELD // ((self.threads or os.cpu_count() or 1) + 1):
                break
        return batch

    def _with_views(self, flips: bool) -> Callable[[np.ndarray], Answers]:
        """Return a function that answers from several views; the distance is that of the unchanged image."""

        def answer(images: np.ndarray) -> Answers:
            probabilities, distances = apart(partial(self.engine.answer, threads=1))
            return Answers(with_views(probabilities, flips)(images), distances[0])

        return answer

    def _work(self, batch: Sequence[tuple[str, Source]]) -> tuple[Answers, list[str | None]]:
        """Return the answers of a batch, and for each image the reason why it could not be read, or None.

        One batch is decoded at a time, because small images hold the GIL. (Large images are decoded by one thread per
        core.) Meanwhile the network, which releases the GIL, runs on batches that are already decoded.
        """
        with self.reading:
            pixels, errors = self._read(batch)
        return self.answer(pixels), errors

    def _read(self, batch: Sequence[tuple[str, Source]]) -> tuple[np.ndarray, list[str | None]]:
        size = self.engine.size
        pixels = np.zeros((len(batch), size, size, 3), np.uint8)
        errors: list[str | None] = [None] * len(batch)

        def read(number: int) -> None:
            try:
                pixels[number] = decode.load(opened(batch[number][1]), size, self.engine.fit)
            except ImageError as error:
                errors[number] = str(error)

        waits = any(callable(source) for _, source in batch)
        for _ in each(read, len(batch), AT_ONCE if waits else self.threads):
            pass
        return pixels, errors

    def _named(
        self, batch: Sequence[tuple[str, Source]], work: Future[tuple[Answers, list[str | None]]], top: int
    ) -> Iterator[Prediction]:
        answers, errors = work.result()
        classes, fit = self.engine.classes, self.engine.fit
        close, unlike = doubts(answers, self.engine)
        best = np.argsort(-answers.probabilities, axis=1, kind="stable")[:, :top]
        for number, ((source, _), error) in enumerate(zip(batch, errors, strict=True)):
            if error:
                yield Prediction(source, (), error, fit=fit)
                continue
            named = tuple((classes[i], float(answers.probabilities[number, i])) for i in best[number].tolist())
            reason: Literal["close", "far"] | None = "far" if unlike[number] else "close" if close[number] else None
            distance = None if answers.distances is None else float(answers.distances[number])
            yield Prediction(source, named, None, reason, distance, fit)


def answered(
    engine: Engine, images: np.ndarray, index: np.ndarray, batch_size: int, show: Reporter | None = None
) -> Answers:
    """Return the answers for those of the images (all, H, W, 3) uint8 in `index`."""
    answer, distances = apart(engine.answer)
    scores = probabilities(answer, images, index, batch_size, show)
    known = [each for each in distances if each is not None]
    return Answers(scores, np.concatenate(known) if known else None)


def apart(answer: Callable[[np.ndarray], Answers]) -> tuple[Answer, list[np.ndarray | None]]:
    """Return a function that answers with probabilities alone, and the list to which it adds the distances."""
    distances: list[np.ndarray | None] = []

    def probabilities(images: np.ndarray) -> np.ndarray:
        found = answer(images)
        distances.append(found.distances)
        return found.probabilities

    return probabilities, distances


def probabilities(
    answer: Answer, images: np.ndarray, index: np.ndarray, batch_size: int, show: Reporter | None = None
) -> np.ndarray:
    """Return (len(index), classes) float32 probabilities of those of the images (all, H, W, 3) uint8 in `index`."""
    outputs = []
    for start in range(0, len(index), batch_size):
        chosen = index[start : start + batch_size]
        outputs.append(answer(images[chosen]))
        if show:
            show.work("evaluating", start + len(chosen), len(index))
    return np.concatenate(outputs)
