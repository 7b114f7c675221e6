import pytest

from onsight.core.errors import SpecError
from onsight.features.initial_weights import Start
from onsight.spec import PRESETS, Role, TrainSpec, fields_with
from onsight.training.resolve import resolve


def resolved(images=50_000, given=("train", "test"), side=32, flips=True, **fields):
    return resolve(TrainSpec(**fields), images=images, given=given, side=side, flips=flips)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resolves_to_a_complete_spec(preset):
    start = (
        Start("imagenet", "efficientnet_lite0", None, 96, "its weights", head_only=True)
        if preset == "transfer"
        else None
    )
    options = {"images": 50_000, "given": ("train", "test"), "side": 32, "flips": True, "start": start}
    spec, reasons = resolve(TrainSpec(preset=preset), **options)
    optional = {*fields_with(Role.OPTIONAL), "backend", "precision"}  # `prepare.settle` chooses the last two
    if start:
        optional -= {"freeze", "head_epochs"}
    for field, value in spec.model_dump(exclude=optional).items():
        assert value is not None, field
    kept = PRESETS[preset][1]
    if start:  # the features of all layers but the head are computed once, so images are not augmented
        assert (spec.freeze, spec.augmentation) == ("all", "none")
        kept = {field: value for field, value in kept.items() if field != "augmentation"}
    assert kept.items() <= spec.model_dump().items()
    assert set(PRESETS[preset][1]) <= set(reasons)


def test_the_users_choices_win():
    spec, reasons = resolved(preset="tutorial", epochs=7, learning_rate=0.5)
    assert (spec.epochs, spec.learning_rate, spec.optimizer) == (7, 0.5, "adam")
    assert "epochs" not in reasons


def test_small_sets_get_more_epochs():
    few, many = (resolved(images=n)[0].epochs for n in (2_000, 50_000))
    assert few == 5 * many
    assert "times as many" in resolved(images=2_000)[1]["epochs"]


def test_split_shares():
    assert resolved()[0].validation == 0.1
    spec, reasons = resolved(given=("",))
    assert spec.validation == 0.15
    assert "70/15/15" in reasons["validation"]


def test_the_data_sets_own_validation_images_are_not_split_off_again():
    given = ("train", "validation", "test")
    _, reasons = resolved(preset="quick", images=1_000, given=given, validation=0.2)
    assert "for 1,000 training images" in reasons["epochs"]
    _, reasons = resolved(preset="quick", images=1_000, given=("train", "validation"))
    assert "for 850 training images" in reasons["epochs"]


@pytest.mark.parametrize("preset", ["best", "fast"])
def test_a_presets_validation_share_applies_only_to_data_with_just_a_test_set(preset):
    assert resolved(preset=preset)[0].validation == PRESETS[preset][1]["validation"]
    assert resolved(preset=preset, given=("",))[0].validation == 0.15
    assert resolved(preset=preset, given=("train", "validation", "test"))[0].validation == 0


@pytest.mark.parametrize(("side", "size"), [(8, 32), (32, 32), (63, 32), (64, 64), (320, 64)])
def test_image_size(side, size):
    spec, reasons = resolved(model="cnn", side=side)
    assert spec.image_size == size
    assert reasons["image_size"]


def test_digits_are_not_mirrored():
    assert resolved(flips=False)[0].augmentation == "nudge"
    assert resolved(flips=False, preset="robust")[0].augmentation == "robust_shift"


def test_robust_is_the_default_with_another_augmentation_and_more_steps_of_full_size():
    default, robust = (dict(PRESETS[name][1]) for name in ("balanced", "robust"))
    assert default.pop("early_size") < 32
    assert robust.pop("epochs") > default.pop("epochs")
    smaller = {"batch_size": 128, "ghost_batch_size": 64, "learning_rate": 0.06}
    assert robust == default | {"augmentation": "robust", "label_smoothing": 0.0} | smaller


def test_a_minimum_precision_needs_validation_images():
    assert resolved(min_precision=0.9)[0].min_precision == 0.9
    assert resolved(validation=0, given=("train", "validation", "test"), min_precision=0.9)
    with pytest.raises(SpecError, match=r"min_precision=0.9 needs a threshold .* validation=0 leaves none"):
        resolved(validation=0, min_precision=0.9)


def test_without_validation_images_no_epoch_is_judged():
    spec, _ = resolved(preset="tutorial", validation=0)
    assert (spec.patience, spec.schedule) == (0, "cosine")
    spec, _ = resolved(preset="tutorial", given=("train", "validation", "test"))
    assert (spec.patience, spec.schedule) == (10, "plateau")  # the data set has its own validation images
    with pytest.raises(SpecError, match=r"validation=0 leaves no validation images.*schedule=plateau, patience=0"):
        resolved(validation=0, schedule="plateau")


