"""The models that a server answers with: their workers, what they were asked, and how one replaces another."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onsight.core.errors import OnsightError, SpecError
from onsight.core.threads import cores
from onsight.runs.run import open_run
from onsight.serving.drift import Watch, read_reference
from onsight.serving.pool import Item, Pool, cancelled
from onsight.serving.refusals import Refused, unknown

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # of a model, as it occurs in addresses
EXPLAINING = 4  # heat maps that may wait: each takes 65 answers
EXPLAINING_LIMIT = 9.0  # seconds for a heat map
SHADOWED = 32  # images that may be on their way to a shadow


class Served:
    """One model.

    Attributes:
        name: its name in addresses.
        asked: the run as the command line names it; `latest` may mean another run after a reload.
        pool: its worker.
        explaining: the worker for heat maps, which starts when it is first asked.
        watch: what it has answered.
    """

    def __init__(self, name: str, asked: str, threads: int, noted: Callable[[int], None]) -> None:
        self.name = name
        self.asked = asked
        self.threads = threads
        self.noted = noted
        self.watch = Watch(())
        self._use(self._new_pool())

    def _new_pool(self) -> Pool:
        run = open_run(self.asked)
        run.require_model()
        return Pool(str(run.folder.resolve()), self.threads, noted=self.noted)

    def _use(self, pool: Pool) -> None:
        self.pool = pool
        self.explaining = Pool(pool.run, 1, EXPLAINING, limit=EXPLAINING_LIMIT)
        self.explainer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the workers, and watch from now on."""
        await self.pool.start()
        self.start_watching()

    async def swap(self) -> None:
        """Answer with the run that `asked` names now. Requests that have begun are answered by the old one.

        Raises:
            OnsightError: the new run cannot be opened; the old one goes on.
        """
        new = self._new_pool()
        await new.start()
        old, explaining = self.pool, self.explaining
        self._use(new)
        self.start_watching()
        await asyncio.gather(old.drain(), explaining.drain())

    def start_watching(self) -> None:
        """Begin to count anew, for the model that answers now."""
        reference = read_reference(Path(self.pool.run), self.facts["weights_sha256"])
        self.watch = Watch(self.facts["classes"], reference)

    @property
    def facts(self) -> dict[str, Any]:
        """What a worker has said about the model; empty while it is being loaded."""
        return self.pool.facts

    @property
    def ready(self) -> bool:
        """Whether its workers are warm."""
        return bool(self.pool.tasks)

    async def explain(self, item: Item) -> tuple[dict[str, Any], bytes]:
        """Return the answer for an image, and its heat map as a PNG file."""
        lane = self.explaining
        self.explainer = self.explainer or asyncio.create_task(lane.start())
        try:
            await asyncio.shield(self.explainer)
        except OnsightError:
            self.explainer = None  # the next request tries again
            raise Refused(503, "not_ready", "The worker for heat maps cannot be started.") from None
        return (await lane.ask([item]))[0]

    async def close(self) -> None:
        """End the workers, and return when they have ended."""
        if self.explainer is not None:
            await cancelled([self.explainer])
        await asyncio.gather(self.pool.close(), self.explaining.close())


