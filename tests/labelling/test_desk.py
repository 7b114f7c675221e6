"""Who is asked what: sessions, skips, undo, and the lines that are written."""

import pytest

from onsight.data.labels import NONE
from onsight.labelling.desk import LEASE, SESSIONS, UNDONE, Desk
from onsight.labelling.queue import Question
from onsight.serving.refusals import Refused


class World:
    """Four questions about five images; the second image is a copy of the first."""

    def __init__(self, answered=()):
        self.rows, self.time = [], 0.0
        questions = [Question((0, 1), "suspect", ()), *(Question((n,), "unsure", ()) for n in (2, 3, 4))]
        self.desk = Desk(
            questions, [f"{n}.jpg" for n in range(5)], ["cat", "dog", "", "", ""], answered, ["cat", "dog"],
            self.rows.extend, lambda: self.time,
        )  # fmt: skip

    def lines(self):
        return [(row.path, row.label, row.previous, row.who) for row in self.rows]


@pytest.fixture
def world():
    return World()


def test_an_answer_counts_for_all_copies(world):
    assert world.desk.next("a") == 0
    world.desk.label("a", 0, "Ann", "dog")
    assert world.lines() == [("0.jpg", "dog", "cat", "Ann"), ("1.jpg", "dog", "dog", "Ann")]
    assert world.rows[0].when.endswith("+00:00")
    assert (world.desk.next("a"), world.desk.given) == (1, 1)


def test_two_people_are_not_asked_the_same(world):
    assert [world.desk.next(name) for name in ("a", "b", "a", "b")] == [0, 1, 0, 1]
    world.time = LEASE + 1  # both have gone
    assert world.desk.next("c") == 0


def test_a_late_answer_to_an_answered_question_is_refused_and_changes_nothing(world):
    world.desk.next("a")
    world.time = LEASE + 1
    world.desk.next("b")
    world.desk.label("b", 0, "Bob", "cat")
    before = world.lines()
    with pytest.raises(Refused, match="Somebody else has answered"):
        world.desk.label("a", 0, "Ann", "dog")
    assert world.lines() == before


def test_a_skipped_question_goes_to_others_only(world):
    world.desk.skip("a", world.desk.next("a"))
    assert world.desk.next("a") == 1
    assert world.desk.next("b") == 0


def test_undo_takes_back_line_by_line_and_asks_again(world):
    world.desk.label("a", world.desk.next("a"), "Ann", "dog")
    world.desk.skip("a", world.desk.next("a"))
    world.desk.label("a", world.desk.next("a"), "Ann", NONE)
    assert world.desk.undo("a", "Ann")
    assert world.lines()[-1] == ("3.jpg", "", NONE, "Ann")
    assert world.desk.next("a") == 2
    assert world.desk.undo("a", "Ann")  # the skip
    assert world.desk.next("a") == 1
    assert world.desk.undo("a", "Ann")
    assert world.lines()[-2:] == [("0.jpg", "", "dog", "Ann"), ("1.jpg", "", "dog", "Ann")]
    assert world.desk.next("a") == 0
    assert world.desk.labels[:2] == ["cat", "dog"]
    assert not world.desk.undo("a", "Ann")
    assert world.desk.given == 0


def test_images_with_answers_are_not_asked_about_again():
    world = World(answered={"1.jpg", "3.jpg"})
    assert world.desk.given == 2
    assert world.desk.next("a") == 1
    world.desk.label("a", 1, "Ann", "cat")
    assert world.desk.next("a") == 3
    world.desk.label("a", 3, "Ann", "cat")
    assert world.desk.next("a") is None


@pytest.mark.parametrize(("number", "label"), [(4, "cat"), (-1, "cat"), (0, "cow"), (0, "")])
def test_what_was_not_asked_is_refused(world, number, label):
    with pytest.raises(Refused):
        world.desk.label("a", number, "Ann", label)
    with pytest.raises(Refused):
        world.desk.skip("a", 4)
    assert world.rows == []


def test_memory_is_bounded(world):
    for number in range(SESSIONS + 5):
        world.desk.next(f"s{number}")
    for _ in range(UNDONE + 5):
        world.desk.skip("a", 0)
    assert len(world.desk.sessions) == SESSIONS
    assert len(world.desk.session("a").steps) == UNDONE