def test_an_image_size_too_small_for_the_model_is_refused():
    with pytest.raises(SpecError, match="cnn takes images of 22 to 256 px, but image_size is 16"):
        resolved(model="cnn", image_size=16)


def test_another_optimizer_gets_its_usual_learning_rate():
    spec, reasons = resolved(optimizer="adam")
    assert (spec.learning_rate, spec.weight_decay) == (1e-3, 0)
    assert reasons["learning_rate"] == "usual for adam"
    assert resolved(optimizer="adam", learning_rate=0.5)[0].learning_rate == 0.5
    with pytest.raises(SpecError, match="adam takes no weight_decay"):
        resolved(optimizer="adam", weight_decay=0.1)
    with pytest.raises(SpecError, match="adam takes no weight_decay"):
        resolved(preset="tutorial", weight_decay=0.1)  # the optimizer of this preset is adam
    with pytest.raises(SpecError, match=r"muon_sgd takes no weight_decay.*Use --optimizer muon, "):
        resolved(preset="fast", weight_decay=0.1)


def test_muon_sgd_is_only_for_networks_that_its_rates_fit():
    assert resolved(preset="fast")[0].optimizer == "muon_sgd"
    spec, reasons = resolved(preset="fast", model="resnet20")
    assert (spec.optimizer, spec.learning_rate) == ("muon", 0.17)  # the rate is that of kernels, which stays
    assert reasons["optimizer"] == "muon_sgd has rates for biases and head that do not fit resnet20"
    spec, _ = resolved(preset="fast", model="cnn")
    assert (spec.optimizer, spec.learning_rate) == ("adamw", 1e-3)


def test_a_resolved_spec_survives_json():
    spec, _ = resolved(data_dir="/x")
    assert TrainSpec(**spec.model_dump(mode="json")) == spec


def test_a_presets_batch_size_is_reduced_if_an_epoch_would_have_few_steps():
    spec, reasons = resolved(preset="fast", images=6_000)
    assert spec.batch_size == 6_000 * 0.95 // 20
    assert reasons["batch_size"] == "about 20 steps per epoch with 5,700 training images"
    tiny = resolved(preset="quick", images=1).reasons["batch_size"]
    assert tiny == "about 1 step per epoch with 1 training image"
    assert resolved(preset="quick", images=1_000).spec.batch_size == 900 // 20
    assert resolved(preset="quick", images=200).spec.batch_size == 32
    assert resolved(preset="fast", batch_size=2000, images=6_000).spec.batch_size == 2000


START = Start("/runs/a", "cnn_compact", 48, 17, "cnn_compact as trained in a")


def resolved_from(start=START, images=200, **fields):
    options = {"images": images, "given": {"train", "test"}, "side": 200, "flips": True, "classes": 4}
    return resolve(TrainSpec(**fields), **options, start=start)


def test_initial_weights_decide_network_image_size_and_recipe():
    spec, reasons = resolved_from()
    assert (spec.preset, spec.weights, spec.model, spec.image_size) == ("transfer", "/runs/a", "cnn_compact", 48)
    assert (spec.freeze, spec.head_epochs, spec.epochs, spec.optimizer) == (17, 1, 9, "adamw")  # 40 steps, 5 per epoch
    assert reasons["head_epochs"] == "the head is fitted at once"
    assert reasons["epochs"] == "1 for the head, 8 for the layers below it"
    assert spec.augmentation == PRESETS["transfer"][1]["augmentation"]
    assert "cnn_compact as trained in a" in reasons["preset"]
    assert (spec.learning_rate, reasons["learning_rate"]) == (1e-3, "cnn_compact is a small network")
    large = Start("imagenet", "efficientnetv2_b0", None, 149, "its weights")
    assert resolved_from(large).spec.learning_rate == 3e-5
    assert resolved_from(large, preset="quick").spec.learning_rate == 3e-5
    assert resolved_from(large, optimizer="sgd").spec.learning_rate == 0.005


