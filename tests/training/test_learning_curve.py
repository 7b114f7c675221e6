import json
from types import SimpleNamespace

import numpy as np
import pytest

from onsight import TrainSpec
from onsight.core.errors import SpecError
from onsight.core.progress import Reporter
from onsight.training import learning_curve as learning_curve_module
from onsight.training import train as train_module
from onsight.training.learning_curve import fit_power, interval, learning_curve, lines, verdict


def points(errors, n=1000, seeds=3, spread=0.0):
    shots = [5 * 2**i for i in range(len(errors))]
    found = []
    for size, error in zip(shots, errors, strict=True):
        accuracies = [1 - error + spread * (each - 1) for each in range(seeds)]
        low, high = interval(accuracies, n)
        found.append({"shots": size, "accuracies": accuracies, "accuracy": 1 - error, "low": low, "high": high, "n": n})
    return found


def test_the_parameters_of_a_power_law_are_recovered():
    fit = fit_power(points([0.6 * (5 * 2**i) ** -0.4 for i in range(6)], n=100_000))
    assert fit["a"] == pytest.approx(0.6, rel=1e-3)
    assert fit["b"] == pytest.approx(0.4, rel=1e-3)
    assert fit["gain"] == pytest.approx(0.6 * 160**-0.4 * (1 - 2**-0.4), rel=1e-3)
    low, high = fit["gain_interval"]
    assert low < fit["gain"] < high
    assert high - low < 0.01


@pytest.mark.parametrize(("floor", "b"), [(0.0, 0.3), (0.05, 0.4), (0.1, 0.4), (0.1, 0.7), (0.2, 0.5)])
@pytest.mark.parametrize(("n", "seeds"), [(1000, 1), (1000, 3), (5000, 3)])
def test_the_interval_covers_the_gain_where_the_errors_end_at_a_floor(monkeypatch, floor, b, n, seeds):
    """A power law through all sizes promised 2.6 points for 1.1 with a floor of 10 %; it covered in 0 of 120 trials."""
    monkeypatch.setattr(learning_curve_module, "DRAWS", 400)
    rng = np.random.default_rng(0)
    sizes = np.array([5, 10, 20, 50, 100, 200, 500])
    scale = (0.6 - floor) * 5**b  # 60 % are wrong with 5 images per class
    true = scale * 500**-b * (1 - 2**-b)
    covered = at_most = 0
    for _ in range(40):
        found = []
        for size in sizes:
            errors = np.clip(floor + scale * size**-b + rng.normal(0, 0.005, seeds), 0, 1)
            shares = (1 - rng.binomial(n, errors) / n).tolist()
            found.append({"shots": int(size), "accuracies": shares, "accuracy": np.mean(shares), "n": n})
        low, high = fit_power(found)["gain_interval"]
        covered += low <= true <= high
        at_most += true <= high
    assert covered >= 35
    assert at_most >= 36


@pytest.mark.parametrize(
    ("errors", "n", "pays"),
    [
        ([0.5, 0.4, 0.32, 0.256], 1000, True),
        ([0.12, 0.119, 0.118, 0.118], 20_000, False),
        ([0.2, 0.19, 0.18, 0.17], 40, None),
        ([0.5, 0.3], 1000, None),
    ],
)
def test_the_verdict_is_yes_no_or_undecided(errors, n, pays):
    found = points(errors, n)
    said = verdict(found, fit_power(found))
    assert said["pays"] is pays
    assert said["headline"] in said["text"] or len(errors) < 3
    assert "at most" in said["text"] or len(errors) < 3 or n < 100


def test_few_validation_images_decide_nothing_even_if_all_are_right():
    found = points([0.05, 0.0, 0.0], n=20)
    said = verdict(found, fit_power(found))
    assert said["pays"] is None
    assert said["text"].startswith(
        "20 validation images are too few to say whether more images would help: one of them is 5.0"
    )
    low, high = fit_power(points([0.0, 0.0, 0.0], n=30))["gain_interval"]
    assert low < 0 < high


def test_no_errors_at_all_can_be_fitted():
    fit = fit_power(points([0.0, 0.0, 0.0], n=30))
    assert fit["gain"] == pytest.approx(0, abs=1e-6)


def test_the_interval_covers_the_differences_between_seeds():
    low, high = interval([0.8], 100)
    assert (low, high) == pytest.approx((0.711, 0.867), abs=0.001)
    wide = interval([0.7, 0.8, 0.9], 100)
    assert wide[0] < low
    assert wide[1] > high
    assert interval([1.0, 1.0], 10)[1] == 1.0


