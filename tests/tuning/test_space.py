import pytest

import onsight
from onsight import TrainSpec
from onsight.core.errors import SpecError
from onsight.tuning.space import SEARCHABLE, at_the_edge, checked, default_space, distributions, read_space, values_of


def resolved(**fields):
    settings = {
        "learning_rate": 0.08, "augmentation": "flip_shift", "label_smoothing": 0.0, "optimizer": "muon",
        "weight_decay": 0.0,
    }  # fmt: skip
    return TrainSpec("toy", **(settings | fields))


def test_the_default_search_is_around_the_preset():
    space = default_space(resolved(), mirrors=True)
    rate = space["learning_rate"]
    assert rate["high"] / rate["low"] == pytest.approx(8, rel=0.1)
    assert rate["low"] < 0.08 < rate["high"]
    assert rate["log"]
    assert space["augmentation"]["choices"] == ["flip_shift", "flip", "flip_nudge", "flip_shift_cutout"]
    assert space["label_smoothing"]["low"] == 0
    assert "weight_decay" not in space  # muon sets the norm of kernels itself


def test_where_a_mirror_changes_the_label_no_choice_mirrors():
    space = default_space(resolved(augmentation="shift"), mirrors=False)
    assert space["augmentation"]["choices"] == ["shift", "none", "nudge", "shift_cutout"]


def test_the_weight_decay_is_searched_where_the_optimizer_has_one():
    space = default_space(resolved(optimizer="adamw", weight_decay=0.01), mirrors=True)
    assert (space["weight_decay"]["low"], space["weight_decay"]["high"]) == (0.001, 0.1)
    unset = default_space(resolved(optimizer="sgd"), mirrors=True)["weight_decay"]
    assert unset["low"] < 5e-4 < unset["high"]


def test_a_head_that_is_fitted_at_once_has_nothing_to_tune():
    with pytest.raises(SpecError, match="--epochs 10"):
        default_space(resolved(weights="imagenet", freeze="all"), mirrors=True)


def test_what_the_user_sets_is_not_searched():
    assert {*default_space(resolved(), True, fixed={"learning_rate", "epochs"})} == {"augmentation", "label_smoothing"}
    with pytest.raises(SpecError, match="nothing is left to search"):
        default_space(resolved(), True, fixed={"learning_rate", "augmentation", "label_smoothing"})


def test_words_and_dicts_say_the_same():
    words = read_space(["learning_rate=0.03..0.5", "batch-size=250,500", "optimizer=muon,sgd", "epochs=4..8"])
    assert words == read_space(
        {"learning_rate": (0.03, 0.5), "batch_size": [250, 500], "optimizer": ["muon", "sgd"], "epochs": (4, 8)}
    )
    assert words["learning_rate"] == {"low": 0.03, "high": 0.5, "log": True, "whole": False}
    assert words["batch_size"] == {"choices": [250, 500]}
    assert words["epochs"]["whole"]
    assert not read_space(["label_smoothing=0..0.2"])["label_smoothing"]["log"]


@pytest.mark.parametrize(
    ("word", "match"),
    [
        ("learning_rat=0.1..1", "Did you mean 'learning_rate'"),
        ("seed=1,2,3", "cannot be searched"),
        ("validation=0.1,0.2", "changes which images are judged"),
        ("learning_rate=0.5..0.03", "empty range"),
        ("learning_rate=0.1..0.1", "empty range"),
        ("learning_rate=0..1", "learning_rate=0 cannot be used"),
        ("label_smoothing=0..1.5", "label_smoothing=1.5 cannot be used"),
        ("batch_size=2.5,7", "batch_size=2.5 cannot be used"),
        ("optimizer=muon,lion", "optimizer=lion cannot be used"),
        ("model=cnn,resnt20", "Did you mean 'resnet20'"),
        ("optimizer=adam..sgd", "is not a number"),
        ("optimizer=sgd", "--optimizer sgd"),
        ("learning_rate=0.1..", "a value is missing"),
        ("learning_rate=nan..1", "learning_rate=nan cannot be used"),
        ("learning_rate", "Expected NAME="),
    ],
)
def test_a_search_that_cannot_be_is_refused(word, match):
    with pytest.raises(SpecError, match=match):
        read_space([word])


def test_a_setting_is_named_once():
    with pytest.raises(SpecError, match="twice"):
        read_space(["epochs=4..8", "epochs=1..2"])
    with pytest.raises(SpecError, match="names no setting"):
        read_space({})


def test_searchable_settings_exist_and_take_no_image_from_the_judges():
    assert {*SEARCHABLE} <= {*TrainSpec.model_fields}
    assert not {*SEARCHABLE} & {"data", "validation", "split_seed", "shots", "classes", "seed", "keep_list", "teacher"}
    assert checked("image_size", "48") == 48


def test_values_have_three_digits_and_adam_has_no_weight_decay():
    params = {"learning_rate": 0.123456, "weight_decay": 0.01, "optimizer": "adam"}
    assert values_of(params, "sgd") == {"learning_rate": 0.123, "optimizer": "adam"}
    assert values_of({"weight_decay": 0.01}, "muon_sgd") == {}
    assert values_of({"weight_decay": 0.01}, "adamw") == {"weight_decay": 0.01}


def test_a_value_at_the_end_of_its_range_is_told():
    space = read_space({"learning_rate": (0.01, 1.0), "label_smoothing": (0.0, 0.2)})
    assert at_the_edge({"learning_rate": 0.98, "label_smoothing": 0.0}, space) == ["learning_rate"]
    assert at_the_edge({"learning_rate": 0.3, "label_smoothing": 0.2}, space) == []


def test_optuna_takes_every_kind_of_setting():
    space = read_space({"learning_rate": (0.01, 1.0), "epochs": (4, 8), "optimizer": ["sgd", "adam"]})
    assert {name: type(each).__name__ for name, each in distributions(space).items()} == {
        "learning_rate": "FloatDistribution",
        "epochs": "IntDistribution",
        "optimizer": "CategoricalDistribution",
    }
    assert onsight.tune.__name__ == "tune"
