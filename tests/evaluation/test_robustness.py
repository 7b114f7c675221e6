import numpy as np
import pytest

from onsight.core.progress import Reporter
from onsight.evaluation import robustness
from onsight.imaging.corrupt import CORRUPTIONS, EXTRA, SCORED


@pytest.fixture(scope="module")
def squares():
    """300 images of 32 px that are brighter on the left (label 0) or on the right (label 1)."""
    labels = np.arange(300) % 2
    images = np.random.default_rng(0).integers(0, 60, (300, 32, 32, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 16 * label : 16 * (label + 1)] += 120
    return images, labels


def side(images):
    """Predict which half is brighter. Noise and blur do not hide that."""
    bright = images.mean(axis=(1, 3))
    right = bright[:, 16:].sum(axis=1) > bright[:, :16].sum(axis=1)
    return np.stack([~right, right], axis=1).astype(np.float32)


def test_a_classifier_that_no_corruption_affects_scores_one(squares):
    images, labels = squares
    found = robustness.measure(side, images, np.arange(300), labels, names=("gaussian_noise", "defocus_blur"))
    assert (found["clean"], found["mean"], found["n"], found["quick"]) == (1.0, 1.0, 300, False)
    assert found["corruptions"] == {"gaussian_noise": [1.0] * 5, "defocus_blur": [1.0] * 5}
    assert found["title"] == "CIFAR-10-C style"


def test_mean_and_worst_are_over_the_fifteen_scored_corruptions(squares):
    images, labels = squares

    def dark(images):  # right unless the mean of an image is above a limit
        bright = images.mean(axis=(1, 2, 3)) > 100
        answers = side(images)
        return np.where(bright[:, None], 1 - answers, answers)

    found = robustness.measure(dark, images, np.arange(40), labels[:40])
    table = np.array(list(found["corruptions"].values()))
    assert tuple(found["corruptions"]) == SCORED
    assert table.shape == (15, 5)
    assert found["mean"] == pytest.approx(table.mean())
    name, severity, accuracy = found["worst"]
    assert found["corruptions"][name][severity - 1] == accuracy == table.min() < 0.5
    assert name in ("brightness", "snow", "frost")


def test_threads_and_the_choice_of_names_do_not_change_the_corrupted_images(squares, monkeypatch):
    images, labels = squares
    images, labels = images[:50], labels[:50]
    seen = []

    def spy(images):
        seen.append(images.copy())
        return side(images)

    both = robustness.measure(spy, images, np.arange(50), labels, names=("snow", "shot_noise"))
    first, seen[:] = seen[1:], []
    monkeypatch.setattr(robustness.os, "cpu_count", lambda: 1)
    alone = robustness.measure(spy, images, np.arange(50), labels, names=("shot_noise",))
    assert np.array_equal(np.stack(first[5:]), np.stack(seen[1:]))
    assert both["corruptions"]["shot_noise"] == alone["corruptions"]["shot_noise"]
    other = robustness.measure(side, images, np.arange(50), labels, names=("shot_noise",), seed=1)
    assert other["seed"] == 1


def test_every_image_is_classified_once_per_severity(squares, monkeypatch):
    monkeypatch.setattr(robustness, "BLOCK", 32)
    images, labels = squares
    counts = []

    def count(images):
        counts.append(len(images))
        return side(images)

    index = np.arange(20, 120)
    robustness.measure(count, images, index, labels[index], names=("contrast",))
    assert counts == [32, 32, 32, 4] * 6


def test_quick_measures_a_tenth_of_the_images_but_at_least_100(squares):
    images, labels = squares
    index = np.arange(300)
    assert robustness.measure(side, images, index, labels, quick=True, names=("fog",))["n"] == 100
    many = np.tile(index, 5)
    found = robustness.measure(side, images, many, labels[many], quick=True, names=("fog",))
    assert (found["n"], found["quick"]) == (150, True)
    assert found["clean"] == 1.0  # the labels still belong to their images
    assert robustness.measure(side, images, index[:60], labels[:60], quick=True, names=("fog",))["n"] == 60


def test_notes_describe_the_scaling_to_other_image_sizes(squares):
    assert len(robustness.notes(32)) == 1
    assert "For 64 px, those in pixels were multiplied by 2." in robustness.notes(64)[1]


def test_progress_ends_at_the_total(squares):
    shown = []

    class Spy(Reporter):
        def work(self, what, done, total):
            shown.append((done, total))

    images, labels = squares
    robustness.measure(side, images, np.arange(300), labels, names=EXTRA, show=Spy())
    assert shown[-1] == (15 * 300, 15 * 300)
    assert [done for done, _ in shown] == sorted(done for done, _ in shown)
    assert set(EXTRA) < set(CORRUPTIONS)


def test_an_error_of_the_classifier_is_raised_without_hanging(squares):
    def broken(images):
        raise RuntimeError("no answer")

    with pytest.raises(RuntimeError, match="no answer"):
        robustness.measure(broken, *squares[:1], np.arange(10), squares[1][:10])
