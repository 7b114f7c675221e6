import numpy as np
import pytest

import onsight
from onsight.core.backend import use_backend
from onsight.core.errors import SpecError, TrainingError
from onsight.core.progress import Reporter
from onsight.core.text import seconds_of
from onsight.data.batches import Examples
from onsight.runs.run import open_run
from onsight.training import loop as loop_module
from onsight.training import time_budget
from onsight.training.checkpoints import load_checkpoint
from onsight.training.time_budget import steps_in

pytestmark = pytest.mark.usefixtures("only_training")


@pytest.fixture
def loop(toy_run):
    """Return a training with the spec of the toy run, before its first step."""
    use_backend()
    toy = onsight.load_dataset("toy")
    examples = Examples(toy.images, np.arange(64), toy.labels[:64])
    run = onsight.Run.create("toy-cnn", toy_run.record, toy_run.dataset)
    spec = onsight.TrainSpec(**toy_run.spec | {"image_size": 24})
    return loop_module.Loop(run, spec, examples, examples, Reporter(), [], (), None)


def test_timing_the_steps_changes_no_weight(loop):
    before = loop.step.arrays()
    assert steps_in(loop, 10_000) > 100
    after = loop.step.arrays()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_compiling_is_not_timed_even_if_an_epoch_is_one_step(loop):
    many = steps_in(loop, 1_000)
    loop.batch_size, loop.steps = len(loop.training.labels), 1
    assert steps_in(loop, 1_000) > many / 40  # compiling takes a thousand times as long as a step


def test_a_budget_that_is_too_short_is_an_error(loop):
    with pytest.raises(TrainingError, match="room for 0 steps"):
        steps_in(loop, 1)


def test_the_schedule_ends_when_the_budget_ends(toy_spec, monkeypatch):
    """Train three epochs and two steps, while the learning rate falls towards zero."""
    monkeypatch.setattr(loop_module, "steps_in", lambda loop, seconds: 3 * loop.steps + 2)
    spec = toy_spec.model_copy(update={"epochs": None, "time_budget": "10m", "schedule": "linear"})
    run = onsight.train(spec, reporter=Reporter())
    history = run.history()
    assert len(history) == run.spec["epochs"] == 4
    record = open_run(run.folder).record
    assert record["phases"] == [f"all layers, epochs 1 to 4, learning rate up to {spec.learning_rate:g}"]
    rates = [row["learning_rate"] for row in history]
    assert rates == sorted(rates, reverse=True)
    steps = (load_checkpoint(run.checkpoints).state["total"] - 2) // 3
    assert record["reasons"]["epochs"] == f"{3 + 2 / steps:.2f} fit into 10m"
    assert rates[2] == pytest.approx(spec.learning_rate * 3 / (3 * steps + 2))  # the last step of the third epoch
    assert rates[3] == pytest.approx(spec.learning_rate / (3 * steps + 2))  # the last step of all


def test_a_training_ends_in_time_even_if_the_machine_slows_down(toy_spec, monkeypatch):
    monkeypatch.setattr(loop_module, "steps_in", lambda loop, seconds: 1_000_000)
    monkeypatch.setattr(time_budget, "FINISH", 0)
    spec = toy_spec.model_copy(update={"epochs": None, "time_budget": "1s"})
    run = onsight.train(spec, reporter=Reporter())
    assert run.is_trained
    assert len(run.history()) < run.spec["epochs"]


@pytest.mark.parametrize("text", ["", "5", "0s", "m5", "5 days", "-3m"])
def test_text_that_is_not_a_duration_is_refused(text):
    with pytest.raises(SpecError, match=r"90s, 5m or 1\.5h"):
        onsight.TrainSpec(time_budget=text)
    with pytest.raises(ValueError, match="not a duration"):
        seconds_of(text)


def test_epochs_and_a_budget_exclude_each_other():
    with pytest.raises(SpecError, match="Leave one out"):
        onsight.train(onsight.TrainSpec(data="toy", epochs=3, time_budget="5m"), reporter=Reporter())
