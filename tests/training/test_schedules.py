import pytest

from onsight.training.schedules import judge_epoch, new_judge, rate_factor


@pytest.mark.parametrize(
    ("schedule", "done", "factor"),
    [
        ("constant", 0.7, 1),
        ("cosine", 0, 0.04),
        ("cosine", 0.025, 0.5),
        ("cosine", 0.05, 1),
        ("cosine", 0.525, 0.5),
        ("cosine", 1, 0),
        ("linear", 0.25, 0.75),
        ("one_cycle", 0, 0.04),
        ("one_cycle", 0.1, 0.5),
        ("one_cycle", 0.2, 1),
        ("one_cycle", 0.6, 0.5),
        ("one_cycle", 1, 0),
        ("plateau", 0.5, 1),
    ],
)
def test_rate_factor(schedule, done, factor):
    assert rate_factor(schedule, done, new_judge()) == pytest.approx(factor)


def test_the_best_epoch_is_kept_and_a_stall_lowers_the_learning_rate():
    judge = new_judge()
    found = [judge_epoch(judge, epoch, loss, patience=4) for epoch, loss in enumerate([3, 2, 2.5, 2.2, 1.5, 1.6], 1)]
    assert found == [True, True, False, False, True, False]
    assert judge["best"] == 1.5
    assert judge["best_epoch"] == 5
    assert judge["waited"] == 1
    assert judge["factor"] == pytest.approx(0.1)  # after two epochs without an improvement
    assert rate_factor("plateau", 0.1, judge) == judge["factor"]


def test_without_early_stopping_a_plateau_is_five_epochs():
    judge = new_judge()
    factors = []
    for epoch in range(1, 8):
        judge_epoch(judge, epoch, 1.0, patience=0)
        factors.append(judge["factor"])
    assert factors == [1.0] * 5 + [pytest.approx(0.1)] * 2
