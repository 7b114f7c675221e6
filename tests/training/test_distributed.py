import json
import os
import signal
from pathlib import Path

import pytest

import onsight
from onsight.core.backend import choose_backend
from onsight.core.errors import SpecError
from onsight.core.progress import Reporter
from onsight.runs.run import Run
from onsight.training.distributed import LAUNCHED, Place, Ranks, Wishes, find_place, here, join
from together import ends, start, wait_for_checkpoint

OPTIONS = {"model": "mlp", "epochs": 3, "batch_size": 16, "optimizer": "sgd", "learning_rate": 0.01, "seed": 1}
WORDS = ["train", "toy", *(word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", value))]


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)


def test_flags_or_a_launcher_give_the_place_of_a_process(monkeypatch):
    assert find_place(None, None, None) is None
    assert find_place("10.0.0.1:3456", 4, 3) == Place("10.0.0.1:3456", 4, 3)
    assert find_place("10.0.0.1:3456", 1, 0) is None  # a job of one process
    for name in LAUNCHED:
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert find_place(None, None, None) is None
            patch.setenv(name, "4")
            assert find_place(None, None, None) == Place(None, None, None)
            assert find_place("10.0.0.1:3456", None, None) == Place("10.0.0.1:3456", None, None)
            assert find_place(None, 1, None) is None  # each by itself


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("10.0.0.1:3456", None, None), "--processes and --rank are missing"),
        ((None, 2, 0), "--coordinator is missing"),
        (("10.0.0.1:3456", 2, 2), "--rank 2 is not one of 2 processes: ranks are 0 to 1"),
        (("10.0.0.1", 2, 0), "is not an address: give HOST:PORT"),
    ],
)
def test_a_place_that_is_not_one_is_refused(place, message):
    with pytest.raises(SpecError, match=message):
        find_place(*place)


@pytest.mark.parametrize("backend", ["tensorflow", None])
def test_tensorflow_does_not_train_in_several_processes(backend, monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    with pytest.raises(SpecError, match=r"on JAX only, not on .*: add --backend jax\. .*--processes 1"):
        join(Place("127.0.0.1:1", 2, 0), backend)


def test_one_process_agrees_with_itself():
    ranks = here()
    assert ranks == Ranks(0, 1)
    assert ranks.first
    assert ranks.told(b"data") == b"data"
    assert ranks.largest(3) == 3
    assert Wishes(ranks).agree(15, 0) == (15, 0)


needs_jax = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "jax", reason="several processes train on JAX only")


def losses(run):
    return [row["loss"] for row in run.history()] + [row["val_loss"] for row in run.history()]


def weights(run):
    return json.loads((run.model_folder / "model.json").read_text())["weights_sha256"]


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory):
    """Return a run that two processes have trained, and what they have printed."""
    folder = tmp_path_factory.mktemp("shared")
    found = ends(start(WORDS, ONSIGHT_RUNS=str(folder)))
    assert [code for code, _, _ in found] == [0, 0], found
    (path,) = folder.iterdir()
    return Run(path), found


@needs_jax
@pytest.mark.backend
def test_two_processes_train_as_one(shared_run):
    run, ((_, out, err), (_, other_out, other_err)) = shared_run
    assert out == f"{run.folder}\n"
    assert "epoch 3/3" in err
    assert other_out == ""
    assert "epoch" not in other_err
    assert run.record["processes"] == 2
    assert run.report.is_file()
    alone = onsight.train(onsight.TrainSpec("toy", **OPTIONS, backend=choose_backend().value), reporter=Reporter())
    assert "processes" not in alone.record
    assert losses(run) == pytest.approx(losses(alone), abs=1e-5)


class Notes(Reporter):
    def __init__(self):
        self.found = []

    def note(self, label, text):
        self.found.append(f"{label}: {text}")


@needs_jax
@pytest.mark.backend
def test_another_number_of_processes_says_that_the_result_is_not_exact(shared_run, tmp_path):
    import shutil

    folder = Path(shutil.copytree(shared_run[0].folder, tmp_path / "run"))
    notes = Notes()
    run = onsight.resume(folder, epochs=4, reporter=notes)
    (warning,) = [text for text in notes.found if text.startswith("warning")]
    assert "At epoch 4, step 0, 1 process continued what 2 began." in warning
    assert "not bit for bit" in warning
    assert Run(folder).record["processes"] == 1
    assert warning.removeprefix("warning: ") in run.record["warnings"]


@pytest.mark.slow
@needs_jax
@pytest.mark.backend
@pytest.mark.parametrize(("rank", "signum", "codes"), [
    (1, signal.SIGTERM, [143, 143]),
    (0, signal.SIGINT, [130, 130]),
    (1, signal.SIGKILL, [1, -signal.SIGKILL]),
    (0, signal.SIGKILL, [-signal.SIGKILL, -signal.SIGABRT]),
])  # fmt: skip
def test_a_stopped_training_ends_in_the_weights_of_the_unbroken_one(rank, signum, codes, shared_run, tmp_path):
    words = [*WORDS, "--checkpoint-seconds", "1e-9", "--or-resume"]
    started = start(words)
    wait_for_checkpoint(tmp_path / "runs", 4, started)
    started[rank].send_signal(signum)
    found = ends(started)
    assert [code for code, _, _ in found] == codes, found
    if signum != signal.SIGKILL:
        for _, _, err in found:
            assert "Everything is saved. Continue with: onsight train --resume runs/toy-mlp-0001" in err
    elif rank == 1:
        assert "Another process of this training has ended" in found[0][2]
    (run,) = onsight.list_runs()
    assert not run.is_trained
    found = ends(start(words))
    assert [code for code, _, _ in found] == [0, 0], found
    (run,) = onsight.list_runs()
    assert weights(run) == weights(shared_run[0])
    # A finished training is not repeated: the job of a scheduler may be started again after its last step.
    again = ends(start(words))
    assert [code for code, _, _ in again] == [0, 0], again
    assert again[0][1] == f"{run.folder}\n"


@pytest.mark.slow
@needs_jax
@pytest.mark.backend
def test_a_training_that_cannot_be_shared_ends_in_one_sentence():
    for flag, value, message in (
        ("--batch-size", 17, "Batches of 17 cannot be shared equally by 2 processes with 2 devices"),
        ("--weights", "missing.h5", "missing.h5"),
    ):
        for found, _, err in ends(start(["train", "toy", "--model", "mlp", flag, value])):
            assert found == 2, err
            assert message in err
            assert "Traceback" not in err
    assert not onsight.list_runs()