class Shadow:
    """Asks further models what the first one was asked, and counts how their answers differ.

    Nobody waits for a shadow. If it is too slow, images are left out and counted as such.
    """

    def __init__(self, model: Served) -> None:
        self.model = model
        self.tasks: set[asyncio.Task[None]] = set()
        self.on_way = 0
        self.left_out = 0
        self.compared = 0
        self.differ = 0
        self.shift = 0.0  # sum of the differences of the probability of the first model's class
        self.pairs: Counter[tuple[str, str]] = Counter()  # (class of the first model, of this one) -> images

    def ask(self, items: Sequence[Item], answers: Sequence[dict[str, Any]], first: dict[str, Any]) -> None:
        """Ask about images that the first model has answered. `first` are its facts: arrays have its size."""
        pairs = [(item, answer) for item, answer in zip(items, answers, strict=True) if "error" not in answer]
        if self.on_way + len(pairs) > SHADOWED or not self.model.ready:
            self.left_out += len(pairs)
            return
        if first["size"] != self.model.facts["size"] and any(item.kind != "file" for item, _ in pairs):
            self.left_out += len(pairs)
            return
        self.on_way += len(pairs)
        every = len(self.model.facts["classes"])
        copies = [Item(item.data, item.kind, top=every) for item, _ in pairs]
        task = asyncio.create_task(self._compare(copies, pairs, first["classes"]))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _compare(
        self, items: list[Item], pairs: list[tuple[Item, dict[str, Any]]], classes: Sequence[str]
    ) -> None:
        try:
            found = await self.model.pool.ask(items)
        except Refused:
            self.left_out += len(items)
            return
        finally:
            self.on_way -= len(items)
        names = self.model.facts["classes"]
        for (_, first), (answer, _) in zip(pairs, found, strict=True):
            if "error" in answer:
                continue
            self.model.watch.record(answer)
            index, share = first["top"][0]
            mine = {names[at]: each for at, each in answer["top"]}
            own = names[answer["top"][0][0]]
            self.compared += 1
            self.shift += abs(mine.get(classes[index], 0.0) - share)
            if own != classes[index]:
                self.differ += 1
                self.pairs[classes[index], own] += 1

    def summary(self) -> dict[str, Any]:
        """Return what was counted."""
        return {
            "model": self.model.name,
            "compared": self.compared,
            "differ": self.differ,
            "mean_difference": round(self.shift / self.compared, 6) if self.compared else None,
            "left_out": self.left_out,
            "pairs": [{"first": a, "shadow": b, "images": n} for (a, b), n in self.pairs.most_common(10)],
        }


class Models:
    """All models of a server. The first one answers where no name is given."""

    def __init__(self, runs: Sequence[str], shadow: bool, noted: Callable[[int], None]) -> None:
        """Open the runs.

        Args:
            runs: each a run, or NAME=RUN.
            shadow: whether the first model's images go to the others, too.
            noted: receives the size of each batch.

        Raises:
            OnsightError: a run does not exist, or two have one name.
        """
        self.all: dict[str, Served] = {}
        for number, text in enumerate(runs):
            name, asked = named(text)
            if name in self.all:
                raise SpecError(f"Two runs are called '{name}'. Give them names: onsight serve a=RUN b=RUN")
            self.all[name] = Served(name, asked, 1 if shadow and number else cores(), noted)
        self.first = next(iter(self.all.values()))
        self.shadows = [Shadow(model) for model in list(self.all.values())[1:]] if shadow else []
        if shadow and not self.shadows:
            raise SpecError("--shadow needs a second run: onsight serve champion=RUN challenger=RUN --shadow")
        self.draining = False

    def find(self, name: str | None, version: str = "1") -> Served:
        """Return a model by name, None for the first. Each has one version, 1.

        Raises:
            Refused: there is no such model, or it cannot answer now.
        """
        model = self.first if name is None else self.all.get(name)
        if model is None:
            raise unknown(f"There is no such model. Known: {', '.join(self.all)}.")
        if version != "1":
            raise unknown("Each model has one version, 1.")
        if self.draining or not model.ready:
            what = "is stopping" if self.draining else "is loading its model"
            raise Refused(503, "not_ready", f"The server {what}. Try again in a second.", {"Retry-After": "1"})
        return model

    @property
    def ready(self) -> bool:
        """Whether every model can answer."""
        return not self.draining and all(model.ready for model in self.all.values())

    async def ask(self, model: Served, items: Sequence[Item]) -> list[tuple[dict[str, Any], bytes]]:
        """Return the answers of a model, counted; if it is the first, its shadows are asked, too."""
        answers = await model.pool.ask(items)
        for answer, _ in answers:
            model.watch.record(answer)
        if model is self.first:
            for shadow in self.shadows:
                shadow.ask(items, [answer for answer, _ in answers], model.facts)
        return answers


def named(text: str) -> tuple[str, str]:
    """Return the name and the run of an argument, RUN or NAME=RUN.

    >>> named("champion=runs/a")
    ('champion', 'runs/a')
    """
    found = re.fullmatch(f"({NAME})=(.+)", text)
    if found:
        return found[1], found[2]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", open_run(text).name).strip("-.")[:64] or "model"
    return name, text