def test_a_learning_curve_of_the_toy_images(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_curve_module, "SIZES", (4, 12, 1000))
    spec = TrainSpec(
        data="toy", model="mlp", epochs=2, batch_size=8, optimizer="adam", learning_rate=1e-3, validation=0.4
    )
    curve = learning_curve(spec, seeds=1, reporter=Reporter())
    assert curve.folder.name == "toy-0001"
    record = json.loads((curve.folder / "curve.json").read_text())
    assert record == json.loads(json.dumps(curve.record))
    assert [point["shots"] for point in record["points"][:2]] == [4, 12]
    assert record["points"][0]["pictures"] == 12
    assert record["points"][2]["pictures"] > 90
    assert (curve.folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert len(lines(curve)) == 5
    from onsight import open_run

    few, more, all_ = ([open_run(name).dataset["split"] for name in point["runs"]] for point in record["points"])
    assert set(few[0]["train"]) < set(more[0]["train"]) < set(all_[0]["train"])
    assert few[0]["validation"] == all_[0]["validation"]
    with pytest.raises(SpecError, match="two sizes or more, but --sizes has only 4"):
        learning_curve(spec, sizes=[4], seeds=1, reporter=Reporter())
    with pytest.raises(SpecError, match="leave --shots out"):
        learning_curve(spec.model_copy(update={"shots": 3}), reporter=Reporter())


def trainings(monkeypatch, counts, validation=100):
    """Replace `train` by a function that only records its spec; `counts` has the images of each class."""
    asked = []

    def train(spec, *, reporter):
        asked.append(spec)
        taken = {name: min(count, spec.shots or count) for name, count in counts.items()}
        return SimpleNamespace(
            name=f"run-{len(asked):04d}",
            spec={"weights": spec.weights or "none", "split_seed": 5},
            dataset={"name": "photos", "counts": {"train": taken, "validation": {"a": validation}}},
            model_epoch=lambda: {"val_accuracy": 0.8},
        )

    monkeypatch.setattr(learning_curve_module, "train", train)
    return asked


def test_sizes_are_limited_by_the_classes_and_larger_ones_are_left_out(tmp_path, monkeypatch):
    asked = trainings(monkeypatch, {"a": 20, "b": 60})
    curve = learning_curve(TrainSpec(data="photos/"), sizes=[10, 50, 60, 70, 1000], seeds=2, out=tmp_path / "curve")
    assert [point["shots"] for point in curve.record["points"]] == [10, 35, 40]
    assert [point["pictures"] for point in curve.record["points"]] == [20, 70, 80]
    assert [spec.shots for spec in asked] == [10, 10, 50, 50, 60, 60, 70, 70]


def test_all_trainings_of_a_curve_start_from_the_same_weights(tmp_path, monkeypatch):
    """After each training, `latest` names another run."""
    asked = trainings(monkeypatch, {"a": 60, "b": 60})
    found = iter(["runs/run-0000", "runs/run-0001"])
    monkeypatch.setattr(train_module, "find_start", lambda *_: SimpleNamespace(weights=next(found)))
    learning_curve(TrainSpec(data="photos/", weights="runs/latest"), sizes=[10, 50], seeds=2, out=tmp_path / "a")
    assert [spec.weights for spec in asked] == ["runs/run-0000"] * 4
    assert [spec.split_seed for spec in asked] == [None, 5, 5, 5]  # the first run knows the split of its weights
    del asked[:]
    learning_curve(TrainSpec(data="photos/"), sizes=[10, 50], seeds=2, out=tmp_path / "b")  # no weights were available
    assert [spec.weights for spec in asked] == [None, *["none"] * 3]
    del asked[:]
    learning_curve(TrainSpec(data="cifar10"), sizes=[10, 50], seeds=2, out=tmp_path / "c")
    assert [spec.weights for spec in asked] == [None] * 4


def test_a_curve_that_cannot_work_is_refused_before_training(tmp_path, monkeypatch):
    asked = trainings(monkeypatch, {"a": 60, "b": 60}, validation=0)
    with pytest.raises(SpecError, match="judged on validation images"):
        learning_curve(TrainSpec(data="toy", validation=0), sizes=[10, 50], seeds=3)
    assert not asked
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="file' cannot be created"):
        learning_curve(TrainSpec(data="photos/"), out=tmp_path / "file")
    assert not asked


def test_a_curve_is_drawn_without_a_fit():
    from onsight.reporting.plots import learning_curve as draw

    (legend,) = draw(points([0.5, 0.3]), None, "A heading").legends
    assert {text.get_text() for text in legend.texts} == {"mean, 95 % interval", "each seed"}  # no fit
