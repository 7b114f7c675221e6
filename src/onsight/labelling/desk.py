"""Who is asked what: several people at once, each by a session. Every answer is a line of labels.csv at once.

A question that a session has got is not given to another one for some minutes, so that two people are not asked the
same. Everything here runs in one thread.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from onsight.core.files import now
from onsight.data.labels import NONE, Row
from onsight.labelling.queue import Question
from onsight.serving.refusals import Refused, bad, unknown

LEASE = 600.0  # seconds for which a question belongs to a session
SESSIONS = 1000  # the sessions that are remembered; the oldest are forgotten
UNDONE = 200  # steps that a session can undo


@dataclass
class Session:
    """What a session has done. `steps` are questions, each with the people's labels before, or None if skipped."""

    steps: list[tuple[int, list[str] | None]] = field(default_factory=list)
    skipped: set[int] = field(default_factory=set)


class Desk:
    """Gives out the questions and takes the answers.

    Attributes:
        given: how many questions have an answer.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        paths: Sequence[str],
        labels: Sequence[str],
        answered: Collection[str],
        classes: Collection[str],
        write: Callable[[list[Row]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            questions: in the order of asking.
            paths: of the images, as labels.csv names them.
            labels: of the images; empty for none.
            answered: the paths that have an answer already.
            classes: the names that a label may be, besides `NONE`.
            write: adds lines to labels.csv.
            clock: seconds.
        """
        self.questions, self.paths, self.classes, self.write, self.clock = questions, paths, {*classes}, write, clock
        self.labels = [*labels]
        self.open = [not any(paths[image] in answered for image in each.images) for each in questions]
        self.leases: dict[int, tuple[str, float]] = {}
        self.sessions: dict[str, Session] = {}
        self.first = 0  # all questions before it have an answer

    @property
    def given(self) -> int:
        """How many questions have an answer."""
        return len(self.questions) - sum(self.open)

    def session(self, name: str) -> Session:
        """Return the session of this name."""
        found = self.sessions.pop(name, None) or Session()
        self.sessions[name] = found  # the last one that did something comes last
        while len(self.sessions) > SESSIONS:
            del self.sessions[next(iter(self.sessions))]
        return found

    def next(self, name: str) -> int | None:
        """Return the question for a session: the one that it has, or the first that nobody else has."""
        mine = self.session(name)
        now_ = self.clock()
        self.leases = {number: lease for number, lease in self.leases.items() if lease[1] > now_ and self.open[number]}
        held = [number for number, (who, _) in self.leases.items() if who == name and number not in mine.skipped]
        while self.first < len(self.open) and not self.open[self.first]:
            self.first += 1
        for number in itertools.chain(held, range(self.first, len(self.questions))):
            if not self.open[number] or number in mine.skipped or self.leases.get(number, (name, 0.0))[0] != name:
                continue
            self.leases[number] = (name, now_ + LEASE)
            return number
        return None

    def label(self, name: str, number: int, who: str, label: str) -> None:
        """Write the answer to a question.

        Raises:
            Refused: there is no such question or label, or the question has an answer.
        """
        self.check(number)
        if label != NONE and label not in self.classes:
            raise bad("The label is none of the classes.")
        if not self.open[number]:
            raise Refused(409, "answered", "Somebody else has answered this question meanwhile.")
        before = [self.labels[image] for image in self.questions[number].images]
        self._say(number, who, [label] * len(before))
        self.open[number] = False
        self._done(name, number, before)

    def skip(self, name: str, number: int) -> None:
        """Ask a session something else; others may be asked this.

        Raises:
            Refused: there is no such question.
        """
        self.check(number)
        self.session(name).skipped.add(number)
        self.leases.pop(number, None)
        self._done(name, number, None)

    def undo(self, name: str, who: str) -> bool:
        """Take the last step of a session back, so that its question is asked again; return whether there was one."""
        mine = self.session(name)
        if not mine.steps:
            return False
        number, before = mine.steps.pop()
        if before is not None:
            self._say(number, who, [""] * len(before))
            for image, label in zip(self.questions[number].images, before, strict=True):
                self.labels[image] = label
            self.open[number] = True
            self.first = min(self.first, number)
        mine.skipped.discard(number)
        # It comes before any other question that the session has.
        self.leases = {number: (name, self.clock() + LEASE)} | {
            each: lease for each, lease in self.leases.items() if each != number and lease[0] != name
        }
        return True

    def check(self, number: int) -> None:
        """Raise Refused unless there is a question of this number."""
        if not 0 <= number < len(self.questions):
            raise unknown("There is no such question.")

    def _say(self, number: int, who: str, labels: Sequence[str]) -> None:
        images, when = self.questions[number].images, now()
        self.write(
            [
                Row(self.paths[image], label, self.labels[image], who, when)
                for image, label in zip(images, labels, strict=True)
            ]
        )
        for image, label in zip(images, labels, strict=True):
            self.labels[image] = label

    def _done(self, name: str, number: int, before: list[str] | None) -> None:
        mine = self.session(name)
        mine.steps.append((number, before))
        del mine.steps[:-UNDONE]
