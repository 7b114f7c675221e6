import pytest

from onsight.tuning.halving import Step, Training, next_step, promotable, rung_divisors, rung_epochs

FITS = [True, True, True]


def trainings(*results):
    """Trainings from (trial, rung, accuracy); an accuracy of None is still running, of -1 has failed."""
    states = {None: "running", -1: "failed"}
    return [
        Training(number, trial, rung, states.get(accuracy, "done"), None if accuracy in states else accuracy)
        for number, (trial, rung, accuracy) in enumerate(results)
    ]


@pytest.mark.parametrize(
    ("epochs", "head", "expected"),
    [
        (12, 0, [1, 4, 12]),
        (8, 0, [1, 3, 8]),
        (2, 0, [1, 2]),
        (1, 0, [1]),
        (100, 0, [11, 33, 100]),
        (41, 1, [5, 14, 41]),
    ],
)
def test_the_rungs_are_a_ninth_a_third_and_all_epochs(epochs, head, expected):
    divisors = rung_divisors(epochs, head)
    assert [rung_epochs(epochs, divisor, head) for divisor in divisors] == expected


def test_the_preset_comes_first_and_is_trained_to_the_end_at_once():
    assert next_step([], 3, True, FITS) == Step(0, 2)
    assert next_step(trainings((0, 2, None)), 3, True, FITS) == Step(None, 0)


def test_the_best_third_moves_up_best_first_and_once():
    found = trainings((0, 2, 0.9), (1, 0, 0.5), (2, 0, 0.7), (3, 0, 0.6))
    assert next_step(found, 3, True, FITS) == Step(2, 1)
    found += trainings((2, 1, None))
    assert next_step(found, 3, True, FITS) == Step(None, 0)  # one of three has moved
    assert promotable(found, 0, closing=False) == []


def test_a_trial_that_becomes_one_of_the_best_third_later_moves_up_later():
    found = trainings((1, 0, 0.7), (2, 0, 0.6), (3, 0, 0.5), (1, 1, 0.8), (4, 0, 0.4), (5, 0, 0.3))
    assert promotable(found, 0, closing=False) == []
    assert promotable([*found, *trainings((6, 0, 0.2))], 0, closing=False) == [2]


def test_at_the_end_at_least_one_trial_is_trained_to_the_end():
    found = trainings((0, 2, 0.9), (1, 0, 0.5), (2, 0, 0.7))
    assert next_step(found, 3, False, FITS) == Step(2, 1)
    found += trainings((2, 1, 0.8))
    assert next_step(found, 3, False, FITS) == Step(2, 2)
    found += trainings((2, 2, 0.85))
    assert next_step(found, 3, False, FITS) is None


def test_a_rung_does_not_close_while_another_process_trains_below_it():
    found = trainings((0, 2, 0.9), (1, 0, 0.5), (2, 0, None))
    assert next_step(found, 3, False, FITS) is None
    found = trainings((0, 2, 0.9), (1, 0, 0.5), (2, 0, 0.6), (3, 0, 0.7), (4, 0, 0.4), (1, 1, 0.6))
    assert next_step(found, 3, False, FITS) == Step(3, 1)  # trial 3 is still to come on rung 1


def test_where_the_best_failed_on_the_next_rung_the_next_best_moves_up():
    found = trainings((0, 2, 0.9), (1, 0, 0.5), (2, 0, 0.7), (2, 1, -1))
    assert next_step(found, 3, False, FITS) == Step(1, 1)


def test_nothing_begins_that_does_not_fit_into_the_time():
    found = trainings((0, 2, 0.9), (1, 0, 0.5), (2, 0, 0.7), (3, 0, 0.6))
    assert next_step(found, 3, True, [True, False, False]) == Step(None, 0)
    assert next_step(found, 3, False, [True, False, False]) is None


def test_with_a_single_rung_trials_are_trained_once():
    assert next_step([], 1, True, [True]) == Step(0, 0)
    assert next_step(trainings((0, 0, 0.9)), 1, True, [True]) == Step(None, 0)
    assert next_step(trainings((0, 0, 0.9), (1, 0, 0.8)), 1, False, [True]) is None