def test_of_imagenet_weights_only_the_head_is_trained_unless_the_user_asks_for_epochs():
    start = Start("imagenet", "efficientnet_lite0", None, 96, "its weights", head_only=True)
    spec, reasons = resolved_from(start)
    assert (spec.freeze, spec.epochs, spec.head_epochs, spec.augmentation) == ("all", 1, 1, "none")
    assert "--epochs N also trains the last stage" in reasons["freeze"]
    assert "features are computed once for each image" in reasons["augmentation"]
    spec, _ = resolved_from(start, epochs=6)
    assert (spec.freeze, spec.epochs, spec.head_epochs, spec.augmentation) == (96, 6, 1, "flip_nudge")
    spec, _ = resolved_from(start, freeze=50)
    assert (spec.freeze, spec.epochs, spec.head_epochs) == (50, 9, 1)


def test_initial_weights_decide_the_fit_unless_the_user_does():
    padded = START._replace(fit="pad")
    spec, reasons = resolved_from(padded)
    assert (spec.fit, reasons["fit"]) == ("pad", "how the run whose weights training starts from saw its images")
    for start, fields, fit in ((padded, {"fit": "cut"}, "cut"), (START, {}, "cut"), (START, {"fit": "pad"}, "pad")):
        spec, reasons = resolved_from(start, **fields)
        assert spec.fit == fit
        assert "fit" not in reasons


def test_freezing_all_or_no_layers_and_choosing_the_epochs():
    spec, _ = resolved_from(freeze="all")
    assert (spec.epochs, spec.head_epochs) == (1, 1)
    assert resolved_from(freeze="none", optimizer="adam").spec.learning_rate == 3e-4  # not Adam's usual rate
    assert resolved_from(freeze="none", preset="quick").spec.learning_rate == 3e-4
    spec, reasons = resolved_from(freeze="none", epochs=4)
    assert (spec.epochs, spec.head_epochs, spec.learning_rate) == (4, 0, 3e-4)
    assert "pretrained" in reasons["learning_rate"]
    spec, _ = resolved_from(epochs=10)
    assert (spec.epochs, spec.head_epochs) == (10, 1)
    spec, _ = resolved_from(epochs=10, head_epochs=3, freeze=5)
    assert (spec.epochs, spec.head_epochs, spec.freeze) == (10, 3, 5)
    assert resolved_from(epochs=1)[0].head_epochs == 1  # a new head has to learn first
    spec, _ = resolved_from(preset="quick")  # the user chose the preset, so its recipe stays
    assert (spec.preset, spec.optimizer, spec.epochs, spec.head_epochs) == ("quick", "adamw", 2, 1)


def test_with_shots_only_these_images_count():
    spec, _ = resolved_from(shots=8, images=10_000)
    assert spec.epochs == 1 + 40  # one step per epoch with 32 images


def test_options_of_a_transfer_are_refused_where_they_cannot_work():
    with pytest.raises(SpecError, match="augmentation=robust changes the images in every epoch, but --freeze all"):
        resolved_from(freeze="all", augmentation="robust")
    with pytest.raises(SpecError, match="epochs=2 trains layers below the head, but --freeze all trains none of them"):
        resolved_from(freeze="all", epochs=2)
    with pytest.raises(SpecError, match="freeze needs pretrained weights"):
        resolved_from(None, freeze="all")
    with pytest.raises(SpecError, match="needs pretrained weights, but --weights is none"):
        resolved_from(None, preset="transfer", weights="none")
    with pytest.raises(SpecError, match="but head_epochs=3 trains only the head at first"):
        resolved_from(freeze="none", head_epochs=3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"early_size": 33}, "must not be larger than image_size=32"),
        ({"early_size": 24, "time_budget": "5m"}, "leave early_size out"),
        ({"early_size": 16, "model": "cnn"}, "cnn takes images of 22 to 256 px"),
    ],
)
def test_the_early_size_must_be_smaller_and_fit_the_network(fields, message):
    with pytest.raises(SpecError, match=message):
        resolved(**fields)
    assert resolved(early_size=24).spec.early_size == 24
    with pytest.raises(SpecError, match="works only without pretrained weights and without a teacher"):
        resolved_from(early_size=24)
    with pytest.raises(SpecError, match="works only without pretrained weights and without a teacher"):
        resolved(early_size=24, teacher="runs/x")


def test_a_presets_early_size_applies_only_to_its_network_with_new_weights():
    spec, reasons = resolved(preset="fast")
    assert (spec.early_size, reasons["early_size"]) == (24, "preset fast, in the first epochs")
    assert resolved(preset="fast", side=96).spec.early_size == 72
    for fields in ({"early_size": 32}, {"model": "cnn_compact"}, {"time_budget": "5m"}, {"teacher": "runs/x"}):
        assert resolved(preset="fast", **fields).spec.early_size is None
    assert resolved_from(preset="fast").spec.early_size is None
