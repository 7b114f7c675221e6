import os
import shutil
import signal

import numpy as np
import pytest

import onsight
from onsight.core.errors import Interrupted, RunError, SpecError
from onsight.core.progress import Reporter
from onsight.evaluation.cross_validation import assign
from onsight.metrics import predictions_csv


def test_assign_spreads_each_class_evenly_and_keeps_copies_in_one_fold():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 1000, dtype=np.uint64)
    hashes[500:520] = hashes[:20]  # copies, some with another label
    labels = rng.integers(0, 7, 1000)
    fold = assign(hashes, labels, 5, seed=0)
    np.testing.assert_array_equal(fold[500:520], fold[:20])
    for label in range(7):
        counts = np.bincount(fold[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 8  # 1 without copies
    plain = assign(hashes[:500], labels[:500], 5, seed=0)
    for label in range(7):
        counts = np.bincount(plain[labels[:500] == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert (assign(hashes, labels, 5, seed=1) != fold).mean() > 0.5
    order = rng.permutation(1000)
    distinct = order[np.isin(order, np.arange(20, 500))]
    np.testing.assert_array_equal(
        assign(hashes[distinct], labels[distinct], 5, 0), assign(hashes[20:500], labels[20:500], 5, 0)[distinct - 20]
    )


def test_impossible_folds_raise_an_error_before_anything_is_scored(toy_run, tmp_path):
    run = onsight.Run(shutil.copytree(toy_run.folder, tmp_path / "copy"))
    scored = (run.evaluation_folder() / "metrics.json").read_text()
    with pytest.raises(
        SpecError, match=r"--folds 1000 leaves some folds without an image: \S+ has only \d+ distinct training images"
    ):
        onsight.evaluate(run, folds=1000, reporter=Reporter())
    run.record["teacher"] = {"run": "another"}
    with pytest.raises(RunError, match="Use --folds with another instead"):
        onsight.evaluate(run, folds=2, reporter=Reporter())
    assert (run.evaluation_folder() / "metrics.json").read_text() == scored
    assert [path.name for path in run.evaluation_folder().parent.iterdir()] == ["test"]


@pytest.mark.slow
def test_interrupted_folds_continue(toy_run, tmp_path):
    run = onsight.Run(shutil.copytree(toy_run.folder, tmp_path / "copy"))

    class Stopper(Reporter):
        epochs = 0

        def epoch(self, row):
            self.epochs += 1
            if self.epochs == 11:  # the third epoch of the second fold
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"Stopped in fold 2 of 2\. .* onsight evaluate .*copy --folds 2") as stop:
        onsight.evaluate(run, folds=2, reporter=Stopper())
    assert stop.value.exit_code == 130
    assert onsight.Run(run.folder / "folds" / "1-of-2").is_trained
    again = Stopper()
    again.epochs = 100
    onsight.evaluate(run, folds=2, reporter=again)
    assert again.epochs - 100 <= 6  # neither the first fold nor the start of the second was trained again
    answers = predictions_csv.read_predictions(run.evaluation_folder("folds") / "predictions.csv")
    assert sorted(answers.names) == sorted([*run.dataset["split"]["train"], *run.dataset["split"]["validation"]])
    assert (answers.probabilities.argmax(axis=1) == answers.labels).mean() > 0.9
    np.testing.assert_allclose(answers.probabilities.sum(axis=1), 1, atol=1e-5)
