from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import onsight
from onsight import Reporter, TrainSpec
from onsight.core.errors import SpecError, TrainingError
from onsight.training import find_learning_rate as module
from onsight.training.find_learning_rate import HIGHEST, LOWEST, find_learning_rate, lines, suggest
from onsight.training.train import train

TOY = TrainSpec("toy", model="mlp", batch_size=16, optimizer="adam", seed=1)


@pytest.mark.parametrize(("optimizer", "expected"), [("adam", 0.03), ("muon", 0.15), ("muon_sgd", 0.15)])
def test_the_suggestion_lies_below_the_rate_with_the_lowest_loss(optimizer, expected):
    rates = np.geomspace(1e-5, 10, 61)
    losses = [2.0 + abs(np.log10(rate / 0.3)) for rate in rates]
    assert suggest(rates.tolist(), losses, optimizer) == pytest.approx(expected, rel=0.15)


def test_where_the_loss_stays_low_the_first_low_rate_counts():
    rates = np.geomspace(1e-5, 10, 61)
    losses = [max(0.0, -np.log10(rate / 0.1)) - 1e-6 * i for i, rate in enumerate(rates)]
    assert suggest(rates.tolist(), losses, "sgd") == pytest.approx(0.05, rel=0.2)


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, 1.1, 1.5]])
def test_a_loss_that_never_falls_suggests_nothing(losses):
    with pytest.raises(TrainingError, match="falls at no learning rate"):
        suggest([0.001 * (i + 1) for i in range(len(losses))], losses, "adam")


@pytest.mark.backend
def test_the_test_makes_no_run_and_its_suggestion_trains():
    found = find_learning_rate(TOY, reporter=Reporter())
    assert onsight.list_runs() == []
    assert found.plot == Path("rates/toy-0001/rates.png")
    assert found.plot.stat().st_size > 1000
    assert LOWEST < found.rate < HIGHEST / 10
    assert min(found.losses) < found.losses[0]
    assert (
        found.command
        == f"onsight train toy --model mlp --batch-size 16 --optimizer adam --seed 1 --learning-rate {found.rate:g}"
    )
    assert found.command in found._repr_html_()
    assert lines(found)[0] == f"Suggested learning rate: {found.rate:g}"
    spec = TOY.model_copy(update={"learning_rate": found.rate, "epochs": 3})
    assert train(spec, reporter=Reporter()).model_epoch()["val_accuracy"] > 0.6  # a third is chance


def test_the_same_test_finds_the_same_rate():
    assert find_learning_rate(TOY, reporter=Reporter()).losses == find_learning_rate(TOY, reporter=Reporter()).losses


def test_a_head_that_is_fitted_at_once_has_no_rate(monkeypatch, toy_run):
    spec = TrainSpec("toy", weights=str(toy_run.folder), freeze="all")
    with pytest.raises(SpecError, match="without a learning rate"):
        find_learning_rate(spec, reporter=Reporter())
    assert not Path("rates").exists()


def test_the_test_ends_where_the_loss_diverges(monkeypatch):
    monkeypatch.setattr(
        module, "measure", lambda prepared: iter([(0.1, 2.0), (0.2, 1.0), (0.4, 0.9), (0.8, 99.0), (1.6, 1.0)])
    )
    assert module.find_rate(SimpleNamespace(spec=TOY), Reporter()).rates == [0.1, 0.2, 0.4]


def test_the_command_suggests_a_rate(onsight):
    code, out, _ = onsight("train", "toy", "--model", "mlp", "--optimizer", "adam", "--find-learning-rate")
    assert code == 0
    assert "Suggested learning rate: " in out
    assert "Train with it: onsight train toy --model mlp" in out
    code, _, err = onsight("train", "toy", "--find-learning-rate", "--seeds", "3")
    assert code == 2
    assert "does not train" in err
