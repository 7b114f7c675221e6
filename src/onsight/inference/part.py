"""One part of the answers for millions of images: what it answers for, how, and its content."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from onsight.core.errors import DataError
from onsight.inference.engines import EngineName
from onsight.inference.predict import Prediction, Predictor
from onsight.inference.sources import Source
from onsight.inference.writers import WRITERS


class Work(NamedTuple):
    """What one part answers for."""

    mark: str  # changes when the images change
    shard: str = ""  # the path or address of a shard
    sources: tuple[tuple[str, Source], ...] = ()  # or images that are files of their own


class Settings(NamedTuple):
    """How the parts are made: they say so in plan.json, and all have the same."""

    format: str = "csv"
    top: int = 3
    batch_size: int = 256
    engine: EngineName = "auto"
    tta: bool = False


class Part(NamedTuple):
    """The content of a part file, or why it cannot be made."""

    content: bytes
    answered: int = 0
    unreadable: int = 0
    error: str = ""


def answer(predictor: Predictor, work: Work, settings: Settings) -> Part:
    """Return a part."""
    from onsight.data.shards import images_of

    content, counts = io.BytesIO(), Counter[bool]()

    def counted(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        for prediction in predictions:
            counts[prediction.error is None] += 1
            yield prediction

    sources = images_of(work.shard) if work.shard else iter(work.sources)
    try:
        WRITERS[settings.format](counted(predictor.answers(sources, settings.top)), settings.top, content)
    except DataError as error:
        return Part(b"", error=str(error))
    return Part(content.getvalue(), counts[True], counts[False])
