from types import SimpleNamespace

import pytest

from onsight.training.phases import Phase, phase_at, plan_phases


def spec(**fields):
    usual = {"epochs": 10, "head_epochs": 8, "learning_rate": 0.01, "weights": "imagenet", "freeze": 5}
    return SimpleNamespace(**{**usual, **fields})


@pytest.mark.parametrize("weights", ["none", None])
def test_training_from_scratch_is_one_phase_at_the_full_learning_rate(weights):
    assert plan_phases(spec(weights=weights, freeze=None)) == [Phase("all layers", 0, 10, 0.01)]


def test_the_head_is_trained_first_and_then_the_last_layers_too():
    head, fine = plan_phases(spec())
    assert (head.start, head.stop, head.learning_rate, head.head_only) == (0, 8, 0.01, True)
    assert (fine.start, fine.stop, fine.frozen, fine.head_only) == (8, 10, 5, False)
    assert fine.learning_rate == 0.01
    assert str(fine) == "the layers from number 5 on, with frozen batch norms, epochs 9 to 10, learning rate up to 0.01"
    assert all(phase_at([head, fine], epoch) is head for epoch in (0, 7))
    assert all(phase_at([head, fine], epoch) is fine for epoch in (8, 9, 10, 99))


def test_phases_with_all_or_no_layers_frozen_or_unusual_head_epochs():
    (head,) = plan_phases(spec(freeze="all"))
    assert (head.head_only, head.stop) == (True, 10)
    (whole,) = plan_phases(spec(freeze="none", head_epochs=0))
    assert (whole.head_only, whole.frozen, whole.learning_rate) == (False, 0, 0.01)
    (short,) = plan_phases(spec(head_epochs=12))  # resumed with fewer epochs than the head should have
    assert (short.head_only, short.stop) == (True, 10)
    (fine,) = plan_phases(spec(head_epochs=0))
    assert (fine.head_only, fine.frozen, fine.start) == (False, 5, 0)
