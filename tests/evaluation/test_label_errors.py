import itertools
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import onsight
from edits import metrics_of
from onsight.core.errors import SpecError
from onsight.core.progress import Reporter
from onsight.core.text import note_line
from onsight.evaluation.label_errors import averaged, calibrated, count_as, find_suspects, write_label_errors
from onsight.metrics.predictions_csv import Predictions, write_predictions


def digits_with_wrong_labels(share, seed=0):
    """Return labels of which a `share` was changed, which ones were, the true labels, and out-of-fold probabilities."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    images, truth = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(truth)) < share
    labels = np.where(wrong, (truth + rng.integers(1, 10, len(truth))) % 10, truth)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return (
        labels,
        wrong,
        truth,
        cross_val_predict(KNeighborsClassifier(8), images, labels, cv=folds, method="predict_proba"),
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_label_errors_in_digits_are_found(seed):
    labels, wrong, truth, probabilities = digits_with_wrong_labels(0.05, seed)
    found = find_suspects(labels, probabilities)
    hits = wrong[found.images]
    assert hits.mean() > 0.95  # precision; measured 0.96 and 0.99
    assert hits.sum() / wrong.sum() > 0.78  # recall; measured 0.83 and 0.80
    assert (found.suggested == truth[found.images])[hits].mean() > 0.97
    assert hits[:30].all()  # the top of the ranking


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_cleanlab_finds_the_same(share):
    from cleanlab.count import compute_confident_joint
    from cleanlab.filter import find_label_issues

    labels, _, _, probabilities = digits_with_wrong_labels(share)
    expected = find_label_issues(
        labels,
        probabilities,
        filter_by="confident_learning",
        return_indices_ranked_by="normalized_margin",
        n_jobs=1,
    )
    found = find_suspects(labels, probabilities)
    assert sorted(found.images.tolist()) == sorted(expected.tolist())
    margins = probabilities[np.arange(len(labels)), labels] - np.where(
        np.eye(10, dtype=bool)[labels], 0, probabilities
    ).max(axis=1)
    np.testing.assert_allclose(margins[found.images], margins[expected])  # ties may be in another order
    joint = compute_confident_joint(labels, probabilities, calibrate=False)
    # cleanlab counts at least one image in each cell of the diagonal.
    counted = count_as(labels, probabilities)
    ours = np.eye(10, dtype=int)
    for label, suggested in itertools.product(range(10), repeat=2):
        ours[label, suggested] = max(ours[label, suggested], ((labels == label) & (counted == suggested)).sum())
    np.testing.assert_array_equal(ours, joint)


def test_count_as_equals_a_calculation_by_hand():
    labels = np.array([0, 0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.6, 0.4]])
    # The thresholds are (0.9 + 0.8 + 0.1) / 3 = 0.6 and (0.7 + 0.4) / 2 = 0.55.
    assert count_as(labels, probabilities).tolist() == [0, 0, 1, 1, 0]
    found = find_suspects(labels, probabilities)
    assert found.images.tolist() == [2, 4]
    assert found.suggested.tolist() == [1, 0]


def test_a_class_without_images_and_data_without_suspects():
    labels = np.array([0, 0, 2])
    probabilities = np.array([[0.5, 0.4, 0.1], [0.1, 0.9, 0.0], [0.2, 0.2, 0.6]])
    assert count_as(labels, probabilities).tolist() == [0, -1, 2]  # nothing counts as class 1
    assert len(find_suspects(labels, probabilities).images) == 0
    assert len(find_suspects(np.zeros(0, np.int64), np.zeros((0, 3))).images) == 0


def test_write_label_errors(tmp_path):
    n = 400
    labels = np.arange(n) % 2
    probabilities = np.where(labels[:, None] == np.arange(2), 0.8, 0.2).astype(np.float32)
    probabilities[:80] = probabilities[:80, ::-1]  # wrong on 20 %: just good enough
    probabilities[5] = [0.95, 0.05] if labels[5] else [0.05, 0.95]
    names = [f"cat/{i}.png" for i in range(n)]
    images = np.zeros((n, 40, 40, 3), np.uint8) + (np.arange(n) % 256).astype(np.uint8)[:, None, None, None]
    table = Predictions([*names[:-1], "gone.png"], labels, probabilities, ["cat", "dog"])
    returned = write_label_errors(tmp_path, [(table, ["test"] * n)], names, images.__getitem__)
    found = json.loads((tmp_path / "label_errors.json").read_text())
    assert found == returned
    assert len(found["suspects"]) == 80
    assert "Northcutt" in found["method"]
    assert (found["runs"], "about one in fourteen" in found["expected"]) == (1, True)
    assert found["checked"] == n
    assert found["suspects"][0] == {
        "path": "cat/5.png",
        "part": "test",
        "label": "dog",
        "suggested": "cat",
        "probability_of_label": pytest.approx(0.05, abs=0.005),
        "probability_of_suggested": pytest.approx(0.95, abs=0.005),
        "thumbnail": "label_errors/01.webp",
    }
    assert (
        sum("thumbnail" in each for each in found["suspects"]) == 60 == len(list((tmp_path / "label_errors").iterdir()))
    )
    for each in found["suspects"][:60]:
        with Image.open(tmp_path / each["thumbnail"]) as image:
            assert image.size == (40, 40)
            assert np.asarray(image.convert("RGB"))[0, 0, 0] == int(each["path"][4:-4])  # lossless, and the right image
    # The next evaluation removes the files of this one.
    right = table._replace(labels=probabilities.argmax(axis=1))
    assert write_label_errors(tmp_path, [(right, ["test"] * n)], names, images.__getitem__)["suspects"] == []
    assert list((tmp_path / "label_errors").iterdir()) == []


def test_an_over_confident_model_suspects_what_it_suspects_calibrated(tmp_path):
    """At half of its temperature the default suspected 565 instead of 265 labels of CIFAR-10, with 27 and 21 true."""
    labels, _, _, probabilities = digits_with_wrong_labels(0.05)
    smooth = 0.9 * probabilities + 0.01
    classes, names = [str(i) for i in range(10)], [f"{i}.png" for i in range(len(labels))]
    listed = []
    for sharpness in (1, 2, 4):
        sharp = smooth**sharpness / (smooth**sharpness).sum(axis=1, keepdims=True)
        table = Predictions(names, labels, sharp, classes)
        found = write_label_errors(
            tmp_path, [(table, ["test"] * len(names))], names, lambda _: np.zeros((8, 8, 3), np.uint8)
        )
        listed.append({each["path"] for each in found["suspects"]})
    assert listed[0] == listed[1] == listed[2]
    assert len(listed[0]) > 50


def test_runs_that_were_scored_on_the_same_images_are_averaged(toy_run, tmp_path):
    """Runs on other images, with other labels, or worse than 80 % do not count, and a damaged one changes nothing."""
    n, rng = 1200, np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    wrong = rng.random(n) < 0.05
    labels_seen = np.where(wrong, (labels + 1) % 3, labels)
    names = [f"{i}.png" for i in range(n)]

    def answers(noise=2.0, seed=0):
        logits = 4 * np.eye(3)[labels] + np.random.default_rng(seed).normal(0, noise, (n, 3))
        odds = np.exp(logits)
        return Predictions(names, labels_seen, (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), list("abc"))

    def run(name, table):
        made = onsight.Run(shutil.copytree(toy_run.folder, tmp_path / name))
        weights = json.loads((made.model_folder / "model.json").read_text())["weights_sha256"]
        folder = made.evaluation_folder()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        metrics = metrics_of(table.labels, table.probabilities, table.classes, weights_sha256=weights)
        (folder / "metrics.json").write_text(json.dumps(metrics))
        write_predictions(folder / "predictions.csv", *table)
        return made

    own = run("own", answers())
    assert averaged(own, answers())[1] == 1
    for seed in (1, 2, 3):
        run(f"seed-{seed}", answers(seed=seed))
    run("others", answers()._replace(names=names[::-1]))
    run("relabelled", answers()._replace(labels=labels))
    run("weak", answers(noise=9))
    (run("damaged", answers()).evaluation_folder() / "predictions.csv").write_text("path\n")
    table, number = averaged(own, answers())
    assert number == 4
    single, several = (find_suspects(labels_seen, calibrated(each).probabilities).images for each in (answers(), table))
    assert wrong[several].mean() > wrong[single].mean() + 0.3  # precision
    assert wrong[several].sum() >= wrong[single].sum()


def test_no_label_is_suspected_by_a_model_that_is_often_wrong(tmp_path):
    labels = np.arange(100) % 2
    probabilities = np.where(labels[:, None] == np.arange(2), 0.8, 0.2)
    probabilities[:21] = probabilities[:21, ::-1]
    names, images = [f"{i}.png" for i in range(100)], np.zeros((100, 8, 8, 3), np.uint8)
    weak = Predictions(names, labels, probabilities, ["cat", "dog"])
    found = write_label_errors(tmp_path, [(weak, ["test"] * 100)], names, images.__getitem__)
    assert found["suspects"] == []
    assert found["checked"] == 0
    reason = "not listed: the model is wrong on 21.0 % of 100 images, so most of its objections would be false"
    assert found["not_listed"][0].startswith(reason)
    # Each table is judged by its own model.
    probabilities = probabilities.copy()
    probabilities[2:] = np.where(labels[2:, None] == np.arange(2), 0.8, 0.2)
    good = weak._replace(probabilities=probabilities)
    tables = [(weak, ["test"] * 100), (good, ["train"] * 100)]
    found = write_label_errors(tmp_path, tables, names, images.__getitem__)
    assert [each["part"] for each in found["suspects"]] == ["train"] * 2
    assert found["checked"] == 100
    assert len(found["not_listed"]) == 1


def test_evaluate_writes_label_errors_of_the_test_images(toy_run):
    found = json.loads((toy_run.evaluation_folder() / "label_errors.json").read_text())
    assert found["checked"] == 60
    assert all(each["part"] == "test" for each in found["suspects"])


@pytest.mark.slow
def test_folds_find_label_errors_among_the_training_images(tmp_path):
    """The data are toy images as files, of which one in twenty is in the wrong folder."""
    toy = onsight.load_dataset("toy")
    rng = np.random.default_rng(0)
    wrong = set()
    for number, (image, label) in enumerate(zip(toy.images, toy.labels, strict=True)):
        planted = number % 20 == 7
        label = (label + rng.integers(1, 3)) % 3 if planted else label
        name = f"{toy.classes[label]}/{number:03}.png"
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / name)
        if planted:
            wrong.add(name)
    spec = onsight.TrainSpec(
        data=tmp_path / "photos", model="cnn", epochs=8, batch_size=16, optimizer="adam", learning_rate=2e-3, seed=1
    )
    run = onsight.train(spec, reporter=Reporter())
    with pytest.raises(SpecError, match="folds=1 holds no image out"):
        onsight.evaluate(run, folds=1, reporter=Reporter())
    notes = []

    class Spy(Reporter):
        def note(self, label, text):
            notes.append(note_line(label, text))

    onsight.evaluate(run, folds=3, reporter=Spy())
    assert any("3 models, each trained on 67 % of" in note for note in notes)
    assert not (run.folder / "folds").exists()
    found = json.loads((run.evaluation_folder() / "label_errors.json").read_text())
    assert found["checked"] == 240
    suspects = {each["path"]: each for each in found["suspects"]}
    hits = wrong & set(suspects)
    assert len(hits) / len(wrong) >= 0.75  # recall
    assert len(hits) / len(suspects) >= 0.75  # precision
    parts = {part: set(names) for part, names in run.dataset["split"].items()}
    assert all(path in parts[each["part"]] for path, each in suspects.items())
    assert any(suspects[path]["part"] == "train" for path in hits)
    # The out-of-fold predictions are kept, because they took three trainings.
    onsight.evaluate(run, reporter=Reporter())
    assert json.loads((run.evaluation_folder() / "label_errors.json").read_text()) == found
    with pytest.raises(SpecError, match="--data names others"):
        onsight.evaluate(run, data="toy", folds=2, reporter=Reporter())
